"""The end of a batch: its journal becomes the output and the error file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from batchfleet.gateway.batch_lines import as_bytes, error_line, output_line, unasked_line
from producer.answers.reader import AnswerLines
from producer.questions.duplicates import is_set
from producer.questions.question_file import read_checked
from producer.resume import FileRun, ResumeState

_TICK_EVERY = 1000


@dataclass(slots=True)
class BatchResult:
    """What the files hold. Tokens are those of the completed requests."""

    completed: int = 0
    failed: int = 0
    tokens: dict[str, int] = field(default_factory=dict)

    def count(self, usage: dict[str, int]) -> None:
        self.completed += 1
        for name, number in usage.items():
            self.tokens[name] = self.tokens.get(name, 0) + number

    @property
    def usage(self) -> dict[str, Any]:
        """As OpenAI's API shows it of a batch."""
        read, written = self.tokens.get("prompt_tokens", 0), self.tokens.get("completion_tokens", 0)
        return {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": self.tokens.get("cached_tokens", 0)},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": self.tokens.get("reasoning_tokens", 0)},
            "total_tokens": read + written,
        }


def write_results(
    journal: Path, to: tuple[Path, Path], batch: BatchFacts, unasked: Iterable[str], tick: Callable[[], None]
) -> BatchResult:
    """Write both files, whole or not at all; one that would be empty is not there afterwards.

    Args:
        to: The output file and the error file.
        unasked: The custom ids of requests that have no line in the journal.
        tick: Called now and then; what it raises ends it.
    """
    result = BatchResult()
    with _replacing(to[0]) as output, _replacing(to[1]) as errors:
        if journal.exists():
            for number, answered in enumerate(AnswerLines(journal, journal).as_they_came()):
                if not number % _TICK_EVERY:
                    tick()
                if answered.fields["status"] == "answered":
                    output.write(as_bytes(output_line(answered, batch.endpoint, batch.created)))
                    result.count(answered.fields["usage"])
                else:
                    errors.write(as_bytes(error_line(answered, batch.why_not)))
                    result.failed += 1
        for custom_id in unasked:
            errors.write(as_bytes(unasked_line(custom_id, batch.why_not)))
            result.failed += 1
    return result


def unasked_ids(what: FileRun, state: ResumeState) -> Iterator[str]:
    """Of the requests without a line in the journal, as the bits of `state` tell; reads the input if there are any."""
    if state.is_complete:
        return
    for question in read_checked(what.questions, what.reading, what.checked):
        if not is_set(state.written, question.index):
            yield question.request_id


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What its lines need to know of a batch.

    Attributes:
        created: Unix time in seconds that answers bear.
        why_not: Why what has no answer has none: `expired` or `cancelled`.
    """

    endpoint: str
    created: int
    why_not: str


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    half = path.with_name(f"{path.name}.half")
    with contextlib.suppress(FileNotFoundError):
        # Of a process that died here.
        half.unlink()
    with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
        yield file
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if size:
        half.replace(path)
    else:
        half.unlink()
