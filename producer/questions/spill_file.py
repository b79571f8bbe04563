"""Records sorted into partitions: in memory while they are few, in temporary files when they are many."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from wire.errors import UsageError

PARTITIONS = 256

_BLOCK_BYTES = 16 * 1024
_LENGTH = struct.Struct("<I")


class Spill:
    """256 sequences of records, each record some bytes. Used in a `with` statement, which removes the temporary files.

    A file consists of blocks, each behind its length, so that a reader gets whole records without knowing how long they are. Memory: at most
    4 MiB (256 times 16 KiB), whatever is put in.
    """

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(PARTITIONS)]
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder:
            self._folder.cleanup()

    def append(self, partition: int, record: bytes) -> None:
        """Add a record.

        Raises:
            UsageError: There is no room for temporary files.
        """
        buffer = self._buffers[partition]
        buffer += record
        if len(buffer) >= _BLOCK_BYTES:
            self._write_out(partition)

    def blocks(self, partition: int) -> Iterator[bytes]:
        """All records of a partition, in the order in which they came, a few at a time."""
        if self._folder and (path := Path(self._folder.name) / str(partition)).exists():
            with path.open("rb") as file:
                while length := file.read(_LENGTH.size):
                    yield file.read(_LENGTH.unpack(length)[0])
        yield bytes(self._buffers[partition])

    def _write_out(self, partition: int) -> None:
        block = self._buffers[partition]
        try:
            if not self._folder:
                self._folder = tempfile.TemporaryDirectory(prefix="batchfleet-ids-")
            # Opened for each write: 256 open files are too many for some limits on them.
            with (Path(self._folder.name) / str(partition)).open("ab") as file:
                file.write(_LENGTH.pack(len(block)) + block)
        except OSError as error:
            msg = f"cannot keep the ids in a temporary file ({error.strerror}); free some space, or set TMPDIR to a folder that has some"
            raise UsageError(msg) from None
        block.clear()
