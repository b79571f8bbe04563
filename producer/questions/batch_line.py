"""A line of an OpenAI batch file -> a question in our own form."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from producer.questions.column_mapping import CONTENT_FIELDS
from producer.questions.json_object import UnusableError, kind, short, shown
from producer.questions.vector_questions import ENDPOINTS, missing, of_endpoint

_BATCH_FIELDS = ("custom_id", "method", "url", "body")

_BESIDE_BODY = ("priority", "deadline_s", "metadata")

_BATCH_CONTENT = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}


def unknown_field(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    advice = (
        f"did you mean `{near[0]}`?" if near else "sampling parameters go in `params`, your own fields in `metadata`"
    )
    return f"`{short(name)}` is not a field of a question; {advice}"


def in_own_form(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn a line of an OpenAI batch file into our form; leave anything else as it is."""
    if not fields.keys().isdisjoint((*CONTENT_FIELDS, "input", "documents")):
        return fields
    if (stranger := _known_stranger(fields)) is not None:
        raise UnusableError(stranger)
    if fields.keys().isdisjoint(("custom_id", "body")):
        return fields
    own = {name: value for name, value in fields.items() if name not in _BATCH_FIELDS}
    if unknown := [name for name in own if name not in _BESIDE_BODY]:
        raise UnusableError(unknown_field(unknown[0], (*_BATCH_FIELDS, *_BESIDE_BODY)))
    url, body = _content_of_batch_line(fields)
    if body.get("stream"):
        raise UnusableError("`body.stream` is on, but answers arrive whole; leave it out")
    if "metadata" in body and "metadata" in own:
        raise UnusableError("`metadata` is both in `body` and beside it; keep one of them")
    moved = {name: body.get(name) for name in (_BATCH_CONTENT.get(url), "model", "metadata") if name in body}
    asked = of_endpoint(url, body) if url in ENDPOINTS else {}
    left_out = {*moved, *ENDPOINTS.get(url, ()), "stream"}
    params = {name: value for name, value in body.items() if name not in left_out}
    return {**own, **moved, **asked, "id": fields.get("custom_id"), "params": params}


def _content_of_batch_line(fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Check what is outside of the body; returns the endpoint, and the body."""
    method, url, body = fields.get("method", "POST"), fields.get("url"), fields.get("body")
    if method != "POST":
        raise UnusableError(f"`method` is {shown(method)}; only POST can be asked")
    if url is None and isinstance(body, dict):
        # Together and Novita leave it out: one endpoint fits what is asked.
        first = next(iter(_BATCH_CONTENT))
        url = next(
            (url for url, name in _BATCH_CONTENT.items() if name in body),
            "/v1/embeddings" if "input" in body else first,
        )
    endpoints = (*_BATCH_CONTENT, *ENDPOINTS)
    if not isinstance(url, str) or url not in endpoints:
        raise UnusableError(f"`url` is {shown(url)}; only {', '.join(endpoints[:-1])} and {endpoints[-1]} can be asked")
    content = _BATCH_CONTENT.get(url) or " and ".join(sorted(ENDPOINTS[url]))
    if not isinstance(body, dict):
        raise UnusableError(f"`body` is {kind(body)}, not an object with `model` and `{content}`")
    lacks = missing(url, body) if url in ENDPOINTS else content if body.get(content) is None else None
    if lacks is not None:
        raise UnusableError(f"`body` asks nothing; {url} wants `{lacks}` in it")
    return url, body


def _known_stranger(fields: dict[str, Any]) -> str | None:
    """What a line is that is no question of ours and well known elsewhere, and what to make of it.

    None for any other.
    """
    params = fields.get("params")
    if "custom_id" in fields and isinstance(params, dict) and "messages" in params:
        own = (
            '{"id": ..., "messages": ..., "params": {"max_tokens": ...}}, with `system` as the first message and '
            "`stop_sequences` as `stop`"
        )
        return f"it is a line of an Anthropic message batch (`custom_id`, `params`); write {own}"
    if {"role", "content"} <= fields.keys():
        return (
            'it is one message of a chat, not a question; write {"messages": [...]} around those that belong together'
        )
    return None
