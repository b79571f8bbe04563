"""Every spelling of a parameter becomes one, and what a question gets wrong is said with the name that it used."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.engine import Refusal
from gpu_worker.engines.sampling_params import effective_params
from wire.canonical_params import canonical
from wire.errors import ParameterError
from wire.messages import JsonObject
from wire.parameters import NAMES, PARAMETERS

SCHEMA: JsonObject = {"type": "object", "properties": {"a": {"type": "integer"}}}


def refusal(asked: JsonObject) -> Refusal:
    """There must be one."""
    outcome = effective_params(asked, {}, chat=True)
    assert isinstance(outcome, Refusal), f"{asked} was taken as {outcome}"
    return outcome


def test_the_question_wins_over_the_configuration() -> None:
    """Null is a word too: nothing is sent, and the engine's own default holds."""
    params = effective_params(
        {"temperature": None, "max_tokens": 5}, {"temperature": 0.0, "max_tokens": 1024, "top_p": 0.9}, chat=False
    )

    assert params == {"max_tokens": 5, "top_p": 0.9}


def test_null_in_the_configuration_is_null() -> None:
    """So that a fleet can ask models that take no temperature at all; a question may still bring its own."""
    assert effective_params({}, {"temperature": None, "max_tokens": 9}, chat=False) == {"max_tokens": 9}
    assert effective_params({"temperature": 1}, {"temperature": None}, chat=False) == {"temperature": 1.0}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"max_tokens": 7.0}, {"max_tokens": 7}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": False}, {}),
        ({"logit_bias": {"12": -100}}, {"logit_bias": {"12": -100.0}}),
        ({"user": "someone", "stream": False, "seed": 7}, {"user": "someone", "seed": 7}),
        ({"stop": [], "logit_bias": {}, "stream_options": None, "functions": []}, {}),
        ({"tools": [], "tool_choice": "none", "parallel_tool_calls": True}, {}),
        ({"tools": None, "tool_choice": None}, {"tools": None}),
        (
            {"tools": [{"type": "function"}], "tool_choice": "none"},
            {"tools": [{"type": "function"}], "tool_choice": "none"},
        ),
        ({"best_of": 1, "echo": False, "length_penalty": 1.0, "modalities": ["text"], "suffix": ""}, {}),
        ({"extra_body": {"top_k": 5, "anything": [1]}}, {"extra_body": {"top_k": 5, "anything": [1]}}),
        (
            {"lora": "poet", "chat_template_kwargs": {"thinking": False}},
            {"lora": "poet", "chat_template_kwargs": {"thinking": False}},
        ),
    ],
)
def test_spellings_become_one(asked: JsonObject, expected: JsonObject) -> None:
    """OpenAI's names and vLLM's, numbers as JSON writes them."""
    assert canonical(asked) == expected


