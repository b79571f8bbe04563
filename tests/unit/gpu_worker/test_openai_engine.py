"""Questions over HTTP, at a server that fails in every way servers do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import logging
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from gpu_worker.engines.engine import Completion, Outcome, Refusal
from gpu_worker.engines.openai import client
from gpu_worker.engines.openai.client import base_url_of
from gpu_worker.engines.openai.engine import OpenAIEngine
from gpu_worker.engines.openai.faults import connection_problem
from gpu_worker.engines.openai.options import OpenAIOptions
from gpu_worker.engines.openai.retry_after import LONGEST_WAIT_S, retry_after_s
from tests.builders import a_question
from tests.eventually import until
from tests.processes import PATIENCE_S
from tests.unit.scripted_server import DROPPED, MODEL, Asked, Reply, Script, ScriptedServer, a_text, an_error
from wire.errors import EngineBootError, EngineUnusableError
from wire.messages import Usage

KEY = "sk-very-secret-0123456789"
VLLM = [{"id": MODEL, "owned_by": "vllm", "max_model_len": 512}]


def options(server: ScriptedServer, **changes: Any) -> OpenAIOptions:  # noqa: ANN401 (any field of the options)
    """Impatient ones."""
    quick: dict[str, Any] = {
        "tries": 4,
        "busy_s": 0.2,
        "first_pause_s": 0.01,
        "longest_pause_s": 0.05,
        "startup_timeout_s": PATIENCE_S,
        "pulse_s": 0.02,
    }
    return OpenAIOptions(
        **{"server": "127.0.0.1", "port": server.port, "model": MODEL, "api_key": KEY, **quick, **changes}
    )


@contextlib.asynccontextmanager
async def an_engine(
    script: Script,
    *,
    models: list[dict[str, Any]] | None = None,
    **changes: Any,  # noqa: ANN401 (any field of the options)
) -> AsyncIterator[tuple[OpenAIEngine, ScriptedServer]]:
    """Started, at a server that does as `script` says; `changes`: any field of the options."""
    async with ScriptedServer(script, models=models) as server:
        engine = OpenAIEngine(options(server, **changes))
        await engine.start()
        try:
            yield engine, server
        finally:
            await engine.stop()


def in_turn(*replies: Reply) -> Script:
    """Each once, in order; the last one for ever."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def completion(outcome: Outcome) -> Completion:
    """It must be one."""
    assert isinstance(outcome, Completion), outcome
    return outcome


def refusal(outcome: Outcome) -> Refusal:
    """It must be one."""
    assert isinstance(outcome, Refusal), outcome
    return outcome


async def test_a_prompt_is_asked_as_a_completion() -> None:
    """With the parameters that the record names, the key in its header, and nothing that only vLLM knows."""
    async with an_engine(in_turn(a_text("forty-two"))) as (engine, server):
        outcome = completion(
            await engine.answer(
                a_question(prompt="What?", params={"seed": 7, "max_completion_tokens": 9, "logprobs": 2})
            )
        )

    (asked,) = server.asked
    assert asked.path == "/v1/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": MODEL,
        "prompt": "What?",
        "temperature": 0.0,
        "max_tokens": 9,
        "seed": 7,
        "logprobs": 2,
    }
    assert outcome.texts == ["forty-two"]
    assert outcome.finish_reason == "stop"
    assert outcome.usage == Usage(prompt_tokens=3, completion_tokens=1)
    assert outcome.params == {"temperature": 0.0, "max_tokens": 9, "seed": 7, "logprobs": 2}


