"""The same questions to the stub, to vLLM in process, and to vLLM's own server over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gpu_worker.engines.engine import Completion, Engine, Refusal
from gpu_worker.engines.openai.engine import OpenAIEngine
from gpu_worker.engines.openai.options import OpenAIOptions
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.engines.vllm import library
from gpu_worker.engines.vllm.arguments import Serving
from gpu_worker.engines.vllm.engine import VllmEngine, VllmOptions
from gpu_worker.engines.vllm.parsers import NO_TOOL_PARSER
from gpu_worker.engines.vllm.requests import Requests
from tests.builders import a_question
from tests.eventually import until
from tests.integration import tiny_model
from tests.integration.faulty_proxy import CUT, FORWARD, HOLD, Fate, FaultyProxy
from tests.integration.tiny_model import MAX_MODEL_LEN
from tests.integration.vllm_server import VllmServer
from wire.errors import EngineBootError
from wire.messages import JsonObject, Question

pytestmark = pytest.mark.asyncio(loop_scope="module")

IN_PROCESS = pytest.param("in process", marks=pytest.mark.vllm)
OVER_HTTP = pytest.param("over HTTP", marks=pytest.mark.vllm)
every_engine = pytest.mark.parametrize("kind", ["stub", IN_PROCESS, OVER_HTTP])
every_vllm = pytest.mark.parametrize("kind", [IN_PROCESS, OVER_HTTP])

DEFAULTS: JsonObject = {"temperature": 0.0, "max_tokens": 16}
RECORDED: JsonObject = {
    "temperature": 0.0,
    "max_tokens": 16,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
ADAPTERS = ("--enable-lora", "--max-loras=2", "--max-lora-rank", str(tiny_model.ADAPTER_RANK), "--lora-modules")

KEY = "sk-of-nobody-5e1c8a90"

numbers = itertools.count()


class Engines:
    """Boots each engine when the first test asks for it; a run without vLLM boots none."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._started: dict[str, Engine] = {}
        self._failed: dict[str, BaseException] = {}
        self._server: VllmServer | None = None

    async def get(self, kind: str) -> Engine:
        """Started, and stopped when the module is through.

        One that did not start is not tried again: that takes minutes, each time.
        """
        if kind in self._failed:
            pytest.fail(
                f"the engine ({kind}) did not start, as an earlier test shows: {self._failed[kind]}", pytrace=False
            )
        if kind not in self._started:
            try:
                engine = {"stub": self._stub, "in process": self._in_process, "over HTTP": self._over_http}[kind]()
                self._stack.push_async_callback(engine.stop)
                await self._start(engine)
            except BaseException as error:
                self._failed[kind] = error
                raise
            self._started[kind] = engine
        return self._started[kind]

    async def server_port(self) -> int:
        """Where vLLM's own server listens; it is ready."""
        await self.get("over HTTP")
        assert self._server is not None
        return self._server.port

    async def _start(self, engine: Engine) -> None:
        """Waits for a server no longer than it lives; if nothing comes of it, its last lines are shown."""
        server = self._server if isinstance(engine, OpenAIEngine) else None
        starting = asyncio.create_task(engine.start())
        try:
            while server is not None and not starting.done():
                server.check()
                await asyncio.wait({starting}, timeout=0.5)
            await starting
        except BaseException:
            starting.cancel()
            print(server.last_lines() if server is not None else "")
            raise

    def _stub(self) -> Engine:
        return StubEngine(StubOptions(step_s=0.001, min_tokens=20, max_tokens=40, sampling_defaults=RECORDED))

    def _in_process(self) -> Engine:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        lora: JsonObject = {"lora_modules": {"poet": str(self._adapter())}, "max_lora_rank": tiny_model.ADAPTER_RANK}
        plain = str(tiny_model.cached(chat_template=False))
        return VllmEngine(
            VllmOptions(
                plain,
                "tiny",
                {**tiny_model.ENGINE_ARGUMENTS, **lora},
                sampling_defaults=DEFAULTS,
                chat_template=tiny_model.CHAT_TEMPLATE,
            )
        )

    def _over_http(self) -> Engine:
        flags = [
            f"--{name.replace('_', '-')}={value}"
            for name, value in tiny_model.ENGINE_ARGUMENTS.items()
            if value is not True
        ]
        arguments = (
            *flags,
            "--enforce-eager",
            "--served-model-name=tiny",
            *ADAPTERS,
            f"poet={self._adapter()}",
            f"--api-key={KEY}",
        )
        self._server = server = self._stack.enter_context(
            VllmServer(tiny_model.cached(), self._folder / "server.log", *arguments)
        )
        return OpenAIEngine(
            OpenAIOptions("127.0.0.1", "tiny", server.port, KEY, sampling_defaults=DEFAULTS, startup_timeout_s=500)
        )

    def _adapter(self) -> Path:
        folder = self._folder / "poet"
        if not folder.exists():
            folder.mkdir()
            tiny_model.make_adapter(folder)
        return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engines]:
    """Those of this module."""
    async with contextlib.AsyncExitStack() as stack:
        yield Engines(tmp_path_factory.mktemp("engines"), stack)


