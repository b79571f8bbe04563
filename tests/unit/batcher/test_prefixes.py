"""Questions that begin alike ride together; nobody is lost, starved or robbed of a turn by that."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcher.fair_queue import MOST_TOGETHER, FairQueue
from batcher.options import BatcherOptions, BatchLimits
from batcher.packing import (
    FEWEST_WAITING,
    GATHERING_LOOK_S,
    GATHERING_QUESTIONS,
    Demand,
    Waiting,
    pack,
    plan,
    while_gathering,
)
from batcher.prefixes import LENGTHS, Prefix, prefix_of, shared, together
from tests.builders import a_question
from wire.codec import encode_question

PREFIXES = st.lists(st.integers(0, 2), max_size=3).map(
    lambda words: tuple(hash(tuple(words[: length + 1])) for length in range(len(words)))
)
"""Beginnings of up to three lengths: each says what all before it were, as a hash of the text does."""
MANY = st.lists(PREFIXES, max_size=60)


def waiting(prefixes: Iterable[Prefix], run: bytes = b"a") -> list[Waiting]:
    """One question for each, in order of arrival."""
    return [Waiting(f"{number}-0".encode(), b"x", 0.0, run, prefix) for number, prefix in enumerate(prefixes)]


def documents(count: int, each: int, seed: int = 1) -> list[Waiting]:
    """Shuffled questions, so many to each document; all have the same instructions before it."""
    prefixes = [(0, document) for document in range(1, count + 1)] * each
    random.Random(seed).shuffle(prefixes)  # noqa: S311 (not for secrets)
    return waiting(prefixes)


def a_line(questions: Iterable[Waiting]) -> FairQueue:
    """Holding these."""
    line = FairQueue()
    for question in questions:
        line.append(question)
    return line


@given(MANY)
def test_what_begins_alike_stands_side_by_side(prefixes: list[Prefix]) -> None:
    """At every length that texts share; and everybody stands behind who came earlier, within a group and without."""
    questions = waiting(prefixes)

    ordered = together(questions)

    assert sorted(ordered, key=questions.index) == questions
    for level in range(3):
        groups = [
            mark
            for mark, _ in groupby(
                one.prefix[: level + 1] if len(one.prefix) > level else one.entry_id for one in ordered
            )
        ]
        assert len(groups) == len(set(groups))
        firsts = [
            questions.index(next(group)) for _, group in groupby(ordered, lambda one: one.prefix[:1] or one.entry_id)
        ]
        assert firsts == sorted(firsts)


@given(MANY, st.integers(1, 12))
def test_batches_end_between_groups_and_are_at_least_half_full(prefixes: list[Prefix], most: int) -> None:
    """Order and number stay; nothing that shares nothing is cut off."""
    questions = together(waiting(prefixes))

    batches = pack(questions, BatchLimits(most))

    assert [question for batch in batches for question in batch] == questions
    in_common = [shared(one.prefix, other.prefix) for one, other in pairwise(questions)]
    start = 0
    for batch in batches[:-1]:
        assert most - most // 2 <= len(batch) <= most
        seams = in_common[start + most - most // 2 - 1 : start + most]
        start += len(batch)
        # The latest of those where neighbours have least in common.
        assert len(batch) == most - seams[::-1].index(min(seams))


@pytest.mark.parametrize("chat", [False, True])
def test_a_prefix_tells_how_far_two_texts_are_alike(chat: bool) -> None:  # noqa: FBT001 (a parameter of the test)
    """In text and in messages, whatever else the questions have; short ones and unreadable bytes have none."""

    def prefix(text: str, ending: str, request_id: str) -> Prefix:
        messages = [
            {"role": "system", "content": text},
            {"role": "user", "content": [{"type": "text", "text": ending}]},
        ]
        asked = {"messages": messages, "prompt": None} if chat else {"prompt": text + ending}
        return prefix_of(encode_question(a_question(request_id, **asked)))

    one, two = prefix("ä" * 1200, "Why?" * 300, "q1"), prefix("ä" * 1200, "How?" * 300, "another")

    assert len(one) == len(two) == sum(length <= 3600 for length in LENGTHS)
    assert shared(one, two) == sum(length <= 2400 for length in LENGTHS) > 1
    assert not {*one} & {*prefix("bb" + "ä" * 1199, "Why?" * 300, "q1")}
    assert prefix("ä" * 300, "Why?", "q1") == prefix_of(b"x" * 5000) == prefix_of(b"\xc1" * 5000) == ()


def test_nobody_is_overtaken_by_a_whole_window() -> None:
    """However many more questions come to one document, the others' turn comes."""
    popular, lonely = (1,), iter(range(2, 10_000))
    long = (popular if number % 10 else (next(lonely),) for number in range(3 * MOST_TOGETHER))
    # Every third is short.
    questions = waiting(prefix if number % 3 else () for number, prefix in enumerate(long))

    places = {question.entry_id: place for place, question in enumerate(a_line(questions).front(len(questions)))}

    assert len(places) == len(questions)
    assert max(places[question.entry_id] - number for number, question in enumerate(questions)) < MOST_TOGETHER


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 3)), max_size=60), st.integers(1, 70))
def test_runs_take_turns_whatever_their_questions_share(asked: list[tuple[bytes, int]], most: int) -> None:
    """Whose turn it is does not hang on prefixes, only which question of a run takes it."""
    shares, shares_nothing = FairQueue(), FairQueue()
    for number, (run, document) in enumerate(asked):
        shares.append(Waiting(f"{number}-0".encode(), b"x", 0.0, run, (document,) if document else ()))
        shares_nothing.append(Waiting(f"{number}-0".encode(), b"x", 0.0, run))

    while shares:
        front, plain = shares.front(most), shares_nothing.front(most)
        assert [one.run for one in front] == [one.run for one in plain]
        shares.drop(front)
        shares_nothing.drop(plain)
    assert not shares_nothing


