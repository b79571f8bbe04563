"""An answer line -> a line of the file that OpenAI's batch API gives back.

See https://platform.openai.com/docs/api-reference/batch/request-output. Failures are in the same file, with `error` in
place of `response`.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from producer.answers.reader import Answered
from producer.answers.vector_answers import data_of
from producer.questions.question_parser import Invalid, ParsedQuestion

_BESIDE_MESSAGE = frozenset({"finish_reasons", "stop_reasons", "logprobs", "prompt_logprobs"})
"""Details of an answer that OpenAI has elsewhere, or not at all; all others are fields of the message."""


def batch_line(answered: Answered, created: int, *, is_chat: bool | None = None) -> dict[str, Any]:
    """The line, as an object.

    Args:
        created: Unix time in seconds that the completion is to bear.
        is_chat: Whether it answers chat messages; None to tell by the question, and chat where that is not known.
    """
    fields = answered.fields
    tag = blake2b(fields["id"].encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    line: dict[str, Any] = {"id": f"batch_req_{tag}", "custom_id": fields["id"], "response": None, "error": None}
    if fields["status"] == "failed":
        line["error"] = {"code": fields["error"]["kind"], "message": fields["error"]["message"]}
    else:
        if is_chat is None:
            is_chat = not isinstance(answered.asked, ParsedQuestion) or answered.asked.messages is not None
        if "task" in fields:
            body = _vectors(fields, tag, created, answered.asked)
        else:
            body = _completion(fields, tag, created, is_chat=is_chat)
        line["response"] = {"status_code": 200, "request_id": f"req_{tag}", "body": body}
    return line


def _completion(fields: dict[str, Any], tag: str, created: int, *, is_chat: bool) -> dict[str, Any]:
    texts = fields.get("texts") or [fields["text"]]
    details = fields.get("details") or {}
    reasons = details.get("finish_reasons") or [fields["finish_reason"]] * len(texts)
    logprobs = details.get("logprobs") or [None] * len(texts)
    if is_chat:
        in_messages = [_in_message(fields, details, index) for index in range(len(texts))]
        choices = [
            _chat_choice(*parts) for parts in zip(range(len(texts)), texts, reasons, logprobs, in_messages, strict=True)
        ]
    else:
        choices = [_text_choice(*parts) for parts in zip(range(len(texts)), texts, reasons, logprobs, strict=True)]
    usage = fields["usage"]
    given = {"prompt_tokens": usage["prompt_tokens"], "completion_tokens": usage["completion_tokens"]}
    inside = {"cached_tokens": "prompt_tokens_details", "reasoning_tokens": "completion_tokens_details"}
    more = {place: {name: usage[name]} for name, place in inside.items() if name in usage}
    return {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{tag}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": created,
        "model": fields["model"],
        "choices": choices,
        "usage": {**given, "total_tokens": sum(given.values()), **more},
    }


def _vectors(fields: dict[str, Any], tag: str, created: int, asked: ParsedQuestion | Invalid | None) -> dict[str, Any]:
    """As OpenAI has embeddings, vLLM classes, and Cohere and vLLM scores, the best document first."""
    tokens = fields["usage"]["prompt_tokens"]
    body = {"model": fields["model"], "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    if fields["task"] == "score":
        texts = asked.inputs if isinstance(asked, ParsedQuestion) and asked.inputs is not None else []
        best = sorted(enumerate(fields["scores"]), key=lambda pair: -pair[1])[: fields["params"].get("top_n")]
        results = [
            {"index": index, **({"document": {"text": texts[index]}} if texts else {}), "relevance_score": score}
            for index, score in best
        ]
        return {"id": f"rerank-{tag}", **body, "results": results}
    if fields["task"] == "classify":
        given = fields.get("classes") or [{name: fields[name] for name in ("label", "probs") if name in fields}]
        classes = [
            {"index": index, "label": one.get("label"), "probs": one["probs"], "num_classes": len(one["probs"])}
            for index, one in enumerate(given)
        ]
        return {"id": f"classify-{tag}", "object": "list", "created": created, **body, "data": classes}
    data = [
        {"object": "embedding", "index": index, "embedding": embedding}
        for index, embedding in enumerate(data_of(fields))
    ]
    return {"object": "list", "data": data, **body}


def _in_message(fields: dict[str, Any], details: dict[str, Any], index: int) -> dict[str, Any]:
    """What came with a text: its reasoning, tool calls, a refusal, and whatever else was in the message.

    The reasoning has the name that most clients know.
    """
    own: dict[str, Any] = {name: [fields[name]] for name in ("reasoning", "tool_calls") if name in fields}
    details = {**own, **details}
    found = {
        name: values[index]
        for name, values in details.items()
        if name not in _BESIDE_MESSAGE and isinstance(values, list) and index < len(values)
    }
    return {
        "reasoning_content" if name == "reasoning" else name: value
        for name, value in found.items()
        if value is not None
    }


def _chat_choice(
    index: int, text: str, reason: str, logprobs: list[dict[str, Any]] | None, more: dict[str, Any]
) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": text or (None if more.get("tool_calls") else text),
        "refusal": None,
        **more,
    }
    content = None if logprobs is None else {"content": logprobs, "refusal": None}
    return {"index": index, "message": message, "logprobs": content, "finish_reason": reason}


def _text_choice(index: int, text: str, reason: str, logprobs: list[dict[str, Any]] | None) -> dict[str, Any]:
    columns = None
    if logprobs is not None:
        columns = {
            "tokens": [one["token"] for one in logprobs],
            "token_logprobs": [one["logprob"] for one in logprobs],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in one.get("top_logprobs") or ()} for one in logprobs
            ],
        }
    return {"index": index, "text": text, "logprobs": columns, "finish_reason": reason}
