"""Messages survive the wire, and anything else is refused."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.codec import (
    BATCH_FUNCTION,
    decode_batch,
    decode_question,
    decode_record,
    encode_batch,
    encode_question,
    encode_record,
)
from wire.errors import MalformedMessageError, NewerMessageError
from wire.messages import WIRE_VERSION, Answer, ErrorDetail, Failure, Question, Usage

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | text
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)
objects = st.dictionaries(text, json_values, max_size=4)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
seconds = st.floats(0, 1e10)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Any question."""
    content: dict[str, Any] = draw(
        st.fixed_dictionaries({"prompt": text}) | st.fixed_dictionaries({"messages": st.lists(objects, max_size=3)})
    )
    return Question(
        run="run-1",
        index=draw(st.integers(0, 10**7)),
        request_id=draw(names),
        model=draw(names),
        params=draw(objects),
        priority=draw(st.integers(0, 9)),
        deadline=draw(st.none() | seconds),
        metadata=draw(st.none() | objects),
        submitted_at=draw(seconds),
        **content,
    )


common = {
    "run": st.just("run-1"),
    "index": st.integers(0, 10**7),
    "request_id": names,
    "worker": st.none() | names,
    "attempts": st.integers(0, 9),
    "latency_s": st.none() | seconds,
    "metadata": st.none() | objects,
}
counts = st.builds(Usage, prompt_tokens=st.integers(0, 10**6), completion_tokens=st.integers(0, 10**6))
answers = st.builds(
    Answer, **common, text=text, texts=st.none() | st.lists(text, max_size=3), finish_reason=names, usage=counts,
    model=names, params=objects, details=st.none() | objects,
)  # fmt: skip
details = st.builds(ErrorDetail, kind=names, message=text, retryable=st.booleans(), evidence=st.none() | objects)
failures = st.builds(Failure, **common, error=details)


@given(questions())
def test_a_question_survives_the_wire(question: Question) -> None:
    """Every field, whatever it holds."""
    assert decode_question(encode_question(question)) == question


@given(answers | failures)
def test_a_record_survives_the_wire(record: Answer | Failure) -> None:
    """An answer stays an answer, a failure a failure."""
    assert decode_record(encode_record(record)) == record


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20))
def test_a_batch_survives_the_wire_and_its_questions_stay_closed(encoded: list[bytes]) -> None:
    """What is in a batch is not looked into, so that one bad question harms only itself."""
    assert decode_batch(encode_batch(encoded)) == encoded


@given(st.binary(max_size=300) | json_values.map(msgpack.packb) | json_values.map(pickle.dumps))
def test_any_bytes_either_decode_or_are_refused(data: bytes) -> None:
    """No other exception comes out of the codec."""
    for decode in (decode_question, decode_record, decode_batch):
        with contextlib.suppress(MalformedMessageError):
            decode(data)


@given(questions(), st.data())
def test_a_cut_or_changed_question_either_decodes_or_is_refused(question: Question, data: st.DataObject) -> None:
    """One flipped byte or a missing end never raises anything else."""
    encoded = bytearray(encode_question(question))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(encoded), bytes(encoded[:place])):
        with contextlib.suppress(MalformedMessageError):
            decode_question(damaged)


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        [b""],
        {"a": {"b": b""}},
        {1: "a key that is no text"},
        msgpack.Timestamp(1, 0),
        msgpack.ExtType(5, b"x"),
        json.loads("[" * 300 + "]" * 300),
    ],
)
@pytest.mark.parametrize("place", ["params", "metadata"])
def test_what_json_cannot_hold_is_refused(place: str, value: object) -> None:
    """Msgpack can; but then the line of the answer could not be written."""
    fields = {
        "run": "r",
        "index": 0,
        "request_id": "q",
        "model": "m",
        "prompt": "p",
        "submitted_at": 0.0,
        "v": 1,
        place: {"x": value},
    }

    with pytest.raises(MalformedMessageError):
        decode_question(msgpack.packb(fields))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run", "r\n"),
        ("run", "a b"),
        ("index", -1),
        ("index", True),
        ("index", 1.0),
        ("request_id", ""),
        ("priority", 10),
        ("deadline", "soon"),
        ("deadline", math.nan),
        ("submitted_at", math.inf),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(name: str, value: object) -> None:
    """Nothing is converted, and nothing is cut to fit."""
    fields = {
        "run": "r",
        "index": 0,
        "request_id": "q",
        "model": "m",
        "prompt": "p",
        "submitted_at": 0.0,
        "v": 1,
        name: value,
    }

    with pytest.raises(MalformedMessageError, match=name):
        decode_question(msgpack.packb(fields))