def asking(prompt: str = "What is 2 + 2?", **params: Any) -> Question:  # noqa: ANN401 (any parameter)
    """A prompt."""
    number = next(numbers)
    return a_question(f"q{number}", index=number, prompt=prompt, params=params)


def chatting(*messages: JsonObject, **params: Any) -> Question:  # noqa: ANN401
    """Chat messages."""
    number = next(numbers)
    return a_question(f"q{number}", index=number, messages=list(messages), params=params)


async def completed(engine: Engine, question: Question) -> Completion:
    """The answer, which there must be."""
    outcome = await engine.answer(question)
    assert isinstance(outcome, Completion), outcome
    return outcome


@every_engine
async def test_a_prompt_is_answered(engines: Engines, kind: str) -> None:
    """With counts, a reason for its end, and every parameter that was used."""
    completion = await completed(await engines.get(kind), asking(max_tokens=5))

    assert len(completion.texts) == 1
    assert (completion.finish_reason, completion.usage.completion_tokens) == ("length", 5)
    assert completion.usage.prompt_tokens > 0
    assert completion.params == {**RECORDED, "max_tokens": 5}


@every_engine
async def test_many_are_answered_at_once(engines: Engines, kind: str) -> None:
    """Each by itself, none mistaken for another."""
    engine = await engines.get(kind)
    questions = [asking(f"Say {number}.", max_tokens=1 + number % 7) for number in range(100)]

    together = await asyncio.gather(*(completed(engine, question) for question in questions))

    assert [completion.params["max_tokens"] for completion in together] == [
        question.params["max_tokens"] for question in questions
    ]
    assert all(completion.usage.completion_tokens <= 7 for completion in together)


@every_engine
async def test_the_engine_says_what_it_is(engines: Engines, kind: str) -> None:
    """Its capacity, and that it lives."""
    engine = await engines.get(kind)

    engine.check()
    assert engine.max_num_seqs == 64
    assert engine.kind == {"stub": "stub", "in process": "vllm", "over HTTP": "openai"}[kind]


@every_engine
async def test_a_cancelled_question_leaves_the_engine(engines: Engines, kind: str) -> None:
    """Those behind it are answered as if it had never been."""
    engine = await engines.get(kind)
    cancelled = [asyncio.create_task(engine.answer(asking(max_tokens=400, ignore_eos=True))) for _ in range(80)]
    before = engine.progress()
    first = asyncio.create_task(completed(engine, asking(max_tokens=2)))
    await until(lambda: engine.progress() != before, first)

    for task in cancelled:
        task.cancel()

    await asyncio.gather(*cancelled, return_exceptions=True)
    await first
    await completed(engine, asking(max_tokens=2))


