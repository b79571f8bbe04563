"""`python -I -S die_with_parent.py PARENT COMMAND...`.

Becomes COMMAND, which is killed when the process PARENT dies, however that dies. A program of its own, since nothing of
Python may run between fork and exec in a process with threads. It stays the same process.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_STARTED = 127


def die_with(parent: int) -> None:
    """Have this process killed when its parent dies; at once if it did so before we asked for it."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with(int(sys.argv[1]))
    # Python ignores these, and what is ignored stays so.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 (our own command lines)
    except OSError as error:
        print(f"batchfleet: {sys.argv[2]} cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(NOT_STARTED)
