"""Why a question gets no answer, in the same words whichever engine found out. `wire.failures` has the kinds."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from gpu_worker.engines.engine import Refusal
from wire.errors import nearest
from wire.messages import JsonObject

NO_CHAT_TEMPLATE = Refusal(
    "no_chat_template",
    (
        "the model has no chat template, so it cannot be asked with messages: set chat_template (text or file) in "
        "vllm_args, or ask with a prompt"
    ),
)
EMPTY_PROMPT = Refusal("empty_prompt", "the prompt is empty")

_MAX_QUOTED_CHARS = 600

# vLLM's own words, 0.26 to 0.33, and OpenAI's. Tested with samples: a new vLLM that words it differently gives
# `bad_parameter` with its text.
_TOO_LONG = (
    re.compile(
        (
            r"maximum context length is (?P<limit>\d+) tokens.*?(?:contains|resulted in) (?P<about>at least "
            r")?(?P<tokens>\d+) (?:input )?tokens"
        ),
        re.DOTALL,
    ),
    re.compile(
        r"prompt \(length (?P<tokens>\d+)\) is longer than the maximum model length of (?P<limit>\d+)(?P<about>)"
    ),
)
_TOO_LONG_IN_CHARACTERS = re.compile(
    r"maximum context length is (?P<limit>\d+) tokens.*?contains (?P<characters>\d+) characters", re.DOTALL
)
_NO_ROOM = re.compile(r"max_tokens must be at least 1, got (?:0|-\d+)")
"""What vLLM's server says of a prompt that fits exactly; a question's own max_tokens was checked before."""
_NO_TEMPLATE = re.compile(
    r"default chat template is no longer|does not (?:define|have) (?:one|a chat[ _]template)|chat_template is not set",
    re.IGNORECASE,
)
_NO_IMAGES = re.compile(
    r"is not a multimodal model|At most \d+ image\(s\) may be provided|(?:does not support|no support for) images?\b",
    re.IGNORECASE,
)
_BROKEN_IMAGE = re.compile(r"Failed to load image|cannot identify image file|image file is truncated")
_EMPTY = re.compile(
    r"prompt cannot be empty|must pass at least one prompt|[Pp]lease submit a prompt|You must provide a non-empty "
    r"prompt"
)
_NO_MODEL = re.compile(
    r"\bmodel\b.{0,200}\b(?:does not exist|not found|is not served)|model_not_found", re.DOTALL | re.IGNORECASE
)
_OTHER_ENDPOINT = re.compile(r"supported in (?:the )?v1/(?:chat/)?completions", re.IGNORECASE)
_NOT_TAKEN = re.compile(r"[Uu]nsupported (?:parameter|value)|does not support", re.DOTALL)
_ABOUT_STRUCTURE = re.compile(r"grammar|schema|regex|structured|guided|xgrammar|outlines|choice|json", re.IGNORECASE)
_ABOUT_MESSAGES = re.compile(r"'messages'|\bmessages\b|\brole\b|\broles\b|conversation", re.IGNORECASE)


def prompt_too_long(tokens: int, limit: int, *, at_least: bool = False) -> Refusal:
    """`tokens` of prompt for a model that takes `limit` of prompt and answer together.

    A prompt of exactly `limit` leaves no room for an answer.
    """
    about = "at least " if at_least else ""
    message = (
        f"the prompt has {about}{tokens} tokens, but the model takes {limit} (max_model_len), and one of them must be "
        "left for the answer"
    )
    return Refusal("prompt_too_long", message)


def too_large(problem: str, size_bytes: int) -> Refusal:
    """Of a server that takes no request of `size_bytes`, in its own words unless they have the tokens."""
    return _about_prompt(problem) or Refusal(
        "prompt_too_long", f"the server takes no request so large, of {size_bytes} bytes (HTTP 413): {_quoted(problem)}"
    )


def unknown_adapter(name: str, adapters: Collection[str]) -> Refusal:
    """`adapters`: those that there are; empty if none, or if nobody can say which."""
    if not adapters:
        return Refusal("unknown_adapter", f"no LoRA adapter {name!r} here: this engine has none")
    known = ", ".join(repr(adapter) for adapter in sorted(adapters))
    return Refusal(
        "unknown_adapter", f"no LoRA adapter {name!r} here{nearest(name, adapters)}; this engine has {known}"
    )


def bad_messages(problem: str) -> Refusal:
    return Refusal("bad_messages", f"the chat messages cannot be used: {_quoted(problem)}")


def bad_schema(problem: str) -> Refusal:
    return Refusal("bad_schema", f"the structured output asked for cannot be used: {_quoted(problem)}")


def bad_parameter(problem: str) -> Refusal:
    return Refusal("bad_parameter", _quoted(problem))


def unknown_tokens(params: JsonObject, vocabulary_tokens: int) -> Refusal | None:
    """Token ids outside the model's vocabulary.

    Some versions of vLLM index with them unchecked, which ends the engine.
    """
    for name in ("stop_token_ids", "allowed_token_ids", "logit_bias"):
        given = params.get(name)
        token_ids = (
            [int(token_id) for token_id in given if isinstance(token_id, int | str)]
            if isinstance(given, list | dict)
            else []
        )
        outside = [token_id for token_id in token_ids if not 0 <= token_id < vocabulary_tokens]
        if outside:
            return Refusal(
                "bad_parameter",
                (
                    f"parameter {name!r} names token {outside[0]}, and the model has {vocabulary_tokens} tokens, 0 the "
                    "first"
                ),
            )
    return None


def engine_failed(problem: str) -> Refusal:
    """This question failed inside the engine, which continues."""
    return Refusal("engine_error", f"the engine failed on this question: {_quoted(problem)}")


def messages_problem(messages: Sequence[JsonObject]) -> str | None:
    """What is wrong with the form of chat messages, before a template looks at what they say; None if nothing is."""
    if not messages:
        return "there are none"
    for number, message in enumerate(messages, start=1):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role:
            return f"message {number} has no role"
        if content is None and role == "assistant":
            continue
        parts_fit = isinstance(content, list) and all(
            isinstance(part, str) or (isinstance(part, dict) and "type" in part) for part in content
        )
        if not isinstance(content, str) and not parts_fit:
            return f"message {number} (role {role}) has no content that is a text or a list of parts"
    return None


def refusal_of(problem: str, params: JsonObject, *, chat: bool, parameter: str | None = None) -> Refusal:
    """Sort an engine's or a server's own words about a question that it will not answer.

    `params`: the canonical parameters of the question. `parameter`: the one that the engine names as the culprit, if it
    does.
    """
    known = _about_prompt(problem)
    if known is not None:
        return known
    adapter = params.get("lora")
    if isinstance(adapter, str) and (_NO_MODEL.search(problem) or "lora" in problem.lower()):
        return unknown_adapter(adapter, ())
    culprit = (
        parameter
        if parameter in params
        else next((name for name in params if re.search(rf"\b{re.escape(name)}\b", problem)), None)
    )
    if "structured_outputs" in params and culprit in {None, "structured_outputs"} and _ABOUT_STRUCTURE.search(problem):
        return bad_schema(problem)
    if chat and culprit is None and (parameter in {None, "messages"} or _ABOUT_MESSAGES.search(problem)):
        return bad_messages(problem)
    if culprit is not None and _NOT_TAKEN.search(problem):
        return bad_parameter(
            f"{problem.rstrip('. ')}; `{culprit}: null`, in the question or the configuration, leaves it out"
        )
    return bad_parameter(problem)


def is_about_model(problem: str) -> bool:
    """Whether a server says that it does not serve the model at all."""
    return _NO_MODEL.search(problem) is not None


def _about_prompt(problem: str) -> Refusal | None:
    for pattern in _TOO_LONG:
        found = pattern.search(problem)
        if found:
            return prompt_too_long(int(found["tokens"]), int(found["limit"]), at_least=bool(found["about"]))
    found = _TOO_LONG_IN_CHARACTERS.search(problem)
    if found:
        message = (
            f"the prompt has {found['characters']} characters, more than the model's {found['limit']} tokens "
            "(max_model_len) can hold"
        )
        return Refusal("prompt_too_long", message)
    if _OTHER_ENDPOINT.search(problem):
        told = "this model takes the other form of question (`--chat` makes messages of prompts)"
        return Refusal("unsupported", f"{told}: {_quoted(problem)}")
    if _NO_ROOM.search(problem):
        return Refusal(
            "prompt_too_long",
            "the prompt is as long as the model can take (max_model_len), and leaves no room for an answer",
        )
    if _NO_TEMPLATE.search(problem):
        return NO_CHAT_TEMPLATE
    return EMPTY_PROMPT if _EMPTY.search(problem) else _about_images(problem)


def _about_images(problem: str) -> Refusal | None:
    if _NO_IMAGES.search(problem):
        return Refusal("unsupported", f"this model takes no images, or not so many: {_quoted(problem)}")
    is_broken = _BROKEN_IMAGE.search(problem) is not None
    return Refusal("bad_image", f"an image cannot be unpacked: {_quoted(problem)}") if is_broken else None


def _quoted(problem: str) -> str:
    text = " ".join(problem.split())
    return text if len(text) <= _MAX_QUOTED_CHARS else f"{text[:_MAX_QUOTED_CHARS]}..."
