"""Messages of an Arrow file or stream -> what they take unpacked, told without unpacking them.

pyarrow unpacks a batch whole, and has no way to ask how large it will be. The message says it: a flatbuffer lists the
buffers of the body, and a buffer that is compressed begins with its length when it is not.
https://arrow.apache.org/docs/format/Columnar.html#recordbatch-message and https://flatbuffers.dev/internals
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

_FILE_MARK_BYTES = 8
_HEADER, _BUFFERS, _COMPRESSION, _DICTIONARY_DATA = 2, 2, 3, 1
"""Numbers of fields, in the tables Message, RecordBatch and DictionaryBatch."""


def batch_sizes(pyarrow: Any, source: Any, *, is_file: bool) -> Iterator[tuple[int, int]]:  # noqa: ANN401 (pyarrow has no types)
    """(bytes as they are in the file, bytes unpacked) of each batch. What is damaged ends it: reading will say so."""
    source.seek(_FILE_MARK_BYTES if is_file else 0)
    try:
        for message in pyarrow.ipc.MessageReader.open_stream(source):
            if message.type in {"record batch", "dictionary"}:
                yield message.body.size, _unpacked(message)
    except (pyarrow.ArrowException, OSError, struct.error):
        return


def _unpacked(message: Any) -> int:  # noqa: ANN401
    data, body = memoryview(message.metadata), memoryview(message.body)
    header = _table(data, _field(data, _number(data, 0, "<I"), _HEADER))
    if message.type == "dictionary":
        header = _table(data, _field(data, header, _DICTIONARY_DATA))
    if _field(data, header, _COMPRESSION) is None:
        return len(body)
    buffers = _table(data, _field(data, header, _BUFFERS))
    total = 0
    for number in range(_number(data, buffers, "<I")):
        offset, length = struct.unpack_from("<qq", data, buffers + 4 + 16 * number)
        unpacked = _number(body, offset, "<q") if length else 0
        # -1: this one was not worth compressing.
        total += unpacked if unpacked >= 0 else length
    return total


def _field(data: memoryview, table: int, number: int) -> int | None:
    """Where a field of a table is; None if it has none."""
    vtable = table - _number(data, table, "<i")
    place = 4 + 2 * number
    offset = _number(data, vtable + place, "<H") if place < _number(data, vtable, "<H") else 0
    return table + offset if offset else None


def _table(data: memoryview, field: int | None) -> int:
    """Where what a field refers to begins."""
    if field is None:
        raise struct.error("no such field")
    return field + _number(data, field, "<I")


def _number(data: memoryview, place: int, form: str) -> int:
    if place < 0:
        raise struct.error("before the beginning")
    return int(struct.unpack_from(form, data, place)[0])
