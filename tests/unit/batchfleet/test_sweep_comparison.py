"""The table at the end of a sweep."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import orjson
import pytest
from rich.console import Console, RenderableType

from batchfleet.sweep.comparison import Comparison, Row, count_answers

LINES = [
    orjson.dumps(
        {"id": "a", "status": "answered", "usage": {"prompt_tokens": 3, "completion_tokens": 10}, "latency_s": 1.0}
    ),
    orjson.dumps(
        {"id": "b", "status": "answered", "usage": {"prompt_tokens": 4, "completion_tokens": 20}, "latency_s": 3.0}
    ),
    orjson.dumps({"id": "c", "status": "failed", "error": {"kind": "refused"}}),
]


def shown(drawn: RenderableType, width: int = 10_000) -> str:
    """The lines that a terminal of so many columns gets."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(drawn)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def a_row(name: str = "warm", **overrides: float) -> Row:
    """A run that is complete."""
    row = Row(
        name,
        overrides,
        f"{name}.jsonl",
        run=f"{name}-1",
        status="complete",
        questions=3,
        elapsed_s=2.0,
        measured_questions=3,
    )
    count_answers(row, LINES)
    return row


def test_a_row_says_what_its_answers_say() -> None:
    """Counted from the file, so that it does not matter in how many calls it was written."""
    row = a_row()

    assert (row.answered, row.failed, row.prompt_tokens, row.completion_tokens) == (2, 1, 7, 30)
    assert (row.latency_p50_s, row.latency_p95_s, row.questions_per_s) == (3.0, 3.0, 1.5)


def test_csv_and_json_hold_all_runs(tmp_path: Path) -> None:
    """With a column for each setting that was swept, also where only some runs have it."""
    comparison = Comparison(tmp_path, [a_row("warm", temperature=0.7), a_row("long", max_tokens=9)])

    comparison.write()

    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = [(row["name"], row["temperature"], row["max_tokens"], row["answered"]) for row in rows]
    assert table == [("warm", "0.7", "", "2"), ("long", "", "9", "2")]
    stored = json.loads((tmp_path / "comparison.json").read_text())
    assert [run["overrides"] for run in stored["runs"]] == [{"temperature": 0.7}, {"max_tokens": 9}]


def test_accuracy_is_a_column_once_somebody_has_scored() -> None:
    """And none before."""
    row = a_row()
    before = shown(Comparison(Path(), [row]).drawn(None))
    row.accuracy = 0.5

    assert "accuracy" not in before
    assert "50.0%" in shown(Comparison(Path(), [row]).drawn(None))


def test_what_is_not_finished_is_said_below_the_table() -> None:
    """With the reason; its figures are those of what there is."""
    row = a_row()
    row.status, row.reason = "not finished", "the engine cannot boot"

    assert shown(Comparison(Path(), [row]).drawn(None)).endswith("warm: not finished: the engine cannot boot")


def test_time_that_earlier_calls_took_counts(tmp_path: Path) -> None:
    """Otherwise a sweep that was stopped would look faster than it was. Times of another run of that name do not."""
    Comparison(tmp_path, [a_row()]).write()
    again, other = a_row(), a_row()
    again.elapsed_s = other.elapsed_s = 0.0
    other.run = "warm-2"

    Comparison(tmp_path, [again]).take_over()
    Comparison(tmp_path, [other]).take_over()

    assert (again.elapsed_s, other.elapsed_s) == (2.0, 0.0)


def test_a_damaged_comparison_is_no_obstacle(tmp_path: Path) -> None:
    """It is written anew from the answers."""
    (tmp_path / "comparison.json").write_text('{"runs": [{"name": "warm", "run": "warm-1"}]}')
    row = a_row()

    comparison = Comparison(tmp_path, [row])
    comparison.take_over()
    comparison.write()

    assert row == a_row()
    assert json.loads((tmp_path / "comparison.json").read_text())["runs"][0]["elapsed_s"] == row.elapsed_s


@pytest.mark.parametrize("width", [40, 60, 80, 110])
def test_the_comparison_fits_the_terminal(width: int) -> None:
    """Whole numbers in whole columns, and what has no room is named; names of runs lose their middle."""
    rows = [a_row(f"temperature-{number / 10}_max_tokens-{16 * number}") for number in range(1, 4)]
    for row in rows:
        row.answered = row.questions = 1_319
        row.prompt_tokens, row.completion_tokens, row.accuracy = 94_426, 337_664, 0.512
        row.elapsed_s, row.measured_questions, row.latency_p50_s, row.latency_p95_s = 24.7, 1_319, 14.0, 23.11

    lines = shown(Comparison(Path(), rows).drawn(width), width).splitlines()
    whole = shown(Comparison(Path(), rows).drawn(None)).split()

    assert max(map(len, lines)) <= width
    assert all(word in whole for line in lines for word in line.split() if word[0].isdigit())
    assert "51.2%" in "\n".join(lines)
    assert width >= 110 or "columns left out" in "\n".join(lines)
