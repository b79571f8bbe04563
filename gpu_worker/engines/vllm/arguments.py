"""From a configuration's `vllm_args` to what an engine is started with.

Pure, but for reading a chat template's file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import JsonValue

from wire.errors import EngineBootError, nearest
from wire.messages import JsonObject, Task

SERVING_ARGUMENTS = frozenset(
    {
        "chat_template",
        "chat_template_content_format",
        "default_chat_template_kwargs",
        "enable_auto_tool_choice",
        "lora_modules",
        "tool_call_parser",
    }
)
"""What vLLM's own server takes beside the engine's arguments; `vllm_args` may name them too."""

OUR_DEFAULTS: JsonObject = {
    # Sampling defaults come from our configuration alone. vLLM still takes the ids that end a text from the model's
    # generation_config.
    "generation_config": "vllm",
    # Statistics for a Prometheus endpoint that a worker does not have.
    "disable_log_stats": True,
}


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How to start vLLM in this process.

    Attributes:
        model: A folder or a name on the Hugging Face hub (`hf_model_id`).
        served_name: The name under which questions are addressed to it; None for `served_model_name` of `vllm_args`, or
            else `model`.
        vllm_args: Arguments of vLLM's engine, any, and of `SERVING_ARGUMENTS`. `lora_modules` maps adapter names to
            folders.
        sampling_defaults: Used where a question brings none.
        chat_template: Text, or a file's path; None for `chat_template` of `vllm_args`, or else the model's own.
        startup_timeout_s: Longest that starting may take.
        task: What the model makes of texts; anything but `generate` has vLLM's pooling runner.
    """

    model: str
    served_name: str | None = None
    vllm_args: Mapping[str, JsonValue] = field(default_factory=dict, repr=False)
    sampling_defaults: JsonObject = field(default_factory=dict)
    chat_template: str | None = None
    startup_timeout_s: float = 600.0
    task: Task = "generate"

    @property
    def name(self) -> str:
        """The name under which questions are addressed to the model."""
        served = self.vllm_args.get("served_model_name")
        first = served[0] if isinstance(served, list) and served else served
        return self.served_name or (first if isinstance(first, str) and first else self.model)


@dataclass(frozen=True, slots=True)
class Serving:
    """What shapes prompts, rather than the engine.

    Attributes:
        chat_template: Text of the template that replaces the model's own; None for that one.
        template_arguments: Given to the template where a question says nothing else.
        adapters: Folder or hub name of each LoRA adapter, by its name.
        reasoning_parser, tool_call_parser: Names of vLLM's parsers for what the model says; None for none.
        uses_generation_config: Whether the user asked for the model's sampling defaults by setting `generation_config`.
    """

    chat_template: str | None = None
    content_format: str = "auto"
    template_arguments: JsonObject = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    uses_generation_config: bool = False


def argument_problems(vllm_args: Mapping[str, JsonValue], known: Collection[str]) -> list[str]:
    """What is wrong with the names in `vllm_args`, a sentence each; `known` are the engine's own.

    Hyphens count as underscores.
    """
    names = {*known, *SERVING_ARGUMENTS}
    return [
        f"vLLM has no engine argument {name!r}{nearest(_underscored(name), names)}"
        for name in vllm_args
        if _underscored(name) not in names
    ]


def engine_arguments(options: VllmOptions, serving: Serving, *, free_share: float | None = None) -> JsonObject:
    """Keyword arguments for `AsyncEngineArgs`; what the user gave wins over our defaults.

    Args:
        free_share: For vLLM on CPUs, the share of this machine's memory that is free; None on GPUs.
    """
    given = {_underscored(name): value for name, value in options.vllm_args.items()}
    own = {name: value for name, value in given.items() if name not in SERVING_ARGUMENTS}
    lora: JsonObject = {"enable_lora": True} if serving.adapters else {}
    if serving.adapters and free_share is not None:
        # vLLM for CPUs gives sequences without an adapter the one in the last slot when a batch has both (its LoRA
        # kernels index with -1, up to 0.33 at least). A last slot that stays empty changes nothing.
        lora["max_loras"] = len(serving.adapters) + 1
    # vLLM would reserve 0.92 of all memory, and end where so much is not free, as on every laptop.
    memory: JsonObject = {"gpu_memory_utilization": round(free_share / 2, 3)} if free_share is not None else {}
    pooling: JsonObject = {} if options.task == "generate" else {"runner": "pooling"}
    return {"model": options.model, **OUR_DEFAULTS, **lora, **memory, **pooling, **own}


def serving_of(options: VllmOptions) -> Serving:
    """What `options` say of prompts and adapters.

    Raises:
        EngineBootError: A chat template or `lora_modules` that cannot be used.
    """
    given = {_underscored(name): value for name, value in options.vllm_args.items()}
    template = options.chat_template if options.chat_template is not None else given.get("chat_template")
    arguments = given.get("default_chat_template_kwargs") or {}
    if not isinstance(arguments, dict):
        raise EngineBootError("default_chat_template_kwargs in vllm_args must be a mapping")
    generation_config = given.get("generation_config", "vllm")
    return Serving(
        chat_template=None if template is None else read_template(template),
        content_format=str(given.get("chat_template_content_format", "auto")),
        template_arguments=arguments,
        adapters=adapters_of(given.get("lora_modules")),
        reasoning_parser=_name(given, "reasoning_parser"),
        tool_call_parser=_name(given, "tool_call_parser"),
        uses_generation_config=generation_config != "vllm" or bool(given.get("override_generation_config")),
    )


def _name(given: Mapping[str, JsonValue], argument: str) -> str | None:
    value = given.get(argument)
    if value is not None and not isinstance(value, str):
        raise EngineBootError(f"{argument} in vllm_args must be the name of one of vLLM's parsers")
    return value or None


def read_template(value: JsonValue) -> str:
    """A chat template given as text or as the path of a file.

    Raises:
        EngineBootError: Neither.
    """
    if not isinstance(value, str) or not value.strip():
        raise EngineBootError("chat_template must be a template's text or the path of a file")
    if "{" in value or "\n" in value:
        return value
    try:
        return Path(value).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineBootError(
            f"chat_template is {value!r}, which is neither a template's text nor a file that can be read: {error}"
        ) from error


def adapters_of(value: JsonValue) -> dict[str, str]:
    """Folder of each adapter, by name.

    Takes a mapping, or the server's forms: a list of `name=path` or of objects with `name` and `path`.

    Raises:
        EngineBootError: None of these.
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        pairs: list[tuple[JsonValue, JsonValue]] = list(value.items())
    else:
        pairs = [_pair(entry) for entry in (value if isinstance(value, list) else [value])]
    adapters = {name: path for name, path in pairs if isinstance(name, str) and isinstance(path, str) and name and path}
    if len(adapters) != len(pairs):
        raise EngineBootError("lora_modules in vllm_args must map each adapter's name to its folder, every name once")
    return adapters


def _pair(entry: JsonValue) -> tuple[JsonValue, JsonValue]:
    if isinstance(entry, dict):
        return entry.get("name"), entry.get("path")
    name, _, path = str(entry).partition("=")
    return name, path


def _underscored(name: str) -> str:
    return name.replace("-", "_")
