"""Standard input -> a file beside the answers, for questions are read more than once."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from producer.atomic_file import open_new
from producer.questions.compression import CHUNK_BYTES
from wire.errors import UsageError


def spool_path(answers: Path) -> Path:
    """Where the questions of an answers file are kept that came from standard input."""
    return answers.with_name(f"{answers.name}.questions")


def spool(stdin: BinaryIO, answers: Path, max_bytes: int, tick: Callable[[int], None] = lambda _: None) -> Path:
    """Read all of standard input into its file.

    `tick` is called with the bytes that have come.

    The file stays until every question has its answer: what made the questions may not make the same ones again. If it
    is there already, from an attempt that was not finished, the input has to be the same.

    Raises:
        UsageError: It is not the same; there is nothing in it, or more than `max_bytes`; or the disk is full.
    """
    kept = spool_path(answers)
    scratch = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    try:
        if not _copy(stdin, scratch, max_bytes, tick):
            raise UsageError("standard input: there are no questions in it")
        if not kept.exists():
            scratch.replace(kept)
        elif not filecmp.cmp(scratch, kept, shallow=False):
            raise UsageError(
                f"standard input differs from {kept}, the questions of an earlier attempt that is not finished; resume "
                "that by naming it in "
                f"place of -, or choose another -o, or remove it to start over"
            )
    except OSError as error:
        raise UsageError(
            f"cannot keep standard input in {kept}: {error.strerror or error}; make room, or write the questions to a "
            "file and name that"
        ) from None
    finally:
        with suppress(OSError):
            scratch.unlink()
    return kept


def _copy(stdin: BinaryIO, path: Path, max_bytes: int, tick: Callable[[int], None]) -> int:
    size = 0
    read: Callable[[int], bytes] = getattr(stdin, "read1", stdin.read)
    with open_new(path) as file:
        # What has come, not what was asked for: a slow pipe is counted as it flows.
        while piece := read(CHUNK_BYTES):
            size += len(piece)
            tick(size)
            if size > max_bytes:
                raise UsageError(
                    f"standard input: it is longer than limits.max_stdin_bytes ({max_bytes}); raise that, or write the "
                    "questions to a file"
                )
            file.write(piece)
    return size
