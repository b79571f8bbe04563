"""Messages to bytes and back. Decoding believes nothing: any bytes give a valid message or MalformedMessageError.

Only msgpack is spoken. A message is a map of the fields that differ from their defaults, and always of `v`, the wire version. Nothing that is read is
ever imported, looked up by name or executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgpack
from pydantic import ValidationError

from wire.errors import MalformedMessageError, NewerMessageError
from wire.messages import QUESTION, TERMINAL_RECORD, WIRE_VERSION, Answer, Failure, Message, Question

BATCH_FUNCTION = "gpu_worker.answer_batch"
"""The one function name that a batch job may carry. It is compared, never looked up: no such function has to exist."""

OLDEST_WIRE_VERSION = 1
NEWEST_CREDIBLE_VERSION = 999
BATCH_WIRE_VERSION = 1
"""The wire version in which the payload of a batch job last changed. That of the questions in it is theirs: a newer batcher serves older workers."""


def _defaults(kind: type[Message]) -> dict[str, Any]:
    """What need not be sent. The version always is, and the status of a record: it tells them apart."""
    optional = {name: field for name, field in kind.model_fields.items() if not field.is_required() and name not in {"status", "v"}}
    return {name: field.get_default(call_default_factory=True) for name, field in optional.items()}


_DEFAULTS: dict[type[Message], dict[str, Any]] = {kind: _defaults(kind) for kind in (Question, Answer, Failure)}


def encode_question(question: Question) -> bytes:
    return _encode(question)


def decode_question(data: bytes) -> Question:
    """Read a question.

    Raises:
        NewerMessageError: It is of a wire version to come.
        MalformedMessageError: It is not one, or of a wire version that nobody speaks any more.
    """
    fields = _decode_map(data, "question")
    try:
        return QUESTION.validate_python(fields)
    except (ValidationError, RecursionError) as error:
        _refuse("question", error)


def encode_record(record: Answer | Failure) -> bytes:
    return _encode(record)


def decode_record(data: bytes) -> Answer | Failure:
    """Read a terminal record.

    Raises:
        NewerMessageError: It is of a wire version to come.
        MalformedMessageError: It is not one, or of a wire version that nobody speaks any more.
    """
    fields = _decode_map(data, "record")
    try:
        return TERMINAL_RECORD.validate_python(fields)
    except (ValidationError, RecursionError) as error:
        _refuse("record", error)


def encode_batch(questions: Sequence[bytes]) -> bytes:
    """Write the payload of a batch job from encoded questions, which are not looked into.

    The outer shape, (function, instance, args, kwargs), is RQ's; `rq` tools can show such a job.
    """
    return pack((BATCH_FUNCTION, None, (BATCH_WIRE_VERSION, questions), {}))


def decode_batch(data: bytes) -> list[bytes]:
    """Read the payload of a batch job; the questions in it stay encoded, so that one bad question harms only itself.

    Raises:
        NewerMessageError: It is of a wire version to come.
        MalformedMessageError: It is not a batch of ours: foreign, truncated, or of a version that nobody speaks any more.
    """
    job = _unpack(data, "batch")
    match job:
        case [str(name), None, [int(version), list(questions)], dict(kwargs)] if name == BATCH_FUNCTION and not kwargs:
            _check_version(version, "batch")
            if not questions or not all(isinstance(question, bytes) for question in questions):
                msg = "malformed batch: it must hold one or more encoded questions"
                raise MalformedMessageError(msg)
            return questions
        case [str(name), *_] if name != BATCH_FUNCTION:
            msg = f"foreign job: it names the function {name[:100]!r}, and only {BATCH_FUNCTION!r} may run"
            raise MalformedMessageError(msg)
    msg = "malformed batch: it does not have the shape of a batch job"
    raise MalformedMessageError(msg)


class BatchSerializer:
    """What RQ is given as serializer, so that nothing of it ever uses pickle."""

    @staticmethod
    def dumps(value: object) -> bytes:
        return pack(value)

    @staticmethod
    def loads(data: bytes) -> Any:  # noqa: ANN401 (RQ's serializer protocol is untyped)
        return _unpack(data, "value")


def pack(value: object) -> bytes:
    """Msgpack without extension types."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _encode(message: Message) -> bytes:
    defaults = _DEFAULTS[type(message)]
    # Not model_dump: this is a third of its time.
    fields = {name: value for name, value in vars(message).items() if name not in defaults or value != defaults[name]}
    packed: bytes = msgpack.packb(fields, use_bin_type=True, default=vars)
    return packed


def _decode_map(data: bytes, what: str) -> dict[str, Any]:
    fields = _unpack(data, what)
    if not isinstance(fields, dict):
        msg = f"malformed {what}: a map was expected, found {type(fields).__name__}"
        raise MalformedMessageError(msg)
    _check_version(fields.get("v"), what)
    return fields


def _unpack(data: bytes, what: str) -> Any:  # noqa: ANN401 (anything can come out of bytes; callers check)
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.exceptions.UnpackException) as error:
        msg = f"malformed {what}: not msgpack ({type(error).__name__}: {error})"
        raise MalformedMessageError(msg) from None


def _check_version(version: object, what: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        msg = f"malformed {what}: no wire version"
        raise MalformedMessageError(msg)
    if OLDEST_WIRE_VERSION <= version <= WIRE_VERSION:
        return
    msg = f"{what} of wire version {version}; this program speaks {OLDEST_WIRE_VERSION} to {WIRE_VERSION}"
    # A number that no release will ever reach is a stranger's.
    if WIRE_VERSION < version <= NEWEST_CREDIBLE_VERSION:
        msg += ": upgrade it"
        raise NewerMessageError(msg, version)
    raise MalformedMessageError(msg)


def _refuse(what: str, error: ValidationError | RecursionError) -> NoReturn:
    reason = "nested too deeply" if isinstance(error, RecursionError) else describe(error)
    msg = f"malformed {what}: {reason}"
    raise MalformedMessageError(msg) from None


def describe(error: ValidationError) -> str:
    """One line for the first few things that are wrong, without the values (they may be long, or secret)."""
    problems: Sequence[Mapping[str, Any]] = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(str(part) for part in p['loc']) or 'it'}: {p['msg']}" for p in problems[:3]]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return "; ".join(shown)
