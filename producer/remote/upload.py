"""A finished local file -> one object elsewhere, which is there whole or not at all."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path, PurePosixPath

from producer.remote.location import WRITABLE, complaining, file_system, shown
from wire.errors import UsageError


def local_place(url: str) -> Path:
    """Where answers are kept on this machine that are to go there: always the same place, so that a run is resumed.

    Raises:
        UsageError: Nothing can be written there.
    """
    if not url.startswith(WRITABLE) or not PurePosixPath(shown(url)).suffix:
        raise UsageError(
            f"cannot write {shown(url)}: answers go to a local file, or to one at s3:// or gs://, such as s3://bucket/a.jsonl"
        )
    digest = blake2b(url.encode(), digest_size=4).hexdigest()
    folder = Path(".batchfleet-uploads") / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder / PurePosixPath(shown(url)).name


def exists(url: str) -> bool:
    """Whether something is there.

    Raises:
        UsageError: The bucket does not exist, or may not be looked at.
    """
    with complaining(url, "looked for"):
        try:
            file_system(url).info(url)
        except FileNotFoundError as error:
            # Also for a bucket that is not there, where the store says so.
            if "NoSuchBucket" in f"{error} {error.__cause__}":
                raise
            return False
        return True


def upload(local: Path, url: str) -> None:
    """Put a file there. Object stores show an object when its last part has come, so nobody ever sees half of it.

    Raises:
        UsageError: It cannot be written; what was there before still is.
    """
    size = local.stat().st_size
    with complaining(url, "written"):
        files = file_system(url)
        files.put_file(str(local), url)
        files.invalidate_cache()
        found = files.info(url)["size"]
    if found != size:
        raise UsageError(f"{shown(url)}: {found} bytes are there in place of {size}; run the same command again")
