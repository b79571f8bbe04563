"""Images by reference: where they may come from, how much of them, and what becomes of a question without its image."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.engines.engine import Completion, Outcome, Refusal
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.engines.with_images import WithImages
from gpu_worker.images import fetch
from gpu_worker.images.addresses import allowed_addresses, is_public, shown_address
from gpu_worker.images.errors import ImageError
from gpu_worker.images.files import read_file
from gpu_worker.images.header import header_of
from gpu_worker.images.options import ImageOptions
from tests.builders import a_question
from tests.processes import PATIENCE_S
from tests.unit.scripted_server import DROPPED, Asked, Reply, ScriptedServer
from wire.messages import Question


def png(width: int = 3, height: int = 2) -> bytes:
    """A black one; above 16 million pixels only its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\0\0\0" * width) * height if width * height < 1 << 24 else b""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def data_url(data: bytes) -> str:
    """As users write it."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


HEADERS = {
    "image/gif 5x7": b"GIF89a" + struct.pack("<HH", 5, 7),
    "image/bmp 5x7": b"BM" + bytes(16) + struct.pack("<ii", 5, -7),
    "image/jpeg 5x7": b"\xff\xd8\xff\xe0\0\x04ab\xff\xc2\0\x11\x08" + struct.pack(">HH", 7, 5),
    "image/webp 5x7": b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\x04\0\0\x06\0\0",
    "image/png 5x7": png(5, 7),
}


@pytest.mark.parametrize("told", HEADERS)
def test_the_size_is_read_from_the_header(told: str) -> None:
    """Of each format; cut anywhere before its end, the header is a broken image and no other error."""
    data = HEADERS[told]
    found = header_of(data)

    assert f"{found.media_type} {found.width}x{found.height}" == told
    for end in range(min(len(data), 20)):
        with pytest.raises(ImageError):
            header_of(data[:end])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.1.2.3", "224.0.0.1",
        "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Loopback, private, link-local, carriers', multicast; also in the disguises of IPv6."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    """The internet's own."""
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "localhost"])
async def test_other_names_for_this_host_are_refused(host: str) -> None:
    """It is the address that counts, however it is written."""
    with pytest.raises(ImageError, match=r"images\.private_addresses"):
        await allowed_addresses(host, private=False)


def test_what_people_see_of_an_address_has_no_secret() -> None:
    """Neither password nor signature, nor the image itself."""
    assert shown_address("https://me:pw@a.example/x.png?sig=secret#f") == "https://a.example/x.png"
    assert shown_address("data:image/png;base64,QUJD") == "data:... of 26 characters"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that is allowed, with a file in it and a secret beside it."""
    made = tmp_path / "allowed"
    made.mkdir()
    (made / "a b.png").write_bytes(b"image")
    (tmp_path / "secret").write_bytes(b"secret")
    (made / "out").symlink_to(tmp_path)
    (made / "in.png").symlink_to(made / "a b.png")
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "x").write_bytes(b"secret")
    os.mkfifo(made / "pipe")
    return made


@pytest.mark.parametrize("url", ["file://{}/a%20b.png", "file:{}/a b.png", "file://localhost{}/in.png"])
def test_files_of_an_allowed_folder(folder: Path, url: str) -> None:
    """In any spelling, also by a link that stays inside."""
    assert read_file(url.format(folder), [str(folder)], 100) == b"image"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file://{}/../secret", "none of the folders"),
        ("file://{}/%2e%2e/secret", "none of the folders"),
        ("file://{}/..%2fsecret", "none of the folders"),
        ("file://{}/out/secret", "none of the folders"),
        ("file://{}-not/x", "none of the folders"),
        ("file:///etc/passwd", "none of the folders"),
        ("file:///nothing/there", "none of the folders"),
        ("file://host{}/a%20b.png", "no host"),
        ("file://{}/a%20b.png?x", "no query"),
        ("file:a.png", "begin with /"),
        ("file://{}/a%00.png", "NUL"),
        ("file://{}/missing.png", "No such file"),
        ("file://{}/pipe", "no regular file"),
        ("file://{}", "no regular file"),
        ("file://{}/a%20b.png/x", "Not a directory"),
    ],
)
def test_files_that_are_refused(folder: Path, url: str, told: str) -> None:
    """Whatever leads out of the folder, and what is no file; a pipe does not hold the worker up."""
    with pytest.raises(ImageError, match=told):
        read_file(url.format(folder), [str(folder)], 100)


def asking(*urls: str, **options: Any) -> tuple[WithImages, Any]:  # noqa: ANN401 (any option)
    """A stub with these options, and a question with these images."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "What is it?"}, *parts]
    question = a_question(messages=[{"role": "user", "content": content}])
    quick = {"first_pause_s": 0.001, "timeout_s": PATIENCE_S, **options}
    return WithImages(StubEngine(StubOptions()), ImageOptions(**quick)), question


async def outcome_of(*urls: str, **options: Any) -> Outcome:  # noqa: ANN401 (any option)
    """What the stub says of these images."""
    engine, question = asking(*urls, **options)
    try:
        return await engine.answer(question)
    finally:
        await engine.stop()


