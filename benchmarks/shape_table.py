"""`benchmarks shapes`: every shape of this host, as one fleet and as raw engines, unattended, in a bounded time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.processes import last_lines, spawn, stop_all
from batchfleet.tuning.helper import config_in, environment, write_config
from batchfleet.tuning.shapes import Shape, candidates, this_host
from batchfleet.tuning.table_report import Report, Table
from wire.errors import UsageError

PATIENCE = 1.6
"""A step may take this much more than its part of the time that is left; others take less."""
ROUNDS_SHARE = 0.35
"""Of a step's time, for its rounds; most of it is boots."""
SLOWER = 0.6
"""An engine of n GPUs was seen to be about n to the power of 1 - 0.6 times as fast as one of a single GPU."""
STOP_S = 15.0

NOTES = [
    (
        "Each shape in a process of its own, by `benchmarks engine`: raw engines and one fleet on the same GPUs, in "
        "turn. Its lines are in SHAPE.log of the folder as soon as they are measured, its tables in SHAPE/."
    ),
    (
        "`one question at a time` and `eight questions at a time` (what never has more than eight in flight) are one "
        "raw engine: on one GPU with the shape that has most workers, over all GPUs with the one that has one."
    ),
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: all shapes of `gpus`, the one with most workers first, then that with one, then those between.

    Attributes:
        folder: For what was measured, written as it comes.
        gpus: How many; 0 for all. Without any, so many workers on the CPU.
        count: Questions for each GPU in a shape of one GPU a worker; for larger slices fewer.
        limit_s: Seconds for everything. What is not done then is left out.
        rounds: Of each shape, as far as there is time.
        tokens, lognormal, prompt_chars: As in `engine`.
    """

    folder: Path = Path("shapes")
    gpus: int = 0
    count: int = 2048
    limit_s: float = 1440.0
    rounds: int = 2
    tokens: tuple[int, int] = (16, 512)
    lognormal: tuple[float, float] = (4.6, 0.7)
    prompt_chars: tuple[int, int] = (73, 848)


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each shape.

    Raises:
        UsageError: The settings name no model for vLLM, the folder is there, or this host has not so many GPUs.
    """
    to_options.model_name(settings, "vllm")
    host = this_host("vllm")
    if host.gpus.uuids and plan.gpus > host.slots:
        raise UsageError(f"{plan.gpus} GPUs are asked for, and this host lets it have {host.slots}")
    try:
        plan.folder.mkdir(parents=True)
    except FileExistsError:
        raise UsageError(f"{plan.folder} exists; give another --folder") from None
    deadline = time.monotonic() + plan.limit_s
    shapes = in_order(candidates(plan.gpus or host.slots))
    found: dict[Shape, dict[str, Any] | str] = {}
    for number, shape in enumerate(shapes):
        left_s = deadline - time.monotonic()
        most_s = min(left_s, PATIENCE * left_s / (len(shapes) - number))
        found[shape] = _measure(plan, settings, shape, most_s)
        report = _report(plan, found)
        (plan.folder / "shapes.md").write_text(report.as_text("") + "\n", encoding="utf-8")
        say(_line(shape, found[shape]))
    return report


def in_order(shapes: list[Shape]) -> list[Shape]:
    """By importance: the ends first, then what is between."""
    return [shapes[0], *shapes[:0:-1][:1], *shapes[1:-1]]


def steps_of(plan: Plan, shape: Shape, most_s: float) -> list[str]:
    """What `benchmarks engine` is told."""
    gpus = shape.gpus
    count = max(1, round(plan.count * gpus / shape.tensor_parallel**SLOWER))
    arguments = ["--shape", str(shape), "--count", str(count), "--batch", "16", "--rounds", str(plan.rounds)]
    arguments += ["--limit-s", f"{ROUNDS_SHARE * most_s:.0f}"]
    for name in ("tokens", "lognormal", "prompt_chars"):
        arguments += [f"--{name.replace('_', '-')}", *map(str, getattr(plan, name))]
    is_end = shape.tensor_parallel == 1 or shape.workers == 1
    arguments += ["--fed-by", *(["1"] if is_end else [])]
    if shape.tensor_parallel == 1 and shape.workers > 1:
        arguments += ["--killed", "1", "--fewer", *map(str, _halves(shape.workers))]
    return arguments


def _halves(workers: int) -> Iterator[int]:
    while (workers := workers // 2) >= 1:
        yield workers


def _measure(plan: Plan, settings: Settings, shape: Shape, most_s: float) -> dict[str, Any] | str:
    """What `engine` found; else a line that says why there is none."""
    log, results = plan.folder / f"{shape}.log", plan.folder / str(shape)
    with tempfile.TemporaryDirectory(prefix="batchfleet-shapes-") as name:
        write_config(Path(name), settings)
        command = [sys.executable, "-m", "benchmarks", "engine", "--config", str(config_in(Path(name)))]
        command += [*steps_of(plan, shape, most_s), "--save", str(results)]
        process = spawn(command, environment(settings), log)
        try:
            code = process.wait(max(0.0, most_s))
        except subprocess.TimeoutExpired:
            return f"cut off after {most_s:.0f} s; what it had measured is in {log.name}"
        finally:
            # Its own processes die with it.
            stop_all([process], STOP_S)
    if code:
        return last_lines(log, 1).strip()
    measured: dict[str, Any] = json.loads((results / "engine.json").read_text(encoding="utf-8"))
    return measured


def _line(shape: Shape, found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return f"{shape}: {found}"
    rates, rounds = found["tables"].values()
    best = max(rates, key=lambda row: row["answers/s"] if row["fed"].startswith("fleet") else 0.0)
    ratios = ", ".join(str(row["fleet / raw"]) for row in rounds)
    return f"{shape}: fleet {best['answers/s']}/s; fleet / raw by round {ratios}"


def _report(plan: Plan, found: dict[Shape, dict[str, Any] | str]) -> Report:
    """Of what there is so far."""
    whole = [(shape, one) for shape, one in found.items() if not isinstance(one, str)]
    rates = [
        (str(shape), row["fed"], row["answers/s"], row["range"])
        for shape, one in whole
        for row in next(iter(one["tables"].values()))
    ]
    rounds = [(str(shape), *row.values()) for shape, one in whole for row in list(one["tables"].values())[1]]
    columns = ("shape", "round", "fed", "answers/s", "raw", "raw, sum of rates", "fleet / raw", "fleet / sum")
    tables = [
        Table("Answers per second; medians", ("shape", "fed", "answers/s", "range"), rates),
        Table("Each round, beside the best raw way of its shape", columns, rounds),
    ]
    missing = [_line(shape, one) for shape, one in found.items() if isinstance(one, str)]
    notes = [*NOTES, *missing, *(f"{shape}: {note}" for shape, one in whole for note in one["notes"][4:])]
    measured = [{"shape": str(shape), **each} for shape, one in whole for each in one["measurements"]]
    return Report("shapes", {**asdict(plan), "folder": plan.folder.name}, tables, notes, measured)
