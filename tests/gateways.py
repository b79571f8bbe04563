"""A gateway as a process of a fleet, and batches to give it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import openai
from openai.types import Batch

from tests.processes import Processes, wait_until
from tests.redis_servers import free_port

CHAT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


def start_gateway(fleet: Processes, data: Path, *flags: str, name: str = "gateway") -> str:
    """Start `batchfleet gateway` and wait until it listens; returns its base URL."""
    port = free_port()
    fleet.start(name, "gateway", "--listen", f"127.0.0.1:{port}", "--data", str(data), *flags)
    return wait_for_gateway(fleet, port, name)


def wait_for_gateway(fleet: Processes, port: int, name: str = "gateway") -> str:
    """Wait until it answers; returns its base URL."""
    url = f"http://127.0.0.1:{port}/v1"
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

    def answers() -> bool:
        assert fleet.started[name].poll() is None, fleet.log(name)
        try:
            client.batches.list(limit=1)
        except openai.APIStatusError:
            return True
        except openai.APIConnectionError:
            return False
        return True

    wait_until(answers, "the gateway answers")
    return url


def a_request(custom_id: str, prompt: str = "Why is the sky blue?", **params: object) -> dict[str, Any]:
    """A line of a batch, for the stub."""
    body = {"model": "stub", "messages": [{"role": "user", "content": prompt}], **params}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def as_file(lines: Iterable[dict[str, Any]]) -> bytes:
    """The content of an input file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def begin(client: openai.OpenAI, content: bytes, window: str = "24h") -> Batch:
    """Upload the content and create a batch of it."""
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window=window)  # type: ignore[arg-type]


def wait_for_end(client: openai.OpenAI, batch_id: str) -> Batch:
    """Poll a batch to its end."""
    batches: list[Batch] = []

    def has_ended() -> bool:
        batches.append(client.batches.retrieve(batch_id))
        return batches[-1].status in ENDED

    wait_until(has_ended, "the batch ends")
    return batches[-1]


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none if there is no such file."""
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()] if file_id else []


def ids_in(lines: Iterable[dict[str, Any]]) -> list[str]:
    """Their custom ids, sorted by the number in them."""
    return sorted((str(line["custom_id"]) for line in lines), key=lambda name: int(name[1:]))