@pytest.mark.vllm
async def test_a_long_answer_makes_progress_all_the_while(engines: Engines) -> None:
    """Finished outputs only, but its lease is renewed at every step."""
    engine = await engines.get("in process")
    before = engine.progress()

    await completed(engine, asking(max_tokens=200, ignore_eos=True))

    assert engine.progress() - before >= 190


@every_vllm
async def test_a_chat_is_answered(engines: Engines, kind: str) -> None:
    """Through the model's template, or the configured one; system messages and messages in parts included."""
    engine = await engines.get(kind)
    system: JsonObject = {"role": "system", "content": "Be brief."}
    as_text = await completed(engine, chatting(system, {"role": "user", "content": "Hi."}))
    as_parts = await completed(engine, chatting(system, {"role": "user", "content": [{"type": "text", "text": "Hi."}]}))
    by_hand = await completed(engine, asking("<|system|>Be brief.<|user|>Hi.<|assistant|>"))

    assert as_text == as_parts == by_hand


@every_vllm
async def test_an_answer_can_be_begun(engines: Engines, kind: str) -> None:
    """continue_final_message continues where the last message ends."""
    engine = await engines.get(kind)
    begun = chatting(
        {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Well"}, continue_final_message=True
    )

    completion = await completed(engine, begun)

    by_hand = await completed(engine, asking("<|user|>Hi.<|assistant|>Well"))
    assert (completion.texts, completion.usage.plain()) == (by_hand.texts, by_hand.usage.plain())


@every_vllm
async def test_the_model_s_own_sampling_defaults_are_not_used(engines: Engines, kind: str) -> None:
    """Its generation_config asks for a temperature of 1.9.

    The second token that ends a text stands only there, and does end it.
    """
    engine = await engines.get(kind)

    assert await completed(engine, asking(max_tokens=40)) == await completed(engine, asking(max_tokens=40))
    ended = await completed(engine, asking(allowed_token_ids=[tiny_model.SECOND_END_ID]))
    assert (ended.finish_reason, ended.usage.completion_tokens) == ("stop", 1)


@every_vllm
async def test_several_texts_for_one_question(engines: Engines, kind: str) -> None:
    """All are returned; a seed makes them come again."""
    engine = await engines.get(kind)

    first, second = [await completed(engine, asking(n=3, temperature=1.0, seed=7)) for _ in range(2)]

    assert len(first.texts) == len(set(first.texts)) == 3
    assert first.texts == second.texts
    assert first.details == {"finish_reasons": ["length"] * 3}
    assert first.usage.completion_tokens == 48


@every_vllm
async def test_a_text_stops_where_it_is_told_to(engines: Engines, kind: str) -> None:
    """The text that stopped it is left out, and named."""
    engine = await engines.get(kind)
    asked: dict[str, Any] = {"allowed_token_ids": [65, 66, 67], "temperature": 1.0, "seed": 1, "max_tokens": 60}
    whole = (await completed(engine, asking(**asked))).texts[0]
    stop = whole[5:8]

    stopped = await completed(engine, asking(**asked, stop=stop))

    assert stopped.texts[0] == whole[: whole.index(stop)]
    assert (stopped.finish_reason, stopped.details) == ("stop", {"stop_reasons": [stop]})


@every_vllm
async def test_logprobs(engines: Engines, kind: str) -> None:
    """For each token of the answer, it and the likeliest; greedy takes the likeliest."""
    engine = await engines.get(kind)

    for question in (
        asking(logprobs=2, max_tokens=4),
        chatting({"role": "user", "content": "Hi."}, logprobs=True, top_logprobs=2, max_tokens=4),
    ):
        completion = await completed(engine, question)
        details: Any = completion.details
        (positions,) = details["logprobs"]
        assert len(positions) == 4
        for position in positions:
            assert len(position["top_logprobs"]) == 2
            assert position["logprob"] == pytest.approx(max(one["logprob"] for one in position["top_logprobs"]))


@every_vllm
async def test_structured_output(engines: Engines, kind: str) -> None:
    """A model that babbles says what the structure allows, whatever spelling asks for it."""
    engine = await engines.get(kind)
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["x", "y"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}

    choice, regex, old, new, chat = await asyncio.gather(
        completed(engine, asking(guided_choice=["yes", "no"])),
        completed(engine, asking(structured_outputs={"regex": "[0-9]{3}"})),
        completed(engine, asking(guided_json=schema, max_tokens=200, seed=5, temperature=1.0)),
        completed(engine, asking(response_format=wanted, max_tokens=200, seed=5, temperature=1.0)),
        completed(
            engine,
            chatting(
                {"role": "user", "content": "Hi."}, response_format=wanted, max_tokens=200, seed=5, temperature=1.0
            ),
        ),
    )

    assert choice.texts[0] in {"yes", "no"}
    assert re.fullmatch("[0-9]{3}", regex.texts[0])
    for completion in (old, new, chat):
        assert json.loads(completion.texts[0])["a"] in {"x", "y"}
        assert completion.params["structured_outputs"] == {"json": schema}


@every_vllm
async def test_an_adapter_by_its_name(engines: Engines, kind: str) -> None:
    """It says something else than the model alone; side by side in one batch they do not disturb each other."""
    engine = await engines.get(kind)
    plain, adapted = await completed(engine, asking()), await completed(engine, asking(lora="poet"))

    together = await asyncio.gather(*(completed(engine, asking(**lora)) for lora in [{}, {"lora": "poet"}] * 5))

    assert plain.texts != adapted.texts
    assert adapted.params["lora"] == "poet"
    assert list(together) == [plain, adapted] * 5


@every_vllm
async def test_an_answer_that_would_not_fit_is_made_shorter(engines: Engines, kind: str) -> None:
    """The record says by how much; a prompt that leaves room for one token gets one."""
    engine = await engines.get(kind)

    completion = await completed(engine, asking(max_tokens=100_000, ignore_eos=True))
    brim = await completed(engine, asking("x" * (MAX_MODEL_LEN - 1), max_tokens=100))

    assert (
        completion.params["max_tokens"]
        == completion.usage.completion_tokens
        == MAX_MODEL_LEN - completion.usage.prompt_tokens
    )
    assert (brim.usage.prompt_tokens, brim.usage.completion_tokens, brim.params["max_tokens"]) == (
        MAX_MODEL_LEN - 1,
        1,
        1,
    )


USER: JsonObject = {"role": "user", "content": "Hi."}

REFUSED: dict[str, tuple[Question, str, str]] = {
    "too long": (
        asking("x" * 5000),
        "prompt_too_long",
        "the prompt has 5000 tokens, but the model takes 512 (max_model_len), and one of them must be",
    ),
    "no room": (
        asking("x" * MAX_MODEL_LEN),
        "prompt_too_long",
        "the prompt has 512 tokens, but the model takes 512 (max_model_len), and one of them",
    ),
    "chat too long": (chatting({"role": "user", "content": "x" * 5000}), "prompt_too_long", "the prompt has 50"),
    "empty": (asking(""), "empty_prompt", "the prompt is empty"),
    "unknown name": (
        asking(temprature=1),
        "bad_parameter",
        "unknown parameter 'temprature'; did you mean 'temperature'?",
    ),
    "wrong value": (
        asking(top_p=2),
        "bad_parameter",
        "parameter 'top_p' must be a number above 0 and at most 1, not 2",
    ),
    "greedy n": (asking(n=2), "bad_parameter", "n must be 1 when using greedy sampling, got 2."),
    "not of vLLM": (
        chatting({"role": "user", "content": "Hi."}, verbosity="low"),
        "bad_parameter",
        "parameter 'verbosity' is for servers that know it; vLLM",
    ),
    "too many logprobs": (asking(logprobs=1000), "bad_parameter", ""),
    "min above max": (asking(min_tokens=20), "bad_parameter", ""),
    "no such token": (asking(stop_token_ids=[99999]), "bad_parameter", ""),
    "no such token to like": (asking(logit_bias={"99999": 1}), "bad_parameter", ""),
    "no such token to allow": (asking(allowed_token_ids=[99999]), "bad_parameter", ""),
    "bad regex": (asking(guided_regex="[0-9"), "bad_schema", "the structured output asked for cannot be used: "),
    "bad schema": (
        asking(guided_json={"type": "nosuch"}),
        "bad_schema",
        "the structured output asked for cannot be used: ",
    ),
    "bad reference": (
        asking(guided_json={"$ref": "#/nowhere"}),
        "bad_schema",
        "the structured output asked for cannot be used: ",
    ),
    "bad grammar": (
        asking(guided_grammar="root ::= nosuch"),
        "bad_schema",
        "the structured output asked for cannot be used: ",
    ),
    "unknown adapter": (
        asking(lora="pot"),
        "unknown_adapter",
        "no LoRA adapter 'pot' here; did you mean 'poet'?; this engine has 'poet'",
    ),
    "no role": (
        chatting({"content": "Hi."}),
        "bad_messages",
        "the chat messages cannot be used: message 1 has no role",
    ),
    "template says no": (
        chatting({"role": "wizard", "content": "Hi."}),
        "bad_messages",
        "the chat messages cannot be used: no such role: wizard",
    ),
    "an image": (
        chatting(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}]}
        ),
        "unsupported",
        "this model takes no images, or not so many: ",
    ),
}


