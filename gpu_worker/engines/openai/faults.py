"""What can go wrong with one request, and whose fault that may be.

Decides; asking and waiting happen in `engine` and `admission`.
"""

from __future__ import annotations

import html
import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from http import HTTPStatus
from typing import Any

from gpu_worker.engines.engine import Refusal
from gpu_worker.engines.openai.request_body import Form, Request
from gpu_worker.engines.openai.retry_after import retry_after_s
from gpu_worker.engines.refusals import is_about_model, refusal_of, too_large, unknown_adapter

TOO_MANY = 429
PASSING = frozenset({408, 409, 425})
TOO_LARGE = 413
ABOUT_THE_QUESTION = frozenset({400, TOO_LARGE, 422})
ABOUT_THE_KEY = frozenset({401, 403, 407})
PAYMENT = 402
MISSING = frozenset({404, 405})
BEHIND_IS_GONE = 502
REDIRECTS, CLIENT_ERRORS, SERVER_ERRORS = 300, 400, 500
NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
"""Codes of OpenAI's that come with a 429, and do not pass by waiting."""

_MAX_QUOTED_CHARS = 600
_MAX_TITLE_CHARS = 120
_KNOWN_STATUSES = frozenset(HTTPStatus)
_WORDLESS = frozenset({"", "null", "{}", "[]", '""'})
_OTHER_FORM = re.compile(r"not supported in the v1/(?:chat/)?completions endpoint", re.IGNORECASE)
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


