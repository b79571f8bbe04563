"""From settings to better settings, within a bounded time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning.engines import Engines, TuningPlan, with_engine
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.model_facts import model_facts
from batchfleet.tuning.search import WORTH, Argument, Setting, Space, Tried, grid, search
from batchfleet.tuning.shapes import USUAL_MEMORY_SHARE, Host, Shape, candidates, sort_out
from batchfleet.tuning.table_report import Cell, Report, Table
from gpu_worker.gpus.slices import PARALLEL_SIZES
from wire.errors import UsageError

CONFIRMATIONS = 3
ANYWHERE = (
    Argument("max_num_batched_tokens", ("16384", "32768")),
    # A sample may share less than what will be asked.
    Argument("enable_prefix_caching", ("false",), worth=WORTH),
)
ON_GPUS = (
    # It may change answers.
    Argument("kv_cache_dtype", ('"fp8"',), worth=WORTH, makes_room=True),
    Argument("gpu_memory_utilization", ("0.95",), makes_room=True),
)
"""What is tried of vLLM's arguments where the configuration says nothing of them."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found, and the settings that have it. `workers`: how many of them, as in `up --workers`."""

    report: Report
    settings: Settings
    workers: int


def tune(plan: TuningPlan, settings: Settings, host: Host, say: Callable[[str], None]) -> Tuned:
    """Search, and tell `say` after each measurement.

    Raises:
        BenchFailedError: The engine does not boot as it is configured, or answers nothing.
        UsageError: The model fits into no shape of this host.
    """
    shapes, misfits = _shapes(plan.engine, settings, host)
    for shape, why in misfits.items():
        say(f"{shape} does not fit: {why}")
    with (
        tempfile.TemporaryDirectory(prefix="batchfleet-tune-") as name,
        Engines(plan, settings, host, Path(name), say) as engines,
    ):
        start = engines.start(shapes)
        others = [shape for shape in shapes if shape != start.shape and shape not in engines.failures]
        tried = Tried()
        found = search(start, engines.measure, tried, Space(others, _arguments(plan.engine, settings, host)))
        if not tried.rates:
            raise BenchFailedError(
                f"there was no time for a single measurement within {plan.budget_s:g} s; give it a longer --budget"
            )
        if tried.rates[found] <= 0:
            raise BenchFailedError(
                f"the engine answered none of the questions within {plan.window_s:g} s; give it a longer --seconds"
            )
        notes, tables = _notes(start, found, tried), [_table("Tried", found, tried, engines.tokens)]
        if plan.exhaustive:
            engines.unhurried()
            whole = Tried({setting: engines.measure(setting) for setting in grid(start, found)})
            notes.append(_compare(found, tried, whole, engines))
            tables.append(_table("Every combination", found, whole, engines.tokens))
        misfits = {**misfits, **engines.failures}
    if misfits:
        rows = [(str(shape), why) for shape, why in misfits.items() if shape != found.shape]
        tables.append(Table("Shapes that do not fit", ("shape", "why"), rows))
    parameters = {"engine": plan.engine, "budget_s": plan.budget_s, "window_s": plan.window_s, "gpus": host.slots}
    report = Report(
        "tune", parameters, tables, notes, [{**_fields(one), "rate": rate} for one, rate in tried.rates.items()]
    )
    return Tuned(report, with_setting(settings, plan.engine, found, tried.rates[found]), found.shape.workers)


def _shapes(engine: str, settings: Settings, host: Host) -> tuple[list[Shape], dict[Shape, str]]:
    """What may fit, the configuration's own first; and what does not, with the reason.

    Raises:
        UsageError: Nothing fits.
    """
    generator = settings.model.generator_settings
    args = _given(settings)
    if engine == "openai" or any(args.get(name, 1) != 1 for name in PARALLEL_SIZES[1:]):
        return [Shape(1, args.get("tensor_parallel_size", 1))], {}
    share = args.get("gpu_memory_utilization", USUAL_MEMORY_SHARE)
    facts = model_facts(generator.hf_model_id or args.get("model"), args)
    fitting, misfits = sort_out(candidates(host.slots), facts, host.memory_bytes, share)
    if not fitting:
        msg = f"{generator.hf_model_id} fits into no shape of this host: "
        raise UsageError(msg + "; ".join(f"{shape}: {why}" for shape, why in misfits.items()))
    return sorted(fitting, key=lambda shape: shape.tensor_parallel != args.get("tensor_parallel_size")), misfits


