"""`benchmarks gateway-engine`: online requests through the gateway to a fleet with vLLM, against vLLM's own server."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import httpx2
import orjson

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.processes import last_lines, spawn, stop_all
from batchfleet.tuning.helper import BenchFailedError, environment
from batchfleet.tuning.sample_questions import make_questions
from batchfleet.tuning.table_report import Report, Table
from benchmarks.gateway import asked, listening_gateway
from benchmarks.rig import Rig, for_bench

PROMPT_CHARS = 200
"""Longer ones are cut: a tiny model has little room."""
NOTES = [
    "Both engines are booted once, with the same arguments, and asked in turn by the same clients on kept connections.",
    "Every answer has exactly its number of tokens; the first round is preceded by one of each that does not count.",
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: vLLM's server and the gateway, in turn, `rounds` times."""

    count: int = 1024
    clients: int = 256
    rounds: int = 3
    answer_tokens: int = 32
    seed: int = 1


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each round.

    Raises:
        UsageError: The settings name no model for vLLM.
    """
    to_options.model_name(settings, "vllm")
    own = for_bench(settings, {})
    ready_s = own.model.generator_settings.server_startup_timeout
    rates = list[tuple[float, float]]()
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        file = Path(name) / "questions.jsonl"
        length = {"max_tokens": plan.answer_tokens, "min_tokens": plan.answer_tokens}
        params = {**length, "ignore_eos": True, "temperature": 0}
        lines = [{"question": text[:PROMPT_CHARS], "params": params} for text in make_questions(plan.count, plan.seed)]
        file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
        with (
            _vllm_server(own, Path(name), ready_s) as direct,
            Rig(own, 1, engine="vllm", ready_s=ready_s) as rig,
            listening_gateway(rig) as port,
        ):
            for number in range(plan.rounds + 1):
                took = [asked(rig, file, each, plan.clients, plan.count)["elapsed_s"] for each in (direct, port)]
                rates.append((plan.count / took[0], plan.count / took[1]))
                say(f"{number or 'warm-up'}: vLLM's server {rates[-1][0]:.1f}/s, gateway {rates[-1][1]:.1f}/s")
    del rates[0]
    rows = [
        [number, *(round(each, 1) for each in pair), round(pair[1] / pair[0], 3)]
        for number, pair in enumerate(rates, 1)
    ]
    table = Table("Requests/s", ("round", "vLLM's server", "gateway", "ratio"), rows)
    verdict = f"Median ratio: {median(pair[1] / pair[0] for pair in rates):.3f}"
    return Report("gateway-engine", asdict(plan), [table], [*NOTES, verdict], [{"rates": rates}])


@contextmanager
def _vllm_server(settings: Settings, folder: Path, ready_s: float) -> Iterator[int]:
    """VLLM's own server of the same model; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    generator = settings.model.generator_settings
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--model", str(generator.hf_model_id), "--served-model-name", to_options.model_name(settings, "vllm")]
    command += ["--disable-uvicorn-access-log", *_as_flags(generator.vllm_args)]
    log = folder / "vllm-server.log"
    process = spawn(command, environment(settings), log)
    try:
        until = time.monotonic() + ready_s
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise BenchFailedError(f"vLLM's server is not up:\n{last_lines(log)}")
            time.sleep(0.2)
        yield port
    finally:
        stop_all([process], grace_s=30)


def _as_flags(arguments: Mapping[str, object]) -> list[str]:
    flags = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", value if isinstance(value, str) else orjson.dumps(value).decode()]
    return flags


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/v1/models").is_success
    except httpx2.HTTPError:
        return False
