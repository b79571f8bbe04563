"""How the runs of a sweep compare: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import JsonValue
from rich.console import Group, RenderableType
from rich.text import Text

from batchfleet.humanize import count
from batchfleet.status.table import Kind, columns_of, fit, rich_table
from producer.atomic_file import replacing

LATENCIES_KEPT = 100_000
"""Of each run; percentiles of the latest hundred thousand are good enough to compare."""

Accuracy = Callable[[Path], float | None]
"""Says which part of the answers in a file is right, 0 to 1; None if that cannot be said."""


@dataclass(slots=True)
class Row:
    """One run of a sweep.

    Attributes:
        status: `complete`, `not finished` or `not started`; `reason` says why, where it is not complete.
        elapsed_s, measured_questions: How long questions were asked, and how many got their line in that time, all
            calls of the sweep together; a call that was killed has left its lines, and not its time.
        latency_p50_s, latency_p95_s: From submission to answer, in seconds, queueing included.
        accuracy: 0 to 1; None if nobody has scored.
    """

    name: str
    overrides: Mapping[str, JsonValue]
    answers: str
    run: str = ""
    status: str = "not started"
    reason: str = ""
    questions: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    elapsed_s: float = 0.0
    measured_questions: int = 0
    latency_p50_s: float | None = None
    latency_p95_s: float | None = None
    accuracy: float | None = None

    @property
    def questions_per_s(self) -> float | None:
        return round(self.measured_questions / self.elapsed_s, 2) if self.elapsed_s > 0 else None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "elapsed_s": round(self.elapsed_s, 3), "questions_per_s": self.questions_per_s}


@dataclass(slots=True)
class Comparison:
    """All runs of a sweep, in its order, and the folder in which they are written down."""

    folder: Path
    rows: list[Row] = field(default_factory=list)

    def take_over(self) -> None:
        """Take in how long earlier calls of the same sweep took; what they counted is counted anew from the answers."""
        try:
            stored = {row["name"]: row for row in orjson.loads((self.folder / "comparison.json").read_bytes())["runs"]}
            for row in self.rows:
                before = stored.get(row.name, {})
                if before.get("run") == row.run:
                    row.elapsed_s, row.measured_questions = (
                        float(before["elapsed_s"]),
                        int(before["measured_questions"]),
                    )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # None there, or somebody else's: it is only about times, and will be written anew.
            return

    def write(self) -> None:
        """Write `comparison.json` and `comparison.csv`, each as a whole or not at all."""
        as_json = json.dumps({"runs": [row.as_dict() for row in self.rows]}, indent=2) + "\n"
        for name, text in (("comparison.json", as_json), ("comparison.csv", self.as_csv())):
            with replacing(self.folder / name) as file:
                file.write(text.encode())

    def as_csv(self) -> str:
        text = io.StringIO()
        rows = [row.as_dict() for row in self.rows]
        swept = list(dict.fromkeys(key for row in self.rows for key in row.overrides))
        names = [name for name in rows[0] if name != "overrides"] if rows else []
        table = csv.writer(text, lineterminator="\n")
        table.writerow([names[0], *swept, *names[1:]] if names else [])
        for row in rows:
            settings = ["" if (value := row["overrides"].get(key)) is None else _plain(value) for key in swept]
            table.writerow([row["name"], *settings, *("" if row[name] is None else row[name] for name in names[1:])])
        return text.getvalue()

    def drawn(self, width: int | None) -> RenderableType:
        """A table for people, to fit so many columns of a terminal; all of it for None."""
        scored = any(row.accuracy is not None for row in self.rows)
        failed = any(row.failed for row in self.rows)
        headings = [
            ("run", Kind.NAME, None),
            ("answered", Kind.NUMBER, 4),
            ("failed", Kind.NUMBER, 2 if failed else 7),
            ("tokens read", Kind.NUMBER, 6),
            ("written", Kind.NUMBER, 5),
            ("questions/s", Kind.NUMBER, 0),
            ("latency p50", Kind.NUMBER, 3),
            ("p95", Kind.NUMBER, 1),
            *([("accuracy", Kind.NUMBER, None)] if scored else []),
        ]
        fitted = fit(columns_of(headings, [_cells(row)[: len(headings)] for row in self.rows]), width)
        parts: list[RenderableType] = [rich_table(fitted)]
        parts += [Text(f"columns left out: {', '.join(fitted.dropped)}", style="dim")] if fitted.dropped else []
        parts += [
            Text(f"{row.name}: {row.status}{': ' if row.reason else ''}{row.reason}")
            for row in self.rows
            if row.status != "complete"
        ]
        return Group(*parts)


def count_answers(row: Row, lines: Iterable[bytes]) -> None:
    """Fill in what the lines of an answers file say: however often a sweep was stopped, they are all that counts."""
    row.answered = row.failed = row.prompt_tokens = row.completion_tokens = 0
    latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
    for line in lines:
        answer = orjson.loads(line)
        if answer["status"] != "answered":
            row.failed += 1
            continue
        row.answered += 1
        row.prompt_tokens += answer["usage"]["prompt_tokens"]
        row.completion_tokens += answer["usage"]["completion_tokens"]
        if answer.get("latency_s") is not None:
            latencies.append(answer["latency_s"])
    ordered = sorted(latencies)
    row.latency_p50_s = ordered[len(ordered) // 2] if ordered else None
    row.latency_p95_s = ordered[int(len(ordered) * 0.95)] if ordered else None


def _plain(value: JsonValue) -> JsonValue:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        count(row.answered),
        count(row.failed),
        count(row.prompt_tokens),
        count(row.completion_tokens),
        _shown(row.questions_per_s, "{:.1f}"),
        _shown(row.latency_p50_s, "{:.2f} s"),
        _shown(row.latency_p95_s, "{:.2f} s"),
        _shown(row.accuracy, "{:.1%}"),
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
