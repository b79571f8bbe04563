"""The fields of a question for vectors: embeddings, classes of texts, scores of documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from producer.questions.fields import Field, text_of
from producer.questions.json_object import UnusableError, shown
from wire.messages import JsonObject, Task

MOST_INPUTS = 2048
"""Of one question; as many as OpenAI takes."""

Wanted = tuple[Task, list[Any] | None, str | None]
"""(task, inputs, query) as a question has them."""

NOTHING: Wanted = ("generate", None, None)

_TASKS: tuple[Task, ...] = tuple(task for task in get_args(Task) if task != "generate")


def _inputs(value: object, name: str) -> list[Any]:
    """One text or list of token ids, or several, as a list of them."""
    if isinstance(value, list) and value and all(map(_is_token, value)):
        return [value]
    inputs = value if isinstance(value, list) else [value]
    if not inputs or len(inputs) > MOST_INPUTS:
        raise UnusableError(f"`{name}` has {len(inputs)} texts; 1 to {MOST_INPUTS} are allowed, in one question")
    for number, one in enumerate(inputs, 1):
        if isinstance(one, list) and one and all(map(_is_token, one)):
            continue
        text_of(one, name if len(inputs) == 1 else f"{name}` number `{number}")
    return inputs


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _documents(value: object, name: str) -> list[Any]:
    # Cohere's API takes objects with a text, too.
    texts = (
        [one["text"] if isinstance(one, dict) and "text" in one else one for one in value]
        if isinstance(value, list)
        else value
    )
    return _inputs(texts, name)


def _task(value: object, name: str) -> Task:
    for task in _TASKS:
        if value == task:
            return task
    raise UnusableError(f"`{name}` is {shown(value)}, not {', '.join(_TASKS[:-1])} or {_TASKS[-1]}")


VECTOR_FIELDS: dict[str, Field] = {
    "input": Field(
        _inputs, f"a text, a list of token ids, or a list of up to {MOST_INPUTS} of these; each gets a vector"
    ),
    "task": Field(_task, "`embed` or `classify`: what to make of `input`", "`embed`"),
    "query": Field(text_of, "a text to compare with each of `documents`"),
    "documents": Field(_documents, f"up to {MOST_INPUTS} texts; each gets a score"),
}
"""Only in a question that has no `question`, `prompt` or `messages`."""


def wanted_of(given: Mapping[str, Any]) -> Wanted:
    """What a question wants that has some of these fields, checked already.

    Raises:
        UnusableError: They do not go together.
    """
    task, inputs, query, documents = (given.get(name) for name in ("task", "input", "query", "documents"))
    if query is None and documents is None and inputs is not None and task != "score":
        return task or "embed", inputs, None
    if query is None or documents is None or inputs is not None or task not in {None, "score"}:
        raise UnusableError("it has only some of what goes together; give it `input`, or `query` and `documents`")
    return "score", documents, query


def in_task(task: Task, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Text to be asked, as a text for a vector: in a run whose model makes nothing else.

    Raises:
        UnusableError: It is no text.
    """
    text = next((fields[name] for name in ("question", "prompt") if fields.get(name) is not None), None)
    rest = {name: value for name, value in fields.items() if name not in {"question", "prompt"}}
    if text is None or task == "generate":
        return dict(fields)
    if task == "score":
        raise UnusableError("it is one text, and scores want two; give it `query` and `documents`")
    return {**rest, "input": text, "task": task}


def of_endpoint(url: str, body: JsonObject) -> dict[str, Any]:
    """The fields that an endpoint for vectors has in its body, under our names."""
    if url == "/v1/embeddings":
        return {"input": body.get("input")}
    if url == "/classify":
        return {"input": body.get("input"), "task": "classify"}
    first, second = ("query", "documents") if url.endswith("rerank") else ("text_1", "text_2")
    query, documents = body.get(first), body.get(second)
    return {"query": query, "documents": documents if isinstance(documents, list) else [documents]}


ENDPOINTS: dict[str, frozenset[str]] = {
    "/v1/embeddings": frozenset({"input"}),
    "/classify": frozenset({"input"}),
    "/v1/score": frozenset({"text_1", "text_2"}),
    "/score": frozenset({"text_1", "text_2"}),
    "/v1/rerank": frozenset({"query", "documents"}),
    "/rerank": frozenset({"query", "documents"}),
}
"""Endpoints that vectors are asked of, as OpenAI and vLLM have them; what each wants in its body."""


def missing(url: str, body: Mapping[str, Any]) -> str | None:
    """What a body lacks that its endpoint wants; None if nothing."""
    return next((name for name in sorted(ENDPOINTS[url]) if body.get(name) is None), None)
