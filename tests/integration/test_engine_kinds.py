"""Every kind of request, in the forms in which users write it, to each engine: the same outcome, or one named refusal.

The HTTP engine asks a scripted server; `-m vllm` adds vLLM in process, with tiny models that the tests make.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import zlib
from array import array
from base64 import b64encode
from collections.abc import AsyncIterator
from math import hypot
from operator import mul
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gpu_worker.engines.engine import Completion, Engine, Outcome, Refusal, Vectors
from gpu_worker.engines.openai.engine import OpenAIEngine
from gpu_worker.engines.openai.options import OpenAIOptions
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.engines.vllm import library
from gpu_worker.engines.vllm.arguments import VllmOptions
from gpu_worker.engines.vllm.engine import VllmEngine
from gpu_worker.engines.with_images import WithImages
from gpu_worker.images.options import ImageOptions
from tests.builders import a_question
from tests.integration import tiny_model
from tests.integration.vllm_server import VllmServer
from tests.unit.scripted_server import MODEL, Asked, Reply, ScriptedServer, a_text
from wire.messages import JsonObject, Question

pytestmark = pytest.mark.asyncio(loop_scope="module")

every_engine = pytest.mark.parametrize(
    "kind", ["stub", "over HTTP", pytest.param("in process", marks=pytest.mark.vllm)]
)
MESSAGES: list[JsonObject] = [{"role": "user", "content": "What is 2 + 2?"}]
PARAMETERS: JsonObject = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2]}},
    "required": ["n"],
    # Random weights would else add properties until there are no tokens left.
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": PARAMETERS}}]
NAMED: JsonObject = {"type": "function", "function": {"name": "add"}}
SCHEMA: JsonObject = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
END_OF_THINKING: Any = {str(tiny_model.END_OF_THINKING_ID): 100.0}
"""A model with random weights hardly ends its thoughts by itself."""
numbers = itertools.count()


def scripted(asked: Asked) -> Reply:
    """What a server that knows everything answers."""
    body = asked.body
    if asked.path.endswith("/embeddings"):
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        size = body.get("dimensions", 8)
        data = [{"index": index, "embedding": [1.0, *[0.0] * (size - 1)]} for index in range(len(inputs))]
        # Some servers do not keep the order.
        return Reply(body={"data": data[::-1], "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    if asked.path == "/classify":
        return Reply(
            body={"data": [{"index": 0, "label": "good", "probs": [0.25, 0.75]}], "usage": {"prompt_tokens": 3}}
        )
    if asked.path.endswith("/rerank"):
        results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]
        return Reply(body={"results": results, "usage": {"total_tokens": 5}})
    if body.get("tools") and body.get("tool_choice") in ("required", NAMED):
        call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return a_text(choices=[{"index": 0, "finish_reason": "tool_calls", "message": message}])
    content = body["messages"][-1]["content"] if "messages" in body else ""
    images = [part["image_url"]["url"] for part in content if isinstance(part, dict) and "image_url" in part]
    return a_text("".join(url[:20] for url in images)) if images else a_text()


class Engines:
    """Boots each engine when the first test asks for it, one of vLLM's at a time."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._started: dict[tuple[str, str], Engine] = {}
        self._vllm: VllmEngine | None = None
        self._failed: dict[tuple[str, str], BaseException] = {}

    async def get(self, kind: str, task: str = "think") -> Engine:
        """Started. `task`: as `tiny_model.cached_for`; the other engines do everything."""
        key = (kind, task if kind == "in process" else "")
        if key in self._failed:
            # One that did not start is not tried again: that takes minutes, each time.
            pytest.fail(f"the engine {key} did not start, as an earlier test shows: {self._failed[key]}", pytrace=False)
        if key not in self._started:
            try:
                self._started[key] = await (self._in_process(task) if kind == "in process" else self._other(kind))
            except BaseException as error:
                self._failed[key] = error
                raise
        return self._started[key]

    async def _other(self, kind: str) -> Engine:
        if kind == "stub":
            return StubEngine(StubOptions(max_tokens=20))
        server = await self._stack.enter_async_context(ScriptedServer(scripted))
        engine = OpenAIEngine(OpenAIOptions("127.0.0.1", MODEL, server.port, startup_timeout_s=5))
        self._stack.push_async_callback(engine.stop)
        await engine.start()
        return engine

    async def _in_process(self, task: str) -> Engine:
        if self._vllm is not None:
            await self._vllm.stop()
            self._started = {key: engine for key, engine in self._started.items() if engine is not self._vllm}
        arguments = dict(tiny_model.ENGINE_ARGUMENTS)
        if task == "think":
            arguments |= {"reasoning_parser": "deepseek_r1", "tool_call_parser": "hermes"}
        folder = str(tiny_model.cached_for(task))
        wanted: Any = "generate" if task in {"think", "see"} else task
        engine = self._vllm = VllmEngine(VllmOptions(folder, "tiny", arguments, startup_timeout_s=800, task=wanted))
        self._stack.push_async_callback(engine.stop)
        await engine.start()
        return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines() -> AsyncIterator[Engines]:
    """Those of this module."""
    async with contextlib.AsyncExitStack() as stack:
        yield Engines(stack)


