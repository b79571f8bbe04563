"""Which addresses of the network a worker may connect to for an image."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit, urlunsplit

from gpu_worker.images.errors import ImageError
from gpu_worker.images.options import ImageOptions

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether it belongs to the internet, and not to this host or its network, in any of the ways to write it."""
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast


def checked_url(url: str, options: ImageOptions) -> str:
    """The host of a URL that may be asked.

    Raises:
        ImageError: The scheme is not allowed, it names no host, or it holds a password.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ImageError("its address is no URL") from None
    allowed = {"https": options.https, "http": options.http}
    if not allowed.get(parts.scheme, False):
        raise ImageError(f"{parts.scheme}: addresses are not allowed here (images.https, images.http)")
    if not host:
        raise ImageError("its address names no host")
    if "@" in parts.netloc:
        raise ImageError("its address holds a user name or password, which would get into files; use a signed address")
    return host


async def allowed_addresses(host: str, *, private: bool) -> list[str]:
    """What a host's name stands for now; each of them may be connected to.

    Raises:
        ImageError: There is none, or one of them is not public and `private` ones are not allowed.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ImageError(
            f"the name of its host cannot be resolved ({host[:253]})", may_pass=error.errno != socket.EAI_NONAME
        ) from None
    except UnicodeError:
        raise ImageError("the name of its host is none") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not private and not all(map(is_public, addresses)):
        raise ImageError(
            f"{host[:253]} is an address of this host or its network; where that is meant, set images.private_addresses"
        )
    return addresses


def shown_address(url: str) -> str:
    """An address for people: without user, password, query (where signatures are) and an image's own bytes."""
    if url[:5].lower() == "data:":
        return f"{url[:5]}... of {len(url)} characters"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is no URL"
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return shown if len(shown) <= 200 else f"{shown[:200]}..."  # noqa: PLR2004 (a line or two)
