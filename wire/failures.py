"""Every kind of failure that a record can have.

What it means, what to do about it, and whether asking the same again could help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wire.messages import ErrorDetail, JsonObject

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
        "prompt and one token of answer do not fit the model, or the server takes no request so large; the message has "
        "the numbers",
        "shorten it, or raise `max_model_len` in `vllm_args`, or the server's limit",
    ),
    "empty_prompt": KindInfo(
        "nothing is left of the prompt once the model's template or tokenizer has seen it", "give it words"
    ),
    "bad_parameter": KindInfo(
        "a name or value in `params` that this engine does not take",
        "correct it; the message names the nearest known one",
    ),
    "bad_schema": KindInfo(
        "the structured output asked for cannot be used", "correct the schema, regex, choice or grammar"
    ),
    "bad_messages": KindInfo(
        "the chat messages have no role or content, or the model's template refuses them",
        "correct them; some models take no system message",
    ),
    "bad_image": KindInfo(
        "an image of the question is missing, not allowed, too large or broken; the message names its place",
        "correct its address, or what `images` in the workers' configuration allows",
    ),
    "image_unreachable": KindInfo(
        "the server of an image failed, or did not answer in time, several times",
        "ask again; look at that server, or raise `images.timeout_s`",
        retryable=True,
    ),
    "no_chat_template": KindInfo(
        "`messages` for a model that has no chat template", "set `chat_template`, or ask with `prompt`"
    ),
    "unknown_adapter": KindInfo(
        "no LoRA adapter of that name here; the message lists those that there are",
        "correct the name, or load the adapter",
    ),
    "unsupported": KindInfo(
        "the engine or server does not do what is asked: chat or plain text, text or vectors",
        "ask with `messages` instead of `prompt`, or the other way round; for vectors see `task` in the configuration",
    ),
    "empty_answer": KindInfo(
        "the model ended without a text, a call of a tool or a refusal; `evidence` has `finish_reason` and tokens",
        "raise `max_tokens` if the reason is `length`; else ask differently",
    ),
    "only_reasoning": KindInfo(
        "the model thought, and gave no answer; `evidence` has its `reasoning`",
        "raise `max_tokens`, or lower `reasoning_effort` or `thinking_token_budget`",
    ),
    "unreadable": KindInfo(
        "no worker here can read it: damaged, or of a newer version; its bytes are among the dead letters",
        "upgrade the workers, or ask again",
        retryable=True,
    ),
    "refused": KindInfo("the stub engine was told to refuse it (`stub.refuse_on`)", "only in tests"),
    "expired": KindInfo(
        "its `deadline_s` passed while it was queued (it was never generated) or in the engine (it was taken out)",
        "more workers, or a later deadline",
    ),
    "cancelled": KindInfo("its run was cancelled", "ask again under another `--run`, with another `-o`"),
    "timed_out": KindInfo(
        "no answer within `limits.question_timeout_s`", "raise that limit, or lower `max_tokens`", retryable=True
    ),
    "server_error": KindInfo(
        "the server kept failing on it, or refusing it, while it answered others; or went away each time it had it",
        "look at the server's log",
        retryable=True,
    ),
    "engine_error": KindInfo(
        "the engine failed on this question and lives on",
        "ask again; if it fails again, look at the worker's log",
        retryable=True,
    ),
    "internal_error": KindInfo(
        "a bug of batchfleet or of the engine, seen on this question only", "report it, with the worker's log"
    ),
    "engine_killed": KindInfo(
        "workers died of it until it stood alone; `evidence` names them",
        "leave it out, or find out what about it kills the engine",
    ),
}


def error_of(kind: Kind, message: str, evidence: JsonObject | None = None) -> ErrorDetail:
    """What a record says of a failure. `message`: a sentence for people, with the numbers that matter."""
    return ErrorDetail(kind=kind, message=message, retryable=KINDS[kind].retryable, evidence=evidence)