def chatting(messages: list[JsonObject] | None = None, **params: Any) -> Question:  # noqa: ANN401 (any parameter)
    """Chat messages."""
    return a_question(f"q{next(numbers)}", messages=messages or MESSAGES, params={"max_tokens": 20, **params})


def wanting(**fields: Any) -> Question:  # noqa: ANN401 (any field)
    """Vectors."""
    return a_question(f"q{next(numbers)}", prompt=None, **{"task": "embed", **fields})


def as_users_write(**params: Any) -> JsonObject:  # noqa: ANN401 (any parameter)
    """So that a case reads like the request."""
    return params


REQUESTS: dict[str, tuple[JsonObject, str | JsonObject]] = {
    "max_completion_tokens": (as_users_write(max_completion_tokens=5), {"max_tokens": 5}),
    "max_tokens beside it": (as_users_write(max_completion_tokens=5, max_tokens=7), {"max_tokens": 5}),
    "nulls": (as_users_write(n=None, seed=None, stop=None, stream=None, stream_options=None, tools=None), {}),
    "stream on": (as_users_write(stream=True), "bad_parameter"),
    "stream off": (as_users_write(stream=False), {}),
    "bookkeeping": (as_users_write(user="u", store=True, service_tier="auto", prompt_cache_key="k"), {}),
    "seed": (as_users_write(seed=7), {"seed": 7}),
    "logit_bias": (as_users_write(logit_bias={"50": 1}), {"logit_bias": {"50": 1.0}}),
    "top_logprobs": (as_users_write(logprobs=True, top_logprobs=2), {"logprobs": 2}),
    "top_logprobs alone": (as_users_write(top_logprobs=2), "bad_parameter"),
    "plain text": (as_users_write(response_format={"type": "text"}), {}),
    "an object": (
        as_users_write(response_format={"type": "json_object"}),
        {"structured_outputs": {"json_object": True}},
    ),
    "a schema": (as_users_write(response_format=SCHEMA), {"structured_outputs": {"json": {"type": "object"}}}),
    "no such format": (as_users_write(response_format={"type": "xml"}), "bad_schema"),
    "an unknown key": (as_users_write(temprature=0.5), "bad_parameter"),
    "tool_choice alone": (as_users_write(tool_choice="auto"), "bad_parameter"),
    "no tools": (as_users_write(tools=[], tool_choice="none", parallel_tool_calls=True), {}),
}
"""What is asked -> what is recorded of it beside the defaults, or the kind of refusal."""


@every_engine
@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_means_the_same_everywhere(engines: Engines, kind: str, name: str) -> None:
    """Whatever engine it comes to: the record has it under one name, and a refusal is of one kind."""
    params, expected = REQUESTS[name]
    outcome = await (await engines.get(kind)).answer(a_question(f"q{next(numbers)}", messages=MESSAGES, params=params))

    if isinstance(expected, str):
        assert isinstance(outcome, Refusal), outcome
        assert outcome.kind == expected
        return
    assert isinstance(outcome, Completion), outcome
    neutral = {"temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty"} - expected.keys()
    assert {name: value for name, value in outcome.params.items() if name not in neutral} == expected


@every_engine
async def test_tools_are_for_chats(engines: Engines, kind: str) -> None:
    """A prompt cannot have them, and is told so before any engine sees it."""
    outcome = await (await engines.get(kind)).answer(a_question(f"q{next(numbers)}", params={"tools": TOOLS}))

    assert isinstance(outcome, Refusal), outcome
    assert (outcome.kind, "is for chat messages" in outcome.message) == ("bad_parameter", True)


@every_engine
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
async def test_a_tool_that_has_to_be_called_is_called(engines: Engines, kind: str, choice: Any) -> None:  # noqa: ANN401
    """The call is parsed, by the server or in process, and stands beside an empty text."""
    sampling: Any = {"max_tokens": 200, "temperature": 0.5, "seed": 3, "logit_bias": END_OF_THINKING}
    asked = chatting(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, **sampling)
    outcome = await (await engines.get(kind)).answer(asked)

    assert isinstance(outcome, Completion), outcome
    ((call,),) = [calls for calls in outcome.tool_calls if calls is not None]
    function: Any = call["function"]
    assert (function["name"], bool(call["id"]), outcome.texts) == ("add", True, [""])


