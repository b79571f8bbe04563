"""`benchmarks embeddings`: vectors of short texts by a fleet with vLLM, against vLLM's pooling by itself."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import orjson

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError, Helper, environment, write_config
from batchfleet.tuning.sample_questions import make_questions
from batchfleet.tuning.table_report import Report, Table
from benchmarks.resources import MemoryWatch
from benchmarks.rig import Rig, for_bench

NOTES = [
    "Raw: vLLM's AsyncLLM.encode in a process of its own, with the same arguments and texts, so many in flight.",
    "Fleet: one worker, one batcher, Redis and a producer; from the first push to the last line on disk.",
    "Both engines are booted once and measured in turn; the first round of each does not count.",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: raw vLLM and the fleet, in turn, `rounds` times.

    Attributes:
        prompt_chars: Of the shortest and the longest text.
    """

    count: int = 8192
    rounds: int = 3
    seed: int = 1
    prompt_chars: tuple[int, int] = (20, 200)


@dataclass(frozen=True, slots=True)
class Round:
    """Texts per second; `raw` by how many were in flight, 0 for all of them. `load`: of the machine in that minute."""

    raw: dict[int, float]
    fleet: float
    load: float


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each round.

    Raises:
        UsageError: The settings name no model for vLLM.
    """
    to_options.model_name(settings, "vllm")
    own = for_bench(settings, {"model.generator_settings.task": "embed"})
    ready_s = own.model.generator_settings.server_startup_timeout
    rounds = list[Round]()
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        folder = Path(name)
        texts = folder / "texts.jsonl"
        _write_texts(texts, plan)
        write_config(folder, own)
        with Helper("benchmarks.raw_vllm", (str(texts),), environment(own), folder) as raw:
            sequences = int(raw.wait_until_ready()["max_num_seqs"])
            with Rig(own, 1, engine="vllm", ready_s=ready_s) as rig, MemoryWatch(rig.pids, every_s=0.5) as memory:
                for number in range(plan.rounds + 1):
                    rates = {size: _raw(raw, plan.count, size) for size in (sequences, 2 * sequences, 0)}
                    fleet = _fleet(rig, texts, plan.count, number)
                    rounds.append(Round(rates, fleet, os.getloadavg()[0]))
                    told = ", ".join(f"{size or 'all'} in flight {rate:.0f}/s" for size, rate in rates.items())
                    say(f"{number or 'warm-up'}: raw {told}; fleet {fleet:.0f}/s")
                complaints = rig.complaints()
    del rounds[0]
    best = max(rounds[0].raw, key=lambda size: median(one.raw[size] for one in rounds))
    ratio = median(one.fleet / one.raw[best] for one in rounds)
    verdict = f"Raw is at its best, by its medians, with {best or 'all'} in flight; fleet / that, median: {ratio:.3f}"
    return Report(
        "embeddings",
        {**asdict(plan), "max_num_seqs": sequences},
        [_rates(rounds, best), _memory(memory)],
        [*NOTES, verdict, *complaints],
        [asdict(one) for one in rounds],
    )


def _raw(raw: Helper, count: int, in_flight: int) -> float:
    raw.tell(json.dumps([count, in_flight or count, 0, None]))
    return count / float(raw.result()["elapsed_s"])


def _fleet(rig: Rig, texts: Path, count: int, number: int) -> float:
    name = f"embeddings-{number}"
    files = (str(texts), str(rig.folder / f"{name}.jsonl"))
    with rig.helper("producer_process", *files, rig.url, "--engine", "vllm", "--run", name) as producer:
        producer.wait_until_ready()
        producer.go()
        result = producer.result()
        rig.check()
    if result["answered"] != count:
        raise BenchFailedError(f"{result['answered']} of {count} texts have a vector, {result['failed']} failed")
    return count / float(result["elapsed_s"])


def _write_texts(path: Path, plan: Plan) -> None:
    draw = random.Random(plan.seed)  # noqa: S311 (not for secrets)
    with path.open("wb") as file:
        for number, text in enumerate(make_questions(plan.count, plan.seed)):
            line = {"id": f"t{number}", "input": text[: draw.randint(*plan.prompt_chars)]}
            file.write(orjson.dumps(line) + b"\n")


def _rates(rounds: list[Round], best: int) -> Table:
    sizes = list(rounds[0].raw)
    columns = ("round", *(f"raw, {size or 'all'} in flight" for size in sizes), "fleet", "of the best raw", "load")
    rows = [
        (
            number,
            *(round(one.raw[size], 1) for size in sizes),
            round(one.fleet, 1),
            round(one.fleet / one.raw[best], 3),
            round(one.load, 1),
        )
        for number, one in enumerate(rounds, 1)
    ]
    return Table("Texts per second", columns, rows)


def _memory(watch: MemoryWatch) -> Table:
    quarter, end, peak = watch.at(0.25), watch.samples[-1][1], watch.peak()
    rows = [(name, round(quarter[name]), round(end[name]), round(peak[name])) for name in watch.pids]
    return Table("Resident memory in MiB over all rounds", ("program", "at a quarter", "at the end", "at most"), rows)