async def test_messages_are_asked_as_a_chat() -> None:
    """The JSON schema in OpenAI's form; logprobs in the form of chats; the reasoning of reasoning models is kept."""
    messages = [{"role": "user", "content": "What?"}]
    top = [{"token": "4", "logprob": -0.1}, {"token": "5", "logprob": -2.0}, {"token": "6", "logprob": -3.0}]
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"content": "4", "reasoning_content": "hm"},
        "logprobs": {"content": [{"token": "4", "logprob": -0.1, "bytes": [52], "top_logprobs": top}]},
    }
    async with an_engine(in_turn(a_text(choices=[choice]))) as (engine, server):
        params: Any = {"guided_json": {"type": "integer"}, "logprobs": True, "top_logprobs": 2}
        outcome = completion(await engine.answer(a_question(messages=messages, params=params)))

    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body["messages"] == messages
    assert (asked.body["logprobs"], asked.body["top_logprobs"]) == (True, 2)
    assert asked.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "integer"}, "strict": True},
    }
    assert outcome.texts == ["4"]
    assert outcome.details == {"logprobs": [[{"token": "4", "logprob": -0.1, "top_logprobs": top[:2]}]]}
    assert outcome.reasoning == ["hm"]


async def test_a_vllm_server_is_told_what_its_generation_config_may_not_change() -> None:
    """And gets vLLM's own parameters and adapters. It lowers max_tokens to what fits, which the record says."""
    async with an_engine(in_turn(a_text()), models=[*VLLM, {"id": "poet"}]) as (engine, server):
        outcome = completion(
            await engine.answer(a_question(prompt="What?", params={"guided_regex": "[0-9]", "lora": "poet"}))
        )

    (asked,) = server.asked
    assert asked.body == {
        "model": "poet",
        "prompt": "What?",
        "temperature": 0.0,
        "max_tokens": 511,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "structured_outputs": {"regex": "[0-9]"},
    }
    assert (outcome.params["max_tokens"], outcome.params["lora"]) == (509, "poet")


async def test_several_texts_come_in_their_order() -> None:
    """With the finish reason of each."""
    choices = [{"index": 1, "text": "b", "finish_reason": "length"}, {"index": 0, "text": "a", "finish_reason": "stop"}]
    async with an_engine(in_turn(a_text(choices=choices))) as (engine, _):
        outcome = completion(await engine.answer(a_question(params={"n": 2, "temperature": 1})))

    assert (outcome.texts, outcome.finish_reason, outcome.details) == (
        ["a", "b"],
        "stop",
        {"finish_reasons": ["stop", "length"]},
    )


@pytest.mark.parametrize(
    "fault",
    [
        an_error(429),
        an_error(500),
        an_error(503),
        DROPPED,
        Reply(200, "no JSON at all"),
        Reply(200, {"choices": []}),
        Reply(200, "{", {"content-type": "application/json"}),
    ],
    ids=["429", "500", "503", "dropped", "text", "empty", "cut short"],
)
async def test_what_passes_is_tried_again(fault: Reply) -> None:
    """A failure, of the probe too, then an answer: nobody notices."""
    async with an_engine(in_turn(fault, fault, a_text())) as (engine, server):
        outcome = completion(await engine.answer(a_question()))

    assert outcome.texts == ["42"]
    assert len(server.asked) == 4  # The second probe among them.


async def test_retry_after_is_honoured() -> None:
    """A server that says when, is not asked before."""
    moments: list[float] = []

    def script(_: Asked) -> Reply:
        moments.append(asyncio.get_running_loop().time())
        return an_error(429, headers={"retry-after-ms": "300"}) if len(moments) == 1 else a_text()

    async with an_engine(script) as (engine, _):
        completion(await engine.answer(a_question()))

    assert moments[1] - moments[0] >= 0.3


@pytest.mark.parametrize(("status", "kind"), [(500, "server_error"), (429, "server_error")])
async def test_questions_that_keep_failing_are_refused_alone(status: int, kind: str) -> None:
    """Others are answered meanwhile; somebody else may try it again."""

    def script(asked: Asked) -> Reply:
        return an_error(status, f"no, {KEY}") if asked.body["prompt"] == "bad" else a_text()

    async with an_engine(script) as (engine, _):
        bad = [asyncio.create_task(engine.answer(a_question(prompt="bad"))) for _ in range(2)]
        while not all(task.done() for task in bad):
            completion(await engine.answer(a_question(prompt="good")))
            await asyncio.sleep(0.01)
        outcomes = [refusal(task.result()) for task in bad]
        engine.check()

    for outcome in outcomes:
        assert (outcome.kind, outcome.retryable) == (kind, True)
        assert f"last: HTTP {status}: no, ***" in outcome.message