@every_engine
async def test_results_of_tools_are_part_of_a_chat(engines: Engines, kind: str) -> None:
    """The second turn: the call that the model made, without a text, and what came of it."""
    call: JsonObject = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"n": 1}'}}
    turns: list[JsonObject] = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
    ]
    outcome = await (await engines.get(kind)).answer(chatting(turns, tools=TOOLS, tool_choice="none"))

    assert isinstance(outcome, Completion), outcome


@pytest.mark.vllm
async def test_reasoning_is_told_from_the_answer(engines: Engines) -> None:
    """By vLLM's parser; what comes before its end is no part of the text, and structured output begins behind it."""
    engine = await engines.get("in process")
    ended = await engine.answer(chatting(logit_bias=END_OF_THINKING, structured_outputs={"choice": ["yes", "no"]}))
    unended = await engine.answer(chatting(max_tokens=5, ignore_eos=True))

    assert isinstance(ended, Completion), ended
    assert ended.texts[0] in {"yes", "no"}
    assert isinstance(unended, Completion), unended
    assert (unended.texts, bool(next(iter(unended.reasoning)))) == ([""], True)


def seeing(*urls: str, **more: Any) -> Question:  # noqa: ANN401 (any part)
    """Images of these addresses, and `more` parts."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content: list[Any] = [*parts, *more.values(), {"type": "text", "text": "What is this?"}]
    return chatting([{"role": "user", "content": content}], ignore_eos=True, max_tokens=8)


def a_png(width: int, height: int, colour: bytes = b"\xff\0\0") -> bytes:
    """One of a single colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + colour * width) * height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def a_data_url(image: bytes) -> str:
    """As users write it."""
    return f"data:image/png;base64,{b64encode(image).decode()}"


@every_engine
async def test_images_reach_the_model(engines: Engines, kind: str, tmp_path: Path) -> None:
    """From an allowed folder: the stub tells its size, a server gets its bytes, and the model in process its tokens.

    One that is not there and one cut off in its middle fail their own questions.
    """
    (tmp_path / "red.png").write_bytes(a_png(30, 20))
    inner = await engines.get(kind, "see")
    engine = WithImages(inner, ImageOptions((str(tmp_path),)))

    seen, blind, missing = await asyncio.gather(
        engine.answer(seeing(f"file://{tmp_path}/red.png")),
        engine.answer(seeing()),
        engine.answer(seeing(f"file://{tmp_path}/blue.png")),
    )

    assert isinstance(seen, Completion), seen
    assert isinstance(blind, Completion), blind
    assert isinstance(missing, Refusal), missing
    assert missing.kind == "bad_image"
    if kind == "stub":
        assert seen.texts[0].startswith("30x20 ")
    elif kind == "over HTTP":
        assert seen.texts == ["data:image/png;base6"]
    else:
        # Beside those of the image itself, three that stand around it.
        assert seen.usage.prompt_tokens == blind.usage.prompt_tokens + tiny_model.TOKENS_OF_AN_IMAGE + 3
        cut = await engine.answer(seeing(a_data_url(a_png(28, 28)[:45])))
        assert isinstance(cut, Refusal), cut
        assert (cut.kind, "truncated" in cut.message) == ("bad_image", True)


@pytest.mark.vllm
async def test_images_are_seen_as_by_vllms_own_server(engines: Engines, tmp_path: Path) -> None:
    """The same model over HTTP says the same of each image in the same number of tokens, and of no two the same."""
    colours = (b"\xff\0\0", b"\0\0\xff", b"\x80\x80\x80")
    red, blue, grey = (a_data_url(a_png(30, 20, colour)) for colour in colours)
    urls = [(red,), (blue,), (grey,), (red, blue)]

    in_process = [await said_of(await engines.get("in process", "see"), *some) for some in urls]
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in tiny_model.ENGINE_ARGUMENTS.items()
    ]
    folder = tiny_model.cached_for("see")
    with VllmServer(folder, tmp_path / "server.log", *flags, "--served-model-name=tiny") as server:
        engine = OpenAIEngine(OpenAIOptions("127.0.0.1", "tiny", server.port, startup_timeout_s=800))
        async with stopped_after(engine):
            over_http = [await said_of(engine, *some) for some in urls]

    assert in_process == over_http
    assert len({text for text, _ in in_process}) == len(urls)


@contextlib.asynccontextmanager
async def stopped_after(engine: Engine) -> AsyncIterator[None]:
    """Started, and stopped in the end."""
    try:
        await engine.start()
        yield
    finally:
        await engine.stop()


async def said_of(engine: Engine, *urls: str) -> tuple[str, int]:
    """The text, and the prompt's tokens."""
    outcome = await WithImages(engine, ImageOptions()).answer(seeing(*urls))
    assert isinstance(outcome, Completion), outcome
    return outcome.texts[0], outcome.usage.prompt_tokens