async def test_the_stub_sees_the_images() -> None:
    """In their order, with their sizes."""
    outcome = await outcome_of(data_url(png(3, 2)), data_url(png(10, 20)))

    assert isinstance(outcome, Completion), outcome
    assert outcome.texts[0].startswith("3x2 10x20 ")


@pytest.mark.parametrize(
    ("urls", "options", "told"),
    [
        ((data_url(png()),) * 3, {"max_images": 2}, "images.max_images"),
        ((data_url(png()),), {"max_bytes": 50}, "images.max_bytes"),
        ((data_url(png()),) * 2, {"max_bytes": 100}, "more than 100 bytes (images.max_bytes)"),
        ((data_url(png(100_000, 100_000)),), {}, "images.max_pixels"),
        (("data:image/png;base64,***",), {}, "no base64"),
        (("data:image/png,abc",), {}, "base64,BYTES"),
        ((data_url(b"<svg/>"),), {}, "no PNG"),
        (("",), {}, "it has no address"),
        (("ftp://a.example/x",), {}, "https:, file: or data:"),
        (("http://1.1.1.1/x.png",), {}, "images.http"),
        (("https://1.1.1.1/x.png",), {"https": False}, "images.https"),
        (("https://me:hush@1.1.1.1/x.png",), {}, "signed address"),
        (("https:///x.png",), {}, "names no host"),
        (("https://[::1/x.png",), {}, "no URL"),
        (("https://127.0.0.1/x.png",), {}, "images.private_addresses"),
    ],
)
async def test_images_that_are_refused(urls: tuple[str, ...], options: Any, told: str) -> None:  # noqa: ANN401
    """Each says its place and what to do; none is worth another try, or tells a password."""
    outcome = await outcome_of(*urls, **options)

    assert isinstance(outcome, Refusal), outcome
    assert (outcome.kind, outcome.retryable) == ("bad_image", False)
    assert outcome.message.startswith("the image in message 1, part ")
    assert told in outcome.message
    assert "hush" not in outcome.message


IMAGE = Reply(body=png(), headers={"content-type": "image/png"})


def served(asked: Asked) -> Reply:
    """What a good or bad server of images has at each path."""
    replies = {
        "/a.png?sig=hush": IMAGE,
        "/here": Reply(302, headers={"location": "/a.png?sig=hush"}),
        "/round": Reply(302, headers={"location": "/round"}),
        "/inside": Reply(302, headers={"location": "http://127.0.0.2:1/x"}),
        "/local": Reply(302, headers={"location": "file:///etc/passwd"}),
        "/huge": Reply(body=bytes(200_000)),
        "/drip": Reply(body=b"\x89PNG", then="stall"),
        "/packed": Reply(body=b"x", headers={"content-encoding": "gzip"}),
        "/broken": Reply(503, "no"),
        "/dropped": DROPPED,
        "/page": Reply(body="<html>"),
    }
    return replies.get(asked.path, Reply(404))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """Of images, on loopback."""
    async with ScriptedServer(served) as started:
        yield started


@pytest.mark.parametrize(
    ("path", "expected", "requests"),
    [
        ("/a.png?sig=hush", "3x2", 1),
        ("/here", "3x2", 2),
        ("/round", "bad_image: more than 3 redirects", 4),
        ("/local", "bad_image: file: addresses are not allowed", 1),
        ("/huge", "bad_image: images.max_bytes", 1),
        ("/packed", "bad_image: encoding", 1),
        ("/page", "bad_image: no PNG", 1),
        ("/missing?sig=hush", "bad_image: HTTP 404", 1),
        ("/broken?", "image_unreachable: HTTP 503", 2),
        ("/dropped", "image_unreachable: cannot be asked", 2),
    ],
)
async def test_images_over_http(server: ScriptedServer, path: str, expected: str, requests: int) -> None:
    """From a real server: redirects within bounds, few tries of what may pass, one of what will not."""
    url = f"http://127.0.0.1:{server.port}{path.rstrip('?')}"
    outcome = await outcome_of(url, http=True, private_addresses=True, tries=2, max_bytes=100_000)

    assert len(server.asked) == requests
    if isinstance(outcome, Refusal):
        kind, _, told = expected.partition(": ")
        assert (outcome.kind, outcome.is_final) == (kind, kind == "image_unreachable")
        assert told in outcome.message
        assert "hush" not in outcome.message
        return
    assert isinstance(outcome, Completion), outcome
    assert outcome.texts[0].startswith(expected)


async def test_a_server_that_drips_is_given_up(server: ScriptedServer) -> None:
    """After the time for one image, each time."""
    url = f"http://127.0.0.1:{server.port}/drip"
    outcome = await outcome_of(url, http=True, private_addresses=True, tries=2, timeout_s=0.05)

    assert isinstance(outcome, Refusal)
    assert (outcome.kind, "images.timeout_s" in outcome.message) == ("image_unreachable", True)