IGNORED_BY_OLD_VLLM = {("no such token", "over HTTP")}
"""The server of 0.26 answers as if it had not been asked for; over HTTP, nobody here knows the vocabulary."""


@every_vllm
@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_question_harms_only_itself(engines: Engines, kind: str, name: str) -> None:
    """It is refused with a kind and with words that help; those beside it are answered."""
    engine = await engines.get(kind)
    question, refused_as, message = REFUSED[name]

    before, outcome, after = await asyncio.gather(
        engine.answer(asking()), engine.answer(question), engine.answer(asking())
    )

    if (name, kind) in IGNORED_BY_OLD_VLLM and str(library.installed_version()).startswith("0.26."):
        assert isinstance(outcome, Completion), outcome
        return
    assert isinstance(outcome, Refusal), outcome
    print(f"{name}, {kind}: {outcome.kind}: {outcome.message}")
    assert (outcome.kind, outcome.retryable) == (refused_as, False)
    assert outcome.message.startswith(message)
    assert isinstance(before, Completion)
    assert before == after


@pytest.mark.vllm
@pytest.mark.parametrize(
    "params",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"extra_body": {"a": 1}},
        {"truncate_prompt_tokens": 5},
    ],
    ids=lambda params: next(iter(params)),
)
async def test_what_only_servers_do_is_refused_in_process(engines: Engines, params: JsonObject) -> None:
    """By name, and never passed over; bookkeeping means nothing to a model, and is no reason to refuse."""
    engine = await engines.get("in process")

    refused = await engine.answer(chatting(USER, **params))
    told = await completed(engine, chatting(USER, user="me", store=False, max_tokens=2))

    name = next(iter(params))
    only = f"parameter {name!r} is for servers that know it; vLLM in this process does not take it"
    assert refused == (NO_TOOL_PARSER if name == "tools" else Refusal("bad_parameter", only))
    assert told.params == {**RECORDED, "max_tokens": 2}