async def test_a_server_that_goes_away_is_waited_for() -> None:
    """Nobody gets a failure record for it, and the engine says what it waits for.

    When the server is back, everybody is answered.
    """
    async with an_engine(in_turn(a_text())) as (engine, server):
        completion(await engine.answer(a_question()))
        await server.close()
        answers = [asyncio.create_task(engine.answer(a_question())) for _ in range(5)]
        await until(lambda: engine.state.kind == "waiting")
        assert engine.state.reason == f"http://127.0.0.1:{server.port}/v1: connection refused: nothing listens there"
        engine.check()
        assert not any(answer.done() for answer in answers)

        await server.listen()

        assert {completion(outcome).texts[0] for outcome in await asyncio.gather(*answers)} == {"42"}
        assert engine.state.kind == "ready"


async def test_a_server_that_fails_on_everything_is_waited_for() -> None:
    """Though it still says which models it serves: a probe tells. Its own words say why."""
    async with an_engine(in_turn(an_error(500, "out of order"))) as (engine, server):
        answers = [asyncio.create_task(engine.answer(a_question())) for _ in range(5)]
        await until(lambda: engine.state.kind == "waiting")
        assert engine.state.reason.endswith("/v1: HTTP 500: out of order")

        server.script = in_turn(a_text())

        assert {completion(outcome).texts[0] for outcome in await asyncio.gather(*answers)} == {"42"}


async def test_a_server_that_asks_for_time_gets_it() -> None:
    """Nothing is sent meanwhile, nothing counts against a question, and what waits here may go to others.

    This holds however many are refused at once.
    """
    async with an_engine(in_turn(an_error(429, "slow down", headers={"retry-after": "3600"}))) as (engine, server):
        answers = [asyncio.create_task(engine.answer(a_question())) for _ in range(20)]
        await until(lambda: engine.state.lets_go)
        sent = len(server.asked)
        await asyncio.sleep(0.3)

        assert len(server.asked) == sent <= 16
        assert engine.state.reason == "the server asks for 3600 s (HTTP 429): slow down"
        assert engine.state.until is not None
        assert 3590 < engine.state.until - time.monotonic() <= 3600
        for answer in answers:
            answer.cancel()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (an_error(401, "who?"), "refuses the API key (HTTP 401): who?; set model.generator_settings.api_key"),
        (an_error(403, "no"), "refuses the API key (HTTP 403): no"),
        (an_error(402, "top up"), "wants to be paid (HTTP 402): top up"),
        (an_error(429, "top up", code="insufficient_quota"), "wants to be paid (HTTP 429): top up"),
        (
            an_error(404, "The model `served` does not exist.", code="model_not_found"),
            "does not serve the model any more (HTTP 404): The model `served`",
        ),
        (
            Reply(404, {"detail": "Not Found"}),
            "does not take prompts; ask with messages (--chat) (HTTP 404: Not Found)",
        ),
        (
            Reply(307, "", {"location": "https://else.where/v1/completions"}),
            "redirects to https://else.where/v1/completions (HTTP 307); if that is meant",
        ),
        (
            Reply(200, "<html><title>Please log in</title></html>", {"content-type": "text/html"}),
            "web page where OpenAI's API has JSON (Please log in)",
        ),
        (an_error(418, "teapot"), "refuses every request (HTTP 418): teapot"),
    ],
)
async def test_a_server_that_waiting_does_not_help_is_unusable(fault: Reply, told: str) -> None:
    """A key that was revoked or a model that was replaced is no fault of the question: asked once, and one probe."""
    async with an_engine(in_turn(a_text(), fault)) as (engine, server):
        completion(await engine.answer(a_question()))
        with pytest.raises(EngineUnusableError, match=re.escape(told)):
            await engine.answer(a_question())
        assert engine.state.kind == "unusable"
        with pytest.raises(EngineUnusableError, match=re.escape(told)):
            engine.check()

    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [302, 401, 403, 404, 418, 500, 503])
