"""An environment for each peer, made when first needed, from its lock, in the user's cache folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from wire.errors import UsageError

HERE = Path(__file__).parent
PEERS = ("rq", "celery", "huey", "saq", "taskiq", "arq", "dramatiq", "ray-actors", "ray-data")
MAY_LACK = ("ray-actors", "ray-data")
"""Left out where they cannot be installed: Ray is some 200 MB, and not there for every Python and every machine."""
INSTALL_S = 600.0


def lock_of(peer: str) -> Path:
    """The lock that a peer is installed from; several peers may share one."""
    return HERE / f"{peer.partition('-')[0]}.txt"


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where environments are kept; whoever wants the room back deletes it."""
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "/tmp") / ".cache"  # noqa: S108 (only where there is no home)
    return Path(base) / "batchfleet" / "peers"


def environment_of(peer: str, cache: Path, say: Callable[[str], None]) -> Path:
    """The folder of a peer's environment, made if it is not there.

    Raises:
        UsageError: It cannot be installed; with pip's last words, or the system's.
    """
    lock = lock_of(peer)
    made_from = hashlib.blake2b(lock.read_bytes() + sys.version.encode(), digest_size=6).hexdigest()
    folder = cache / f"{lock.stem}-{made_from}"
    if not (folder / "made").exists():
        say(f"installs {lock.stem} into {folder} (once)")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot install {peer} into {folder}: {error.strerror}; "
                "leave it out with --peers, or set XDG_CACHE_HOME"
            ) from error
        _run([sys.executable, "-m", "venv", "--clear", str(folder)], peer)
        pip = [
            str(python_in(folder)),
            "-I",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        # The lock is complete; looking for more, pip would refuse a dependency with an extra of which there is a newer
        # release by now.
        _run([*pip, "--no-deps", "--require-hashes", "-r", str(lock)], peer)
        # Written last: a half-made environment has none.
        (folder / "made").touch()
    _link_peers(folder)
    return folder


def python_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def tree_in(folder: Path) -> Path:
    """What goes on PYTHONPATH there: `benchmarks.peers`, and nothing else of the project.

    The project's dependencies are not there.
    """
    return folder / "tree"


def _link_peers(folder: Path) -> None:
    link = tree_in(folder) / "benchmarks" / "peers"
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() != HERE:
        link.unlink()
    if not link.is_symlink():
        link.symlink_to(HERE)


def _run(command: list[str], peer: str) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=INSTALL_S, check=False)  # noqa: S603 (our own command)
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"installing {peer} took more than {INSTALL_S:.0f} s; leave it out with --peers, or try again"
        ) from None
    if done.returncode:
        last = next(
            (line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")),
            done.stderr.strip()[-300:],
        )
        raise UsageError(
            f"cannot install {peer}: {last}; leave it out with --peers, or see whether pip reaches a package registry"
        )