@pytest.mark.vllm
async def test_both_give_the_same_records(engines: Engines) -> None:
    """Whoever moves from one to the other compares like with like: texts, reasons, counts, parameters, details."""
    in_process, over_http = await engines.get("in process"), await engines.get("over HTTP")
    questions = [
        asking("Once upon a time"),
        asking("What is the capital of France?", max_tokens=100_000),
        asking(max_completion_tokens=30, min_p=0.1, repetition_penalty=1.2, presence_penalty=0.5),
        # One: the completion form names tokens by their texts alone, and undecodable ones have the same.
        asking(logprobs=1, stop=["zzz"], max_tokens=4),
        asking(n=2, temperature=0.8, seed=3, top_k=50, logprobs=1, max_tokens=4),
        asking(guided_choice=["yes", "no"]),
        asking(lora="poet"),
        asking(logit_bias={"65": 100}, max_tokens=3),
        chatting({"role": "system", "content": "Be brief."}, USER),
        chatting(USER, logprobs=True, top_logprobs=2, max_tokens=4),
        chatting(USER, response_format={"type": "json_object"}, max_tokens=8),
        chatting(USER, max_completion_tokens=5, max_tokens=9, tools=[], tool_choice="none", stream_options=None),
        chatting(USER, prompt_logprobs=1, max_tokens=2),
        asking(prompt_logprobs=1, max_tokens=2),
        asking(max_tokens=None),
        chatting(USER, max_tokens=None),
    ]

    for question in questions:
        here, there = await completed(in_process, question), await completed(over_http, question)
        assert _rounded(here) == _rounded(there), question.params


