"""What the first bytes of an image say of its format and size. Nothing is decompressed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import unpack_from

from gpu_worker.images.errors import ImageError

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers with which a frame begins."""
_MARK = 0xFF


@dataclass(frozen=True, slots=True)
class Header:
    """`media_type`, as in `image/png`; `width` and `height` in pixels."""

    media_type: str
    width: int
    height: int


def header_of(data: bytes) -> Header:
    """Format and size.

    Raises:
        ImageError: It is no PNG, JPEG, GIF, WebP or BMP, or is broken where these are told.
    """
    try:
        found = _header(data)
    except (struct.error, IndexError):
        found = None
    if found is None or found.width < 1 or found.height < 1:
        raise ImageError("it is no PNG, JPEG, GIF, WebP or BMP image, or a broken one")
    return found


def _header(data: bytes) -> Header | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return Header("image/png", *unpack_from(">II", data, 16))
    if data.startswith((b"GIF87a", b"GIF89a")):
        return Header("image/gif", *unpack_from("<HH", data, 6))
    if data.startswith(b"BM"):
        width, height = unpack_from("<ii", data, 18)
        return Header("image/bmp", width, abs(height))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    return _jpeg(data) if data.startswith(b"\xff\xd8") else None


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (number & 0x3FFF for number in unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        bits = unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8X":
        low_width, high_width, low_height, high_height = unpack_from("<HBHB", data, 24)
        width, height = 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    else:
        return None
    return Header("image/webp", width, height)


def _jpeg(data: bytes) -> Header | None:
    """The size stands in the first frame, behind segments that say how long they are."""
    at = 2
    while data[at] == _MARK:
        marker = data[at + 1]
        if marker == _MARK:
            at += 1
        elif marker in _FRAMES:
            height, width = unpack_from(">HH", data, at + 5)
            return Header("image/jpeg", width, height)
        else:
            at += 2 + max(2, unpack_from(">H", data, at + 2)[0])
    return None
