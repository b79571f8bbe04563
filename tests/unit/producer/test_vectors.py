"""Questions for vectors, from a line to every format of answers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from batchfleet.client.answers import Answer as ClientAnswer
from batchfleet.client.answers import from_record
from gpu_worker.engines.engine import Refusal, packed
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.outcome import record
from producer.answers.answer_line import answer_line
from producer.answers.destination import destination
from producer.answers.exporter import export
from producer.questions.column_mapping import Shape
from producer.questions.question_parser import Invalid, ParsedQuestion, QuestionParser, canonical
from tests.builders import a_question, an_answer
from wire.clock import ServerClock
from wire.codec import decode_question, decode_record, encode_question, encode_record
from wire.messages import Answer


def asked(line: dict[str, Any], shape: Shape | None = None) -> ParsedQuestion | Invalid:
    """What becomes of a line."""
    return QuestionParser(shape=shape or Shape()).ask(json.dumps(line).encode(), 0, 1)


def batch_line(url: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401 (any JSON)
    """Of OpenAI's batch files."""
    return {"custom_id": "q", "method": "POST", "url": url, "body": {"model": "m", **body}}


WANTED: list[tuple[dict[str, Any], str, list[Any], str | None]] = [
    ({"input": "Why?"}, "embed", ["Why?"], None),
    ({"input": ["a", [5, 6]]}, "embed", ["a", [5, 6]], None),
    ({"input": [5, 6], "task": "classify"}, "classify", [[5, 6]], None),
    ({"query": "q", "documents": ["a", {"text": "b"}]}, "score", ["a", "b"], "q"),
    (batch_line("/v1/embeddings", input=["a", "b"], encoding_format="base64"), "embed", ["a", "b"], None),
    (batch_line("/classify", input="a"), "classify", ["a"], None),
    (batch_line("/v1/score", text_1="q", text_2="a"), "score", ["a"], "q"),
    (batch_line("/v1/rerank", query="q", documents=["a"], top_n=1), "score", ["a"], "q"),
]


@pytest.mark.parametrize(("line", "task", "inputs", "query"), WANTED)
def test_vectors_are_asked_for_in_every_form(
    line: dict[str, Any], task: str, inputs: list[Any], query: str | None
) -> None:
    """Our own lines and those of batch files; what is not text travels to the worker as it is."""
    question = asked(line)

    assert isinstance(question, ParsedQuestion), question
    assert (question.task, question.inputs, question.query) == (task, inputs, query)
    sent = a_question(prompt=None, task=task, inputs=inputs, query=query)
    assert decode_question(encode_question(sent)) == sent


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"input": []}, "`input` has 0 texts; 1 to 2048 are allowed, in one question"),
        ({"input": ["a", ""]}, "`input` number `2` is empty; write what should be asked"),
        (
            {"input": "a", "query": "q"},
            "it has only some of what goes together; give it `input`, or `query` and `documents`",
        ),
        (
            {"input": "a", "task": "score"},
            "it has only some of what goes together; give it `input`, or `query` and `documents`",
        ),
        ({"input": "a", "task": "sing"}, '`task` is "sing", not embed, classify or score'),
        ({"input": "a", "params": {"temperature": 0}}, "parameter 'temperature' is not for embeddings"),
        (
            {"input": "a", "params": {"dimension": 2}},
            "parameter 'dimension' is not for embeddings; did you mean 'dimensions'?",
        ),
        (
            {"input": "a", "params": {"encoding_format": "hex"}},
            "parameter 'encoding_format' must be `float` or `base64`, not \"hex\"",
        ),
        (batch_line("/v1/embeddings"), "`body` asks nothing; /v1/embeddings wants `input` in it"),
    ],
)
def test_what_cannot_be_asked_is_told(line: dict[str, Any], reason: str) -> None:
    """With the field that is wrong."""
    question = asked(line)

    assert isinstance(question, Invalid), question
    assert question.reason == reason


def test_data_of_the_same_names_stays_with_its_question() -> None:
    """A question with a known answer may have an `input` of its own: it is metadata, as before."""
    question = asked({"question": "Red?", "input": "x", "answer": "no"})

    assert isinstance(question, ParsedQuestion)
    assert (question.task, question.prompt, question.metadata) == ("generate", "Red?", {"input": "x", "answer": "no"})


