"""`echo`: the prompt again before its answer, with log probabilities if these are wanted. Pure.

The fleet is asked for `prompt_logprobs`, which all of its engines that can do this at all know; what OpenAI's clients
expect for `echo` is made of these here. Evaluations rank the choices of a question by them.
"""

from __future__ import annotations

from typing import Any

from batchfleet.gateway.errors import ApiError


def asked_for_echo(body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """The body of a request without `echo`, and whether it is left out of the answer what the model would say itself.

    OpenAI takes `max_tokens` 0 for an echo alone; engines make one token at least.
    """
    asked = {name: value for name, value in body.items() if name != "echo"}
    if isinstance(asked.get("logprobs"), int) and asked["logprobs"] is not False:
        asked["prompt_logprobs"] = int(asked["logprobs"])
    if asked.get("max_tokens") == 0:
        return {**asked, "max_tokens": 1}, True
    return asked, False


def with_prompt(choice: dict[str, Any], prompt: str, positions: list[Any] | None, *, alone: bool) -> dict[str, Any]:
    """A choice of a completion, with its prompt before it.

    Args:
        positions: For each token of the prompt, in vLLM's form, its id and that of the likeliest there with what is
            known of them, its own first; None for the first token, before which there is nothing.
        alone: Whether what the model said is left out.

    Raises:
        ApiError: Log probabilities are wanted, and the engine gave none.
    """
    said = "" if alone else choice["text"]
    columns = choice["logprobs"]
    if columns is not None:
        if not positions:
            msg = "'echo' with 'logprobs' needs log probabilities of the prompt, and this engine gives none."
            raise ApiError(400, msg, param="echo", code="unsupported_value")
        answered = {name: [] if alone else values for name, values in columns.items()}
        echoed = _columns(prompt, positions)
        columns = {name: [*values, *answered[name]] for name, values in echoed.items()}
    reason = "length" if alone else choice["finish_reason"]
    return {**choice, "text": prompt + said, "logprobs": columns, "finish_reason": reason}


def _columns(prompt: str, positions: list[Any]) -> dict[str, list[Any]]:
    tokens: list[str] = []
    logprobs: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    for position in positions[1:]:
        ranked = list((position or {}).values())
        tokens.append(ranked[0]["decoded_token"] or "" if ranked else "")
        logprobs.append(ranked[0]["logprob"] if ranked else None)
        # The token's own counts, too: where two spell alike, the likelier.
        top: dict[str, float] = {}
        for one in sorted(ranked, key=lambda one: float(one["logprob"])):
            top[one["decoded_token"] or ""] = one["logprob"]
        tops.append(top)
    rest = "".join(tokens)
    first = prompt[: len(prompt) - len(rest)] if prompt.endswith(rest) else ""
    return {"tokens": [first, *tokens], "token_logprobs": [None, *logprobs], "top_logprobs": [None, *tops]}
