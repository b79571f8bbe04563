"""Chat messages with images by reference -> the same with the images' bytes in them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.engines.engine import Refusal
from gpu_worker.images.addresses import shown_address
from gpu_worker.images.byte_budget import ByteBudget
from gpu_worker.images.errors import ImageError, ImagesTooLargeError
from gpu_worker.images.files import read_file
from gpu_worker.images.header import header_of
from gpu_worker.images.options import ImageOptions
from wire.backoff import Backoff
from wire.messages import JsonObject

if TYPE_CHECKING:
    from gpu_worker.images.fetch import Fetcher

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 5.0
Place = tuple[int, int]
"""Numbers of the message and of the part in it, from 1."""


class _BytesLeft:
    """Of what a question's images may have together, less those that have come."""

    def __init__(self, count: int) -> None:
        self.count = self._most = count

    def take(self, count: int) -> None:
        if count > self.count:
            raise ImagesTooLargeError(self._most)
        self.count -= count


class Resolver:
    """Replaces addresses by images."""

    def __init__(self, options: ImageOptions) -> None:
        self._open = 0
        self._steps = 0
        self._options = options
        self._places = asyncio.Semaphore(options.max_fetches)
        self._memory = ByteBudget(options.max_held_bytes)
        self._fetcher: Fetcher | None = None

    def progress(self) -> int:
        """As an engine's. It goes up while images are on their way: that ends by itself, with their time."""
        self._steps += self._open
        return self._steps

    @contextlib.asynccontextmanager
    async def resolved(self, messages: Sequence[JsonObject]) -> AsyncIterator[list[JsonObject] | Refusal]:
        """Messages in which each image is a `data:` URL; or why one cannot be had, with its place.

        Their bytes count as the worker's until the context ends; where others hold too many, they are waited for.
        """
        images = [(place, part) for place, part in _parts(messages) if _is_image(part)]
        most = self._options.max_images
        if len(images) > most:
            error = ImageError(f"the question has more than {most} images (images.max_images)")
            yield _refusal(images[most][0], None, error)
        elif not images:
            yield list(messages)
        else:
            async with self._memory.lent(self._options.max_bytes) as lower:
                left = _BytesLeft(self._options.max_bytes)
                urls = await self._urls(images, left)
                if isinstance(urls, Refusal):
                    yield urls
                else:
                    lower(self._options.max_bytes - left.count)
                    yield [_with_urls(number, message, urls) for number, message in enumerate(messages, 1)]

    async def _urls(
        self, images: Sequence[tuple[Place, JsonObject]], left: _BytesLeft
    ) -> Mapping[Place, str] | Refusal:
        """All are got at once, within the worker's limits; with the first that cannot be had the others are left."""
        tasks = [asyncio.ensure_future(self._url(place, part, left)) for place, part in images]
        urls: dict[Place, str] = {}
        try:
            for next_one in asyncio.as_completed(tasks):
                place, found = await next_one
                if isinstance(found, Refusal):
                    return found
                urls[place] = found
        finally:
            await cancel_and_wait(tasks)
        return urls

    async def close(self) -> None:
        if self._fetcher is not None:
            await self._fetcher.close()

    async def _url(self, place: Place, part: JsonObject, left: _BytesLeft) -> tuple[Place, str | Refusal]:
        address: str | None = None
        try:
            address = _address(part)
            return place, await self._image(address, left)
        except ImageError as error:
            return place, _refusal(place, address, error)

    async def _image(self, address: str, left: _BytesLeft) -> str:
        self._open += 1
        try:
            async with self._places:
                data = await self._bytes(address, left.count)
        except ImagesTooLargeError:
            # Than what the others left of it.
            raise ImagesTooLargeError(self._options.max_bytes) from None
        finally:
            self._open -= 1
            self._steps += 1
        left.take(len(data))
        header = header_of(data)
        if header.width * header.height > self._options.max_pixels:
            size = f"{header.width} x {header.height}"
            raise ImageError(
                f"it has {size} pixels, more than {self._options.max_pixels} (images.max_pixels); scale it down"
            )
        return f"data:{header.media_type};base64,{base64.b64encode(data).decode()}"

    async def _bytes(self, address: str, max_bytes: int) -> bytes:
        scheme = address.partition(":")[0].lower()
        if scheme == "data":
            return _of_data_url(address, max_bytes)
        if scheme == "file":
            return await asyncio.to_thread(read_file, address, self._options.folders, max_bytes)
        if scheme in {"http", "https"}:
            return await self._fetched(address, max_bytes)
        raise ImageError("its address must begin with https:, file: or data:")

    async def _fetched(self, address: str, max_bytes: int) -> bytes:
        if self._fetcher is None:
            # Takes half a second to import.
            from gpu_worker.images.fetch import Fetcher  # noqa: PLC0415

            self._fetcher = Fetcher(self._options)
        pauses = Backoff(self._options.first_pause_s, LONGEST_PAUSE_S)
        for left in reversed(range(self._options.tries)):
            try:
                return await self._fetcher.fetch(address, max_bytes)
            except ImageError as error:
                if not error.may_pass or not left:
                    raise
                log.debug("an image is asked for again: %s", error)
            await asyncio.sleep(pauses.next_s())
        raise AssertionError


def _parts(messages: Sequence[JsonObject]) -> Iterator[tuple[Place, Any]]:
    for number, message in enumerate(messages, 1):
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else (), 1):
            yield (number, place), part


def _is_image(part: Any) -> bool:  # noqa: ANN401 (whatever users wrote)
    return isinstance(part, dict) and part.get("type") == "image_url"


def _address(part: JsonObject) -> str:
    named = part.get("image_url")
    address = named.get("url") if isinstance(named, dict) else named
    if not isinstance(address, str) or not address:
        raise ImageError('it has no address; write {"type": "image_url", "image_url": {"url": "https://..."}}')
    return address.strip()


def _with_urls(number: int, message: JsonObject, urls: Mapping[Place, str]) -> JsonObject:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts: list[JsonValue] = []
    for place, part in enumerate(content, 1):
        url = urls.get((number, place))
        if url is not None and isinstance(part, dict):
            named = part.get("image_url")
            detail = {"detail": named["detail"]} if isinstance(named, dict) and "detail" in named else {}
            parts.append({"type": "image_url", "image_url": {**detail, "url": url}})
        else:
            parts.append(part)
    return {**message, "content": parts}


def _of_data_url(address: str, max_bytes: int) -> bytes:
    head, comma, content = address.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageError("a data: URL must be data:image/TYPE;base64,BYTES")
    # Four characters hold three bytes.
    if len(content) * 3 > (max_bytes + 3) * 4:
        raise ImagesTooLargeError(max_bytes)
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("the bytes of its data: URL are no base64") from None


def _refusal(place: Place, address: str | None, error: ImageError) -> Refusal:
    named = f" ({shown_address(address)})" if address is not None else ""
    message = f"the image in message {place[0]}, part {place[1]}{named} cannot be used: {error}"
    return Refusal("image_unreachable", message, is_final=True) if error.may_pass else Refusal("bad_image", message)
