"""A file that one process at a time may have open."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from wire.errors import UsageError


def open_locked(path: Path, flags: int, answers: Path) -> int:
    """Open a file for reading and writing, made if missing; closing the descriptor releases the lock.

    Args:
        flags: Of `os.open`, besides these.
        answers: The file of answers that it belongs to, for messages.

    Raises:
        UsageError: It cannot be opened, is not a regular file, or another process has it.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o644)
    except OSError as error:
        why = f"{path} is a link" if error.errno == errno.ELOOP else error.strerror
        raise UsageError(f"cannot write answers to {answers}: {why}; choose another -o") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UsageError(
            f"cannot write answers to {path}: it is not a regular file, and answers are read again to resume a run; "
            "choose another -o, or - for standard output"
        )
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
            raise
        raise UsageError(
            f"another batchfleet process is writing {answers}; wait for it, or choose another -o"
        ) from None
    return file