def test_a_message_without_a_version_is_refused() -> None:
    """It is nobody's."""
    with pytest.raises(MalformedMessageError, match="version"):
        decode_question(
            msgpack.packb({"run": "r", "index": 0, "request_id": "q", "model": "m", "prompt": "p", "submitted_at": 0.0})
        )


@pytest.mark.parametrize("version", [0, -1, 10**6, None, "1", True, 1.0])
def test_what_no_program_speaks_is_refused_by_name(version: object) -> None:
    """It goes to the dead letters, not to wait for a program that will never come."""
    fields = {"run": "r", "index": 0, "request_id": "q", "model": "m", "prompt": "p", "submitted_at": 0.0, "v": version}

    with pytest.raises(MalformedMessageError, match="version") as refused:
        decode_question(msgpack.packb(fields))
    assert not isinstance(refused.value, NewerMessageError)


def test_a_message_of_the_next_version_is_told_from_a_broken_one() -> None:
    """A future program's question, record or batch is not guessed at, whatever else is in it."""
    later = WIRE_VERSION + 1
    for decode, data in (
        (decode_question, {"v": later, "new": "field"}),
        (decode_record, {"v": later, "new": "field"}),
        (decode_batch, [BATCH_FUNCTION, None, [later, [b"q"]], {}]),
    ):
        with pytest.raises(NewerMessageError, match="upgrade it") as refused:
            decode(msgpack.packb(data))
        assert refused.value.version == later


@given(questions())
def test_a_message_keeps_its_version(question: Question) -> None:
    """It is always sent, so that a change of the default changes no message that is on its way."""
    assert msgpack.unpackb(encode_question(question))["v"] == question.v


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.run", "gpu_worker.answer_batch2", ""])
def test_a_job_that_names_another_function_is_refused(name: str) -> None:
    """The name is compared, never looked up, whatever it is to be called with: even what our own could be."""
    for arguments in (["echo pwned"], [WIRE_VERSION, [b"q"]]):
        with pytest.raises(MalformedMessageError):
            decode_batch(msgpack.packb([name, None, arguments, {}]))


@pytest.mark.parametrize(
    "job",
    [
        [BATCH_FUNCTION, None, [1, []], {}],
        [BATCH_FUNCTION, None, [1, ["text"]], {}],
        [BATCH_FUNCTION, "instance", [1, [b"q"]], {}],
        [BATCH_FUNCTION, None, [1, [b"q"]], {"k": 1}],
        [BATCH_FUNCTION, None, [0, [b"q"]], {}],
        {"not": "a job"},
    ],
)
def test_a_job_of_another_shape_is_refused(job: object) -> None:
    """Empty batches, instances and keyword arguments have no meaning here."""
    with pytest.raises(MalformedMessageError):
        decode_batch(msgpack.packb(job))


@pytest.mark.parametrize("both", [{}, {"prompt": "p", "messages": [{"role": "user", "content": "p"}]}])
def test_a_question_asks_exactly_one_thing(both: dict[str, object]) -> None:
    """Neither prompt nor messages, or both, is no question."""
    with pytest.raises(MalformedMessageError):
        decode_question(
            msgpack.packb(
                {"run": "r", "index": 0, "request_id": "q", "model": "m", "submitted_at": 0.0, "v": 1, **both}
            )
        )
