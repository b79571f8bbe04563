"""Why vLLM did not start, from what it wrote, and what to change. Pure: text in, text out.

The patterns are vLLM's own words, 0.26 to 0.33, and those of torch, transformers and the Hugging Face hub below it. A
text that none of them knows gives no advice; the engine's own last lines are shown all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class BootContext:
    """What the engine was told, for advice that names present values.

    Attributes:
        model: What was to be loaded.
        vllm_args: As configured.
        gpus: How many GPUs the worker sees; None if nobody counted.
        vllm: vLLM's version.
    """

    model: str
    vllm_args: Mapping[str, JsonValue]
    gpus: int | None = None
    vllm: str = "this version"

    def now(self, name: str, otherwise: str) -> str:
        """`name (now VALUE)`; `otherwise` says what holds where the configuration does not say."""
        value = self.vllm_args.get(name)
        return f"{name} (now {otherwise if value is None else value})"


def advice(text: str, context: BootContext) -> str | None:
    """What to change, given everything that the engine wrote; None if nothing is known about it."""
    for pattern, advise in _KNOWN:
        found = pattern.search(text)
        if found and (advised := advise(found, context)) is not None:
            return advised
    return None


def _length(context: BootContext) -> str:
    return context.now("max_model_len", "the model's own")


def _sizes(context: BootContext) -> str:
    return (
        f"{_length(context)}, {context.now('max_num_seqs', 'vLLM chooses')} and "
        f"{context.now('gpu_memory_utilization', 'vLLM chooses, about 0.9')}"
    )


def _out_of_memory(_: re.Match[str], context: BootContext) -> str:
    more = context.now("tensor_parallel_size", "1")
    return (
        f"out of memory: lower {_sizes(context)} in vllm_args, one at a time in this order; or spread the model over "
        f"more GPUs with {more}"
    )


def _no_room_for_cache(found: re.Match[str], context: BootContext) -> str:
    fits = re.search(r"estimated maximum model length is (\d+)", found.string)
    length = f"lower max_model_len to at most {fits[1]}" if fits else "lower max_model_len"
    return (
        f"out of memory for the KV cache: {length}, lower max_num_seqs, or raise gpu_memory_utilization "
        "(VLLM_CPU_KVCACHE_SPACE on CPU); "
        f"present values: {_sizes(context)}"
    )


def _memory_taken(found: re.Match[str], context: BootContext) -> str:
    return (
        f"something else holds memory on this GPU ({found['free']} of {found['total']} GiB are free): end it "
        "(nvidia-smi shows it), or lower "
        f"{context.now('gpu_memory_utilization', 'vLLM chooses, about 0.9')}; with less memory, lower "
        f"{_length(context)} and {context.now('max_num_seqs', 'vLLM chooses')} too"
    )


def _host_memory_taken(found: re.Match[str], context: BootContext) -> str:
    return (
        f"too little of this machine's memory is free for vLLM on a CPU ({found['free']} of {found['total']} GiB are): "
        "end what holds it, or lower "
        f"{context.now('gpu_memory_utilization', 'vLLM chooses, about 0.9')}, on a CPU a share of the machine's "
        "memory, and the environment's "
        f"VLLM_CPU_KVCACHE_SPACE (GiB) if it is set; with less memory, lower {_length(context)} and "
        f"{context.now('max_num_seqs', 'vLLM chooses')} too"
    )


def _not_enough_gpus(found: re.Match[str], context: BootContext) -> str:
    seen = found["available"] or (str(context.gpus) if context.gpus is not None else "fewer")
    return (
        f"{context.now('tensor_parallel_size', '1')} x {context.now('pipeline_parallel_size', '1')} is the number of "
        "GPUs that one worker needs; "
        f"this one sees {seen}: lower them, or give the worker more GPUs (its slice, CUDA_VISIBLE_DEVICES, the "
        "container's GPU reservation)"
    )


def _not_enough_nodes(_: re.Match[str], context: BootContext) -> str:
    return (
        f"on CPUs, vLLM wants a NUMA node for each of {context.now('tensor_parallel_size', '1')} x "
        f"{context.now('pipeline_parallel_size', '1')} "
        "processes, and this machine has fewer: lower them (lscpu shows its nodes)"
    )


def _not_divisible(found: re.Match[str], context: BootContext) -> str:
    divisors = ", ".join(str(size) for size in (1, 2, 4, 8) if int(found["heads"]) % size == 0)
    return (
        f"set {context.now('tensor_parallel_size', '1')} to a divisor "
        f"of the model's {found['heads']} attention heads: {divisors}"
    )


def _no_gpu(_: re.Match[str], __: BootContext) -> str:
    return (
        "this process sees no GPU: check nvidia-smi, the container's GPU reservation (NVIDIA container toolkit) and "
        "CUDA_VISIBLE_DEVICES; "
        "without a GPU, scripts/install --vllm brings vLLM for CPUs; or try the fleet with --engine stub"
    )


def _no_weights(_: re.Match[str], context: BootContext) -> str:
    return (
        f"{context.model!r} has no weights (*.safetensors, *.bin, *.pt): download all of the model; "
        "`load_format: dummy` in vllm_args makes up random ones, for tests"
    )


def _no_model(_: re.Match[str], context: BootContext) -> str:
    return (
        f"check model.generator_settings.hf_model_id (now {context.model!r}): "
        "it is neither a folder with a config.json here nor a model on the Hugging Face hub"
    )


def _gated(_: re.Match[str], context: BootContext) -> str:
    return (
        f"the Hugging Face hub does not give out {context.model!r} to everyone: accept its terms there, and set "
        "HF_TOKEN for the worker"
    )


def _no_hub(_: re.Match[str], context: BootContext) -> str:
    return (
        f"the Hugging Face hub cannot be reached, and {context.model!r} is not in this machine's cache (HF_HOME): "
        "download it beforehand, or set "
        "hf_model_id to a folder that has it; if that is what it was meant to be, there is no such folder"
    )


def _unknown_architecture(_: re.Match[str], context: BootContext) -> str:
    return (
        f"vLLM {context.vllm} does not know this model's architecture: use a newer vLLM of the supported range, or try "
        "`model_impl: transformers` in "
        "vllm_args; a model that brings its own code also needs `trust_remote_code: true`"
    )


def _too_long(found: re.Match[str], context: BootContext) -> str:
    return f"lower {_length(context)} to what the model was made for, {found['derived'].removesuffix('.0')}"


def _gguf(_: re.Match[str], context: BootContext) -> str | None:
    if "gguf" not in context.model.lower():
        return None
    return (
        "vLLM loads no GGUF: set hf_model_id to the model's own repository (safetensors), "
        "or let llama.cpp's server load the file and set `server` instead"
    )


def _said(text: str) -> Callable[[re.Match[str], BootContext], str]:
    return lambda _, __: text


_KNOWN: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], BootContext], str | None]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), advise)
    for pattern, advise in (
        (
            r"Free memory on device [^(]*\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup\s+is less than",
            _memory_taken,
        ),
        (r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\)", _host_memory_taken),
        (
            r"No available memory for the cache blocks|To serve at least one request with the model.?s max seq len",
            _no_room_for_cache,
        ),
        (
            (
                r"OutOfMemoryError|out of memory|Cannot allocate memory|can't allocate memory|MemoryError"
                r"|not enough memory"
            ),
            _out_of_memory,
        ),
        (r"World size \(\d+\) is larger than the number of\s+available GPUs \((?P<available>\d+)\)", _not_enough_gpus),
        (
            (
                r"invalid device ordinal|required GPUs exceeds the total number of available GPUs"
                r"|local rank \d+ is out of bounds(?P<available>)"
            ),
            _not_enough_gpus,
        ),
        (r"Not enough allowed NUMA nodes", _not_enough_nodes),
        (
            r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size",
            _not_divisible,
        ),
        (
            (
                r"No CUDA GPUs are available|no NVIDIA driver|NVIDIA driver on your system is too old"
                r"|Failed to infer device type|libcuda\.so"
            ),
            _no_gpu,
        ),
        (
            r"valid JSON file|[Rr]epo id must|config\.json|model weights|disk and outgoing|LocalEntryNotFound|quantiz",
            _gguf,
        ),
        (r"Cannot find any model weights with|[Nn]o file named .{0,80}(?:safetensors|pytorch_model)", _no_weights),
        (
            r"gated repo|GatedRepo|is restricted\. You must|401 Client Error|403 Client Error|Cannot access gated",
            _gated,
        ),
        (
            (
                r"does not appear to have a file named config\.json|Repository Not Found|RepositoryNotFound"
                r"|Repo id must|not a valid model identifier"
            ),
            _no_model,
        ),
        (
            (
                r"Invalid repository ID or local directory|HFValidationError|Can't load the configuration of"
                r"|404 Client Error"
            ),
            _no_model,
        ),
        (
            (
                r"couldn't connect to 'https://huggingface|LocalEntryNotFound|OfflineMode"
                r"|thrown while requesting (?:HEAD|GET) https://huggingface"
            ),
            _no_hub,
        ),
        (r"outgoing traffic has been disabled", _no_hub),
        (r"is greater than the derived max_model_len \([^=]*=(?P<derived>[\d.]+)", _too_long),
        (
            r"trust_remote_code ?= ?True|requires you to execute the configuration file|contains custom code",
            _said(
                "the model brings its own code, which vLLM runs only if you trust it: "
                "`trust_remote_code: true` in vllm_args"
            ),
        ),
        (
            r"Failed to import from vllm\._C|undefined symbol",
            _said(
                "vLLM's compiled part does not match the torch beside it: "
                "install vLLM into an environment of its own, and let it choose torch"
            ),
        ),
        (
            (
                r"are not supported for now|failed to be inspected|does not recognize this architecture"
                r"|has no vLLM implementation"
            ),
            _unknown_architecture,
        ),
        (
            r"Bfloat16 is only supported on GPUs",
            _said("these GPUs are too old for bfloat16: set `dtype: half` in vllm_args"),
        ),
        (
            r"No space left on device",
            _said("the disk is full: make room where HF_HOME, VLLM_CACHE_ROOT and the temporary directory are"),
        ),
        (
            r"dev/shm|Bus error",
            _said("too little shared memory: in a container, give it `ipc: host` or a larger `shm_size`"),
        ),
        (
            r"Can't load tokenizer|[Cc]ouldn't instantiate the backend tokenizer",
            _said("the model's tokenizer is missing: name one with `tokenizer` in vllm_args"),
        ),
    )
)
