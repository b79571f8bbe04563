"""What to do about an attempt that failed at a server. Decides; the waiting and asking happen in `openai`."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from gpu_worker.engines.engine import Refusal
from gpu_worker.engines.refusals import is_about_model, refusal_of, unknown_adapter
from wire.failures import Kind
from wire.messages import JsonObject

BUSY = 429
_RETRIED = frozenset({408, 409, 425, BUSY})
_UNAUTHORIZED = frozenset({401, 403})
_NOT_FOUND = 404
_NO_METHOD = 405
_SERVER_ERRORS = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt, in no library's terms.

    Attributes:
        message: For people; the server's own words where it had any.
        status: HTTP status; None if there was no answer at all (connection refused or lost, timeout).
        retry_after_s: What the server asked for.
        parameter: The request's parameter that the server names as the culprit.
        code: The server's word for the error.
    """

    message: str
    status: int | None = None
    retry_after_s: float | None = None
    parameter: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The same request may be answered later; `least_s` at the earliest."""

    least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Unusable:
    """No request of ours will be answered by this server, as it is."""

    reason: str


def verdict(fault: Fault, params: JsonObject, *, chat: bool) -> TryAgain | Refusal | Unusable:
    """What a failed attempt means: for this question, or for the server as a whole. `params`: the question's, canonical."""
    status = fault.status
    if status is None or status >= _SERVER_ERRORS or status in _RETRIED:
        return TryAgain(fault.retry_after_s or 0.0)
    if status in _UNAUTHORIZED:
        return Unusable(f"the server refuses our API key (HTTP {status}): {fault.message}")
    adapter = params.get("lora")
    about_model = fault.code == "model_not_found" or is_about_model(fault.message)
    if status == _NOT_FOUND and about_model:
        return (
            unknown_adapter(adapter, ())
            if isinstance(adapter, str)
            else Unusable(f"the server does not serve the model any more: {fault.message}")
        )
    if status in {_NOT_FOUND, _NO_METHOD}:
        what = "chat messages (no /chat/completions)" if chat else "prompts (no /completions); ask it with messages"
        return Refusal("unsupported", f"this server does not take {what}")
    return refusal_of(fault.message, params, chat=chat, parameter=fault.parameter)


def given_up(fault: Fault, attempts: int, tried_s: float) -> Refusal:
    """The refusal of a question that kept failing for `tried_s` seconds at a server that answers others."""
    kind: Kind = "server_busy" if fault.status == BUSY else "server_error"
    told = f"HTTP {fault.status}: {fault.message}" if fault.status is not None else fault.message
    return Refusal(kind, f"the server failed on this question {attempts} times in {tried_s:.0f} s; last: {told}")


def pause_s(attempts: int, *, first_s: float, longest_s: float, least_s: float) -> float:
    """How long to wait after `attempts` failed ones: twice as long each time up to `longest_s`, between half and all of that at random.

    Never less than `least_s`, which the server asked for; never all clients at the same moment.
    """
    ceiling = min(longest_s, first_s * 2 ** min(attempts - 1, 30))
    jittered = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - spreads load, keeps no secret
    return max(jittered, least_s + random.uniform(0, first_s)) if least_s > 0 else jittered  # noqa: S311


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The Retry-After header (RFC 9110: seconds or a date), or OpenAI's retry-after-ms; None if absent or unreadable."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _seconds(value)
    if seconds is not None or value is None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None
