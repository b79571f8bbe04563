"""A multipart form whose one file goes to disk as it comes: in constant memory, and written once."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from batchfleet.gateway.errors import ApiError, disk_full

PIECE_BYTES = 1024 * 1024
"""Written at once, in a thread: a disk may make us wait."""
MOST_FIELDS = 32
MOST_FIELD_BYTES = 64 * 1024
"""Of all fields that are no file, together."""
MOST_NAME_CHARS = 255
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(slots=True)
class Form:
    """What came.

    Attributes:
        path: Of the file's bytes, which are safe on disk; the caller's to move.
        filename: A name without a path, for people.
    """

    path: Path
    filename: str = ""
    fields: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def received(request: Request, file_field: str, path: Path, max_bytes: int) -> AsyncIterator[Form]:
    """Read a request's form; its file is written to `path`, which is removed after the block unless it was moved.

    Args:
        file_field: The name of the field that must be a file.
        max_bytes: Of the file.

    Raises:
        ApiError: It is no such form, too large, cut off, or the disk is full.
    """
    form = Form(path)
    try:
        with _writing(path) as file:
            reader = _Reader(form, file_field, file, max_bytes)
            parser = _parser(request, reader)
            async for piece in _pieces(request):
                await run_in_threadpool(_parse, parser, piece)
            await run_in_threadpool(_finish, parser, reader, file)
        yield form
    except ClientDisconnect:
        raise ApiError(400, "The client went away in the middle of the form.", code="invalid_form") from None
    except OSError as error:
        raise disk_error(error) from error
    finally:
        await run_in_threadpool(path.unlink, missing_ok=True)


def disk_error(error: OSError) -> ApiError:
    """What a client is told when the gateway cannot write."""
    if error.errno in _FULL:
        return disk_full()
    return ApiError(500, "The gateway cannot write to its disk; its log has more.", code="disk_error")


def plain_name(filename: str) -> str:
    """What is left of a client's file name: its last part, printable and short. It is shown, and never opened."""
    name = _UNPRINTABLE.sub("", re.split(r"[/\\]", filename)[-1]).strip()
    return name[-MOST_NAME_CHARS:] if name not in {"", ".", ".."} else "unnamed"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _parser(request: Request, reader: _Reader) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        msg = "Send this as multipart/form-data, with a boundary in the Content-Type header."
        raise ApiError(400, msg, code="invalid_form")
    try:
        return MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
    except FormParserError as error:
        raise ApiError(400, f"The form cannot be read: {error}", code="invalid_form") from None


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    held = bytearray()
    async for chunk in request.stream():
        held += chunk
        if len(held) >= PIECE_BYTES:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _parse(parser: MultipartParser, piece: bytes) -> None:
    try:
        parser.write(piece)
    except FormParserError as error:
        msg = f"The form cannot be read: {error}"
        raise ApiError(400, msg[:300], code="invalid_form") from None


def _finish(parser: MultipartParser, reader: _Reader, file: int) -> None:
    try:
        parser.finalize()
    except FormParserError:
        reader.is_whole = False
    if not reader.is_whole:
        msg = "The form ends before its last boundary: it was cut off on the way. Send it again."
        raise ApiError(400, msg, code="invalid_form")
    if not reader.has_file:
        msg = f"Missing required parameter: '{reader.file_field}', a file of the form."
        raise ApiError(400, msg, param=reader.file_field, code="missing_required_parameter")
    os.fsync(file)


class _Reader:
    """Takes the parts of a form as the parser finds them."""

    def __init__(self, form: Form, file_field: str, file: int, max_bytes: int) -> None:
        self.file_field = file_field
        self.is_whole = False
        self.has_file = False
        self._form = form
        self._file = file
        self._room = max_bytes
        self._max_bytes = max_bytes
        self._field_bytes = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name = ""
        self._text: bytearray | None = None

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._take,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if self._name != self.file_field:
            if len(self._form.fields) >= MOST_FIELDS:
                raise ApiError(400, f"The form has more than {MOST_FIELDS} fields.", code="invalid_form")
            self._text = bytearray()
            return
        if self.has_file:
            msg = f"The form has more than one '{self.file_field}'; send one file at a time."
            raise ApiError(400, msg, param=self.file_field, code="invalid_form")
        self.has_file, self._text = True, None
        self._form.filename = plain_name((filename or b"").decode("utf-8", "replace"))

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            self._field_bytes += end - start
            if self._field_bytes > MOST_FIELD_BYTES:
                msg = f"The fields of the form are longer than {MOST_FIELD_BYTES} bytes together."
                raise ApiError(413, msg, code="body_too_large")
            self._text += data[start:end]
            return
        self._room -= end - start
        if self._room < 0:
            msg = f"The file is too large: at most {self._max_bytes} bytes are taken."
            raise ApiError(413, msg, param=self.file_field, code="file_too_large")
        left = memoryview(data)[start:end]
        while left:
            left = left[os.write(self._file, left) :]

    def _close(self) -> None:
        if self._text is not None:
            self._form.fields[self._name] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_whole = True
