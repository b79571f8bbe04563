"""Engines of vLLM side by side, each in a process of its own with its part of the questions: no fleet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import Helper, environment, write_config


@dataclass(frozen=True, slots=True)
class Asked:
    """What they did with some questions.

    Attributes:
        elapsed_s: Until the last of them was done.
        rates: Answers/s of each, until itself was done.
    """

    answered: int
    elapsed_s: float
    rates: tuple[float, ...]


class RawEngines:
    """Booted by `with`, all at once; gone after it.

    Args:
        environs: What the environment of each engine has beside the settings: the GPUs that it sees.
        questions: A file of lines; the n-th goes to engine n modulo their number.

    Attributes:
        sequences: What each works on at once.
    """

    def __init__(
        self, settings: Settings, environs: Sequence[Mapping[str, str]], questions: Path, folder: Path, boot_s: float
    ) -> None:
        self.sequences = 0
        self._settings = settings
        self._environs = environs
        self._questions = questions
        self._folder = folder
        self._boot_s = boot_s
        self._engines: list[Helper] = []
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            for number, environ in enumerate(self._environs):
                folder = self._folder / f"raw-{number + 1}"
                folder.mkdir()
                write_config(folder, self._settings)
                with self._questions.open("rb") as lines, (folder / "questions.jsonl").open("wb") as part:
                    part.writelines(islice(lines, number, None, len(self._environs)))
                env = {**environment(self._settings), **environ}
                helper = Helper("benchmarks.raw_vllm", (str(folder / "questions.jsonl"),), env, folder)
                self._engines.append(exits.enter_context(helper))
            ready = [engine.wait_until_ready(self._boot_s) for engine in self._engines]
            self.sequences = min(int(one["max_num_seqs"]) for one in ready)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for engine in self._engines:
            engine.let_go()
        self._exits.__exit__(kind, error, traceback)

    def ask(self, count: int, in_flight: int) -> Asked:
        """All engines at the same time, `count` questions in all, so many in flight in each; 0: all at once."""
        each = [count // len(self._engines) + (n < count % len(self._engines)) for n in range(len(self._engines))]
        return self._ask([[part, in_flight or part, 0, None] for part in each])

    def ask_one(self, count: int, size: int, at_once: int, most_s: float) -> Asked:
        """The first engine alone: `at_once` batches at a time, each awaited whole; none is begun after `most_s`."""
        return self._ask([[-(-count // len(self._engines)), size, at_once, most_s]])

    def _ask(self, tasks: list[list[float | None]]) -> Asked:
        asked = list(zip(self._engines, tasks, strict=False))
        for engine, task in asked:
            engine.tell(json.dumps(task))
        results = [engine.result() for engine, _ in asked]
        return Asked(
            sum(one["answered"] for one in results),
            max(one["elapsed_s"] for one in results),
            tuple(one["answered"] / one["elapsed_s"] for one in results),
        )
