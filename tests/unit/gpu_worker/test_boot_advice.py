"""What vLLM writes when it cannot start, and what a person is told to change."""

from __future__ import annotations

import pytest

from gpu_worker.engines.vllm.boot_advice import BootContext, advice
from gpu_worker.engines.vllm.boot_failure import LAST_LINES, explain

CONTEXT = BootContext(
    "org/model",
    {"max_model_len": 32768, "gpu_memory_utilization": 0.92, "tensor_parallel_size": 8},
    gpus=2,
    vllm="0.33.0",
)

GENERIC = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"

SAMPLES = {
    "cuda out of memory": (
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 5.00 GiB. GPU 0 has a total capacity of 79.11 "
            "GiB of which 3.05 GiB is"
        ),
        (
            "out of memory: lower max_model_len (now 32768), max_num_seqs (now vLLM chooses) and gpu_memory_utilization "
            "(now 0.92)"
        ),
    ),
    "no room for the cache": (
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine."
        ),
        "out of memory for the KV cache: lower max_model_len, lower max_num_seqs, or raise gpu_memory_utilization",
    ),
    "too little for one request": (
        (
            "ValueError: To serve at least one request with the model's max seq len (32768), (16.00 GiB KV cache is "
            "needed, which is larger than "
            "the available KV cache memory (8.00 GiB). Based on the available memory, the estimated maximum model "
            "length is 16384. Try increasing"
        ),
        "out of memory for the KV cache: lower max_model_len to at most 16384",
    ),
    "memory taken by somebody else": (
        (
            "ValueError: Free memory on device cuda:0 (10.21/79.11 GiB) on startup is less than desired GPU memory "
            "utilization (0.92"
        ),
        (
            "something else holds memory on this GPU (10.21 of 79.11 GiB are free): end it (nvidia-smi shows it), or "
            "lower "
            "gpu_memory_ut"
        ),
    ),
    "memory of the host taken": (
        (
            "ValueError: Available memory on node 0 (3.1/23.4 GiB) on startup is less than desired CPU memory utilization "
            "(0.92, 21.5 GiB). On the CPU"
        ),
        (
            "too little of this machine's memory is free for vLLM on a CPU (3.1 of 23.4 GiB are): end what holds it, or "
            "lower gpu_memory_utilization ("
        ),
    ),
    "too few GPUs": (
        (
            "ValueError: World size (8) is larger than the number of available GPUs (2) in this node. If this is "
            "intentional"
        ),
        (
            "tensor_parallel_size (now 8) x pipeline_parallel_size (now 1) is the number of GPUs that one worker needs; "
            "this one sees 2"
        ),
    ),
    "too few GPUs, seen by a worker": (
        "RuntimeError: CUDA error: invalid device ordinal",
        (
            "tensor_parallel_size (now 8) x pipeline_parallel_size (now 1) is the number of GPUs that one worker needs; "
            "this one sees 2"
        ),
    ),
    "too few NUMA nodes": (
        (
            "AssertionError: Not enough allowed NUMA nodes to bind threads of 8 local CPUWorkers. Allowed NUMA nodes are "
            "[0]. Please try to bind"
        ),
        (
            "on CPUs, vLLM wants a NUMA node for each of tensor_parallel_size (now 8) x pipeline_parallel_size (now 1) "
            "processes"
        ),
    ),
    "heads": (
        "Value error, Total number of attention heads (12) must be divisible by tensor parallel size (8).",
        "set tensor_parallel_size (now 8) to a divisor of the model's 12 attention heads: 1, 2, 4",
    ),
    "no GPU": ("RuntimeError: No CUDA GPUs are available", "this process sees no GPU: check nvidia-smi"),
    "no weights": (
        "RuntimeError: Cannot find any model weights with `org/model`",
        "'org/model' has no weights (*.safetensors",
    ),
    "no such model": (
        (
            "OSError: org/model is not a local folder and is not a valid model identifier listed on "
            "'https://huggingface.co/models'"
        ),
        "check model.generator_settings.hf_model_id (now 'org/model')",
    ),
    "no such folder": (
        "OSError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/no/such'.",
        "check model.generator_settings.hf_model_id",
    ),
    "gated": (
        "OSError: You are trying to access a gated repo. Make sure to have access to it",
        "accept its terms there, and set HF_TOKEN",
    ),
    "no hub": (
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the "
            "cached files."
        ),
        "the Hugging Face hub cannot be reached, and 'org/model' is not in this machine's cache",
    ),
    "offline": (
        (
            "Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and outgoing "
            "traffic has been disabled."
        ),
        "the Hugging Face hub cannot be reached",
    ),
    "unknown architecture": (
        (
            "Value error, Model architectures ['NoSuchForCausalLM'] are not supported for now. Supported architectures: "
            "dict_keys(["
        ),
        "vLLM 0.33.0 does not know this model's architecture",
    ),
    "too long": (
        (
            "Value error, User-specified max_model_len (32768) is greater than the derived max_model_len "
            "(max_position_embeddings=4096.0 or"
        ),
        "lower max_model_len (now 32768) to what the model was made for, 4096",
    ),
    "own code": (
        "ValueError: Please pass the argument `trust_remote_code=True` to allow custom code to be run.",
        "`trust_remote_code: true` in vllm_args",
    ),
    "bfloat16": (
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
        "`dtype: half`",
    ),
    "torch": (
        "Failed to import from vllm._C: ImportError('/x/vllm/_C.abi3.so: undefined symbol: _ZNR5torch7Library')",
        "vLLM's compiled part does not match the torch beside it",
    ),
    "disk": ("OSError: [Errno 28] No space left on device", "the disk is full"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_known_has_advice(name: str) -> None:
    """The setting to change, with its present value."""
    text, expected = SAMPLES[name]

    given = advice(text, CONTEXT)

    assert given is not None
    assert expected in given


def test_memory_advice_names_all_three_settings() -> None:
    """Whichever of the ways to run out of memory it was."""
    for name in (
        "cuda out of memory",
        "no room for the cache",
        "too little for one request",
        "memory taken by somebody else",
        "memory of the host taken",
    ):
        given = advice(SAMPLES[name][0], CONTEXT)
        assert given is not None
        for setting in (
            "gpu_memory_utilization (now 0.92)",
            "max_model_len (now 32768)",
            "max_num_seqs (now vLLM chooses)",
        ):
            assert setting in given, name


def test_the_message_names_the_cause_behind_the_exception() -> None:
    """The exception only points at the log; the log's prefixes and tracebacks say nothing to a person."""
    lines = [
        "(EngineCore pid=7) INFO 11-23 18:47:40 [core.py:133] Initializing a V1 LLM engine",
        '(Worker pid=8) ERROR 11-23 18:47:45 [multiproc_executor.py:953]   File "/x/loader.py", line 1, in load',
        (
            "(Worker pid=8) ERROR 11-23 18:47:45 [multiproc_executor.py:953] \x1b[31mRuntimeError: Cannot find any model "
            "weights with `org/model`\x1b[0m"
        ),
        "Traceback (most recent call last):",
        '  File "/x/core.py", line 1510, in run_engine_core',
        (
            "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for "
            "root cause."
        ),
    ]

    message = explain(GENERIC, lines, CONTEXT)

    assert message.splitlines() == [
        "vLLM did not start with model 'org/model': RuntimeError: Cannot find any model weights with `org/model`",
        (
            "What to change: 'org/model' has no weights (*.safetensors, *.bin, *.pt): download all of the model; "
            "`load_format: dummy` in vllm_args makes up random ones, for tests"
        ),
        "The engine's last lines:",
        "  | Initializing a V1 LLM engine",
        "  | RuntimeError: Cannot find any model weights with `org/model`",
        (
            "  | Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace "
            "for root cause."
        ),
    ]


def test_an_exception_with_its_own_reason_needs_no_log() -> None:
    """Pydantic's frame around the reason is left out."""
    reason = "Total number of attention heads (4) must be divisible by tensor parallel size (8)."
    error = f"1 validation error for VllmConfig\n  Value error, {reason} [type=value_error, input_value=X"

    message = explain(error, [], CONTEXT)

    assert message.splitlines()[0] == f"vLLM did not start with model 'org/model': {reason}"


def test_what_nobody_knows_is_shown_all_the_same() -> None:
    """No advice, but the last lines, and no more of them than one can read."""
    message = explain(GENERIC, [f"line {number}" for number in range(100)], CONTEXT)

    assert "What to change" not in message
    assert message.endswith("line 99")
    assert message.count("  | ") == LAST_LINES


@pytest.mark.parametrize(
    "error",
    [
        "It looks like the config file at '/m/model.gguf' is not a valid JSON file.",
        "Repo id must use alphanumeric chars, '-', '_' or '.'.",
        "RuntimeError: Cannot find any model weights with `org/model-GGUF`",
    ],
)
def test_a_gguf_file_is_called_one(error: str) -> None:
    """In one line, with both ways out; a model of another kind is told what it was told before."""
    told = advice(error, BootContext("org/model-GGUF", {}))

    assert told is not None
    assert told.startswith(
        "vLLM loads no GGUF: set hf_model_id to the model's own repository (safetensors), or let llama.cpp's server"
    )
    assert "GGUF" not in (advice(error, CONTEXT) or "")
