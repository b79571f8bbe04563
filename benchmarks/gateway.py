"""`benchmarks gateway`: what the gateway costs, beside the same questions asked by `submit`."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchfleet.settings.schema import Settings
from batchfleet.supervisor.processes import spawn
from batchfleet.tuning.helper import BenchFailedError, config_in
from batchfleet.tuning.sample_questions import make_questions, write_questions
from batchfleet.tuning.table_report import Cell, Report, Table, percentile
from benchmarks.latency import Client
from benchmarks.resources import MemoryWatch, cpu_s
from benchmarks.rig import Rig, for_bench

NOTES = [
    (
        "Rate: the same questions, on the stub's clock; `submit` from its first push to its last line, the "
        "gateway from the first request of its clients to the last response. In turn, each on a fresh fleet."
    ),
    (
        "Latency: one request at a time on an idle fleet whose stub answers at once, so that all of it is added: over "
        "HTTP by one kept connection, and by the parts of a producer in one process."
    ),
    "Memory: resident MiB of the gateway, over all requests of the longest part, with an engine that costs nothing.",
]
LISTENS = re.compile(r"listening on \S+:(\d+)/v1")
START_S = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        count: Questions of the comparison with `submit`.
        clients: That ask at once.
        idle: Requests one at a time.
        requests: While memory is watched; and as many clients as `open_requests` then.
    """

    count: int = 6_000
    clients: int = 256
    rounds: int = 3
    workers: int = 2
    step_s: float = 0.01
    sequences: int = 64
    idle: int = 300
    requests: int = 200_000
    open_requests: int = 1_000
    seed: int = 1


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each part."""
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as folder:
        file = Path(folder) / "questions.jsonl"
        write_questions(file, plan.count, plan.seed, None)
        clock = {"stub.step_s": plan.step_s, "stub.max_num_seqs": plan.sequences}
        slow, free = for_bench(settings, clock), for_bench(settings, {"stub.step_s": 0.0})
        rates = []
        for number in range(1, plan.rounds + 1):
            rates.append((_submitted(file, plan, slow), _online(file, plan, slow)))
            say(f"round {number}: submit {rates[-1][0]:.1f}/s, gateway {rates[-1][1]:.1f}/s")
        latency = _idle(file, plan, free)
        say(f"idle: p50 {percentile(latency['gateway'], 0.5):.2f} ms")
        memory = _memory(file, plan, free)
    measurements: list[dict[str, Any]] = [{"rates": rates}, {"latency_ms": latency}, {"memory": memory}]
    return Report(
        "gateway",
        asdict(plan),
        [_rate_table(rates), _latency_table(latency), _memory_table(memory)],
        NOTES,
        measurements,
    )


@contextmanager
def listening_gateway(rig: Rig) -> Iterator[int]:
    """A gateway of the fleet; gives its port."""
    log = rig.folder / "gateway.log"
    flags = ["--listen", "127.0.0.1:0", "--data", str(rig.folder / "data"), "--max-open-requests", "5000"]
    command = [sys.executable, "-m", "batchfleet", "gateway", *flags, "--config", str(config_in(rig.folder))]
    rig.processes["gateway"] = spawn(command, rig.environ(), log)
    until = time.monotonic() + START_S
    while (found := LISTENS.search(log.read_text("utf-8"))) is None:
        rig.check()
        if time.monotonic() > until:
            raise BenchFailedError(f"the gateway did not listen within {START_S:g} s")
        time.sleep(0.05)
    yield int(found[1])
    rig.check()


def _submitted(file: Path, plan: Plan, settings: Settings) -> float:
    with (
        Rig(settings, plan.workers) as rig,
        rig.helper("producer_process", str(file), str(rig.folder / "answers.jsonl"), rig.url) as producer,
    ):
        producer.wait_until_ready()
        producer.go()
        result = producer.result()
        if result["answered"] != plan.count:
            raise BenchFailedError(f"{result['answered']} of {plan.count} questions were answered")
    return float(plan.count / result["elapsed_s"])


def _online(file: Path, plan: Plan, settings: Settings) -> float:
    with Rig(settings, plan.workers) as rig, listening_gateway(rig) as port:
        return float(plan.count / asked(rig, file, port, plan.clients, plan.count)["elapsed_s"])


def asked(rig: Rig, file: Path, port: int, clients: int, count: int, *flags: str) -> dict[str, Any]:
    """What so many clients of a port were told, and how fast, in all: see `gateway_clients`."""
    with rig.helper("gateway_clients", str(file), str(port), str(clients), str(count), *flags) as asking:
        asking.wait_until_ready()
        asking.go()
        result = asking.result()
    if result["statuses"] != {"200": count}:
        raise BenchFailedError(f"of {count} requests, by status: {result['statuses']}")
    return result


def _idle(file: Path, plan: Plan, settings: Settings) -> dict[str, list[float]]:
    """Milliseconds."""
    with Rig(settings, plan.workers) as rig, listening_gateway(rig) as port:
        asked(rig, file, port, 1, 1)
        took_s = asked(rig, file, port, 1, plan.idle, "--idle")["took_s"]
        client = Client(rig, plan.idle)
        alone = []
        for text in make_questions(plan.idle, plan.seed):
            alone.append(1000 * client.ask(text))
            time.sleep(0.02)
    return {"gateway": [1000 * each for each in took_s], "producer": alone}


def _memory(file: Path, plan: Plan, settings: Settings) -> dict[str, float]:
    with Rig(settings, plan.workers) as rig, listening_gateway(rig) as port:
        asked(rig, file, port, plan.open_requests, plan.open_requests)
        pid = rig.pids["gateway"]
        before_s = cpu_s(pid)
        with MemoryWatch({"gateway": pid}, every_s=0.5) as watch:
            result = asked(rig, file, port, plan.open_requests, plan.requests)
        used_s = cpu_s(pid) - before_s
    figures = {f"{share:.0%}": watch.at(share)["gateway"] for share in (0.1, 0.25, 0.5, 0.75, 1.0)}
    return {
        **figures,
        "most": watch.peak()["gateway"],
        "requests/s": plan.requests / result["elapsed_s"],
        "CPU s/1 000": 1000 * used_s / plan.requests,
    }


def _rate_table(rates: Sequence[tuple[float, float]]) -> Table:
    rows: list[list[Cell]] = [
        [number, round(submitted, 1), round(online, 1), round(online / submitted, 3)]
        for number, (submitted, online) in enumerate(rates, 1)
    ]
    return Table("Questions/s", ("round", "submit", "gateway", "ratio"), rows)


def _latency_table(latency: dict[str, list[float]]) -> Table:
    rows: list[list[Cell]] = [
        [name, *(round(percentile(took, share), 2) for share in (0.5, 0.95, 0.99))] for name, took in latency.items()
    ]
    return Table("Added latency on an idle fleet, ms", ("asked by", "p50", "p95", "p99"), rows)


def _memory_table(memory: dict[str, float]) -> Table:
    return Table("The gateway, under load without pause", tuple(memory), [[round(each, 3) for each in memory.values()]])
