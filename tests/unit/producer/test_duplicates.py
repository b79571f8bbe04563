"""Which ids occur where: few in memory, many in temporary files, the same result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.questions.duplicates import DuplicateFinder, id_table, is_set, positions_answered
from wire.errors import UsageError

names = st.text("abc", min_size=1, max_size=3)


@given(st.sets(names, max_size=20), st.lists(names, max_size=30))
def test_answers_find_their_questions(asked: set[str], answered: list[str]) -> None:
    """A bit for every question that has an answer; strangers and repetitions are counted, not confused with them."""
    order = sorted(asked)

    found = positions_answered(zip(order, range(len(order)), strict=True), answered)

    assert [is_set(found.bitmap, index) for index in range(len(order))] == [name in answered for name in order]
    assert len(found.bitmap) == (len(order) + 7) // 8
    strangers = set(answered) - asked
    assert set(found.unknown) <= strangers
    assert len(found.unknown) == min(5, len(strangers))
    assert found.repeated == sum(answered.count(name) > 1 for name in set(answered))


def test_bits_are_in_the_order_of_redis() -> None:
    """Index 0 is the highest bit of the first byte, as SETBIT and BITOP have it."""
    found = positions_answered([(name, index) for index, name in enumerate("abcdefghi")], ["a", "c", "i"])

    assert found.bitmap == bytearray([0b10100000, 0b10000000])


def test_any_text_in_an_answer_file_is_only_an_unknown_id() -> None:
    """Half a surrogate pair and a text of a megabyte included."""
    found = positions_answered([("a", 0)], ["\ud800", "x" * 1_000_000, "a"])

    assert is_set(found.bitmap, 0)
    assert len(found.unknown) == 2
    assert max(map(len, found.unknown)) < 5000


def test_many_ids_go_through_a_file_that_vanishes() -> None:
    """Nothing is mixed up among 200 000 ids, which are in a file that has no name any more."""
    count = 200_000
    files: set[str] = set()

    def every_other() -> Iterator[str]:
        for number in range(0, count, 2):
            yield f"q{number}"
        files.update(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())

    found = positions_answered(((f"q{number}", number) for number in range(count)), every_other())

    assert found[:3] == (bytearray([0b10101010]) * (count // 8), [], 0)
    assert any("/etilqs_" in name and name.endswith("(deleted)") for name in files)


def test_equal_ids_are_found_among_many() -> None:
    """The valid question keeps the id, wherever it stands; the others are told whose it is."""
    with id_table() as table:
        ids = DuplicateFinder(table)
        ids.add("b", 0, 1, invalid=True)
        for index in range(1, 10_000):
            ids.add(f"q{index}", index, index + 1, invalid=False)
        ids.add("q5", 10_000, 10_001, invalid=False)
        ids.add("b", 10_001, 10_002, invalid=False)

        found = {(duplicate.index, duplicate.invalid, duplicate.keeper_line) for duplicate in ids.duplicates()}

    assert found == {(10_000, False, 6), (0, True, 10_002)}


def test_a_full_disk_says_what_to_do() -> None:
    """The message names the variable that moves the temporary file elsewhere."""

    def fill() -> None:
        with id_table() as table:
            table._database.execute("PRAGMA max_page_count = 10")
            for number in range(10_000):
                table.add(f"q{number}", 0, number)

    with pytest.raises(
        UsageError,
        match=r"cannot keep ids in a temporary file \(database or disk is full\); free some space, or set TMPDIR",
    ):
        fill()
