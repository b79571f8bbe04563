"""The journal of a batch, in our own format -> the lines of its output and error files, in OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from batchfleet.gateway.errors import SERVER_ERROR
from batchfleet.gateway.online_reply import STATUS
from producer.answers.openai_batch import batch_line
from producer.answers.reader import Answered, AnswerLines

CHAT = "/v1/chat/completions"
PIECE_LINES = 256
NOT_EXECUTED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}
_BUSY = (429, "rate_limit_exceeded")


def finished_lines(journal: Path, endpoint: str, created: int) -> Iterator[bytes]:
    """The output of a batch that still runs: what has been answered by now, in pieces of some hundred lines."""
    if not journal.exists():
        return
    piece = bytearray()
    for number, answered in enumerate(AnswerLines(journal, journal).as_they_came(), 1):
        if answered.fields["status"] == "answered":
            piece += as_bytes(output_line(answered, endpoint, created))
        if not number % PIECE_LINES and piece:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def output_line(answered: Answered, endpoint: str, created: int) -> dict[str, Any]:
    """The line of an answer."""
    return batch_line(answered, created, is_chat=endpoint == CHAT)


def error_line(answered: Answered, instead_of_cancelled: str) -> dict[str, Any]:
    """The line of a failure: a response with its status where the request was tried, else OpenAI's word for why not.

    Args:
        instead_of_cancelled: `expired` where it was the end of the window that ended the batch.
    """
    line = batch_line(answered, 0)
    kind, message = line["error"]["code"], line["error"]["message"]
    if kind == "timed_out":
        line["error"] = {"code": "request_timeout", "message": message}
    elif kind in NOT_EXECUTED:
        line["error"] = _not_executed(instead_of_cancelled if kind == "cancelled" else kind)
    else:
        # As an online request would be told.
        status, code = _BUSY if kind == "server_busy" else STATUS.get(kind, (400, kind))
        whose = "server_error" if status >= SERVER_ERROR else "invalid_request_error"
        error = {"message": message, "type": whose, "param": None, "code": code}
        tag = line["id"].removeprefix("batch_req_")
        line["response"] = {"status_code": status, "request_id": f"req_{tag}", "body": {"error": error}}
        line["error"] = None
    return line


def unasked_line(custom_id: str, why: str) -> dict[str, Any]:
    """The line of a request without a record. `why`: `expired` or `cancelled`."""
    fields = {"id": custom_id, "status": "failed", "error": {"kind": why, "message": ""}}
    return error_line(Answered(b"", fields, 0), why)


def as_bytes(line: dict[str, Any]) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _not_executed(why: str) -> dict[str, str]:
    code, message = NOT_EXECUTED[why]
    return {"code": code, "message": message}