@pytest.mark.vllm
async def test_what_a_model_of_text_or_vllm_would_fetch_is_refused(engines: Engines) -> None:
    """An image for a model that takes none, and what vLLM would get by itself, past the limits: sound, odd parts."""
    engine = WithImages(await engines.get("in process"), ImageOptions())
    image = await engine.answer(seeing(a_data_url(a_png(28, 28))))
    sound = {"type": "audio_url", "audio_url": {"url": "http://127.0.0.1:1/x"}}
    sly = {"type": "text", "text": "a", "uuid": "u", "image_url": "http://127.0.0.1:1/x"}
    others = [await engine.answer(seeing(more=part)) for part in (sound, sly)]

    for outcome in (image, *others):
        assert isinstance(outcome, Refusal), outcome
        assert outcome.kind == "unsupported", outcome


def numbers_of(outcome: Outcome) -> list[list[float]]:
    """The vectors, of which there must be some."""
    assert isinstance(outcome, Vectors), outcome
    assert outcome.usage.prompt_tokens > 0
    return [array("f", vector).tolist() for vector in outcome.vectors]


@every_engine
async def test_embeddings(engines: Engines, kind: str) -> None:
    """One for each text, of length 1, shorter if that is asked for; the same text has the same one."""
    engine = await engines.get(kind, "embed")

    three = numbers_of(await engine.answer(wanting(inputs=["a", [5, 6], "a"])))
    (short,) = numbers_of(await engine.answer(wanting(inputs=["a"], params={"dimensions": 4})))

    assert len(three) == 3
    assert three[0] == pytest.approx(three[2], abs=1e-5)
    assert len(short) == 4
    for vector in (*three, short):
        assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-3)


@pytest.mark.vllm
async def test_embeddings_are_those_of_vllm_by_itself(engines: Engines) -> None:
    """The same engine, asked past ours: the cosine of each pair is 1, but for what batches do to the last digits."""
    engine = await engines.get("in process", "embed")
    assert isinstance(engine, VllmEngine)
    assert engine._booted is not None
    llm, pooling = engine._booted.llm, library.pooling_params(task="embed")

    for text in ("Water boils at 100 degrees.", "Why?", "x" * 200):
        (ours,) = numbers_of(await engine.answer(wanting(inputs=[text])))
        outputs = [output async for output in llm.encode(text, pooling, f"raw-{next(numbers)}")]
        raw: list[float] = outputs[-1].outputs.data.tolist()
        cosine = sum(map(mul, ours, raw)) / hypot(*ours) / hypot(*raw)
        assert cosine >= 0.9999


@every_engine
async def test_classes(engines: Engines, kind: str) -> None:
    """Probabilities that sum to 1, and the name of the likeliest."""
    outcome = await (await engines.get(kind, "classify")).answer(wanting(inputs=["a"], task="classify"))

    (shares,) = numbers_of(outcome)
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert isinstance(outcome, Vectors)
    assert isinstance((outcome.details or {})["labels"], list)


@every_engine
async def test_scores(engines: Engines, kind: str) -> None:
    """One for each document, in their order, whatever order a server has them in."""
    outcome = await (await engines.get(kind, "score")).answer(wanting(inputs=["a", "b"], query="q", task="score"))

    (scores,) = numbers_of(outcome)
    assert len(scores) == 2
    if kind == "over HTTP":
        assert scores == pytest.approx([0.1, 0.9])


@pytest.mark.vllm
async def test_what_a_pooling_model_does_not_do_is_refused(engines: Engines) -> None:
    """Text, other vectors, too long a text, too many dimensions, unknown adapters and parameters; with what would."""
    engine = await engines.get("in process", "embed")
    limit = tiny_model.MAX_MODEL_LEN

    text = await engine.answer(chatting())
    classes = await engine.answer(wanting(inputs=["a"], task="classify"))
    long = await engine.answer(wanting(inputs=["x" * (limit + 9)]))
    cut = await engine.answer(wanting(inputs=["x" * (limit + 9)], params={"truncate_prompt_tokens": -1}))
    wide = await engine.answer(wanting(inputs=["a"], params={"dimensions": 4096}))
    adapted = await engine.answer(wanting(inputs=["a"], params={"lora": "poet"}))
    foreign = await engine.answer(wanting(inputs=["a"], params={"extra_body": {"a": 1}}))

    refusals = (text, classes, long, wide, adapted, foreign)
    kinds = ["unsupported", "unsupported", "prompt_too_long", "bad_parameter", "unknown_adapter", "bad_parameter"]
    assert [one.kind if isinstance(one, Refusal) else one for one in refusals] == kinds
    assert isinstance(long, Refusal)
    assert f"and the model takes {limit} (max_model_len)" in long.message
    assert isinstance(cut, Vectors)
    assert cut.usage.prompt_tokens == limit