class Blame(Enum):
    """Whose fault a fault seems to be.

    Only a probe can tell for certain: all but QUESTION may be about the server, or about one question.
    """

    QUESTION = "the server has read the question, and refuses it"
    TOO_MANY = "the server refuses it as one too many"
    PASSING = "it may pass by itself"
    PERSON = "it passes only if somebody does something"


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed attempt, in no library's terms.

    Attributes:
        message: For people; the server's own words where it had any.
        status: HTTP status; None if there was no answer at all (connection refused or lost, timeout).
        retry_after_s: What the server asked for.
        parameter: The request's parameter that the server names as the culprit.
        code: The server's word for the error.
        is_web_page: HTML came with a status that says that all is well.
        is_timeout: The time allowed was over; the server may be at work on it.
        is_lost: The request had come through, and the server or what was behind it went away.
        is_unreached: It did not come through: nothing that is in it can be the reason.
        location: Where a redirect leads.
        is_of_vectors: Vectors were asked for.
    """

    message: str
    status: int | None = None
    retry_after_s: float | None = None
    parameter: str | None = None
    code: str | None = None
    is_web_page: bool = False
    is_timeout: bool = False
    is_lost: bool = False
    is_unreached: bool = False
    location: str | None = None
    is_of_vectors: bool = False

    def without(self, secret: str | None) -> Fault:
        """Fit to be shown: on one line, not too long, and without the API key."""
        return replace(
            self,
            message=_shown(self.message, secret),
            location=None if self.location is None else _shown(self.location, secret),
        )

    @property
    def told(self) -> str:
        return self.message if self.status is None else f"HTTP {self.status}: {self.message}"

    @property
    def blame(self) -> Blame:
        status = self.status
        if status == TOO_MANY and self.code not in NO_CREDIT:
            return Blame.TOO_MANY
        if (
            status is None
            or status >= SERVER_ERRORS
            or status in PASSING
            or (status < REDIRECTS and not self.is_web_page)
        ):
            return Blame.PASSING
        return (
            Blame.QUESTION
            if status in ABOUT_THE_QUESTION and not self.is_about_model and not self.is_about_form
            else Blame.PERSON
        )

    @property
    def is_about_model(self) -> bool:
        """Whether the server says that it does not serve the model."""
        asked = self.status in MISSING or self.status in ABOUT_THE_QUESTION
        return asked and (self.code == "model_not_found" or is_about_model(self.message))

    @property
    def is_about_form(self) -> bool:
        """Whether the server does not take prompts, or does not take messages."""
        return (self.status in MISSING and not self.is_about_model) or _OTHER_FORM.search(self.message) is not None


def refused(fault: Fault, request: Request) -> Refusal | None:
    """The failure of this question alone, if that is what the server says."""
    adapter = request.params.get("lora")
    if isinstance(adapter, str) and fault.is_about_model:
        return unknown_adapter(adapter, ())
    if fault.blame is not Blame.QUESTION:
        return None
    if fault.status == TOO_LARGE:
        return too_large(fault.message, len(json.dumps(request.body)))
    return refusal_of(fault.message, request.params, chat=request.chat, parameter=fault.parameter)


_NOT_TAKEN: Mapping[Form, str] = {
    "chat": "does not take chat messages (no /chat/completions)",
    "prompt": "does not take prompts (no /completions); ask it with messages",
    "vectors": "makes no such vectors (no endpoint for them)",
}


def unsupported(form: Form) -> Refusal:
    """A question of another form was answered: this server lives, and takes no such questions."""
    return Refusal("unsupported", f"this server {_NOT_TAKEN[form]}")


def given_up(fault: Fault, attempts: int, tried_s: float) -> Refusal:
    """The failure of a question that kept failing for `tried_s` seconds at a server that answers others."""
    return Refusal(
        "server_error",
        f"the server failed on this question {attempts} times in {tried_s:.0f} s; last: {fault.told}",
        is_final=True,
    )


def crashed(fault: Fault, times_alone: int) -> Refusal:
    """The failure of a question at which the server went away each time."""
    return Refusal(
        "server_error",
        f"the server went away, or hung up, each time that it had this question, the last {times_alone} times with "
        f"nothing else; last: {fault.told}",
        is_final=True,
    )


def unstable(fault: Fault, url: str) -> str:
    """Why a server cannot be used that goes away whatever it is asked."""
    return f"{url} goes away whatever it is asked, one question at a time ({fault.told}): look at its log"


def unusable_because(fault: Fault, url: str, *, chat: bool) -> str:
    """Why a server cannot be used until somebody does something, and what."""
    status = fault.status
    why = f"{url} refuses every request (HTTP {status}): {fault.message}"
    if status in ABOUT_THE_KEY:
        why = (
            f"{url} refuses the API key (HTTP {status}): {fault.message}; set model.generator_settings.api_key "
            "(BATCHFLEET_API_KEY)"
        )
    elif status == PAYMENT or fault.code in NO_CREDIT:
        why = f"{url} wants to be paid (HTTP {status}): {fault.message}"
    elif status is not None and REDIRECTS <= status < CLIENT_ERRORS:
        to = (
            f"{fault.location} (HTTP {status}); if that is meant, set"
            if fault.location
            else f"nowhere (HTTP {status}); check"
        )
        why = f"{url} redirects to {to} server in model.generator_settings: questions go nowhere else"
    elif fault.is_web_page:
        why = (
            f"{url} answers with a web page where OpenAI's API has JSON ({fault.message}): check server and port in "
            "model.generator_settings"
        )
    elif fault.is_about_model:
        why = f"{url} does not serve the model any more (HTTP {status}): {fault.message}"
    elif fault.is_about_form:
        form = "take chat messages; ask with a prompt" if chat else "take prompts; ask with messages (--chat)"
        what = "make such vectors" if fault.is_of_vectors else form
        why = f"{url} does not {what} (HTTP {status}: {fault.message})"
    return why


def status_fault(status: int, headers: Mapping[str, str], body: bytes, location: str | None) -> Fault | None:
    """From a whole reply; None if it says that all is well."""
    text = body.decode("utf-8", "replace")
    is_page = "text/html" in headers.get("content-type", "").lower() or text.lstrip()[:1] == "<"
    if status < REDIRECTS:
        return Fault(_title(text), status, is_web_page=True) if is_page else None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    words = error.get("message") or error.get("detail") or error.get("title") if isinstance(error, dict) else error
    body_words = _title(text) if is_page else "" if text.strip() in _WORDLESS else text
    code, parameter = (error.get("code"), error.get("param")) if isinstance(error, dict) else (None, None)
    return Fault(
        str(words or body_words or _phrase(status, location)),
        status,
        retry_after_s(headers),
        parameter if isinstance(parameter, str) else None,
        code if isinstance(code, str) else None,
        is_lost=status == BEHIND_IS_GONE,
        location=location,
    )


def reply_fault(reply: Any) -> Fault | None:  # noqa: ANN401 - whatever JSON a server sends
    """An error in a reply whose status says that all is well, as some gateways send it; None if there is none."""
    error = reply.get("error") if isinstance(reply, dict) and not reply.get("choices") else None
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    status = code if isinstance(code, int) and CLIENT_ERRORS <= code < 600 else 200  # noqa: PLR2004 - HTTP's statuses end there
    return Fault(str(words or "an error without words"), status, code=code if isinstance(code, str) else None)


def connection_problem(error: BaseException) -> str:
    """What happened on the network, in words.

    The client library says little, those below it more, the system at the end most.
    """
    causes = [error, *_causes(error)]
    said = next((str(cause) for cause in reversed(causes) if str(cause)), type(error).__name__)
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused: nothing listens there"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"no such host ({said})"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"no TLS connection ({said})"
    if any("Timeout" in type(cause).__name__ for cause in causes):
        return f"no connection in time ({said})"
    lost = any(
        "ProtocolError" in type(cause).__name__ or isinstance(cause, ConnectionResetError | BrokenPipeError)
        for cause in causes
    )
    return f"the connection was lost before the whole answer had come ({said})" if lost else f"no connection ({said})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Nearest first. A name with several addresses has a group of errors, one for each."""
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield cause
        yield from _causes(cause)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield one
            yield from _causes(one)


def _phrase(status: int, location: str | None) -> str:
    """What a status says by itself, of a reply that has no words."""
    if REDIRECTS <= status < CLIENT_ERRORS:
        return f"a redirect to {location or 'nowhere'}"
    return HTTPStatus(status).phrase if status in _KNOWN_STATUSES else "no words"


def _title(page: str) -> str:
    """What a web page says first."""
    found = _TITLE.search(page[:20_000])
    words = " ".join(html.unescape(_TAG.sub(" ", found[2] if found else page[:2000])).split())
    return words[:_MAX_TITLE_CHARS] or "an empty page"


def _shown(text: str, secret: str | None) -> str:
    text = text.replace(secret, "***") if secret else text
    text = " ".join(text.split())
    return text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}..."
