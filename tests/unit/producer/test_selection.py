"""Part of a file is asked: `--limit`, and `--sample` with `--seed`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from producer.options import ReadingLimits
from producer.questions.checked import Checked
from producer.questions.question_file import check_questions, read_checked, read_questions
from producer.questions.selection import EVERYTHING, Selection
from producer.questions.sources import Source

LIMITS = ReadingLimits()


def two_files(folder: Path) -> tuple[Path, ...]:
    """Forty questions without ids, in two files; the last one cannot be used."""
    files = (folder / "a.jsonl", folder / "b.jsonl")
    lines = [json.dumps({"question": f"What is {number}?"}) for number in range(39)]
    files[0].write_text("\n".join(lines[:25]))
    files[1].write_text("\n".join([*lines[25:], "no question"]))
    return files


def read(source: Source) -> tuple[Checked, list[str]]:
    """What a check finds, and the ids of the questions that are then read."""
    checked = check_questions(source, LIMITS, skip_invalid=True)
    questions = list(read_checked(source, LIMITS, checked))
    assert [question.index for question in questions] == list(range(checked.count))
    return checked, [question.request_id for question in questions]


@pytest.mark.parametrize("limit", [1, 25, 30, 40, 1000])
def test_a_limit_asks_the_first(tmp_path: Path, limit: int) -> None:
    """Over all files together, with the ids that they have among all, and without a look at what comes behind them."""
    files = two_files(tmp_path)
    _, everything = read(Source(files))

    checked, ids = read(Source(files, selection=Selection(limit=limit)))

    assert ids == everything[:limit]
    assert checked.invalid == (limit >= len(everything))


@pytest.mark.parametrize("count", [1, 12, 40, 1000])
def test_a_sample_is_the_same_each_time(tmp_path: Path, count: int) -> None:
    """In the order of the files, each at most once, under the ids that they have among all.

    A larger sample contains a smaller one.
    """
    files = two_files(tmp_path)
    _, everything = read(Source(files))

    _, ids = read(Source(files, selection=Selection(sample=count)))
    _, again = read(Source(files, selection=Selection(sample=count)))
    _, larger = read(Source(files, selection=Selection(sample=count + 5)))

    assert ids == again == [one for one in everything if one in set(ids)]
    assert len(ids) == min(count, len(everything))
    assert set(ids) <= set(larger)


def test_another_seed_is_another_sample(tmp_path: Path) -> None:
    """Or a seed would say nothing."""
    files = two_files(tmp_path)

    samples = {tuple(read(Source(files, selection=Selection(sample=10, seed=seed)))[1]) for seed in range(5)}

    assert len(samples) == 5


def test_a_sample_stays_what_it_was() -> None:
    """Whatever Python draws it: a run is resumed with the questions that it began with."""
    assert sorted(Selection(sample=4, seed=7).positions(range(1000)) or ()) == [162, 265, 437, 821]


def test_an_unchecked_source_is_limited_as_well(tmp_path: Path) -> None:
    """As `score` and `convert` read it."""
    source = Source(two_files(tmp_path), selection=Selection(limit=3))

    assert len(list(read_questions(source, LIMITS))) == 3


def test_everything_is_no_selection(tmp_path: Path) -> None:
    """So that nothing is counted, and no position looked up, where all is asked."""
    assert EVERYTHING.positions(range(3)) is None
    assert check_questions(Source(two_files(tmp_path)[:1]), LIMITS).positions is None


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--seed", "1"], "--seed draws a --sample N"),
        (["--limit", "3", "--sample", "3"], "not allowed with argument"),
        (["--limit", "0"], "'0' is not a whole number, 1 or more"),
    ],
)
def test_flags_that_contradict_are_refused(
    tmp_path: Path, flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, before anything is read."""
    command = ["run", str(tmp_path / "q.jsonl"), "-o", str(tmp_path / "a.jsonl"), "--engine", "stub", *flags]

    try:
        code = main(command)
    except SystemExit as ended:
        code = int(ended.code or 0)

    assert code == 2
    assert told in capsys.readouterr().err
