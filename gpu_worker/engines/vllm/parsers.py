"""A model's output -> reasoning, answer and tool calls, by vLLM's own parsers.

They are those of `reasoning_parser` and `tool_call_parser` in `vllm_args`; a question is changed for them as vLLM's
server changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from gpu_worker.engines.engine import Refusal
from gpu_worker.engines.vllm import library
from gpu_worker.engines.vllm.arguments import Serving
from wire.errors import EngineBootError
from wire.messages import JsonObject

TOOL_PARAMETERS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_OF_REQUEST = (*TOOL_PARAMETERS, "structured_outputs", "skip_special_tokens", "reasoning_effort")

NO_TOOL_PARSER = Refusal(
    "bad_parameter",
    "parameter 'tools' needs tool_call_parser in vllm_args, the one that fits the model (hermes, llama3_json, ...); "
    "`tool_choice: none` shows the tools to the model, and reads no calls",
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """One text, taken apart.

    `tool_calls`: in OpenAI's form; None if there are none. `reasoning_tokens`: 0 if the parser does not count.
    """

    text: str
    reasoning: str | None
    tool_calls: list[JsonObject] | None
    finish_reason: str
    reasoning_tokens: int


class Parsers:
    """For one running engine.

    Raises:
        EngineBootError: vLLM has no parser of that name, or it does not go with the tokenizer.
    """

    def __init__(self, llm: Any, serving: Serving) -> None:  # noqa: ANN401
        self._model_config = llm.vllm_config.model_config
        self.has_tools = serving.tool_call_parser is not None
        self._class: Any = None
        if serving.reasoning_parser is None and serving.tool_call_parser is None:
            return
        self._tokenizer = llm.renderer.get_tokenizer()
        try:
            self._class = library.parser_class(
                self._tokenizer, self._model_config, serving.reasoning_parser, serving.tool_call_parser
            )
        except Exception as error:
            named = {"reasoning_parser": serving.reasoning_parser, "tool_call_parser": serving.tool_call_parser}
            told = " and ".join(f"{name} {value!r}" for name, value in named.items() if value is not None)
            raise EngineBootError(f"{told} in vllm_args cannot be used: {error}") from error

    def chat(self, messages: Sequence[JsonObject], params: JsonObject, template: JsonObject) -> Chat | Refusal | None:
        """How to parse the answer to these messages; None if it is used unchanged.

        Raises whatever vLLM raises for a request that it will not serve.

        Args:
            template: What the chat template is given.
        """
        wants_calls = "tools" in params and params.get("tool_choice") != "none"
        if wants_calls and not self.has_tools:
            return NO_TOOL_PARSER
        if self._class is None and "tools" not in params:
            return None
        fields = {name: params[name] for name in _OF_REQUEST if name in params}
        request = library.chat_request(messages=list(messages), chat_template_kwargs=template, **fields)
        tools = [tool.model_dump() for tool in request.tools] if request.tools else None
        if self._class is None:
            return Chat(tools)

        def parser() -> Any:  # noqa: ANN401
            return self._class(
                self._tokenizer, request.tools, model_config=self._model_config, chat_template_kwargs=template
            )

        if self._class.reasoning_parser_cls is not None or wants_calls:
            request = parser().adjust_request(request)
        return Chat(tools, request, parser, _sampling(request), wants_calls=wants_calls)


@dataclass(frozen=True, slots=True)
class Chat:
    """How the answer to one question is read.

    Attributes:
        tools: For the template, as vLLM's server shows them to it.
        sampling: What the parsers need of the sampler, in place of what was asked.
    """

    tools: JsonValue
    request: Any = None
    parser: Any = None
    sampling: dict[str, Any] = field(default_factory=dict)
    wants_calls: bool = False

    def engine_arguments(self, template: JsonObject, token_ids: list[int]) -> dict[str, Any]:
        """For `generate`: structured output begins where the reasoning ends."""
        if self.parser is None or (parser := self.parser()).reasoning_parser is None:
            return {}
        ended = getattr(self.request, "resolve_reasoning_ended", lambda *_: None)(parser, token_ids)
        return {"reasoning_ended": ended, "reasoning_parser_kwargs": {"chat_template_kwargs": template}}

    def parsed(self, output: Any, prompt_token_ids: Sequence[int]) -> Parsed:  # noqa: ANN401
        """Of one of the texts."""
        reason = str(output.finish_reason)
        if self.parser is None:
            return Parsed(output.text, None, None, reason, 0)
        # They keep what they have seen: each text needs one of its own.
        parser = self.parser()
        if hasattr(parser, "set_prompt_token_ids"):
            parser.set_prompt_token_ids(prompt_token_ids)
        reasoning, content, found = parser.parse(
            output.text, self.request, enable_auto_tools=self.wants_calls, model_output_token_ids=output.token_ids
        )
        calls = found if self.wants_calls and found else []
        if self.request.parallel_tool_calls is False:
            calls = calls[:1]
        choice = self.request.tool_choice
        # As OpenAI has it: a call that was asked for by its name is no reason to end.
        if calls and (choice is None or choice == "auto" or (choice == "required" and reason == "stop")):
            reason = "tool_calls"
        # vLLM 0.26 has parsers that do not count.
        count = getattr(parser, "count_reasoning_tokens", None)
        counted = count(output.token_ids) if reasoning and count is not None else 0
        return Parsed(content or "", reasoning or None, list(map(_call, calls)) or None, reason, counted)


def _sampling(request: Any) -> dict[str, Any]:  # noqa: ANN401
    structure = library.structured_outputs_of(request)
    return {
        "skip_special_tokens": request.skip_special_tokens,
        **({} if structure is None else {"structured_outputs": structure}),
    }


def _call(call: Any) -> JsonObject:  # noqa: ANN401
    function: JsonObject = {"name": call.name, "arguments": call.arguments}
    return {"id": cast("str", call.id or library.tool_call_id()), "type": "function", "function": function}
