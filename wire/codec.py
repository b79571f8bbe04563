"""Messages to bytes and back. Decoding trusts nothing: any bytes give a valid message or MalformedMessageError.

Only msgpack is spoken. A message is a map of the fields that differ from their defaults, and always of `v`, the wire
version. Nothing that is read is ever imported, looked up by name or executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import msgpack
import msgspec

from wire.errors import MalformedMessageError, NewerMessageError, QueueDamagedError
from wire.messages import WIRE_VERSION, Answer, Failure, Question

BATCH_FUNCTION = "gpu_worker.answer_batch"
"""The one function name that a batch job may carry. It is compared, never looked up: no such function has to exist."""

OLDEST_WIRE_VERSION = 1
NEWEST_CREDIBLE_VERSION = 999
BATCH_WIRE_VERSION = 1
"""The wire version in which the payload of a batch job last changed.

That of the questions in it is theirs: a newer batcher serves older workers.
"""
NUMBER = re.compile(rb"-?[0-9]{1,15}")
"""What Redis may hold as a count.

Python reads numbers of any length, slowly, and refuses those beyond 4 300 digits with an error of its own.
"""
MAX_BATCH_QUESTIONS = 65_536
"""What is larger was not made by a batcher (limits of batch_size)."""


REASON_CHARS = 300
MOST_LEVELS = 200
"""Of lists and objects within each other; a JSON writer has its own limit, not far beyond."""

MAX_INTEGER = 2**63 - 1

_ENCODER = msgspec.msgpack.Encoder()
_QUESTION: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_RECORD: msgspec.msgpack.Decoder[Answer | Failure] = msgspec.msgpack.Decoder(Answer | Failure)
_UNREADABLE = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, MemoryError)
_PLAIN = frozenset({str, int, float, bool, type(None)})
_VERSION_FIELD = b"\xa1v"


def encode_question(question: Question) -> bytes:
    return _ENCODER.encode(question)


def decode_question(data: bytes) -> Question:
    """Read a question.

    Raises:
        NewerMessageError: Its wire version is newer than ours.
        MalformedMessageError: It is not one, or its wire version is no longer spoken.
    """
    try:
        question = _QUESTION.decode(data)
        _ensure_json(question.params, question.metadata, question.messages)
    except _UNREADABLE as error:
        _refuse(data, "question", error)
    _ensure_version(data, question.v, "question")
    return question


@dataclass(frozen=True, slots=True)
class Identity:
    """Which question it is, without its content."""

    run: str
    epoch: str
    index: int
    request_id: str


def identify_question(data: bytes) -> Identity | None:
    """Which question it is that otherwise cannot be read; None if not even that can.

    Fields that we do not know, wrong values of others, and any wire version are passed over: its producer is to hear
    that it failed.
    """
    try:
        fields = _unpack(data, "question")
        named = (
            {name: fields[name] for name in Identity.__slots__ if name in fields} if isinstance(fields, dict) else {}
        )
        question = msgspec.convert({**named, "model": "?", "prompt": "", "submitted_at": 0.0}, Question)
    except (MalformedMessageError, msgspec.ValidationError):
        return None
    return Identity(question.run, question.epoch, question.index, question.request_id)


def whole_number(text: bytes | None) -> int:
    """A count as Redis stores it; 0 for anything that is not a count."""
    return max(0, int(text)) if text and NUMBER.fullmatch(text) else 0


def damaged_run(run: str) -> QueueDamagedError:
    """To be raised where what Redis has of a run is not what a fleet wrote."""
    words = "are damaged; the leading batcher puts them among the dead letters (`batchfleet dead list`)"
    return QueueDamagedError(f"the counts of run {run} {words}")


def run_counts(run: str, counts: Iterable[bytes | int | None]) -> list[int]:
    """Counts of a run as Redis has them; -1 stands for a number of questions that is not known yet.

    Raises:
        QueueDamagedError: One is not a count.
    """
    found = [
        count if isinstance(count, int) else int(count) if count and NUMBER.fullmatch(count) else None
        for count in counts
    ]
    if None in found:
        raise damaged_run(run)
    return [count for count in found if count is not None]


def encode_record(record: Answer | Failure) -> bytes:
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> Answer | Failure:
    """Read a terminal record.

    Raises:
        NewerMessageError: Its wire version is newer than ours.
        MalformedMessageError: It is not one, or its wire version is no longer spoken.
    """
    try:
        record = _RECORD.decode(data)
        if isinstance(record, Answer):
            _ensure_json(record.params, record.metadata, record.details, record.tool_calls)
        else:
            _ensure_json(record.error.evidence, record.metadata)
    except _UNREADABLE as error:
        _refuse(data, "record", error)
    _ensure_version(data, record.v, "record")
    return record


def encode_readable(record: Answer | Failure) -> bytes:
    """As `encode_record`, of a record that somebody else's data are in.

    Raises:
        MalformedMessageError: Its producer could not read it: half a surrogate pair is in a text, for instance.
    """
    try:
        data = _ENCODER.encode(record)
        decode_record(data)
    except (MalformedMessageError, *_UNREADABLE) as error:
        reason = f"{type(error).__name__}: {str(error)[:REASON_CHARS]}"
        raise MalformedMessageError(reason) from None
    return data


def sendable(value: Any) -> Any:  # noqa: ANN401 (any JSON)
    """The same JSON without what msgpack or UTF-8 cannot hold.

    Half a surrogate pair becomes U+FFFD, an integer beyond 64 bits a float.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {sendable(name): sendable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [sendable(item) for item in value]
    return float(value) if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER else value


def encode_batch(questions: Sequence[bytes]) -> bytes:
    """Write the payload of a batch job from encoded questions, which are not decoded.

    The outer shape, (function, instance, args, kwargs), is RQ's; `rq` tools can show such a job.
    """
    return pack((BATCH_FUNCTION, None, (BATCH_WIRE_VERSION, questions), {}))


def decode_batch(data: bytes) -> list[bytes]:
    """Read the payload of a batch job; the questions in it stay encoded, so that one bad question harms only itself.

    Raises:
        NewerMessageError: Its wire version is newer than ours.
        MalformedMessageError: It is not a batch of ours: foreign, truncated, or of a version that nobody speaks any
            more.
    """
    job = _unpack(data, "batch")
    match job:
        case [str(name), None, [int(version), list(questions)], dict(kwargs)] if name == BATCH_FUNCTION and not kwargs:
            _check_version(version, "batch")
            if len(questions) > MAX_BATCH_QUESTIONS:
                raise MalformedMessageError(
                    f"malformed batch: {len(questions)} questions; {MAX_BATCH_QUESTIONS} are the most"
                )
            if not questions or not all(isinstance(question, bytes) for question in questions):
                raise MalformedMessageError("malformed batch: it must hold one or more encoded questions")
            return questions
        case [str(name), *_] if name != BATCH_FUNCTION:
            raise MalformedMessageError(
                f"foreign job: it names the function {name[:100]!r}, and only {BATCH_FUNCTION!r} may run"
            )
    raise MalformedMessageError("malformed batch: it does not have the shape of a batch job")


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


def _ensure_json(*values: object) -> None:
    """Msgpack can hold what JSON cannot: bytes, times, keys that are not text. Raises ValueError for these."""
    if not _are_json(values, MOST_LEVELS):
        raise ValueError("a value that is not JSON, or nested too deeply")


def _are_json(values: Iterable[object], levels: int) -> bool:
    for value in values:
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is dict:
            for name in value:  # type: ignore[attr-defined]  # it is a dict
                if type(name) is not str:
                    return False
            value = value.values()  # type: ignore[attr-defined]  # noqa: PLW2901 (what is in it)
        elif kind is not list:
            return False
        if not levels or not _are_json(value, levels - 1):  # type: ignore[arg-type]  # a list, or the values of a dict
            return False
    return True


def _ensure_version(data: bytes, version: int, what: str) -> None:
    # A message without one would pass for one of ours.
    if version == WIRE_VERSION and _VERSION_FIELD in data:
        return
    _check_version(version if _VERSION_FIELD in data else None, what)


def _unpack(data: bytes, what: str) -> Any:  # noqa: ANN401 (anything can come out of bytes; callers check)
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=True, use_list=True)
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.exceptions.UnpackException) as error:
        raise MalformedMessageError(f"malformed {what}: not msgpack ({type(error).__name__}: {error})") from None


def _check_version(version: object, what: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise MalformedMessageError(f"malformed {what}: no wire version")
    if OLDEST_WIRE_VERSION <= version <= WIRE_VERSION:
        return
    msg = f"{what} of wire version {version}; this program speaks {OLDEST_WIRE_VERSION} to {WIRE_VERSION}"
    # A number that no release will ever reach is a stranger's.
    if WIRE_VERSION < version <= NEWEST_CREDIBLE_VERSION:
        msg += ": upgrade it"
        raise NewerMessageError(msg, version)
    raise MalformedMessageError(msg)


def _refuse(data: bytes, what: str, error: Exception) -> NoReturn:
    """Say why bytes are not a message.

    First whether they are msgpack, then whether of our version, then the rest.
    """
    fields = _unpack(data, what)
    if not isinstance(fields, dict):
        raise MalformedMessageError(f"malformed {what}: a map was expected, found {type(fields).__name__}") from None
    _check_version(fields.get("v"), what)
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:REASON_CHARS]
    raise MalformedMessageError(f"malformed {what}: {reason}") from None
