"""From settings to better settings, within a bounded time.

Boots the engine in a process of its own, as often as its size changes.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError, Helper, environment, write_config
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.search import USUAL_FACTOR, OutOfTimeError, Setting, Tried, grid, search
from batchfleet.tuning.table_report import Report, Table

GENERATED = 4000
FIRST_CAPACITY = 64
"""Of a server, which does not say what it works on at once."""
CONFIRMATIONS = 3
MOST_WARM_UPS, WARM = 6, 1.03
"""An engine is warm if half a window makes it no faster by this factor."""


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """How to look.

    Attributes:
        engine: `stub`, `vllm` or `openai`.
        questions: A sample of what will be asked; None for generated ones.
        budget_s: No measurement is begun that would end later than this.
        window_s: How long one setting is measured, once the engine is full.
        exhaustive: Measure the whole grid as well, whatever the budget, and compare.
    """

    engine: str
    questions: Path | None
    budget_s: float
    window_s: float
    exhaustive: bool = False


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found, and the settings that have it."""

    report: Report
    settings: Settings


def tune(plan: TuningPlan, settings: Settings, say: Callable[[str], None]) -> Tuned:
    """Search, and tell `say` after each measurement.

    Raises:
        BenchFailedError: The engine does not boot as it is configured, or answers nothing.
    """
    with (
        tempfile.TemporaryDirectory(prefix="batchfleet-tune-") as name,
        Engines(plan, settings, Path(name), say) as engines,
    ):
        start = engines.start()
        tried = Tried()
        found = search(start, engines.measure, tried)
        if not tried.rates:
            msg = f"there was no time for a single measurement within {plan.budget_s:g} s; give it a longer --budget"
            raise BenchFailedError(msg)
        if tried.rates[found] <= 0:
            msg = f"the engine answered none of the questions within {plan.window_s:g} s; give it a longer --seconds"
            raise BenchFailedError(msg)
        notes, tables = [_verdict(start, found, tried)], [_table("Tried", found, tried)]
        if plan.exhaustive:
            engines.unhurried()
            whole = Tried({setting: engines.measure(setting) for setting in grid(start, found)})
            notes.append(_compare(found, tried, whole, engines))
            tables.append(_table("Every combination", found, whole))
    parameters = {"engine": plan.engine, "budget_s": plan.budget_s, "window_s": plan.window_s}
    report = Report(
        "tune", parameters, tables, notes, [{**_fields(one), "rate": rate} for one, rate in tried.rates.items()]
    )
    return Tuned(report, with_setting(settings, plan.engine, found, tried.rates[found]))


def with_setting(settings: Settings, engine: str, setting: Setting, answers_per_s: float) -> Settings:
    """The settings with what was found, and measured, in its places."""
    changes: dict[str, object] = {
        "model.generator_settings.enable_batching": True,
        "model.generator_settings.batch_size": setting.batch_size,
        "processing.parallel_workers": max(1, round(setting.capacity / setting.batch_size)),
        "processing.tuned_answers_per_s": round(answers_per_s, 3),
    }
    return with_changes(_sized(settings, engine, setting.max_num_seqs), changes)


def _sized(settings: Settings, engine: str, max_num_seqs: int | None) -> Settings:
    if max_num_seqs is None:
        return settings
    if engine == "stub":
        return with_changes(settings, {"stub.max_num_seqs": max_num_seqs})
    given = settings.model.generator_settings.vllm_args
    args = {name: value for name, value in given.items() if name != "max-num-seqs"}
    return with_changes(settings, {"model.generator_settings.vllm_args": {**args, "max_num_seqs": max_num_seqs}})


