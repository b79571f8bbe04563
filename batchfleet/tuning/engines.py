"""The engines of one shape, side by side, booted anew when what they are set to changes; measured together."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError, Helper, TooSlowError, environment, write_config
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.search import USUAL_FACTOR, OutOfTimeError, Setting
from batchfleet.tuning.shapes import Host, Shape

GENERATED = 4000
FIRST_CAPACITY = 64
"""Of a server, which does not say what it works on at once."""
MOST_WARM_UPS, WARM = 6, 1.03
"""An engine is warm if half a window makes it no faster by this factor."""
LATEST = 8
"""Of so many windows at most an engine says nothing while it is measured, `trial.MOST_WARM_UP` included."""


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """How to look.

    Attributes:
        engine: `stub`, `vllm` or `openai`.
        questions: A sample of what will be asked; None for generated ones.
        budget_s: No measurement is begun that would end later than this, and a boot that takes longer is ended.
        window_s: How long one setting is measured, once the engine is full.
        exhaustive: Measure the whole grid as well, whatever the budget, and compare.
    """

    engine: str
    questions: Path | None
    budget_s: float
    window_s: float
    exhaustive: bool = False


def with_engine(settings: Settings, engine: str, setting: Setting) -> Settings:
    """The settings with what an engine is booted with in its places."""
    size = setting.max_num_seqs
    if engine == "stub" and size is not None:
        settings = with_changes(settings, {"stub.max_num_seqs": size})
    given = {name.replace("-", "_"): value for name, value in settings.model.generator_settings.vllm_args.items()}
    args = {**given, **{name: json.loads(value) for name, value in setting.arguments}}
    if engine == "vllm" and size is not None:
        args["max_num_seqs"] = size
    if setting.shape.tensor_parallel != args.get("tensor_parallel_size", 1):
        args["tensor_parallel_size"] = setting.shape.tensor_parallel
    return settings if args == given else with_changes(settings, {"model.generator_settings.vllm_args": args})


class RefusedError(BenchFailedError):
    """The engine works, and answers no question."""


class Engines:
    """Of one shape at a time. Used by `with`; after it, they and their processes are gone.

    Attributes:
        tokens: Tokens/s of every setting that was measured.
        failures: Why no engine boots in a shape.
    """

    def __init__(
        self, plan: TuningPlan, settings: Settings, host: Host, folder: Path, say: Callable[[str], None]
    ) -> None:
        self.tokens: dict[Setting, float] = {}
        self.failures: dict[Shape, str] = {}
        self._plan = plan
        self._settings = settings
        self._host = host
        self._folder = folder
        self._say = say
        self._questions = plan.questions or folder / "questions.jsonl"
        self._deadline = time.monotonic() + plan.budget_s
        self._booted = contextlib.ExitStack()
        self._engines: list[Helper] = []
        self._now: tuple[object, ...] | None = None
        self._cold = True
        self._boot_s = 0.0
        self._ask_s = 2 * plan.window_s

    def __enter__(self) -> Self:
        if self._plan.questions is None:
            write_questions(self._questions, GENERATED, seed=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()
        self._booted.__exit__(kind, error, traceback)

    def start(self, shapes: Sequence[Shape]) -> Setting:
        """Boot the engine as it is configured, in the first shape in which it boots; returns what it is set to now.

        Raises:
            BenchFailedError: It boots in none; with its last words.
        """
        for shape in shapes:
            try:
                return self._start(shape)
            except TooSlowError as error:
                raise BenchFailedError(
                    f"the engine did not boot within {self._plan.budget_s:g} s; give it a longer --budget"
                ) from error
            except BenchFailedError as error:
                self._note_failure(shape, error)
                if shape == shapes[-1]:
                    raise
        raise BenchFailedError("there is no shape to try")

    def _start(self, shape: Shape) -> Setting:
        generator = self._settings.model.generator_settings
        booted = self._boot(Setting(None, 0, 0, shape))
        size = None if self._plan.engine == "openai" else booted
        capacity = self._settings.capacity or int(USUAL_FACTOR * (size or FIRST_CAPACITY))
        setting = Setting(size, capacity, min(generator.batch_size, capacity), shape)
        self._now = setting.engine
        return setting

    def unhurried(self) -> None:
        """From now on, no measurement is refused for want of time."""
        self._deadline = float("inf")

    def measure(self, setting: Setting) -> float:
        """Answers/s of all engines together; 0 if they do not boot like that.

        Raises:
            OutOfTimeError: There would be no time to finish, or it took longer than there was time.
        """
        boots = setting.engine != self._now
        # Warming up takes two measurements at least, if shorter ones.
        if self._left_s < boots * self._boot_s + self._ask_s * (3 if boots or self._cold else 1):
            raise OutOfTimeError
        try:
            if boots:
                self._boot(setting)
            if self._cold:
                self._warm_up(setting)
            rate, tokens = self._ask(setting, self._plan.window_s)
        except TooSlowError as error:
            raise OutOfTimeError from error
        except RefusedError:
            raise
        except BenchFailedError as error:
            if not boots:
                raise
            why = self._note_failure(setting.shape, error)
            self._say(f"{setting}: does not boot ({why})")
            return 0.0
        self.tokens[setting] = tokens
        self._say(f"{setting}: {rate:.1f} answers/s, {tokens:.0f} tokens/s")
        return rate

    @property
    def _left_s(self) -> float:
        return self._deadline - time.monotonic()

    def _note_failure(self, shape: Shape, error: BenchFailedError) -> str:
        why = str(error).strip().splitlines()[-1].strip()
        if all(measured.shape != shape for measured in self.tokens):
            self.failures[shape] = f"does not boot: {why}"
        return why

    def _warm_up(self, setting: Setting) -> None:
        """Have them work for nothing until they become no faster.

        vLLM for CPUs was a quarter slower in its first seconds than after ten.
        """
        rate = 0.0
        for _ in range(MOST_WARM_UPS):
            before, rate = rate, self._ask(setting, self._plan.window_s / 2)[0]
            if rate < WARM * before or self._left_s < 2 * self._ask_s:
                break
        self._cold = False

    def _ask(self, setting: Setting, window_s: float) -> tuple[float, float]:
        """Answers/s and tokens/s of all engines, in the same `window_s` seconds."""
        began = time.monotonic()
        for engine in self._engines:
            engine.tell(json.dumps([setting.capacity, setting.batch_size, window_s]))
        results = [engine.result(self._patience_s(LATEST * window_s)) for engine in self._engines]
        self._ask_s = max(self._ask_s, time.monotonic() - began)
        for result in results:
            if result["refused"] and not result["rate"]:
                raise RefusedError(f"the engine refuses the questions: {result['refusal']}")
        return sum(float(result["rate"]) for result in results), sum(float(one["tokens_per_s"]) for one in results)

    def _patience_s(self, least_s: float) -> float | None:
        return None if self._left_s == float("inf") else max(least_s, self._left_s)

    def _boot(self, setting: Setting) -> int:
        """Returns max_num_seqs, as the engine says it."""
        self._let_go()
        self._booted.close()
        self._booted = contextlib.ExitStack()
        self._engines, self._cold, self._now = [], True, None
        settings = with_engine(self._settings, self._plan.engine, setting)
        began = time.monotonic()
        for number, environ in enumerate(self._host.environs(setting.shape), 1):
            folder = self._folder / f"engine-{number}"
            folder.mkdir(exist_ok=True)
            write_config(folder, settings)
            arguments = (str(self._questions), self._plan.engine)
            helper = Helper("batchfleet.tuning.trial", arguments, environment(settings) | environ, folder)
            self._engines.append(self._booted.enter_context(helper))
        sizes = [engine.wait_until_ready(self._patience_s(0.0))["max_num_seqs"] for engine in self._engines]
        self._boot_s = time.monotonic() - began
        self._now = setting.engine
        return int(min(sizes))

    def _let_go(self) -> None:
        """All of them, so that they end side by side."""
        for engine in self._engines:
            engine.let_go()