OPTIONS = BatcherOptions(limits=BatchLimits(8))


def test_few_batches_go_while_company_may_still_come() -> None:
    """What workers need at once they get; then as many as ever."""
    questions = documents(100, 8)

    one, many = Demand(workers=1, look_again_s=0.1), Demand(workers=30, look_again_s=0.1)
    early = plan(questions, *while_gathering(one, OPTIONS), now=0.0)
    later = plan(questions, one, OPTIONS, now=0.0)
    crowd = plan(questions, *while_gathering(many, OPTIONS), now=0.0)

    assert [len(decided.batches) for decided in (early, crowd, later)] == [GATHERING_QUESTIONS // 8, 60, FEWEST_WAITING]
    assert early.recheck_s == GATHERING_LOOK_S < one.look_again_s


def test_what_others_stand_behind_is_not_taken_for_an_end() -> None:
    """The last batch of those that were looked at only looks incomplete."""
    questions = waiting([()] * 20)

    assert [len(batch) for batch in plan(questions, Demand(), OPTIONS, now=9.0, more=True).batches] == [8, 8]
    assert [len(batch) for batch in plan(questions, Demand(), OPTIONS, now=9.0).batches] == [8, 8, 4]
    assert [len(batch) for batch in plan(questions[:16], Demand(), OPTIONS, now=9.0, more=True).batches] == [8]


def test_gathering_begins_with_the_first_that_has_a_prefix_and_ends_when_it_is_in_order() -> None:
    """Short questions never wait for it, nor does anything where enough is in order."""
    line = FairQueue()
    line.append(Waiting(b"0-0", b"x", 1.0, b"a"))
    assert line.gathers_since(9) is None
    line.append(Waiting(b"1-0", b"x", 2.0, b"b", (7,)))
    line.append(Waiting(b"2-0", b"x", 3.0, b"a", (7,)))
    assert line.gathers_since(9) == 2.0

    line.front(3)

    assert line.gathers_since(9) is None
    line.append(Waiting(b"3-0", b"x", 4.0, b"a", (7,)))
    assert (line.gathers_since(3), line.gathers_since(4)) == (None, 4.0)


def reads(batches: Iterable[list[Waiting]], workers: int, cached: int) -> int:
    """How often a document is read, by workers that take batches in turn and remember so many documents each."""
    caches = [OrderedDict[Prefix, None]() for _ in range(workers)]
    read = 0
    for number, batch in enumerate(batches):
        cache = caches[number % workers]
        for question in batch:
            read += question.prefix not in cache
            cache[question.prefix] = None
            cache.move_to_end(question.prefix)
            if len(cache) > cached:
                cache.popitem(last=False)
    return read


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [16, 20, 64])
def test_one_queue_gives_most_of_what_a_cache_can_give(workers: int, batch_size: int) -> None:
    """Shuffled questions, eight to a document: hardly any is read twice, though any worker takes any batch."""
    questions, limits = documents(400, 8), BatchLimits(batch_size)
    line = a_line(questions)

    arrival = reads(
        pack([Waiting(one.entry_id, b"x", 0.0, b"a", one.prefix) for one in questions], limits), workers, 40
    )
    grouped = reads(pack(line.front(len(questions)), limits), workers, 40)

    assert grouped <= 1.02 * 400
    assert arrival > 6 * 400