async def test_what_befalls_one_question_only_is_its_own_failure(status: int) -> None:
    """A filter in front of the server, say: a probe shows that the server is well.

    It is tried again, and may be asked another time.
    """

    def script(asked: Asked) -> Reply:
        return an_error(status, "not this") if asked.body["prompt"] == "bad" else a_text()

    async with an_engine(script) as (engine, _):
        outcome = refusal(await engine.answer(a_question(prompt="bad")))
        engine.check()

    assert (outcome.kind, outcome.retryable, outcome.is_final) == ("server_error", True, True)
    assert re.fullmatch(
        rf"the server failed on this question 4 times in \d s; last: HTTP {status}: .*", outcome.message
    )


async def test_a_question_that_keeps_failing_at_a_full_server_ends(caplog: pytest.LogCaptureFixture) -> None:
    """The probe is refused as one too many; the answers to others show that the server is well.

    It is never taken for ill.
    """

    async def script(asked: Asked) -> Reply:
        if asked.body["prompt"] == "bad":
            return an_error(500, "not this")
        if server.at_once > 2:
            return an_error(429)
        await asyncio.sleep(0.02)
        return a_text()

    async def ask_on() -> None:
        while True:
            completion(await engine.answer(a_question(prompt="good")))

    async with an_engine(script) as (engine, server):
        others = [asyncio.create_task(ask_on()) for _ in range(3)]
        outcome = refusal(await engine.answer(a_question(prompt="bad")))
        for other in others:
            other.cancel()

    assert outcome.kind == "server_error"
    assert "waiting" not in caplog.text


async def test_a_server_that_keeps_crashing_convicts_nobody() -> None:
    """What is lost in a crash is no question's fault, though others were answered a moment before.

    The server crashes more often than a question is tried.
    """

    async def script(_: Asked) -> Reply:
        await asyncio.sleep(0.03)
        return a_text()

    def is_busy(asked: int) -> bool:
        return server.at_once > 4 and len(server.asked) > asked

    async def crash_again_and_again() -> None:
        for number in range(1, 7):
            await until(functools.partial(is_busy, 20 * number))
            await server.close()
            await until(lambda: engine.state.kind == "waiting")
            await server.listen()

    async with an_engine(script, tries=2) as (engine, server):
        crashing = asyncio.create_task(crash_again_and_again())
        outcomes = await asyncio.gather(*(engine.answer(a_question(prompt=f"q{number}")) for number in range(300)))
        crashing.cancel()

    assert {completion(outcome).texts[0] for outcome in outcomes} == {"42"}


async def test_a_form_that_the_server_does_not_take_is_refused() -> None:
    """If it has answered the other one: the server is well."""

    def script(asked: Asked) -> Reply:
        return a_text() if "chat" in asked.path else Reply(404, {"detail": "Not Found"})

    async with an_engine(script) as (engine, _):
        completion(await engine.answer(a_question(messages=[{"role": "user", "content": "hi"}])))
        outcome = refusal(await engine.answer(a_question()))

    assert (outcome.kind, outcome.retryable) == ("unsupported", False)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (
            an_error(
                400,
                (
                    "This model's maximum context length is 512 tokens. "
                    "However, your prompt contains 600 input tokens, which"
                ),
            ),
            "prompt_too_long",
        ),
        (an_error(400, "max_tokens must be nice", param="max_tokens"), "bad_parameter"),
        (an_error(422, "Grammar error: invalid regex"), "bad_schema"),
        (an_error(404, "The model `poet` does not exist."), "unknown_adapter"),
    ],
)
async def test_the_server_s_refusals_are_ours(fault: Reply, kind: str) -> None:
    """Asked once; the message is the server's, or says the same in our words."""
    async with an_engine(in_turn(fault)) as (engine, server):
        outcome = refusal(await engine.answer(a_question(params={"lora": "poet", "guided_regex": "a"})))

    assert (outcome.kind, outcome.retryable, len(server.asked)) == (kind, False, 1)


