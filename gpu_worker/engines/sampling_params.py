"""The sampling parameters of a question: its own, completed by the configuration."""

from __future__ import annotations

from gpu_worker.engines.engine import Refusal
from wire.canonical_params import canonical
from wire.errors import EngineBootError, ParameterError
from wire.messages import JsonObject, Question
from wire.parameters import CHAT_ONLY
from wire.vector_parameters import pooling_params

DEFAULTS: JsonObject = {"temperature": 0.0, "max_tokens": 1024}
"""Used where neither the question nor the configuration says otherwise."""

NEUTRAL: JsonObject = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Everything else that a model's generation_config could change behind our back. Always set, and recorded."""

PROMPT_SHAPING = CHAT_ONLY | {"add_special_tokens"}
"""Parameters that shape the prompt before the sampler comes in."""


def configured_params(configured: JsonObject) -> JsonObject:
    """The configuration's sampling defaults in canonical names.

    Raises:
        EngineBootError: They cannot be used.
    """
    try:
        return canonical(configured)
    except ParameterError as error:
        raise EngineBootError(f"the sampling defaults of the configuration cannot be used: {error}") from None


def effective_params(
    asked: JsonObject, defaults: JsonObject, *, chat: bool, own: JsonObject | None = None
) -> JsonObject | Refusal:
    """The canonical parameters of one question, `defaults` (canonical already) filled in.

    Or why there are none (`bad_parameter`, `bad_schema`). What is null in either is not among them, unless it is among
    the model's `own`: the engine's own default holds.
    """
    try:
        params = {**defaults, **canonical(asked, chat=chat)}
    except ParameterError as error:
        return Refusal(error.kind, str(error))
    kept: JsonObject = {name: value for name, value in params.items() if value is not None}
    return {**(own or {}), **kept}


def vector_params(question: Question) -> JsonObject | Refusal:
    """The parameters of a question for vectors; the configuration has none. Or why there are none."""
    try:
        return pooling_params(question.params, question.task)
    except ParameterError as error:
        return Refusal(error.kind, str(error))


def untaken(name: str, engine: str) -> Refusal:
    """That `engine` cannot do what a parameter asks for, though others can."""
    return Refusal("bad_parameter", f"parameter {name!r} is for servers that know it; {engine} does not take it")
