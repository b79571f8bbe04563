"""From a JSON object to a question, or the reason why it is not one.

Three forms are understood: our own (`question`, `prompt` or `messages`, and what goes with it); the same with an
`answer`, as data sets with known answers have it, whose other fields travel along in the metadata; and a line of an
OpenAI batch file, which is turned into our own form first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from producer.questions.batch_line import in_own_form, unknown_field
from producer.questions.column_mapping import AS_IT_STANDS, CONTENT_FIELDS, Shape, joined
from producer.questions.fields import FIELDS, INVALID_ID_PREFIX, request_id_of
from producer.questions.json_object import UnusableError, ensure_carriable, read_object
from producer.questions.vector_questions import NOTHING, VECTOR_FIELDS, in_task, wanted_of
from wire import canonical_params
from wire.errors import ParameterError
from wire.messages import JsonObject, Task
from wire.vector_parameters import pooling_params

_DERIVED = re.compile(r"(\d{7,18})-[0-9a-f]{8}")


# A struct: making it costs a tenth of a frozen dataclass, and it is made twice of each question.
class ParsedQuestion(Struct, frozen=True, gc=False):
    """A question as its file has it.

    Attributes:
        index: Position among the questions of the file, from 0; unusable ones count, blank lines do not.
        line: Number of its line, element or row in its file, from 1.
        request_id: Its id in the file (an integer in decimal), or one derived from its row and position: the same
            whatever `--chat`, `--system` and `--template` make of the row. `reading.check_questions` tells whether it
            is unique.
        prompt: Text; None if `messages` is given.
        messages: Chat messages in OpenAI's form; None if `prompt` is given.
        model: The model that is to answer; None for whatever the run uses.
        params: Sampling parameters, not checked beyond being JSON that msgpack can carry.
        priority: 0 to 9; higher goes first. None if it brings none.
        deadline_s: Seconds from submission after which nobody wants the answer; None for never.
        metadata: To be returned untouched; with a known `answer`, that and the unknown fields beside it are in here
            too.
        file: Number of its file among those that are read, from 0.
        task: What is wanted; for anything but text there is neither prompt nor messages.
        inputs, query: As in `wire.messages.Question`.
    """

    index: int
    line: int
    request_id: str
    prompt: str | None
    messages: list[JsonObject] | None
    model: str | None
    params: JsonObject
    priority: int | None
    deadline_s: float | None
    metadata: JsonObject | None
    file: int = 0
    task: Task = "generate"
    inputs: list[Any] | None = None
    query: str | None = None


class Invalid(Struct, frozen=True, gc=False):
    """An entry of the file that cannot be asked.

    Attributes:
        index, line, file: As in `Asked`.
        request_id: Its own if that could be read, else one that `invalid_id` made.
        reason: What is wrong and what to do about it; no full stop, no place.
    """

    index: int
    line: int
    request_id: str
    reason: str
    file: int = 0


@dataclass(frozen=True, slots=True)
class QuestionParser:
    """Reads the questions of one file.

    Attributes:
        file: Its number.
        shape: How rows become questions.
        is_table: Whether the file has columns, so that its entries are rows even if the shape says nothing.
    """

    file: int = 0
    shape: Shape = AS_IT_STANDS
    is_table: bool = False

    def ask(self, raw: bytes, index: int, line: int) -> ParsedQuestion | Invalid:
        """Read one question. Any bytes give one or the other, never an exception."""
        asked = self._read(raw, index, line)
        if isinstance(asked, ParsedQuestion) and asked.request_id.startswith(_position(index)):
            # So that answers are found again without the flags that they were asked with.
            for shape in self.shape.for_ids:
                plain = QuestionParser(self.file, shape, self.is_table)._read(raw, index, line)  # noqa: SLF001 (our own)
                if isinstance(plain, ParsedQuestion):
                    return replace(asked, request_id=plain.request_id)
        return asked

    def _read(self, raw: bytes, index: int, line: int) -> ParsedQuestion | Invalid:
        fields: dict[str, Any] = {}
        try:
            fields = read_object(raw)
            if self.shape is not AS_IT_STANDS or self.is_table:
                return self._asked(self._shaped(fields), raw, index, line)
            return self._asked(in_own_form(fields), raw, index, line)
        except UnusableError as error:
            return Invalid(index, line, _id_of_invalid(fields, line, self.file), str(error), self.file)

    def _shaped(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.is_table or self.shape.maps:
            fields = self.shape.question_of(fields)
        fields = in_own_form(fields)
        return in_task(self.shape.task, fields) if self.shape.task != "generate" else self.shape.in_chat(fields)

    def _asked(self, fields: dict[str, Any], raw: bytes, index: int, line: int) -> ParsedQuestion:
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        # A question that a model is to answer in words may have data of its own under such names.
        wants_vectors = fields.keys().isdisjoint(CONTENT_FIELDS) and not fields.keys().isdisjoint(VECTOR_FIELDS)
        for name, value in fields.items():
            field = FIELDS.get(name) or (VECTOR_FIELDS.get(name) if wants_vectors else None)
            if field is None:
                extra[name] = value
            elif value is not None:
                given[name] = field.check(value, name)
        if extra:
            given["metadata"] = _metadata_with(extra, given.get("metadata"))
        content_field = None if wants_vectors else _content_field(given)
        wanted = wanted_of(given) if wants_vectors else NOTHING
        params, metadata, messages = given.get("params", {}), given.get("metadata"), given.get("messages")
        ensure_carriable((params, metadata, messages), raw)
        try:
            if wants_vectors:
                pooling_params(params, wanted[0])
            elif params:
                canonical_params.canonical(params, chat=messages is not None)
        except ParameterError as error:
            raise UnusableError(str(error)) from None
        prompt = None if content_field in {None, "messages"} else given[content_field]
        content = (
            prompt,
            messages,
            given.get("model"),
            params,
            given.get("priority"),
            given.get("deadline_s"),
            metadata,
        )
        request_id = given.get("id") or _derived_id(index, _canonical(*content, *(wanted if wants_vectors else ())))
        question = ParsedQuestion(index, line, request_id, *content, self.file, *wanted)
        return replace(question, model=None) if self.shape.ignores_models else question


def _position(index: int) -> str:
    return f"{index + 1:07d}-"


def _derived_id(index: int, content: bytes) -> str:
    return _position(index) + blake2b(content, digest_size=4).hexdigest()


def former_id(asked: ParsedQuestion) -> str | None:
    """The id that earlier versions derived, from what was asked in the form in which it was asked.

    None if the question has an id of its own.
    """
    position = position_in(asked.request_id)
    return None if position is None else _derived_id(position, canonical(asked))


def position_in(request_id: str) -> int | None:
    """The position, from 0 in all the files, of the question that an id was derived for; None if it was not derived."""
    match = _DERIVED.fullmatch(request_id)
    return int(match[1]) - 1 if match else None


def invalid_id(line: int, file: int = 0) -> str:
    """The id of an unusable question that has none of its own. No valid question can have it."""
    return f"{INVALID_ID_PREFIX}{line}-file-{file + 1}" if file else f"{INVALID_ID_PREFIX}{line}"


def size_of(asked: ParsedQuestion | Invalid) -> int:
    """Of what may be large in it, roughly, in bytes."""
    if isinstance(asked, Invalid):
        return len(asked.reason)
    large = (asked.messages, asked.params, asked.metadata, asked.inputs, asked.query)
    return len(asked.prompt or "") + len(orjson.dumps(large))


def canonical(asked: ParsedQuestion) -> bytes:
    """What is asked, without id and place: equal for two questions exactly if they ask the same in the same way."""
    vectors = () if asked.inputs is None else (asked.task, asked.inputs, asked.query)
    return _canonical(
        asked.prompt,
        asked.messages,
        asked.model,
        asked.params,
        asked.priority,
        asked.deadline_s,
        asked.metadata,
        *vectors,
    )


def _canonical(*content: object) -> bytes:
    prompt, messages, model, params, priority, *others = content
    # Ids and fingerprints are older than the difference between no priority and 0.
    return orjson.dumps([prompt, messages, model, params, priority or 0, *others], option=orjson.OPT_SORT_KEYS)


def _content_field(given: dict[str, Any]) -> str:
    found = [name for name in CONTENT_FIELDS if name in given]
    if len(found) == 1:
        return found[0]
    raise UnusableError(
        f"it has both `{found[0]}` and `{found[1]}`; keep one of them"
        if found
        else "it asks nothing; give it a `question`, `prompt` or `messages`, or for vectors an `input`"
    )


def _metadata_with(extra: dict[str, Any], metadata: JsonObject | None) -> JsonObject:
    """Take in the fields that we do not know, if the question comes with a known answer."""
    if "answer" not in extra:
        raise UnusableError(unknown_field(next(iter(extra)), FIELDS))
    return joined(extra, metadata) if metadata else extra


def _id_of_invalid(fields: dict[str, Any], line: int, file: int) -> str:
    value = fields.get("id", fields.get("custom_id"))
    try:
        return request_id_of(value, "id")
    except UnusableError:
        return invalid_id(line, file)