@pytest.mark.parametrize("messages", [None, [{"role": "user", "content": "hi"}]])
@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(413, "<h1>413 Request Entity Too Large</h1>"), " bytes (HTTP 413): 413 Request Entity Too Large"),
        (
            an_error(413, "Limit 6000 tokens, `max_tokens` included"),
            " bytes (HTTP 413): Limit 6000 tokens, `max_tokens`",
        ),
    ],
    ids=["a proxy", "a quota"],
)
async def test_a_request_that_is_too_large_is_a_prompt_that_is_too_long(reply: Reply, told: str, messages: Any) -> None:  # noqa: ANN401
    """Whatever its form, and whatever parameters the server's words name; the message has the size, and these words."""
    async with an_engine(in_turn(reply)) as (engine, server):
        outcome = refusal(await engine.answer(a_question(messages=messages) if messages else a_question()))

    assert (outcome.kind, outcome.retryable, len(server.asked)) == ("prompt_too_long", False, 1)
    assert told in outcome.message


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (Reply(307, ""), "HTTP 307: a redirect to nowhere"),
        (Reply(302, "", {"location": "https://else.where/v1"}), "HTTP 302: a redirect to https://else.where/v1"),
        (Reply(503, {}), "HTTP 503: Service Unavailable"),
        (Reply(599, ""), "HTTP 599: no words"),
    ],
)
async def test_a_reply_without_words_is_told_by_its_status(reply: Reply, told: str) -> None:
    """To one question, while others are answered."""

    def script(asked: Asked) -> Reply:
        return reply if asked.body["prompt"] == "bad" else a_text()

    async with an_engine(script) as (engine, _):
        outcome = refusal(await engine.answer(a_question(prompt="bad")))

    assert outcome.message.endswith(f"last: {told}")


async def test_what_we_refuse_ourselves_is_never_sent() -> None:
    """The same checks as in process."""
    async with an_engine(in_turn(a_text())) as (engine, server):
        kinds = [
            refusal(await engine.answer(question)).kind
            for question in (
                a_question(params={"temprature": 1}),
                a_question(params={"guided_json": "{"}),
                a_question(prompt=""),
                a_question(messages=[{"content": "hi"}]),
            )
        ]

    assert kinds == ["bad_parameter", "bad_schema", "empty_prompt", "bad_messages"]
    assert server.asked == []


async def test_a_server_that_counts_the_answer_too_is_asked_for_less() -> None:
    """Older vLLM servers refuse what newer ones shorten.

    The prompt is measured, and asked again for what still fits.
    """
    told = (
        "This model's maximum context length is 512 tokens. However, you requested 1024 output tokens and your prompt "
        "contains 500 input tokens, "
        "for a total of 1524 tokens."
    )

    def script(asked: Asked) -> Reply:
        if asked.path == "/tokenize":
            return Reply(body={"count": 500, "max_model_len": 512})
        return a_text() if asked.body["max_tokens"] <= 12 else an_error(400, told)

    async with an_engine(script, models=VLLM) as (engine, _):
        outcome = completion(await engine.answer(a_question()))

    assert outcome.params["max_tokens"] == 12


