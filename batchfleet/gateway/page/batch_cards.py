"""Batches of one owner, as the page shows them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import Any

from batchfleet.gateway.page.view import FailureRow, cut, failure_rows, tone
from batchfleet.humanize import about, count

MOST_BATCHES = 20
READ_BYTES = 256 * 1024
"""So much of a file is read for the kinds of failure in it: its end."""
OVER = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class FileLink:
    """Something to download."""

    id: str
    words: str


@dataclass(frozen=True, slots=True)
class BatchCard:
    """One batch, which is a run of the same id. `left`: how long it will still take, in words, or nothing."""

    id: str
    state: str
    tone: str
    done: int
    questions: int
    progress: str
    failed: str
    left: str
    name: str
    failures: tuple[FailureRow, ...]
    files: tuple[FileLink, ...]
    may_end: bool


def card(batch: Mapping[str, Any], left_s: float | None, errors: Path | None) -> BatchCard:
    """From a batch as OpenAI's API shows it. `errors`: its error file or, while it runs, its journal."""
    counts = batch["request_counts"] or {}
    done, total = counts.get("completed", 0) + counts.get("failed", 0), counts.get("total", 0)
    files = (("output_file_id", "answers"), ("error_file_id", "errors"))
    is_over = batch["status"] in OVER
    return BatchCard(
        id=batch["id"],
        state=batch["status"].replace("_", " "),
        tone=tone(batch["status"]),
        done=done,
        questions=max(1, total),
        progress=f"{count(done)} of {count(total)}",
        failed=count(counts.get("failed", 0)),
        left="" if is_over or left_s is None else f"{about(left_s)} left",
        name=cut(", ".join(f"{key}: {value}" for key, value in (batch.get("metadata") or {}).items())),
        failures=refusals(batch) or (kinds_in(errors) if errors and counts.get("failed", 0) else ()),
        files=tuple(FileLink(batch[key], words) for key, words in files if batch.get(key)),
        may_end=not is_over and batch["status"] != "cancelling",
    )


def refusals(batch: Mapping[str, Any]) -> tuple[FailureRow, ...]:
    """Why the whole batch was refused."""
    found = (batch.get("errors") or {}).get("data") or ()
    return _rows((str(one.get("code") or "?"), _with_line(one)) for one in found)


def kinds_in(errors: Path) -> tuple[FailureRow, ...]:
    """The kinds of the latest failures in an error file or a journal, each with what one of them said."""
    try:
        with errors.open("rb") as file:
            begin = max(0, file.seek(0, SEEK_END) - READ_BYTES)
            file.seek(begin)
            lines = file.read(READ_BYTES).split(b"\n")
    except OSError:
        return ()
    # The last one is empty, or not all there yet; the first may be cut off.
    return _rows(filter(None, map(_kind, lines[begin > 0 : -1])))


def _kind(line: bytes) -> tuple[str, str] | None:
    try:
        found = json.loads(line)
        if found.get("status") == "answered":
            return None
        error = found.get("error") or found["response"]["body"]["error"]
        kind = error.get("kind") or error.get("code") or error.get("type") or "?"
        return str(kind), str(error.get("message", ""))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return "?", ""


def _with_line(error: Mapping[str, Any]) -> str:
    message = str(error.get("message", ""))
    return f"line {error['line']}: {message}" if error.get("line") is not None else message


def _rows(failures: Iterable[tuple[str, str]]) -> tuple[FailureRow, ...]:
    kinds: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for kind, message in failures:
        kinds[kind] += 1
        examples.setdefault(kind, message)
    return failure_rows(kinds, examples)