def _rounded(completion: Completion) -> tuple[object, ...]:
    """Logprobs differ in the last bits between two processes; nothing else does."""
    rounded = json.loads(json.dumps(completion.details), parse_float=lambda text: round(float(text), 3))
    return completion.texts, completion.finish_reason, completion.usage.plain(), completion.params, rounded


@pytest.mark.vllm
async def test_what_the_prefix_cache_had_is_counted(engines: Engines) -> None:
    """So that one sees whether questions that begin alike gain by it; nothing is said where there is none."""
    engine = await engines.get("in process")
    long = " ".join(map(str, range(100, 180)))

    first, second = [await completed(engine, asking(long + ending, max_tokens=1)) for ending in ("?", "!")]

    assert first.usage.cached_tokens is None
    assert second.usage.cached_tokens is not None
    assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens


@pytest.mark.vllm
async def test_a_model_without_a_chat_template(engines: Engines) -> None:
    """Chats are refused with what to set; prompts are answered."""
    engine = await engines.get("in process")
    assert isinstance(engine, VllmEngine)

    # The same running engine with another configuration, half a minute sooner than a new one.
    assert engine._booted is not None
    requests = Requests(engine._booted.llm, Serving(), RECORDED, {})

    chat, prompt = await requests.request_for(chatting(USER)), await requests.request_for(asking())

    assert isinstance(chat, Refusal)
    assert chat.kind == "no_chat_template"
    assert "set chat_template (text or file) in vllm_args" in chat.message
    assert not isinstance(prompt, Refusal)


@contextlib.asynccontextmanager
async def failing(
    engines: Engines,
    decide: Callable[[bytes], Fate],
    **changes: Any,  # noqa: ANN401
) -> AsyncIterator[tuple[OpenAIEngine, FaultyProxy]]:
    """An engine that asks vLLM's server through a proxy, and loses patience after a second.

    `decide` says what the proxy does wrong.
    """
    impatient: dict[str, Any] = {
        "busy_s": 1.0,
        "first_pause_s": 0.05,
        "longest_pause_s": 0.2,
        "sampling_defaults": DEFAULTS,
    }
    async with FaultyProxy(await engines.server_port(), decide) as proxy:
        engine = OpenAIEngine(OpenAIOptions("127.0.0.1", "tiny", proxy.port, KEY, **{**impatient, **changes}))
        await engine.start()
        try:
            yield engine, proxy
        finally:
            await engine.stop()


FAULTS: dict[str, Fate] = {"429": 429, "500": 500, "503": 503, "connection lost": CUT}


@pytest.mark.vllm
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_the_server_that_passes_is_not_noticed(engines: Engines, name: str) -> None:
    """Twice in a row, then the answer that there would have been at once."""
    fates: list[Fate] = [FAULTS[name], FAULTS[name]]

    async with failing(engines, lambda _: fates.pop() if fates else FORWARD) as (engine, proxy):
        completion = await completed(engine, asking())

    # One of the two may have met the probe that tells whose fault it was.
    assert proxy.asked >= 3
    assert completion == await completed(await engines.get("over HTTP"), asking())


