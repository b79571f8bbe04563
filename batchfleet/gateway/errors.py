"""What is wrong with a request, in the shape that OpenAI's clients expect."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus

import redis.exceptions
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from batchfleet.gateway.replies import JsonReply
from wire.errors import FleetError, QueueUnavailableError

log = logging.getLogger(__name__)

SERVER_ERROR = 500
AWAY_S = 2
"""What clients are told to wait while Redis is away, in seconds."""


class ApiError(Exception):
    """A request gets this instead of an answer.

    Attributes:
        status: Of HTTP. OpenAI's SDK tries again after 408, 409, 429 and all from 500 on.
        message: A sentence for people: what is wrong, and what to do.
        type: OpenAI's word for whose fault it is; None for the usual one of the status.
        param: The parameter that is meant.
        code: One word for programs.
        headers: Such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 (OpenAI's name)
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type or ("invalid_request_error" if status < SERVER_ERROR else "server_error")
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> Response:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return JsonReply({"error": error}, self.status, self.headers)


def too_many(message: str, retry_after_s: float, *, code: str = "rate_limit_exceeded") -> ApiError:
    """The request may come again in so many seconds, which are rounded up."""
    headers = {"Retry-After": str(max(1, int(-(-retry_after_s // 1))))}
    return ApiError(429, message, type="rate_limit_error", code=code, headers=headers)


def disk_full() -> ApiError:
    """What was sent is not kept."""
    return ApiError(507, "The gateway's disk is full. Delete files, or ask whoever runs it.", code="disk_full")


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 (for mypy: this is registered for nothing else)
    return error.response()


async def _framework_error(request: Request, error: Exception) -> Response:
    """404, 405 and the like, of the framework's own."""
    assert isinstance(error, HTTPException)  # noqa: S101 (as above)
    words, code = str(error.detail), None
    if error.status_code == HTTPStatus.NOT_FOUND:
        words, code = f"Unknown request URL: {request.method} {request.url.path}", "unknown_url"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        words, code = f"Not allowed to {request.method} on {request.url.path}", "method_not_supported"
    return ApiError(error.status_code, words, code=code, headers=error.headers).response()


async def _away(_request: Request, error: Exception) -> Response:
    log.warning("the queue is away: %s", error)
    words = "The queue of this fleet does not answer. Try again soon."
    return ApiError(503, words, code="queue_unavailable", headers={"Retry-After": str(AWAY_S)}).response()


async def _fleet_error(_request: Request, error: Exception) -> Response:
    log.error("a request failed: %s", error)
    return ApiError(503, "The fleet cannot take this now; the gateway's log says why.", code="fleet_error").response()


async def _unwritten(_request: Request, error: Exception) -> Response:
    assert isinstance(error, sqlite3.OperationalError)  # noqa: S101 (as above)
    log.error("the gateway's database: %s", error)
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return disk_full().response()
    return ApiError(500, "The gateway cannot use its database; its log has more.", code="disk_error").response()


async def _bug(_request: Request, _error: Exception) -> Response:
    # Starlette raises it once more after this, and uvicorn logs it; the client learns nothing of how we are made.
    return ApiError(500, "A bug of the gateway; its log has more.", code="internal_error").response()


HANDLERS: dict[type[Exception] | int, ExceptionHandler] = {
    ApiError: _api_error,
    HTTPException: _framework_error,
    QueueUnavailableError: _away,
    FleetError: _fleet_error,
    redis.exceptions.ConnectionError: _away,
    redis.exceptions.TimeoutError: _away,
    sqlite3.OperationalError: _unwritten,
    Exception: _bug,
}
"""For Starlette: every failure has one shape."""
