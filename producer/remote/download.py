"""Remote files of questions -> local copies, for questions are read more than once, and the same ones each time."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from glob import has_magic
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

from producer.atomic_file import open_new
from producer.remote.location import complaining, file_system, shown
from wire.errors import UsageError

_CHUNK_BYTES = 8 * 2**20
_VERSIONS = ("ETag", "Last-Modified", "e_tag", "last_modified", "version", "blob_id", "last_commit")
"""What the libraries call that which changes with a file."""
_TIMEOUT_S = 60.0
_GONE = (404, 410)


def download_all(
    url: str, folder: Path, max_bytes: int | None = None, tick: Callable[[int], None] = lambda _: None
) -> Sequence[Path]:
    """The files of an address or pattern, by name, each copied whole into the folder, unless it is there already.

    Args:
        max_bytes: Of one file.
        tick: Called with the bytes that have come of the file.

    Raises:
        UsageError: There are none, one cannot be read, changed meanwhile or is too large, or the disk is full.
    """
    with complaining(url, "read"):
        if url.startswith("http"):
            with _opened_web(url) as (about, pieces):
                return [_copied(url, about, pieces, folder, max_bytes, tick)]
        files = file_system(url)
        scheme, _, place = url.partition("://")
        paths = [f"{scheme}://{path}" for path in sorted(files.glob(place))] if has_magic(url) else [url]
        if not paths:
            raise UsageError(f"{shown(url)}: no file has such a name")
        copies = []
        for path in paths:
            about = files.info(path)
            if about.get("type") == "directory":
                raise UsageError(
                    f"{shown(path)}: it is a folder; name the files in it, such as '{shown(path)}/*.jsonl'"
                )
            copies.append(_copied(path, about, _pieces(files, path), folder, max_bytes, tick))
        return copies


def copies_folder(answers: Path) -> Path:
    """Where the copies for a run are kept until its last answer is there."""
    return answers.with_name(f"{answers.name}.remote")


@cache
def scratch_folder() -> Path:
    """A folder for copies that this process alone needs."""
    folder = tempfile.mkdtemp(prefix="batchfleet-remote-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _pieces(files: Any, path: str) -> Iterator[bytes]:  # noqa: ANN401 (fsspec has no types)
    with files.open(path, "rb") as remote:
        while piece := remote.read(_CHUNK_BYTES):
            yield piece


@contextmanager
def _opened_web(url: str) -> Iterator[tuple[dict[str, Any], Iterator[bytes]]]:
    """What a web server says of a file, and its bytes as they are stored there."""
    # Only here: it takes a tenth of a second to import.
    import httpx2 as httpx  # noqa: PLC0415

    with (
        httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S, headers={"Accept-Encoding": "identity"}) as client,
        client.stream("GET", url) as response,
    ):
        if response.status_code in _GONE:
            raise FileNotFoundError
        if not response.is_success:
            raise UsageError(
                f"{shown(url)}: the server answers with status {response.status_code}; check address and access"
            )
        size = response.headers.get("Content-Length")
        about = {name: response.headers.get(name) for name in ("ETag", "Last-Modified")}
        yield {**about, "size": int(size) if size else None}, response.iter_raw(_CHUNK_BYTES)


def _copied(
    url: str,
    about: dict[str, Any],
    pieces: Iterator[bytes],
    folder: Path,
    max_bytes: int | None,
    tick: Callable[[int], None],
) -> Path:
    """A copy whose name changes when the file does; the same command after a crash finds it."""
    name, size = shown(url), about.get("size")
    version = [str(about.get(key)) for key in _VERSIONS]
    digest = blake2b("\0".join([name, str(size), *version]).encode(), digest_size=6).hexdigest()
    copy = folder / f"{digest}-{PurePosixPath(name).name or 'file'}"
    # Where nothing tells versions apart, it has to be read again.
    if copy.exists() and any(about.get(key) for key in _VERSIONS):
        return copy
    part = copy.with_name(f".{copy.name}.part")
    done = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_new(part) as file:
            for piece in pieces:
                done += len(piece)
                tick(done)
                if max_bytes is not None and done > max_bytes:
                    raise UsageError(
                        f"{name}: it is longer than limits.max_stdin_bytes ({max_bytes}); raise that, or split it"
                    )
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if size is not None and done != size:
            raise UsageError(f"{name}: {done} of {size} bytes came; run the same command again")
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
    return copy
