"""What callers may ask, and how it becomes the questions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import orjson
from msgspec.structs import replace

from producer.questions.entries import too_long
from producer.questions.question_parser import Invalid, ParsedQuestion, QuestionParser, invalid_id
from wire.vector_parameters import POOLING_PARAMETERS


@dataclass(frozen=True, slots=True)
class Question:
    """One question, with what goes along with it.

    Attributes:
        prompt: Text, asked as it stands; None if something else is asked.
        messages: Chat messages in OpenAI's form.
        input: A text, or several, for which vectors are wanted.
        task: `embed` or `classify`: what is wanted of `input`.
        query, documents: A text, and those that are to be scored by how well they fit it.
        id: Yours, unique in its run; None for one derived from content and position.
        model: The model that is to answer; None for the fleet's.
        params: Sampling parameters under OpenAI's names, or vLLM's.
        priority: 0 to 9; higher goes first.
        deadline_s: Seconds from submission after which nobody wants the answer.
        metadata: Comes back with the answer, untouched.
    """

    prompt: str | None = None
    messages: Sequence[Mapping[str, Any]] | None = None
    id: str | None = None
    model: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    deadline_s: float | None = None
    metadata: Mapping[str, Any] | None = None
    input: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | None = None
    task: str | None = None
    query: str | None = None
    documents: Sequence[str] | None = None


QuestionLike = str | Mapping[str, Any] | Question | ParsedQuestion
"""A prompt, the fields of a line of a questions file (`docs/records.md`), a `Question`, or one that was checked."""

_ASKER = QuestionParser()
_FIELDS = tuple(field.name for field in fields(Question))


def as_asked(question: QuestionLike, index: int, params: Mapping[str, Any], max_bytes: int) -> ParsedQuestion | Invalid:
    """Check one question.

    Args:
        question: Anything of `QuestionLike`.
        index: Its position in the run, from 0.
        params: For parameters that it does not bring.
        max_bytes: A longer one is not carried.

    Raises:
        TypeError: It is nothing that can be asked. That is a mistake of the program, not of the question.
    """
    if isinstance(question, ParsedQuestion):
        return replace(question, index=index, line=index + 1)
    given = _fields_of(question)
    if params:
        _add_params(given, params)
    try:
        raw = orjson.dumps(given)
    except TypeError as error:
        return Invalid(
            index,
            index + 1,
            invalid_id(index + 1),
            f"it cannot be written as JSON ({error}); give texts, numbers, lists and dicts",
        )
    if len(raw) > max_bytes:
        return Invalid(index, index + 1, invalid_id(index + 1), too_long(len(raw), max_bytes).reason)
    return _ASKER.ask(raw, index, index + 1)


def names_model(question: QuestionLike) -> bool:
    """Whether a question says which model is to answer it."""
    if isinstance(question, Mapping):
        body = question.get("body")
        return bool(question.get("model") or (isinstance(body, Mapping) and body.get("model")))
    return isinstance(question, Question | ParsedQuestion) and bool(question.model)


def _fields_of(question: str | Mapping[str, Any] | Question) -> dict[str, Any]:
    if isinstance(question, str):
        return {"prompt": question}
    if isinstance(question, Question):
        return {name: value for name in _FIELDS if (value := getattr(question, name)) is not None}
    if isinstance(question, Mapping):
        return dict(question)
    raise TypeError(f"a question is a str, a dict or a batchfleet.Question, not {type(question).__name__}")


def _add_params(fields: dict[str, Any], params: Mapping[str, Any]) -> None:
    # A line of an OpenAI batch file has its parameters in the body.
    body = fields.get("body")
    if not {"input", "documents"}.isdisjoint(body if isinstance(body, Mapping) else fields):
        # What a sampler uses is nothing to vectors.
        params = {name: value for name, value in params.items() if name in POOLING_PARAMETERS}
    place = "body" if isinstance(fields.get("body"), Mapping) else "params"
    own = fields.get(place)
    if own is None or isinstance(own, Mapping):
        fields[place] = {**params, **(own or {})}