def test_texts_are_embedded_where_the_configuration_says_so() -> None:
    """A column or a template is then what gets a vector; its id is that which it has without the configuration."""
    plain, embedded = asked({"question": "Red?"}), asked({"question": "Red?"}, Shape(task="embed"))

    assert isinstance(plain, ParsedQuestion)
    assert isinstance(embedded, ParsedQuestion)
    assert (embedded.task, embedded.inputs, embedded.prompt) == ("embed", ["Red?"], None)
    assert embedded.request_id == plain.request_id
    assert canonical(embedded) != canonical(plain)


async def answered(line: dict[str, Any], index: int) -> Answer:
    """The stub's record, after its way over the wire."""
    question = asked(line)
    assert isinstance(question, ParsedQuestion), question
    sent = a_question(
        f"q{index}",
        index=index,
        prompt=question.prompt,
        task=question.task,
        inputs=question.inputs,
        query=question.query,
        params=question.params,
    )
    outcome = await StubEngine(StubOptions()).answer(sent)
    assert not isinstance(outcome, Refusal), outcome
    made = decode_record(encode_record(record(sent, outcome, "stub", ServerClock(), worker="w", attempts=1)))
    assert isinstance(made, Answer)
    return made


async def test_vectors_go_through_every_format_and_back(tmp_path: Path) -> None:
    """As the very same numbers: lines, tables, OpenAI's output, and the arrays of the Python client."""
    lines: list[dict[str, Any]] = [
        {"input": "a"},
        {"input": ["a", "b"], "params": {"dimensions": 8, "encoding_format": "base64"}},
        {"query": "q", "documents": ["a", "b"]},
        {"input": ["a", "b"], "task": "classify"},
        {"prompt": "Why?"},
    ]
    records = [await answered(line, index) for index, line in enumerate(lines)]
    journal = tmp_path / "answers.jsonl"
    journal.write_bytes(b"".join(map(answer_line, records)))
    first, several, scores, classes, text = map(json.loads, journal.read_bytes().splitlines())

    assert packed(first["embedding"]) == (records[0].vectors or [b""])[0]
    assert base64.b64decode(several["embedding"]) == packed(first["embedding"])
    assert len(several["embeddings"]) == len(classes["classes"]) == len(scores["scores"]) == 2
    assert (classes["label"] in {"yes", "no"}, "text" in first, "task" in text) == (True, False, False)
    for name in ("a.csv", "a.openai.jsonl"):
        export(journal, destination(tmp_path / name), {})
        back = tmp_path / f"{name}.jsonl"
        export(tmp_path / name, destination(back), {})
        again = [json.loads(line) for line in back.read_bytes().splitlines()]
        assert again[0]["embedding"] == first["embedding"]
        assert again[1]["embeddings"] == several["embeddings"]
        assert (again[2]["scores"], again[3]["classes"]) == (scores["scores"], classes["classes"])
        assert again[4]["text"] == text["text"]
    given = from_record(records[1])
    assert isinstance(given, ClientAnswer)
    fields = given.as_dict()
    assert (fields["embeddings"], "text" in fields, "vectors" in fields) == (several["embeddings"], False, False)


def test_tables_have_vectors_of_one_size_where_they_are(tmp_path: Path) -> None:
    """Fixed-size lists of float32, or lists where sizes differ, even after a thousand rows; a column only if needed."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vectors = [an_answer(f"q{n}", index=n, text="", task="embed", vectors=[packed([n, 0.5])]) for n in range(1001)]
    longer = an_answer("longer", index=2000, text="", task="embed", vectors=[packed([1, 2, 3])])
    plain = an_answer("plain", index=3000, reasoning="hm", tool_calls=[{"id": "c"}])
    types = {}
    for name, records in {"one": [*vectors, plain], "two": [plain, *vectors, longer], "none": [plain]}.items():
        journal = tmp_path / f"{name}.jsonl"
        journal.write_bytes(b"".join(map(answer_line, records)))
        export(journal, destination(tmp_path / f"{name}.parquet"), {})
        table = parquet.read_table(tmp_path / f"{name}.parquet")
        types[name] = table.schema.field("embedding").type if "embedding" in table.column_names else None
        assert table.num_rows == len(records)
        row = table.to_pylist()[-1 if name == "one" else 0]
        assert (row["reasoning"], row["tool_calls"], row["text"]) == ("hm", '[{"id":"c"}]', "42")

    assert types == {"one": pyarrow.list_(pyarrow.float32(), 2), "two": pyarrow.list_(pyarrow.float32()), "none": None}
