"""What was asked is what a server is sent, and what it answers is what arrives, however it writes it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.engines.engine import Completion, Refusal
from gpu_worker.engines.openai.request_body import Request, Served, complete_defaults, request_for
from gpu_worker.engines.openai.responses import completion_of
from tests.builders import a_question, an_answer
from wire.codec import encode_readable
from wire.messages import JsonObject, Usage
from wire.parameters import names_of

ANY = Served("m")
VLLM = Served("m", is_vllm=True, max_model_len=512)
MESSAGES: list[JsonObject] = [{"role": "user", "content": "Why?"}]
SCHEMA: JsonObject = {"type": "object"}


def asked(
    params: JsonObject, served: Served = ANY, *, chat: bool = True, configured: JsonObject | None = None
) -> Request:
    """The request for a question with these parameters."""
    question = a_question(params=params, messages=MESSAGES) if chat else a_question(params=params)
    request = request_for(question, complete_defaults(configured or {}, served), served)
    assert isinstance(request, Request), request
    return request


def body(params: JsonObject, served: Served = ANY, **how: Any) -> JsonObject:  # noqa: ANN401 (as `asked`)
    """What is sent, but for what every request has."""
    return {
        name: value
        for name, value in asked(params, served, **how).body.items()
        if name not in {"model", "messages", "prompt"}
    }


def answered(response: Any, params: JsonObject | None = None, *, chat: bool = True) -> Completion | None:  # noqa: ANN401 (any JSON)
    """What becomes of a response."""
    return completion_of(response, asked(params or {}, chat=chat), ANY)


def a_message(message: Any, **choice: Any) -> JsonObject:  # noqa: ANN401 (any JSON)
    """A response with one choice."""
    return {
        "choices": [{"index": 0, "finish_reason": "stop", "message": message, **choice}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7},
    }


def test_the_limit_keeps_its_name() -> None:
    """Models of OpenAI's that reason refuse `max_tokens`; the completions endpoint knows no other name.

    The record has one.
    """
    chat, prompt = asked({"max_completion_tokens": 7, "max_tokens": 9}), asked({"max_completion_tokens": 7}, chat=False)

    assert (chat.body.get("max_completion_tokens"), chat.body.get("max_tokens"), chat.params["max_tokens"]) == (
        7,
        None,
        7,
    )
    assert (prompt.body.get("max_completion_tokens"), prompt.body["max_tokens"]) == (None, 7)
    assert chat.capped(3).body["max_completion_tokens"] == chat.capped(3).params["max_tokens"] == 3


def test_null_is_not_sent() -> None:
    """Neither from a question nor from the configuration, nor a neutral value beside it."""
    assert body({"temperature": None, "max_tokens": None}) == {}
    assert body({"max_completion_tokens": 5}, configured={"temperature": None}) == {"max_completion_tokens": 5}
    assert body({"temperature": 0.7}) == {"temperature": 0.7, "top_p": 1.0, "max_tokens": 1024}
    assert body({}) == {"temperature": 0.0, "max_tokens": 1024}
    assert body({}, VLLM, configured={"temperature": None}) == {"max_tokens": 511}


@pytest.mark.parametrize("chat", [True, False])
def test_without_a_limit_vllm_s_server_fills_the_context(chat: bool) -> None:  # noqa: FBT001 (a case)
    """As in process; by itself it would end prompts after 16 tokens."""
    assert body({"max_tokens": None}, VLLM, chat=chat)["max_tokens"] == 511


@pytest.mark.parametrize(
    "response_format",
    [
        {
            "type": "json_schema",
            "json_schema": {"name": "mine", "description": "what it is", "schema": SCHEMA, "strict": False},
        },
        {"type": "json_schema", "json_schema": {"name": "mine", "schema": SCHEMA}},
        {"type": "json_object"},
        {"type": "text"},
    ],
)
@pytest.mark.parametrize("served", [ANY, VLLM])
def test_a_response_format_is_sent_as_it_is(response_format: JsonObject, served: Served) -> None:
    """With its own name, description and strictness; the record says the same of it for every engine."""
    assert body({"response_format": response_format}, served)["response_format"] == response_format


def test_a_schema_without_a_name_gets_one() -> None:
    """Servers ask for one."""
    nameless: JsonObject = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}

    assert body({"response_format": nameless})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }


TOOLS: JsonObject = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
}


@pytest.mark.parametrize(
    "params",
    [
        TOOLS,
        {"verbosity": "low", "service_tier": "flex", "safety_identifier": "x", "store": False},
        {"reasoning_effort": "low", "prediction": {"type": "content", "content": "a"}},
    ],
)
def test_what_only_servers_know_is_sent_to_them(params: JsonObject) -> None:
    """And recorded, but for what no answer depends on."""
    sent = body(params)
    kept = {name: value for name, value in params.items() if name not in names_of("bookkeeping")}

    assert sent.items() >= params.items()
    assert asked(params).params.items() >= kept.items()
    assert kept.keys() == asked(params).params.keys() & params.keys()


def test_extra_body_is_joined_to_the_request() -> None:
    """Whatever is in it; it wins over what we would send by ourselves."""
    assert body({"extra_body": {"repeat_last_n": 64, "max_tokens": 5}}) == {
        "temperature": 0.0,
        "repeat_last_n": 64,
        "max_tokens": 5,
    }


def test_a_vllm_server_is_not_asked_for_what_it_would_pass_over() -> None:
    """The refusal is the one of vLLM in process."""
    outcome = request_for(a_question(messages=MESSAGES, params={"verbosity": "low"}), {}, VLLM)

    assert outcome == Refusal(
        "bad_parameter", "parameter 'verbosity' is for servers that know it; vLLM does not take it"
    )


@pytest.mark.parametrize(
    ("message", "text", "details"),
    [
        ({"content": "a"}, "a", None),
        ({"content": "a", "reasoning_content": "hm"}, "a", {"reasoning": ["hm"]}),
        ({"content": None, "reasoning": "hm"}, "", {"reasoning": ["hm"]}),
        ({"content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]}, "one two", None),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "a"},
                ]
            },
            "a",
            {"reasoning": ["hm"]},
        ),
        ({"content": None, "refusal": "I cannot"}, "", {"refusal": ["I cannot"]}),
        ({"content": None, "tool_calls": [{"id": "c1"}]}, "", {"tool_calls": [[{"id": "c1"}]]}),
        ({"content": "a", "tool_calls": [], "annotations": None, "audio": {"id": "x"}}, "a", {"audio": [{"id": "x"}]}),
        ({"content": None}, "", None),
        ({"content": "half \ud83d end"}, "half \N{REPLACEMENT CHARACTER} end", None),
        ({"content": "whole \ud83d\ude00"}, "whole \N{GRINNING FACE}", None),
    ],
)
def test_what_a_message_holds_arrives(message: Any, text: str, details: JsonObject | None) -> None:  # noqa: ANN401 (any JSON)
    """Its text, whatever form that has, and beside it what else the model made."""
    completion = answered(a_message({"role": "assistant", **message}))

    assert completion is not None
    beside = {"reasoning": completion.reasoning, "tool_calls": completion.tool_calls}
    found = {**(completion.details or {}), **{name: values for name, values in beside.items() if any(values)}}
    assert (completion.texts, found or None) == ([text], details)


@pytest.mark.parametrize(
    "response",
    [
        {"choices": [{"index": 0, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "message": None}]},
        {"choices": [{"index": 0, "message": "text"}]},
        {"choices": [{"index": 0, "message": {"content": 7}}]},
        {"choices": [{"index": 0, "message": {"content": "a"}}, {"index": 1}]},
        {"choices": []},
        {"choices": None},
        {},
        "<html>",
    ],
)
def test_what_holds_no_message_is_no_answer(response: Any) -> None:  # noqa: ANN401 (any JSON)
    """Never one with an empty text."""
    assert answered(response) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 5.0, "completion_tokens": "7"}, (5, 7, None, None)),
        ({"prompt_tokens": -5, "completion_tokens": None}, (0, 0, None, None)),
        ({"prompt_tokens": "many", "completion_tokens": {}}, (0, 0, None, None)),
        ({"prompt_tokens": 1e400, "completion_tokens": 2**70}, (0, 0, None, None)),
        (None, (0, 0, None, None)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            (5, 7, 3, 2),
        ),
    ],
)
def test_counts_are_counts(usage: Any, expected: tuple[int, int, int | None, int | None]) -> None:  # noqa: ANN401 (any JSON)
    """However they are written; cached and reasoning tokens are kept."""
    completion = answered({**a_message({"content": "a"}), "usage": usage})

    assert completion is not None
    prompt, written, cached, reasoning = expected
    assert completion.usage == Usage(
        prompt_tokens=prompt, completion_tokens=written, cached_tokens=cached, reasoning_tokens=reasoning
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
messages = (
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("content", "refusal", "tool_calls", "reasoning", "x"), json_values)
    )
    | json_values
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": json_values,
        "finish_reason": json_values,
        "text": json_values,
        "message": messages,
        "logprobs": json_values,
    },
)
responses = (
    st.fixed_dictionaries({"choices": st.lists(choices, max_size=2) | json_values}, optional={"usage": json_values})
    | json_values
)


@given(responses, st.booleans())
def test_whatever_a_server_sends_is_an_answer_that_can_travel_or_none(response: Any, chat: bool) -> None:  # noqa: ANN401, FBT001 (any JSON; both)
    """No exception, and no record that its producer could not read."""
    completion = answered(response, {"logprobs": True, "stop": "x"} if chat else {"logprobs": 1}, chat=chat)

    if completion is not None:
        record = an_answer(
            text=completion.texts[0],
            usage=completion.usage,
            finish_reason=completion.finish_reason,
            details=completion.details,
            reasoning=next(iter(completion.reasoning), None),
            tool_calls=next(iter(completion.tool_calls), None),
        )
        assert encode_readable(record)
