"""Every kind of failure that a record can have.

What it means, what to do about it, and whether asking the same again could help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wire.messages import Answer, ErrorDetail, Failure, JsonObject

EXAMPLE_CHARACTERS = 300

Kind = Literal[
    "invalid_question",
    "prompt_too_long",
    "empty_prompt",
    "bad_parameter",
    "bad_schema",
    "bad_messages",
    "bad_image",
    "image_unreachable",
    "no_chat_template",
    "unknown_adapter",
    "unsupported",
    "empty_answer",
    "only_reasoning",
    "unreadable",
    "refused",
    "expired",
    "cancelled",
    "timed_out",
    "server_error",
    "engine_error",
    "internal_error",
    "engine_killed",
]


@dataclass(frozen=True, slots=True)
class KindInfo:
    """`means` and `advice` are for people, in Markdown; `retryable`.

    Whether the same question may be answered another time.
    """

    means: str
    advice: str
    retryable: bool = False


KINDS: Mapping[Kind, KindInfo] = {
    "invalid_question": KindInfo(
        "the line could not be used (only with `--skip-invalid`)", "correct the line; the message names it"
    ),
    "prompt_too_long": KindInfo(
        "prompt and one token of answer exceed the model's or server's limit; the message has the numbers",
        "shorten it, or raise `max_model_len` in `vllm_args` or the server's limit",
    ),
    "empty_prompt": KindInfo("the prompt is empty after the model's template or tokenizer", "write a prompt"),
    "bad_parameter": KindInfo(
        "a name or value in `params` that the engine does not take", "correct it; the message names the nearest one"
    ),
    "bad_schema": KindInfo("the structured output cannot be used", "correct the schema, regex, choice or grammar"),
    "bad_messages": KindInfo(
        "chat messages without role or content, or refused by the model's template",
        "correct them; some models take no system message",
    ),
    "bad_image": KindInfo(
        "an image is missing, not allowed, too large or broken; the message says which",
        "correct its address, or what `images` in the workers' configuration allows",
    ),
    "image_unreachable": KindInfo(
        "an image's server failed or timed out several times",
        "check that server, or raise `images.timeout_s`; ask again",
        retryable=True,
    ),
    "no_chat_template": KindInfo(
        "`messages` for a model that has no chat template", "set `chat_template`, or ask with `prompt`"
    ),
    "unknown_adapter": KindInfo(
        "no LoRA adapter of that name; the message lists the known ones", "correct the name, or load the adapter"
    ),
    "unsupported": KindInfo(
        "the engine does not do this: chat or plain text, text or vectors",
        "use `messages` instead of `prompt` or vice versa; for vectors see the setting `task`",
    ),
    "empty_answer": KindInfo(
        "neither text, tool call nor refusal; `evidence` has `finish_reason` and tokens",
        "raise `max_tokens` if the reason is `length`; else rephrase",
    ),
    "only_reasoning": KindInfo(
        "reasoning but no answer; `evidence` has the reasoning",
        "raise `max_tokens`, or lower `reasoning_effort` or `thinking_token_budget`",
    ),
    "unreadable": KindInfo(
        "no worker can read it: damaged, or of a newer version; its bytes are a dead letter",
        "upgrade the workers, or ask again",
        retryable=True,
    ),
    "refused": KindInfo("the stub engine was told to refuse it (`stub.refuse_on`)", "only in tests"),
    "expired": KindInfo("its `deadline_s` passed in the queue or in the engine", "more workers, or a later deadline"),
    "cancelled": KindInfo("its run was cancelled", "ask again under another `--run`, with another `-o`"),
    "timed_out": KindInfo(
        "no answer within `limits.question_timeout_s`", "raise that limit, or lower `max_tokens`", retryable=True
    ),
    "server_error": KindInfo(
        "the server kept failing on it while answering others, or crashed each time",
        "look at the server's log",
        retryable=True,
    ),
    "engine_error": KindInfo(
        "the engine failed on this question and continued",
        "ask again; if it fails again, look at the worker's log",
        retryable=True,
    ),
    "internal_error": KindInfo(
        "a bug of batchfleet or of the engine, seen on this question only", "report it, with the worker's log"
    ),
    "engine_killed": KindInfo(
        "its workers died, at last with nothing else in the engine; `evidence` names them",
        "leave it out, or find out what kills the engine",
    ),
}


def error_of(kind: Kind, message: str, evidence: JsonObject | None = None) -> ErrorDetail:
    """What a record says of a failure. `message`: a sentence for people, with the numbers that matter."""
    return ErrorDetail(kind=kind, message=message, retryable=KINDS[kind].retryable, evidence=evidence)


def brief(record: Answer | Failure) -> bytes:
    """What a run counts of a record: `answered`, or the kind of a failure, a space, and how its message begins."""
    if isinstance(record, Answer):
        return b"answered"
    return f"{record.error.kind} {record.error.message[:EXAMPLE_CHARACTERS]}".encode(errors="replace")