class Engines:
    """One engine at a time, booted anew when its size changes."""

    def __init__(self, plan: TuningPlan, settings: Settings, folder: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._settings = settings
        self._folder = folder
        self._say = say
        self._questions = plan.questions or folder / "questions.jsonl"
        self._deadline = time.monotonic() + plan.budget_s
        self._booted = contextlib.ExitStack()
        self._engine: Helper | None = None
        self._size: int | None = None
        self._cold = True
        self._boot_s = 0.0

    def __enter__(self) -> Self:
        if self._plan.questions is None:
            write_questions(self._questions, GENERATED, seed=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._booted.__exit__(kind, error, traceback)

    def start(self) -> Setting:
        """Boot the engine as it is configured; returns what it is set to now.

        Raises:
            BenchFailedError: It does not boot; with its last words.
        """
        generator = self._settings.model.generator_settings
        size = self._boot(self._settings)
        self._size = None if self._plan.engine == "openai" else size
        capacity = self._settings.capacity or int(USUAL_FACTOR * (self._size or FIRST_CAPACITY))
        return Setting(self._size, capacity, min(generator.batch_size, capacity))

    def unhurried(self) -> None:
        """From now on, no measurement is refused for want of time."""
        self._deadline = float("inf")

    def measure(self, setting: Setting) -> float:
        """Answers/s; 0 if an engine of that size does not boot.

        Raises:
            OutOfTimeError: There would be no time to finish.
        """
        boots = setting.max_num_seqs != self._size
        windows = 4 if boots or self._cold else 2
        if time.monotonic() + boots * self._boot_s + windows * self._plan.window_s > self._deadline:
            raise OutOfTimeError
        if boots:
            try:
                self._boot(_sized(self._settings, self._plan.engine, setting.max_num_seqs))
            except BenchFailedError as error:
                self._say(
                    f"{setting.max_num_seqs} sequences: does not boot ({str(error).strip().splitlines()[-1].strip()})"
                )
                self._engine, self._size = None, -1
                return 0.0
            self._size = setting.max_num_seqs
        if self._engine is None:
            return 0.0
        if self._cold:
            self._warm_up(self._engine, setting)
        result = self._ask(self._engine, setting, self._plan.window_s)
        rate = float(result["rate"])
        self._say(f"{_words(setting)}: {rate:.1f} answers/s, {result['tokens_per_s']:.0f} tokens/s")
        return rate

    def _warm_up(self, engine: Helper, setting: Setting) -> None:
        """Have it work for nothing until it becomes no faster.

        vLLM for CPUs was a quarter slower in its first seconds than after ten.
        """
        rate = 0.0
        for _ in range(MOST_WARM_UPS):
            before, rate = rate, float(self._ask(engine, setting, self._plan.window_s / 2)["rate"])
            if rate < WARM * before:
                break
        self._cold = False

    def _ask(self, engine: Helper, setting: Setting, window_s: float) -> dict[str, Any]:
        engine.tell(json.dumps([setting.capacity, setting.batch_size, window_s]))
        result = engine.result()
        if result["refused"] and not result["rate"]:
            msg = f"the engine refuses the questions: {result['refusal']}"
            raise BenchFailedError(msg)
        return result

    def _boot(self, settings: Settings) -> int:
        self._booted.close()
        self._booted = contextlib.ExitStack()
        self._cold = True
        write_config(self._folder, settings)
        began = time.monotonic()
        arguments = (str(self._questions), self._plan.engine)
        self._engine = self._booted.enter_context(
            Helper("batchfleet.tuning.trial", arguments, environment(settings), self._folder)
        )
        size = int(self._engine.wait_until_ready()["max_num_seqs"])
        self._boot_s = time.monotonic() - began
        return size


def _compare(found: Setting, tried: Tried, whole: Tried, engines: Engines) -> str:
    best = whole.best
    # Measured again, one after the other: two measurements of the same differ, and the best of many is a lucky one.
    again = {setting: median(engines.measure(setting) for _ in range(CONFIRMATIONS)) for setting in (best, found)}
    return (
        f"Exhaustive: the best of {len(whole.rates)} settings is {_words(best)}. Measured {CONFIRMATIONS} times more, "
        f"it has {again[best]:.1f} "
        f"answers/s; what was found in {len(tried.rates)} measurements, {_words(found)}, has {again[found]:.1f}, "
        f"{again[found] / again[best]:.3f} of it; medians."
    )


def _verdict(start: Setting, found: Setting, tried: Tried) -> str:
    gain = tried.rates[found] / tried.rates[start] if tried.rates[start] else 0.0
    cut = "" if tried.complete else " The time was up before everything was tried: a larger --budget may find more."
    if found == start:
        return f"Nothing was faster than what is set already: {_words(start)}.{cut}"
    than = f"{gain:.2f} times as fast as {_words(start)}" if gain else f"while {_words(start)} answered nothing"
    return f"Best: {_words(found)}, {tried.rates[found]:.1f} answers/s, {than}.{cut}"


def _words(setting: Setting) -> str:
    size = "" if setting.max_num_seqs is None else f"max_num_seqs {setting.max_num_seqs}, "
    return f"{size}capacity {setting.capacity}, batches of {setting.batch_size}"


def _fields(setting: Setting) -> dict[str, int | None]:
    return {"max_num_seqs": setting.max_num_seqs, "capacity": setting.capacity, "batch_size": setting.batch_size}


def _table(title: str, found: Setting, tried: Tried) -> Table:
    best = tried.rates[tried.best] or 1.0
    rows = [
        (
            one.max_num_seqs or "-",
            one.capacity,
            one.batch_size,
            round(rate, 1),
            round(rate / best, 3),
            "chosen" if one == found else "",
        )
        for one, rate in tried.rates.items()
    ]
    return Table(title, ("max_num_seqs", "capacity", "batch size", "answers/s", "of the best", ""), rows)
