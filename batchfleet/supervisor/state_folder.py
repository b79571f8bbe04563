"""Where a long-running fleet keeps what must outlive it: its queue, its logs.

Found again by its place, and held by one process at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from batchfleet.settings.schema import Settings
from wire.errors import UsageError

SOCKET = "redis.sock"
LONGEST_SOCKET_PATH = 100
"""Bytes that the path of a Unix socket may have, with a little to spare."""
CONNECT_S = 1.0


def default_folder(environ: Mapping[str, str]) -> Path:
    """This user's, on this host: a home may be shared by many hosts, and a socket is of one."""
    state = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(state) / "batchfleet" / socket.gethostname()


def redis_url(folder: Path) -> str:
    return f"unix://{folder / SOCKET}"


def url_of_running(folder: Path) -> str | None:
    """How to reach the Redis of the fleet that keeps its state here; None if none is up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CONNECT_S)
        try:
            client.connect(str(folder / SOCKET))
        except OSError:
            return None
    return redis_url(folder)


@contextlib.contextmanager
def held(folder: Path, *, for_socket: bool) -> Iterator[Path]:
    """The folder, made if need be, for this process alone. However the process ends, the kernel lets go of it.

    Args:
        for_socket: It is to hold a socket, whose path must not be long.

    Raises:
        UsageError: It cannot be used, or another process holds it.
    """
    folder = folder.absolute()
    if for_socket and len(str(folder / SOCKET).encode()) > LONGEST_SOCKET_PATH:
        raise UsageError(f"{folder}: too long a path for the socket of a Redis; give a shorter --state FOLDER")
    try:
        # Only for this user: whoever reaches the socket can read and change everything.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        # Before that, others may have put links there, for us to write through.
        links = [
            path for path in (folder, *folder.iterdir()) if path.is_symlink() and path.lstat().st_uid != os.getuid()
        ]
        lock = os.fdopen(os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise UsageError(f"{folder} cannot be used ({error.strerror}); give another --state FOLDER") from None
    if links:
        lock.close()
        raise UsageError(f"{links[0]} is a link that another user made; remove it, or give another --state FOLDER")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"a fleet is already up with {folder}: `batchfleet scale N` changes it, `batchfleet down` stops it; "
                "for another, give --state FOLDER"
            ) from None
        yield folder


def with_running(settings: Settings, folder: Path) -> Settings:
    """The settings; if they name no Redis, with that of a running `batchfleet up`, if there is one.

    It is the one that keeps its state in `folder`.
    """
    if settings.redis.url is not None or (url := url_of_running(folder)) is None:
        return settings
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})