async def test_images_of_a_question_are_fetched_at_once_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of four together and never four; the model has them in the question's order, whoever comes last."""
    three, all_of_them = asyncio.Event(), asyncio.Event()
    begun = ended = most_at_once = 0

    async def resolved(*_: object, **__: object) -> list[str]:
        # The first step of each: without a limit all four are here before any goes on.
        nonlocal begun, most_at_once
        begun += 1
        most_at_once = max(most_at_once, begun - ended)
        if begun == 3:
            three.set()
        await three.wait()
        return ["127.0.0.1"]

    async def last_first(asked: Asked) -> Reply:
        nonlocal ended
        if len(images.asked) == 4:
            all_of_them.set()
        if asked.path == "/1":
            await all_of_them.wait()
        ended += 1
        return Reply(body=png(int(asked.path[1:]), 1), headers={"content-type": "image/png"})

    monkeypatch.setattr(fetch, "allowed_addresses", resolved)
    async with ScriptedServer(last_first) as images:
        urls = [f"http://images.invalid:{images.port}/{number}" for number in (1, 2, 3, 4)]
        outcome = await outcome_of(*urls, http=True, max_fetches=3)

    assert isinstance(outcome, Completion), outcome
    assert outcome.texts[0].startswith("1x1 2x1 3x1 4x1 ")
    assert most_at_once == 3


async def test_images_of_all_questions_in_flight_are_bounded() -> None:
    """A question waits while the engine holds others' images; one that is cancelled or refused keeps no room."""
    size, inside, most_inside, go_on = len(png()), 0, 0, asyncio.Event()

    class Holding(StubEngine):
        async def answer(self, question: Question) -> Outcome:
            nonlocal inside, most_inside
            inside += 1
            most_inside = max(most_inside, inside)
            await go_on.wait()
            inside -= 1
            return await super().answer(question)

    _, good = asking(data_url(png()))
    _, bad = asking(data_url(b"<svg/>"))
    # While it is fetched a question counts with `max_bytes`: there is no room for that beside two that have theirs.
    options = ImageOptions(max_bytes=2 * size, max_held_bytes=4 * size - 1)
    engine = WithImages(Holding(StubOptions()), options)
    tasks = [asyncio.create_task(engine.answer(question)) for question in (bad, *[good] * 8)]
    for _ in range(1000):
        await asyncio.sleep(0)
    tasks[-1].cancel()
    seen = inside
    go_on.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await engine.stop()

    assert (seen, most_inside) == (2, 2)
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds == ["Refusal", *["Completion"] * 7, "CancelledError"]


async def test_the_first_image_that_cannot_be_had_ends_the_fetching_of_the_others() -> None:
    """A question that fails waits for nothing, and holds no other question's place."""
    never = asyncio.Event()

    async def stuck(asked: Asked) -> Reply:
        if asked.path == "/stuck":
            asked_for.set()
            await never.wait()
        await asked_for.wait()
        return Reply(404)

    asked_for = asyncio.Event()
    async with ScriptedServer(stuck) as server:
        urls = [f"http://127.0.0.1:{server.port}/{name}" for name in ("stuck", "missing")]
        outcome = await outcome_of(*urls, http=True, private_addresses=True)
        never.set()

    assert isinstance(outcome, Refusal), outcome
    assert (outcome.kind, "part 3" in outcome.message) == ("bad_image", True)


async def test_a_checked_name_is_connected_to_at_its_checked_address(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is resolved once for each step, so no later answer of a name server counts; the server hears the name."""

    async def resolved(host: str, *, private: bool) -> list[str]:
        asked.append((host, private))
        if host != "images.invalid":
            return await allowed_addresses(host, private=False)
        return ["127.0.0.1"]

    asked: list[tuple[str, bool]] = []
    monkeypatch.setattr(fetch, "allowed_addresses", resolved)
    good = await outcome_of(f"http://images.invalid:{server.port}/here", http=True)
    bad = await outcome_of(f"http://images.invalid:{server.port}/inside", http=True)

    assert isinstance(good, Completion), good
    assert [one.headers["host"] for one in server.asked] == [f"images.invalid:{server.port}"] * 3
    assert isinstance(bad, Refusal)
    assert (bad.kind, "images.private_addresses" in bad.message) == ("bad_image", True)
    assert [host for host, _ in asked] == ["images.invalid"] * 3 + ["127.0.0.2"]


async def test_one_bad_image_is_that_questions_alone() -> None:
    """Its neighbours are answered meanwhile, and the engine is seen to move."""
    engine, good = asking(data_url(png()))
    _, bad = asking("file:///nothing")
    before = engine.progress()

    first, failed, last = await asyncio.gather(*map(engine.answer, (good, bad, good)))

    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    assert isinstance(failed, Refusal)
    assert "(file:///nothing)" in failed.message
    assert engine.progress() > before
    await engine.stop()


def test_names_resolve_to_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address among public ones is enough to refuse a name."""

    def found(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in ("1.1.1.1", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with pytest.raises(ImageError, match=r"images\.private_addresses"):
        asyncio.run(allowed_addresses("a.example", private=False))