async def test_a_prompt_that_is_too_long_is_measured() -> None:
    """A vLLM server stops counting one token above its limit; the failure has the true number."""

    def script(asked: Asked) -> Reply:
        if asked.path == "/tokenize":
            return Reply(body={"count": 6000, "max_model_len": 512})
        return an_error(
            400,
            (
                "This model's maximum context length is 512 tokens. However, your prompt contains at least 513 input "
                "tokens, which exceeds"
            ),
        )

    async with an_engine(script, models=VLLM) as (engine, _):
        outcome = refusal(await engine.answer(a_question()))

    assert outcome.kind == "prompt_too_long"
    assert outcome.message.startswith("the prompt has 6000 tokens, but the model takes 512 ")


async def test_no_more_than_allowed_are_asked_at_once() -> None:
    """However many questions the worker holds."""
    everyone_waits = asyncio.Event()

    async def script(_: Asked) -> Reply:
        await everyone_waits.wait()
        return a_text()

    async with an_engine(script, max_in_flight=3) as (engine, server):
        answers = [asyncio.create_task(engine.answer(a_question())) for _ in range(10)]
        while server.at_once < 3:
            await asyncio.sleep(0.001)
        everyone_waits.set()
        await asyncio.gather(*answers)

    assert server.most_at_once == 3


async def test_a_cancelled_question_frees_its_place_and_its_connection() -> None:
    """The server sees the connection end, and can stop generating."""

    async def script(asked: Asked) -> Reply:
        if asked.body["prompt"] == "slow":
            await asyncio.get_running_loop().create_future()
        return a_text()

    async with an_engine(script, max_in_flight=1) as (engine, server):
        slow = asyncio.create_task(engine.answer(a_question(prompt="slow")))
        while not server.asked:
            await asyncio.sleep(0.001)
        slow.cancel()

        completion(await engine.answer(a_question(prompt="quick")))


async def test_an_answer_that_takes_too_long_is_given_up() -> None:
    """After the request's own timeout, and as often as patience allows."""

    async def script(asked: Asked) -> Reply:
        if asked.body["prompt"] == "slow":
            await asyncio.get_running_loop().create_future()
        return a_text()

    async with an_engine(script, request_timeout_s=0.2, tries=2) as (engine, _):
        outcome = refusal(await engine.answer(a_question(prompt="slow")))

    # How long two times 0.2 s take is for the machine to say.
    assert (
        re.sub(r"in \d+ s", "in N s", outcome.message)
        == "the server failed on this question 2 times in N s; last: no answer within 0.2 s"
    )
    assert outcome.kind == "server_error"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            an_error(401, f"Incorrect API key provided: {KEY}"),
            (
                r"refuses the API key \(HTTP 401\): Incorrect API key provided: \*\*\*; set "
                r"model.generator_settings.api_key"
            ),
        ),
        (
            an_error(404, "nothing here"),
            (
                r"there is no OpenAI-compatible API at http://127.0.0.1:\d+/v1 \(HTTP 404: nothing here\): "
                r"check server and port"
            ),
        ),
        (
            Reply(body={"models": [f"{KEY} of"]}),
            r'within 3 s \(server_startup_timeout\): in place of a list of models it sends \{"models": \["\*\*\* of',
        ),
        (
            Reply(body={"data": [{"id": "serves"}, {"id": "other"}]}),
            r"does not serve a model 'served'; did you mean 'serves'\?; it serves 'serves', 'other': set",
        ),
        (
            an_error(503, "starting"),
            (
                r"no answer from http://127.0.0.1:\d+/v1 within 3 s \(server_startup_timeout\): "
                r"HTTP 503: starting; check server and port"
            ),
        ),
    ],
)
async def test_a_server_that_cannot_be_used_is_a_boot_error(models: Reply, message: str) -> None:
    """Before any work is taken; with the setting to change, without the key."""
    async with ScriptedServer(in_turn(models)) as server:
        server.models = models
        engine = OpenAIEngine(options(server, startup_timeout_s=3.0))

        with pytest.raises(EngineBootError, match=message) as raised:
            await engine.start()

    assert KEY not in str(raised.value)


