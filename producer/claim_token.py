"""Names the process that collects a run, so that others on this machine notice its end at once."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

LONGEST_NUMBER = 19
PROC = Path("/proc")
GONE = {"Z", "X"}
"""States of a process that has died and was not yet buried."""


def new_token() -> str:
    """HOST:PID:WHERE:STARTED:RANDOM.

    The name of a host tells people where to look; it proves nothing, since containers may share it.
    """
    _, started = _state(os.getpid())
    return f"{socket.gethostname()}:{os.getpid()}:{_here()}:{started}:{secrets.token_hex(4)}"


def has_ended(token: str) -> bool:
    """Whether a token's process was one that we could see, and is not there any more.

    Of another machine or container we know nothing.
    """
    parts = token.split(":")
    if len(parts) != len("HPWSR") or not _is_number(parts[1]) or not parts[2] or parts[2] != _here():
        return False
    pid = int(parts[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # It is another user's.
    state, started = _state(pid)
    # Another process may have its number by now. Where /proc hides those of others, we see neither.
    return state in GONE or (started != parts[3] and bool(started))


def describe(token: str) -> str:
    """Whose it is, for people."""
    host, _, rest = token.partition(":")
    pid = rest.partition(":")[0]
    if _is_number(pid):
        return f"process {pid} on {host}"
    return f"{token[:100]!a}, which is not a producer's name; its claim ends by itself, or delete it"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= LONGEST_NUMBER


def _here() -> str:
    """In which numbering of processes we are: this start of this kernel, and the PID namespace.

    Empty where that cannot be told.
    """
    try:
        if (PROC / "self").readlink().name != str(os.getpid()):
            return ""  # Somebody else's /proc.
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{(PROC / 'self/ns/pid').stat().st_ino}"
    except (OSError, ValueError):
        return ""


def _state(pid: int) -> tuple[str, str]:
    """Its state and when it started, in ticks since the machine did; empty if we cannot see it."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    # What follows the name, which is in parentheses and may hold anything: field 3, the state, and on to field 22.
    fields = stat.rpartition(") ")[2].split()
    return fields[0], fields[19]
