"""Addresses of files that lie elsewhere, and what reaches them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from wire.errors import UsageError

_REMOTE = re.compile(r"(?:s3|gs|hf|https?)://")
WRITABLE = ("s3://", "gs://")
_MOST_WORDS = 300


def is_remote(name: str) -> bool:
    """Whether a name is the address of a file that lies elsewhere."""
    return _REMOTE.match(name) is not None


def shown(url: str) -> str:
    """The address without what may be secret in it: user, password and signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def file_system(url: str) -> Any:  # noqa: ANN401 (fsspec has no types)
    """What reads and writes there, by whole addresses.

    Raises:
        UsageError: A package is missing.
    """
    scheme = urlsplit(url).scheme
    try:
        # Only here: few need them, and they take long to import.
        if scheme == "hf":
            from huggingface_hub import HfFileSystem  # noqa: PLC0415

            return HfFileSystem()
        from obstore.fsspec import FsspecStore  # noqa: PLC0415
    except ImportError as error:
        raise UsageError(
            f"{shown(url)}: remote files need more packages ({error}): scripts/install --remote, or name a local file"
        ) from None
    # Only where somebody has set an address without TLS for the service, as for a server of one's own.
    return FsspecStore(scheme, client_options={"allow_http": True, "timeout": "300s"})


@contextmanager
def complaining(url: str, what: str) -> Iterator[None]:
    """Each of the libraries behind fsspec has errors of its own; they become one sentence about the file.

    Args:
        what: What is done to it, such as `read`.
    """
    try:
        yield
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{shown(url)}: there is no such file, or no such bucket") from None
    except Exception as error:  # noqa: BLE001 (see above)
        name = shown(url)
        # They may quote the address.
        said = " ".join(str(error).replace(url, name).split())[:_MOST_WORDS] or type(error).__name__
        raise UsageError(f"{name}: it cannot be {what} ({said}); check address, network and credentials") from None