@pytest.mark.parametrize(
    "asked",
    [
        {"guided_json": SCHEMA},
        {"guided_json": '{"type": "object", "properties": {"a": {"type": "integer"}}}'},
        {"structured_outputs": {"json": SCHEMA, "regex": None}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}},
    ],
)
def test_a_json_schema_in_any_spelling(asked: JsonObject) -> None:
    """OpenAI's response_format, vLLM's structured_outputs, and guided_json of older vLLM are the same request."""
    assert canonical(asked) == {"structured_outputs": {"json": SCHEMA}}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"guided_choice": ["yes", "no"]}, {"choice": ["yes", "no"]}),
        ({"structured_outputs": {"regex": "[0-9]+"}}, {"regex": "[0-9]+"}),
        ({"response_format": {"type": "json_object"}}, {"json_object": True}),
    ],
)
def test_other_structures(asked: JsonObject, expected: JsonObject) -> None:
    """A choice, a regular expression, any JSON."""
    assert canonical(asked) == {"structured_outputs": expected}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"temprature": 1}, "unknown parameter 'temprature'; did you mean 'temperature'?"),
        ({"xyzzy": 1}, "unknown parameter 'xyzzy'; what only a server knows goes into `extra_body`"),
        (
            {"return_token_ids": True},
            "unknown parameter 'return_token_ids'; what only a server knows goes into `extra_body`",
        ),
        ({"metadata": {}}, "unknown parameter 'metadata'; it stands beside `params`, not in it"),
        ({"tool_choice": "auto"}, "parameter 'tool_choice' needs 'tools'"),
        ({"stream_options": {"include_usage": True}}, "parameter 'stream_options' must be null: answers arrive whole"),
        (
            {"extra_body": {"messages": []}},
            "parameter 'extra_body' must be an object without messages, model, prompt, stream, stream_options",
        ),
        ({"temperature": "hot"}, "parameter 'temperature' must be a number of at least 0, not \"hot\""),
        ({"temperature": -1}, "parameter 'temperature' must be a number of at least 0, not -1"),
        ({"temperature": True}, "parameter 'temperature' must be a number of at least 0, not true"),
        ({"top_p": 0}, "parameter 'top_p' must be a number above 0 and at most 1, not 0"),
        ({"max_completion_tokens": 0}, "parameter 'max_completion_tokens' must be an integer of at least 1, not 0"),
        ({"n": 1.5}, "parameter 'n' must be an integer of at least 1, not 1.5"),
        ({"stop": [""]}, "parameter 'stop' must be a text that is not empty, or a list of such, not [\"\"]"),
        ({"top_logprobs": 3}, "parameter 'top_logprobs' needs 'logprobs' to be true"),
        ({"stream": True}, "parameter 'stream' must be false: answers arrive whole"),
        (
            {"logit_bias": {"a": 1}},
            "parameter 'logit_bias' must be an object of token ids with a number each, not {\"a\": 1}",
        ),
    ],
)
def test_a_wrong_parameter_is_named(asked: JsonObject, message: str) -> None:
    """With the name the user wrote, what it takes, and what it was given."""
    outcome = refusal(asked)

    assert outcome.kind == "bad_parameter"
    assert outcome.message.startswith(message)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"guided_json": "{"}, "the JSON schema is not JSON: "),
        ({"guided_json": "[1]"}, "a JSON schema must be an object, not [1]"),
        ({"guided_regex": ""}, 'the regex constraint must be a text, not ""'),
        ({"guided_choice": []}, "the choice constraint must be a list of texts, not []"),
        ({"structured_outputs": {}}, "'structured_outputs' takes one of json, regex, choice, grammar, json_object"),
        ({"structured_outputs": {"regexp": "a"}}, "'structured_outputs' has no 'regexp'; did you mean 'regex'?"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "structured output takes one constraint, not 2: choice, regex"),
        (
            {"response_format": {"type": "json_schema"}},
            "'response_format' of type json_schema needs json_schema.schema",
        ),
        (
            {"response_format": {"type": "xml"}},
            "'response_format' must have the type text, json_object or json_schema, not \"xml\"",
        ),
        (
            {"response_format": "json_object"},
            "'response_format' must have the type text, json_object or json_schema, and is \"json_object\"",
        ),
    ],
)
def test_a_wrong_structure_is_a_bad_schema(asked: JsonObject, message: str) -> None:
    """What can be told without a grammar compiler is told before the engine sees it."""
    outcome = refusal(asked)

    assert outcome.kind == "bad_schema"
    assert outcome.message.startswith(message)


def test_parameters_of_chats_are_refused_for_prompts() -> None:
    """Ignoring them would answer another question than the one asked."""
    asked: JsonObject = {"add_generation_prompt": False}

    outcome = effective_params(asked, {}, chat=False)

    assert outcome == Refusal(
        "bad_parameter", "parameter 'add_generation_prompt' is for chat messages; this question is a prompt"
    )
    assert effective_params(asked, {}, chat=True) == asked


def test_what_nobody_says_is_the_model_s_own_to_say() -> None:
    """Where its generation_config was asked for, null leaves its value in place; what is said wins over it."""
    own: JsonObject = {"temperature": 1.9, "top_k": 3}

    assert effective_params({"top_k": 5}, {"temperature": None}, chat=True, own=own) == {"temperature": 1.9, "top_k": 5}
    assert effective_params({"temperature": None}, {"temperature": 0.0}, chat=True, own=own) == own


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(NAMES)) | st.text(max_size=8), json_values, max_size=4))
def test_nothing_that_json_can_say_is_another_exception(asked: JsonObject) -> None:
    """What is taken is taken unchanged a second time."""
    with contextlib.suppress(ParameterError):
        params = canonical(asked)
        assert canonical(params) == params
        assert params.keys() <= PARAMETERS.keys()
