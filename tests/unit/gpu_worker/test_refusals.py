"""The words of vLLM 0.26 to 0.33 and of OpenAI become the same few kinds."""

from __future__ import annotations

import pytest

from gpu_worker.engines.refusals import NO_CHAT_TEMPLATE, messages_problem, refusal_of, unknown_adapter, unknown_tokens
from wire.messages import JsonObject

PARAMS: JsonObject = {"temperature": 0.0, "max_tokens": 16, "min_tokens": 50}
TOO_LONG = (
    "the prompt has {} tokens, but the model takes 512 (max_model_len), and one of them must be left for the answer"
)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (
            (
                "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input "
                "tokens, which exceeds this limit"
            ),
            TOO_LONG.format("at least 513"),
        ),
        (
            (
                "This model's maximum context length is 512 tokens. However, you requested 1024 output tokens and your "
                "prompt contains 600 input tokens,"
            ),
            TOO_LONG.format(600),
        ),
        (
            (
                "This model's maximum context length is 512 tokens. "
                "However, your messages resulted in 600 tokens. Please reduce"
            ),
            TOO_LONG.format(600),
        ),
        (
            "The decoder prompt (length 600) is longer than the maximum model length of 512. Make sure that",
            TOO_LONG.format(600),
        ),
        (
            (
                "This model's maximum context length is 512 tokens. "
                "However, your prompt contains 90000 characters (more than 4608 characters, which"
            ),
            "the prompt has 90000 characters, more than the model's 512 tokens (max_model_len) can hold",
        ),
    ],
)
def test_a_prompt_that_is_too_long_has_both_numbers(problem: str, message: str) -> None:
    """Whoever reads the failure sees by how much."""
    refusal = refusal_of(problem, PARAMS, chat=False)

    assert (refusal.kind, refusal.message, refusal.retryable) == ("prompt_too_long", message, False)


@pytest.mark.parametrize(
    ("problem", "params", "chat", "kind"),
    [
        ("min_tokens must be less than or equal to max_tokens=16, got 50.", PARAMS, False, "bad_parameter"),
        ("min_tokens must be less than or equal to max_tokens=16, got 50.", PARAMS, True, "bad_parameter"),
        ("no such role: wizard", PARAMS, True, "bad_messages"),
        ("/m/tiny is not a multimodal model", PARAMS, True, "unsupported"),
        ("At most 1 image(s) may be provided in one prompt.", PARAMS, True, "unsupported"),
        ("Failed to load image: image file is truncated (3 bytes not processed)", PARAMS, True, "bad_image"),
        ("Conversation roles must alternate user/assistant/user/assistant/...", PARAMS, True, "bad_messages"),
        ("something else", PARAMS, False, "bad_parameter"),
        (
            'Grammar error: invalid regex "[0-9"',
            {**PARAMS, "structured_outputs": {"regex": "[0-9"}},
            False,
            "bad_schema",
        ),
        ("The model `pot` does not exist.", {**PARAMS, "lora": "pot"}, False, "unknown_adapter"),
        ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", PARAMS, False, "prompt_too_long"),
        ("The decoder prompt cannot be empty", PARAMS, False, "empty_prompt"),
        ("This is a chat model and not supported in the v1/completions endpoint. Did", PARAMS, False, "unsupported"),
    ],
)
def test_other_words_have_their_kind(problem: str, params: JsonObject, chat: bool, kind: str) -> None:  # noqa: FBT001 - a table's column
    """A parameter that is named is the culprit; in a chat, what names none comes from the template."""
    assert refusal_of(problem, params, chat=chat).kind == kind


def test_a_parameter_that_the_server_names_is_the_culprit() -> None:
    """Even where the words could be about messages."""
    assert refusal_of("bad value", PARAMS, chat=True, parameter="temperature").kind == "bad_parameter"


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is",
            "temperature",
        ),
        (
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead."
            ),
            "max_tokens",
        ),
    ],
)
def test_a_parameter_that_a_model_does_not_take_can_be_left_out(problem: str, name: str) -> None:
    """It may come from the configuration, where nobody sees it: the failure says how it goes."""
    refusal = refusal_of(problem, PARAMS, chat=True, parameter=name)

    assert refusal.kind == "bad_parameter"
    assert f"; `{name}: null`, in the question or the configuration, leaves it out" in refusal.message


def test_a_model_without_a_chat_template() -> None:
    """It says what to set."""
    problem = (
        "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if"
    )

    assert refusal_of(problem, PARAMS, chat=True) == NO_CHAT_TEMPLATE


def test_an_unknown_adapter_names_the_known_ones() -> None:
    """And the nearest of them."""
    refusal = unknown_adapter("pot", ["poet", "critic"])

    assert refusal.message == "no LoRA adapter 'pot' here; did you mean 'poet'?; this engine has 'critic', 'poet'"


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "there are none"),
        ([{"content": "hi"}], "message 1 has no role"),
        (
            [{"role": "user", "content": "hi"}, {"role": "user"}],
            "message 2 (role user) has no content that is a text or a list of parts",
        ),
        (
            [{"role": "user", "content": [{"text": "hi"}]}],
            "message 1 (role user) has no content that is a text or a list of parts",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": None}], None),
    ],
)
def test_the_form_of_messages(messages: list[JsonObject], problem: str | None) -> None:
    """Checked before a template sees them, which would render anything."""
    assert messages_problem(messages) == problem


@pytest.mark.parametrize(
    "params", [{"stop_token_ids": [5, 10]}, {"allowed_token_ids": [10]}, {"logit_bias": {"10": 1.0}}]
)
def test_a_token_that_the_model_does_not_have(params: JsonObject) -> None:
    """Some versions of vLLM would die of it."""
    refusal = unknown_tokens(params, 10)

    assert refusal is not None
    assert (
        refusal.message == f"parameter {next(iter(params))!r} names token 10, and the model has 10 tokens, 0 the first"
    )
    assert unknown_tokens(params, 11) is None