KEPT_FAILING: dict[str, tuple[Fate, str]] = {
    "429": (429, r"the server failed on this question \d+ times in \d+ s; last: HTTP 429: made by a test"),
    "500": (500, r"the server failed on this question \d+ times in \d+ s; last: HTTP 500: made by a test"),
    "connection lost": (
        CUT,
        r"the server went away, .* the last 3 times with nothing else; last: the connection was lost .* \(Server",
    ),
    "no answer": (HOLD, r"the server failed on this question \d+ times in \d+ s; last: no answer within 5 s"),
}


@pytest.mark.vllm
@pytest.mark.parametrize("name", KEPT_FAILING)
async def test_a_question_at_which_the_server_keeps_failing_is_refused_alone(
    engines: Engines, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are answered meanwhile; whoever asks it again may be luckier.

    The key appears in no log, however talkative, and in no record.
    """
    caplog.set_level(logging.DEBUG)
    fate, message = KEPT_FAILING[name]

    async with failing(engines, lambda body: fate if b"unlucky" in body else FORWARD, request_timeout_s=5.0) as (
        engine,
        proxy,
    ):
        unlucky = asyncio.create_task(engine.answer(asking("unlucky")))
        while not unlucky.done():
            await completed(await engines.get("over HTTP"), asking())
            await completed(engine, asking())
        engine.check()

    outcome = unlucky.result()
    assert isinstance(outcome, Refusal), outcome
    print(f"{name}: {outcome.kind}: {outcome.message}")
    assert (outcome.kind, outcome.retryable) == ("server_error", True)
    assert re.match(message, outcome.message)
    assert proxy.asked > 3
    assert KEY not in caplog.text + repr(outcome) + repr(engine.__dict__)


@pytest.mark.vllm
async def test_a_server_that_goes_away_takes_no_question_with_it(engines: Engines) -> None:
    """It is not their fault: the engine waits for the server, and so do they, until the worker takes them back."""
    async with failing(engines, lambda _: HOLD) as (engine, proxy):
        answers = [asyncio.create_task(engine.answer(asking())) for _ in range(5)]
        await until(lambda: proxy.asked == 5, *answers)

        proxy.close()

        await until(lambda: engine.state.kind == "waiting", *answers)
        engine.check()
        assert "connection refused: nothing listens there" in engine.state.reason
        for answer in answers:
            answer.cancel()
        outcomes = await asyncio.gather(*answers, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "wrong key": (
        {"api_key": "sk-wrong"},
        r"http://127.0.0.1:\d+/v1 refuses the API key \(HTTP 401\): .*; set model.generator_settings.api_key",
    ),
    "no key": (
        {"api_key": None},
        r"http://127.0.0.1:\d+/v1 refuses the API key \(HTTP 401\): .*; set model.generator_settings.api_key",
    ),
    "wrong model": (
        {"model": "tinny"},
        (
            r"does not serve a model 'tinny'; did you mean 'tiny'\?; it serves 'tiny', 'poet': set "
            r"model.generator_settings.model"
        ),
    ),
    "no API": (
        {"server": "http://127.0.0.1/elsewhere"},
        r"there is no OpenAI-compatible API at http://127.0.0.1:\d+/elsewhere \(HTTP 404: ",
    ),
    "nobody": (
        {"port": 9},
        (
            r"no answer from http://127.0.0.1:9/v1 within 1 s .*: connection refused: nothing listens there; "
            r"check server and port"
        ),
    ),
}


@pytest.mark.vllm
@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_server_that_cannot_be_used_is_known_before_any_work(engines: Engines, name: str) -> None:
    """With the setting to change, and without a key."""
    changes, message = UNUSABLE[name]
    port = await engines.server_port()
    given = {"server": "127.0.0.1", "model": "tiny", "port": port, "api_key": KEY, "startup_timeout_s": 1.0, **changes}
    engine = OpenAIEngine(OpenAIOptions(**given))

    with pytest.raises(EngineBootError, match=message) as raised:
        await engine.start()

    print(f"{name}: {raised.value}")
    assert "sk-" not in str(raised.value)
