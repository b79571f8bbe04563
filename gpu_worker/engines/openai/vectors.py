"""A question for vectors -> a request to a server; its response -> vectors. Pure."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Any

from gpu_worker.engines.engine import Refusal, Vectors, packed
from gpu_worker.engines.openai.request_body import Request, Served
from gpu_worker.engines.sampling_params import vector_params
from wire.codec import sendable
from wire.messages import FLOAT_BYTES, JsonObject, Question, Task, Usage

Json = Any
"""Whatever JSON a server sends."""

PATHS: Mapping[Task, str] = {"embed": "/embeddings", "classify": "/classify", "score": "/rerank"}
"""OpenAI's; vLLM's, beside its version; Cohere's, which vLLM and others have too."""

_NOT_SENT = frozenset({"encoding_format", "extra_body", "lora", "top_n"})


def vector_request(question: Question, served: Served) -> Request | Refusal:
    """The request; or why no server would answer it."""
    params = vector_params(question)
    if isinstance(params, Refusal):
        return params
    inputs: list[Any] = list(question.inputs or ())
    body: JsonObject = {name: value for name, value in params.items() if name not in _NOT_SENT}
    body["model"] = params.get("lora", served.model)
    if question.task == "score":
        body |= {"query": question.query, "documents": inputs}
    else:
        body["input"] = inputs[0] if len(inputs) == 1 else inputs
    if question.task == "embed":
        # A quarter of the bytes; but not every server knows it.
        body["encoding_format"] = "base64" if served.is_vllm else "float"
    extra = params.get("extra_body")
    body |= extra if isinstance(extra, dict) else {}
    return Request(PATHS[question.task], body, params, chat=False, task=question.task, inputs=len(inputs))


def probe(task: Task, model: str) -> Request:
    """A question of our own."""
    asked: JsonObject = {"query": "Hello", "documents": ["Hello"]} if task == "score" else {"input": "Hello"}
    return Request(PATHS[task], {"model": model, **asked}, {}, chat=False, task=task)


def vectors_of(response: Json, request: Request) -> Vectors | None:
    """From the JSON of a successful response; None if it does not have the form of one."""
    response = sendable(response)
    if not isinstance(response, dict):
        return None
    found = response.get("results" if request.task == "score" else "data")
    if not isinstance(found, list) or len(found) != request.inputs:
        return None
    entries: dict[Json, Mapping[str, Json]] = {
        one.get("index", number): one for number, one in enumerate(found) if isinstance(one, dict)
    }
    if entries.keys() != set(range(request.inputs)):
        return None
    in_order = [entries[index] for index in range(request.inputs)]
    usage = response.get("usage")
    tokens = usage.get("prompt_tokens", usage.get("total_tokens")) if isinstance(usage, dict) else None
    counted = Usage(prompt_tokens=tokens if isinstance(tokens, int) and tokens >= 0 else 0, completion_tokens=0)
    if request.task == "score":
        scores = _floats([one.get("relevance_score", one.get("score")) for one in in_order])
        return None if scores is None else Vectors([scores], counted, request.params)
    name = "embedding" if request.task == "embed" else "probs"
    vectors = [_floats(one.get(name)) for one in in_order]
    whole = [vector for vector in vectors if vector]
    if len(whole) < len(vectors):
        return None
    labels: JsonObject = {"labels": [one.get("label") for one in in_order]} if request.task == "classify" else {}
    return Vectors(whole, counted, request.params, labels or None)


def _floats(value: Json) -> bytes | None:
    """A list of numbers, or base64 of float32 as they travel; None for anything else."""
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        return data if len(data) % FLOAT_BYTES == 0 else None
    if not isinstance(value, list) or not all(_is_number(one) for one in value):
        return None
    try:
        return packed(value)
    except OverflowError:
        return None


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