def _arguments(engine: str, settings: Settings, host: Host) -> list[Argument]:
    """Those of a server are its own affair, and those of the configuration stay."""
    if engine != "vllm":
        return []
    args = _given(settings)
    ahead = model_facts(settings.model.generator_settings.hf_model_id or args.get("model"), args).predicted_tokens
    speculation = json.dumps({"method": "mtp", "num_speculative_tokens": ahead})
    brought = (Argument("speculative_config", (speculation,)),) if ahead else ()
    every = (*brought, *(ON_GPUS if host.gpus.uuids else ()), *ANYWHERE)
    return [argument for argument in every if argument.name not in args]


def _given(settings: Settings) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in settings.model.generator_settings.vllm_args.items()}


def with_setting(settings: Settings, engine: str, setting: Setting, answers_per_s: float) -> Settings:
    """The settings with what was found in its places; `answers_per_s`: of all workers."""
    changes: dict[str, object] = {
        "model.generator_settings.enable_batching": True,
        "model.generator_settings.batch_size": setting.batch_size,
        "processing.parallel_workers": max(1, round(setting.capacity / setting.batch_size)),
        "processing.tuned_answers_per_s": round(answers_per_s / setting.shape.workers, 3),
    }
    return with_changes(with_engine(settings, engine, setting), changes)


def _compare(found: Setting, tried: Tried, whole: Tried, engines: Engines) -> str:
    best = whole.best
    # Measured again, one after the other: two measurements of the same differ, and the best of many is a lucky one.
    again = {setting: median(engines.measure(setting) for _ in range(CONFIRMATIONS)) for setting in (best, found)}
    return (
        f"Exhaustive: the best of {len(whole.rates)} settings is {best}. Measured {CONFIRMATIONS} times more, "
        f"it has {again[best]:.1f} "
        f"answers/s; what was found in {len(tried.rates)} measurements, {found}, has {again[found]:.1f}, "
        f"{again[found] / again[best]:.3f} of it; medians."
    )


def _notes(start: Setting, found: Setting, tried: Tried) -> list[str]:
    gain = tried.rates[found] / tried.rates[start] if tried.rates[start] else 0.0
    cut = "" if tried.complete else " The time was up before everything was tried: a larger --budget may find more."
    than = f"{gain:.2f} times as fast as {start}" if gain else f"while {start} answered nothing"
    best = f"Best: {found}, {tried.rates[found]:.1f} answers/s, {than}."
    notes = [(f"Nothing was faster than what is set already: {start}." if found == start else best) + cut]
    if dict(found.arguments).get("kv_cache_dtype"):
        notes.append("An fp8 cache may change answers: `kv_cache_dtype: auto` in vllm_args keeps it from being tried.")
    return notes


def _fields(setting: Setting) -> dict[str, Cell]:
    return {
        "shape": str(setting.shape),
        "max_num_seqs": setting.max_num_seqs or "-",
        "other arguments": " ".join(f"{name}={value}" for name, value in setting.arguments),
        "capacity": setting.capacity,
        "batch size": setting.batch_size,
    }


def _table(title: str, found: Setting, tried: Tried, tokens: Mapping[Setting, float]) -> Table:
    best = tried.rates[tried.best] or 1.0
    rows = [
        (
            *_fields(one).values(),
            round(rate, 1),
            round(tokens.get(one, 0.0)),
            round(rate / one.shape.gpus, 1),
            round(rate / best, 3),
            "chosen" if one == found else "",
        )
        for one, rate in tried.rates.items()
    ]
    return Table(title, (*_fields(found), "answers/s", "tokens/s", "answers/s per GPU", "of the best", ""), rows)
