"""`--update` with `--samples`, `--share-identical` and `--cache`: whatever comes before, the end is the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import orjson
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from batchfleet.runs.run_request import RunRequest
from batchfleet.runs.signals import Interruption
from batchfleet.runs.update import update
from producer.answers.answers_file import AnswersFile
from producer.options import ProducerOptions, ReadingLimits
from producer.questions.duplicates import is_set
from producer.questions.question_file import check_questions, read_checked
from producer.questions.question_parser import ParsedQuestion
from producer.questions.row_keys import KeyTaker, RowKeys
from producer.questions.samples import Samples
from producer.questions.sources import Source
from producer.resume import FileRun, take_stock
from producer.reuse.cache import AnswerCache
from producer.reuse.identical import IdenticalQuestions, Identity
from tests.builders import an_answer
from wire.messages import JsonObject

Row = dict[str, Any]
SAMPLING: JsonObject = {"temperature": 0.0}
_rows = st.lists(
    st.fixed_dictionaries({"question": st.sampled_from("abc"), "params": st.sampled_from(({}, {"max_tokens": 5}))}),
    min_size=1,
    max_size=5,
).map(lambda rows: [{"id": f"q{number}", **row} for number, row in enumerate(rows)])
_steps = st.tuples(_rows, st.integers(0, 3), st.booleans(), st.booleans(), st.integers(0, 6))


def a_run(folder: Path, rows: list[Row], samples: int) -> FileRun:
    """What `prepare` makes of a file and `--samples`."""
    path, limits, keys = folder / "questions.jsonl", ReadingLimits(), RowKeys.new()
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    source = Source((path,), samples=Samples(samples))
    checked = check_questions(source, limits, note=KeyTaker(keys, "stub", SAMPLING, ""))
    keys.flush()
    made_of = {"questions": checked.fingerprint, "count": str(checked.rows), "samples": str(samples)}
    return FileRun(f"run-{checked.fingerprint}-{samples}", source, checked, limits, "stub", made_of, keys=keys)


def carry_out(what: FileRun, folder: Path, *, shares: bool, caches: bool, most: int, to: str = "answers.jsonl") -> int:
    """Update, take over, ask up to `most` of what is left; returns how many were asked."""
    path = folder / to
    with ExitStack() as open_things:
        answers = open_things.enter_context(AnswersFile(path))
        asking = RunRequest((), path, quiet=True, updates=True)
        update(what, answers, asking, Interruption(), ProducerOptions(), None, nullcontext())
        stock = take_stock(what, answers)
        identical = None
        if shares:
            cache = open_things.enter_context(AnswerCache(folder / "cache", 1 << 20)) if caches else None
            identical = open_things.enter_context(IdenticalQuestions(what, Identity("stub", SAMPLING), cache))
            identical.take_over(stock, answers)
        asked = 0
        for one in read_checked(what.questions, what.reading, what.checked):
            assert isinstance(one, ParsedQuestion)
            if asked == most or is_set(stock.written, one.index) or (identical and identical.waits(one.index)):
                continue
            asked += 1
            text = f"{one.prompt} {sorted(one.params.items())}"
            records = [an_answer(one.request_id, index=one.index, text=text)]
            answers.write(identical.with_shared(records) if identical else records)
    return asked


def texts_of(path: Path) -> dict[str, str]:
    """Each line's, by its id, which is there once."""
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert max(Counter(line["id"] for line in lines).values()) == 1
    return {line["id"]: line["text"] for line in lines}


# Without shrinking, which would take minutes: the steps are few and short as they are.
@settings(max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(_steps, min_size=1, max_size=4))
def test_edits_samples_and_shared_answers_end_as_a_fresh_run(
    steps: list[tuple[list[Row], int, bool, bool, int]],
) -> None:
    """Each sample of each row has its own answer once, whoever's it shares; a complete file asks nothing more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rows, samples, shares, caches, most in [*steps, (*steps[-1][:4], 99)]:
            what = a_run(folder, rows, samples)
            carry_out(what, folder, shares=shares, caches=caches, most=most)
        assert carry_out(what, folder, shares=shares, caches=caches, most=99) == 0
        carry_out(what, folder, shares=False, caches=False, most=99, to="fresh.jsonl")
        assert texts_of(folder / "answers.jsonl") == texts_of(folder / "fresh.jsonl")
