"""What online clients are told: pure functions, with answers made by hand where the stub would not give them."""

from __future__ import annotations

from typing import Any

import openai.types.chat
import orjson
import pytest

from batchfleet.client.answers import Answer, Failure, Usage
from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.online_reply import as_answer, completion, events, failure_error
from batchfleet.gateway.online_request import OnlineRequest, parse_request
from wire.failures import KINDS


def parsed(endpoint: str = "/v1/chat/completions", **body: Any) -> OnlineRequest:  # noqa: ANN401 (JSON)
    """A request of model `m`, with a message where chats are asked."""
    given = {"model": "m", **({"messages": [{"role": "user", "content": "Hi"}]} if "chat" in endpoint else {}), **body}
    return parse_request(orjson.dumps(given), endpoint, deadline_s=9, max_question_bytes=10_000)


def answer(**fields: Any) -> Answer:  # noqa: ANN401 (of any type)
    """An answer of model `m`."""
    known: dict[str, Any] = {"text": "a", "finish_reason": "stop", "usage": Usage(3, 4), "model": "m", "params": {}}
    return Answer(id="q", run="r", **{**known, **fields})


def test_several_choices_with_logprobs_and_calls_are_what_the_sdk_reads() -> None:
    """`n` gives as many choices, each with its own reason, tokens and calls; in a stream as deltas."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    logprobs = [{"token": "a", "logprob": -0.5, "top_logprobs": []}]
    details = {"finish_reasons": ["stop", "tool_calls"], "logprobs": [logprobs, []], "tool_calls": [None, [call]]}
    two = answer(texts=["a", ""], details=details)
    asked = parsed(n=2, logprobs=True, tools=[{"type": "function", "function": {"name": "f"}}])

    body = completion("req_1", 7, asked, [two])
    chat = openai.types.chat.ChatCompletion.model_validate(body)
    first, second = chat.choices
    chunks = [openai.types.chat.ChatCompletionChunk.model_validate(each) for each in _data(body)]

    assert (first.message.content, first.finish_reason, second.finish_reason) == ("a", "stop", "tool_calls")
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    assert first.logprobs.content[0].logprob == -0.5
    assert second.message.tool_calls is not None
    assert second.message.tool_calls[0].id == "c"
    assert [chunk.choices[0].index for chunk in chunks] == [0, 1]
    assert chunks[1].choices[0].delta.tool_calls is not None
    assert chunks[1].choices[0].delta.tool_calls[0].index == 0


def _data(body: dict[str, Any]) -> list[dict[str, Any]]:
    *said, end = [event.removeprefix(b"data: ").strip() for event in events(body, include_usage=False)]
    assert end == b"[DONE]"
    return [orjson.loads(each) for each in said]


def test_prompts_are_asked_one_by_one_and_counted_together() -> None:
    """Their choices keep the order of the prompts, and the usage is the sum."""
    asked = parsed("/v1/completions", prompt=["one", "two"], n=2)
    answers = [answer(texts=[word, word]) for word in ("one", "two")]

    body = completion("req_1", 7, asked, answers)

    assert [choice["text"] for choice in body["choices"]] == ["one", "one", "two", "two"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}
    assert [question.prompt for question in asked.questions] == ["one", "two"]
    assert len({question.request_id for question in asked.questions}) == 2


def test_a_model_that_says_nothing_has_answered() -> None:
    """Evaluations count it as wrong; they do not end."""
    seen = {"finish_reason": "length", "completion_tokens": 5, "reasoning": "hm"}
    nothing = Failure(id="q", run="r", kind="only_reasoning", message="why", evidence=seen)

    body = completion("req_1", 7, parsed(), [as_answer(nothing)])

    assert (body["model"], body["choices"][0]["finish_reason"]) == ("m", "length")
    assert (body["choices"][0]["message"]["content"] or "", body["usage"]["completion_tokens"]) == ("", 5)
    assert body["choices"][0]["message"]["reasoning_content"] == "hm"
    with pytest.raises(ApiError, match="too long"):
        as_answer(Failure(id="q", run="r", kind="prompt_too_long", message="too long"))


def test_an_echo_has_the_log_probabilities_of_its_prompt() -> None:
    """Each token's own first, and the likeliest beside it; of the first token, before which there is nothing, none."""

    def position(*tokens: tuple[str, float]) -> dict[str, Any]:
        return {str(rank): {"logprob": value, "decoded_token": name} for rank, (name, value) in enumerate(tokens)}

    asked = parsed("/v1/completions", prompt="one two", echo=True, logprobs=1, max_tokens=0)
    prompt = [None, position((" t", -3.0), (" x", -0.1)), position(("wo", -0.2))]
    details = {"prompt_logprobs": prompt, "logprobs": [[{"token": "!", "logprob": -1.0}]]}
    choice = completion("req_1", 7, asked, [answer(text="!", details=details)])["choices"][0]

    assert asked.questions[0].params == {"logprobs": 1, "prompt_logprobs": 1, "max_tokens": 1}
    assert choice["text"] == "one two"
    assert choice["logprobs"] == {
        "tokens": ["one", " t", "wo"],
        "token_logprobs": [None, -3.0, -0.2],
        "top_logprobs": [None, {" t": -3.0, " x": -0.1}, {"wo": -0.2}],
    }
    with pytest.raises(ApiError, match="needs log probabilities of the prompt"):
        completion("req_1", 7, asked, [answer(details={"logprobs": [[]]})])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options"),
        ({"model": 3}, "model"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"n": 0}, "n"),
    ],
)
def test_a_parameter_that_cannot_be_is_named(body: dict[str, Any], param: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(ApiError) as caught:
        parsed(**body)

    assert (caught.value.status, caught.value.param) == (400, param)


def test_every_kind_of_failure_has_its_status_and_no_hopeless_one_is_retried() -> None:
    """What the same request would only meet again, the SDK is told not to repeat."""
    for kind, info in KINDS.items():
        error = failure_error(Failure(id="q", run="r", kind=kind, message="why", retryable=info.retryable))
        repeats = error.status in {408, 409, 429} or error.status >= 500
        told_not_to = error.headers.get("x-should-retry") == "false"
        assert (repeats and not told_not_to) == info.retryable, kind
        assert error.code, kind
