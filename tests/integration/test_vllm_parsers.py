"""vLLM's own parsers, without an engine: what a model said becomes reasoning, an answer and calls of tools."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from gpu_worker.engines.engine import Refusal
from gpu_worker.engines.vllm.arguments import Serving
from gpu_worker.engines.vllm.parsers import NO_TOOL_PARSER, Chat, Parsed, Parsers
from tests.integration import tiny_model
from wire.errors import EngineBootError
from wire.messages import JsonObject

pytestmark = pytest.mark.vllm

MESSAGES: list[JsonObject] = [{"role": "user", "content": "Hi."}]
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
NAMED: JsonObject = {"type": "function", "function": {"name": "add"}}
CALL = 'hm</think><tool_call>\n{"name": "add", "arguments": {"n": 1}}\n</tool_call>'


def an_engine() -> Any:  # noqa: ANN401 (as much of an AsyncLLM as parsers look at)
    """With the tokenizer of the model that thinks."""
    folder = str(tiny_model.cached_for("think"))
    tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(folder)
    kind = SimpleNamespace(model_type="llama")
    config = SimpleNamespace(model=folder, hf_config=kind, hf_text_config=kind)
    renderer = SimpleNamespace(get_tokenizer=lambda: tokenizer)
    return SimpleNamespace(vllm_config=SimpleNamespace(model_config=config), renderer=renderer)


def parsed(parsers: Parsers, text: str, **params: Any) -> Parsed:  # noqa: ANN401 (any parameter)
    """What becomes of a text that answers a chat with these parameters."""
    chat = parsers.chat(MESSAGES, params, {})
    assert isinstance(chat, Chat), chat
    return chat.parsed(SimpleNamespace(text=text, finish_reason="stop", token_ids=[5, 3, 6]), [1])


def test_what_a_model_says_is_taken_apart() -> None:
    """Reasoning may be all there is; calls are read where they may be made, and end an answer as OpenAI's do."""
    parsers = Parsers(an_engine(), Serving(reasoning_parser="deepseek_r1", tool_call_parser="hermes"))

    plain, unended = parsed(parsers, "hm</think>4"), parsed(parsers, "hm")
    by_choice = {
        str(choice): parsed(parsers, CALL, tools=TOOLS, tool_choice=choice) for choice in ("auto", "required", NAMED)
    }
    ignored = parsed(parsers, CALL, tools=TOOLS, tool_choice="none")

    assert (plain.reasoning, plain.text, unended.reasoning, unended.text) == ("hm", "4", "hm", "")
    for choice, said in by_choice.items():
        assert said.tool_calls is not None
        assert said.tool_calls[0]["function"] == {"name": "add", "arguments": '{"n": 1}'}
        assert (said.text, said.reasoning, said.finish_reason) == (
            "",
            "hm",
            "stop" if choice == str(NAMED) else "tool_calls",
        )
    assert (ignored.tool_calls, ignored.text) == (None, CALL.removeprefix("hm</think>"))


def test_without_a_parser_tools_are_refused_and_a_wrong_name_is_known_at_once() -> None:
    """The refusal names the setting; so does the error of a parser that vLLM has not."""
    parsers = Parsers(an_engine(), Serving())

    assert parsers.chat(MESSAGES, {"tools": TOOLS}, {}) is NO_TOOL_PARSER
    assert not isinstance(parsers.chat(MESSAGES, {"tools": TOOLS, "tool_choice": "none"}, {}), Refusal)
    assert parsers.chat(MESSAGES, {}, {}) is None
    with pytest.raises(EngineBootError, match="reasoning_parser 'nobody' in vllm_args cannot be used"):
        Parsers(an_engine(), Serving(reasoning_parser="nobody"))