@pytest.mark.parametrize("chat", [True, False])
async def test_a_server_without_a_list_of_models_is_asked_for_a_token(*, chat: bool) -> None:
    """In either form; that it answers is enough to know that the address is right."""

    def script(asked: Asked) -> Reply:
        return a_text() if ("chat" in asked.path) is chat else an_error(404, "nothing here")

    async with ScriptedServer(script) as server:
        server.models = an_error(404, "nothing here")
        engine = OpenAIEngine(options(server))
        await engine.start()
        question = a_question(messages=[{"role": "user", "content": "hi"}]) if chat else a_question()
        completion(await engine.answer(question))
        await engine.stop()


async def test_a_list_of_models_may_stand_alone() -> None:
    """As Together sends it."""
    async with ScriptedServer(in_turn(a_text())) as server:
        server.models = Reply(body=[{"id": "other"}, {"id": MODEL}])
        engine = OpenAIEngine(options(server))
        await engine.start()
        await engine.stop()

    assert engine.state.kind != "waiting"


async def test_where_nothing_listens_is_told() -> None:
    """In words that say where to look; the client library itself says "Connection error."."""
    async with ScriptedServer(in_turn(a_text())) as server:
        engine = OpenAIEngine(options(server, startup_timeout_s=2.0))
        await server.close()

        with pytest.raises(EngineBootError, match="connection refused: nothing listens there"):
            await engine.start()


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (socket.gaierror(-2, "Name or service not known"), "no such host ([Errno -2] Name or service not known)"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "no TLS connection ("),
        (ConnectionResetError(104, "reset by peer"), "the connection was lost before the whole answer had come ("),
        (OSError(113, "No route to host"), "no connection ([Errno 113] No route to host)"),
        (
            ExceptionGroup("two addresses", [ConnectionRefusedError(111, ""), ConnectionRefusedError(111, "")]),
            "connection refused: ",
        ),
    ],
)
def test_what_the_network_did_is_told(cause: Exception, told: str) -> None:
    """However deep below the library's own errors it happened."""
    outer = ConnectionError("Connection error.")
    outer.__cause__ = RuntimeError("")
    outer.__cause__.__cause__ = cause

    assert connection_problem(outer).startswith(told)


@pytest.mark.parametrize("starting", [DROPPED, Reply(body={"status": "loading"}), Reply(body={"data": []})])
async def test_a_server_that_is_still_starting_is_waited_for(starting: Reply) -> None:
    """Up to the startup timeout, whatever it sends meanwhile."""
    async with ScriptedServer(in_turn(a_text())) as server:
        ready, server.models = server.models, starting
        engine = OpenAIEngine(options(server, startup_timeout_s=PATIENCE_S))
        beginning = asyncio.create_task(engine.start())
        await until(lambda: engine.state.kind == "waiting" and engine.state.reason)
        assert not beginning.done()

        server.models = ready

        await beginning
        await engine.stop()


async def test_a_vllm_server_that_hangs_is_waited_for() -> None:
    """Its token counters show that it is at work, however long an answer takes; and that it hangs, when they stop.

    Others may have its questions.
    """
    tokens = 0
    moving = True

    def metrics(_: Asked) -> Reply:
        nonlocal tokens
        tokens += 1 if moving else 0
        return Reply(body=f'# HELP x\nvllm:generation_tokens_total{{engine="0"}} {tokens}.0\n')

    async def script(_: Asked) -> Reply:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with an_engine(script, models=VLLM, stall_s=0.5, probe_timeout_s=0.1, hold_s=0.1) as (engine, server):
        server.metrics = metrics
        slow = asyncio.create_task(engine.answer(a_question()))
        await until(lambda: tokens > 50)
        assert engine.state.kind == "ready"

        moving = False
        await until(lambda: engine.state.lets_go)

        assert engine.state.reason.endswith("no answer within 0.1 s")
        engine.check()
        slow.cancel()


