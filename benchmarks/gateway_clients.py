"""Clients of a gateway, each with one connection that it keeps, in a process of their own.

HTTP as plain as it can be: a client library takes more of the machine than the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import orjson

from batchfleet.settings import to_options
from batchfleet.tuning import helper

PAUSE_S = 0.02
"""Between two requests of one that only looks at the latency."""
MOST_TOOK = 10_000
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)


class Clients:
    """They share questions out among them, and note how each went."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port = port
        self._requests = requests
        self.statuses: Counter[int] = Counter()
        self.took_s: list[float] = []

    async def run(self, clients: int, pause_s: float) -> None:
        await asyncio.gather(*(self._client(pause_s) for _ in range(clients)))

    async def _client(self, pause_s: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for request in self._requests:
            began = time.perf_counter()
            writer.write(request)
            self.statuses[await _status(reader)] += 1
            if len(self.took_s) < MOST_TOOK:
                self.took_s.append(time.perf_counter() - began)
            if pause_s:
                await asyncio.sleep(pause_s)
        writer.close()
        await writer.wait_closed()


async def _status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split(b" ", 2)[1])


def requests_of(questions: Path, model: str, count: int) -> list[bytes]:
    """The first `count` questions of a file, again from its beginning where it has fewer."""
    lines = questions.read_bytes().splitlines()
    made = []
    for line in islice(cycle(lines), count):
        asked = orjson.loads(line)
        body = orjson.dumps({"model": model, "prompt": asked["question"], **asked.get("params", {})})
        made.append(HEAD % len(body) + body)
    return made


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("questions", "port", "clients", "count"):
        parser.add_argument(name)
    parser.add_argument("--config", required=True)
    parser.add_argument("--idle", action="store_true", help="pause between requests")
    arguments = parser.parse_args()
    settings = helper.load(arguments.config)
    requests = requests_of(Path(arguments.questions), to_options.model_name(settings, "stub"), int(arguments.count))
    clients = Clients(int(arguments.port), iter(requests))
    helper.wait_for_go()
    began = time.perf_counter()
    asyncio.run(clients.run(int(arguments.clients), PAUSE_S if arguments.idle else 0.0))
    elapsed_s = time.perf_counter() - began
    helper.tell({"elapsed_s": elapsed_s, "statuses": dict(clients.statuses), "took_s": clients.took_s})
    return 0


if __name__ == "__main__":
    sys.exit(main())