async def test_an_answer_that_stops_in_the_middle_is_asked_for_again() -> None:
    """After its headers, and some of its body: no server thinks that late."""
    async with an_engine(in_turn(Reply(200, '{"id":', then="stall"), a_text()), reply_stall_s=0.1) as (engine, server):
        outcome = completion(await engine.answer(a_question()))

    assert outcome.texts == ["42"]
    assert len(server.asked) == 3  # The probe among them.


@pytest.mark.parametrize("reply", ["endless", "gzip"])
async def test_an_answer_without_end_is_not_read_to_it(reply: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor unpacked: a bound on bytes ends it, and the question is the one that fails."""
    monkeypatch.setattr(client, "MAX_REPLY_BYTES", 1 << 20)
    bomb = (
        Reply(200, gzip.compress(b" " * (1 << 26)), {"content-encoding": "gzip"})
        if reply == "gzip"
        else Reply(200, b" " * (1 << 26))
    )

    def script(asked: Asked) -> Reply:
        return bomb if asked.body["prompt"] == "bomb" else a_text()

    async with an_engine(script, tries=1) as (engine, _):
        outcome = refusal(await engine.answer(a_question(prompt="bomb")))

    assert outcome.message.endswith("last: HTTP 200: its answer is longer than 1 MiB")


async def test_a_prompt_goes_nowhere_else() -> None:
    """A redirect to another host is not followed, whatever the status."""
    async with ScriptedServer(in_turn(a_text())) as elsewhere:
        to = {"location": f"http://127.0.0.1:{elsewhere.port}/v1/completions"}
        for status in (301, 302, 303, 307, 308):
            async with an_engine(in_turn(Reply(status, "", to))) as (engine, _):
                with pytest.raises(EngineUnusableError, match="redirects to"):
                    await engine.answer(a_question())

    assert elsewhere.asked == []


async def test_the_key_appears_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """In no log of ours or of the library's, however talkative; in no record, error or repr."""
    caplog.set_level(logging.DEBUG)
    shown = []
    script = in_turn(an_error(500, f"bad key {KEY}"), an_error(400, f"bad key {KEY}"))
    async with an_engine(script, sampling_defaults={"seed": 1}) as (engine, server):
        shown.append(repr(await engine.answer(a_question())))
        shown += [repr(engine), repr(engine.__dict__), repr(options(server)), str(options(server))]
        server.script = in_turn(an_error(401, f"bad key {KEY}"))
        with pytest.raises(EngineUnusableError) as raised:
            await engine.answer(a_question())
        shown += [repr(engine.state), str(raised.value), repr(raised.value)]

    assert KEY not in "\n".join(shown) + caplog.text


@pytest.mark.parametrize(
    ("server", "port", "url"),
    [
        ("localhost", None, "http://localhost:8000/v1"),
        ("localhost", 9000, "http://localhost:9000/v1"),
        ("10.0.0.1:9000", None, "http://10.0.0.1:9000/v1"),
        ("http://host", 9000, "http://host:9000/v1"),
        ("http://host", None, "http://host/v1"),
        ("https://api.example.org", None, "https://api.example.org/v1"),
        ("http://host:9000/v1/", None, "http://host:9000/v1"),
        ("https://host/openai/v1", 9000, "https://host:9000/openai/v1"),
        ("[::1]", 9000, "http://[::1]:9000/v1"),
    ],
)
def test_the_address_in_every_form(server: str, port: int | None, url: str) -> None:
    """What users write for server and port."""
    assert base_url_of(server, port) == url


@pytest.mark.parametrize(
    ("server", "port"), [("ftp://host", None), ("http://", None), ("http://host:9000", 8000), ("http://host:x", None)]
)
def test_an_address_that_cannot_be(server: str, port: int | None) -> None:
    """Said before anything is tried."""
    with pytest.raises(EngineBootError, match="server"):
        base_url_of(server, port)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e300"}, LONGEST_WAIT_S),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, a date, OpenAI's milliseconds, or nothing that can be read."""
    assert retry_after_s(headers, datetime(2026, 11, 23, 12, tzinfo=UTC)) == seconds
