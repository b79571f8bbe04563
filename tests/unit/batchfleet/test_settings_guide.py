"""Every YAML block of the guide that this project grew from loads as it stands, and means what the guide says."""

from __future__ import annotations

from pathlib import Path

from batchfleet.settings.load import LoadedSettings, load_settings

BLOCKS = Path(__file__).parents[1] / "guide_blocks"


def load(block: str) -> LoadedSettings:
    """The block by itself, with nothing in the environment or on the command line."""
    return load_settings(BLOCKS / block, {}, {})


def test_single_server() -> None:
    """The guide's recommended strategy: one engine over 8 GPUs, fed by 8 workers with batches of 16."""
    loaded = load("single_server.yaml")
    generator = loaded.settings.model.generator_settings

    assert generator.boot_local
    assert generator.hf_model_id == "meta-llama/Llama-2-7b-chat-hf"
    assert generator.vllm_args == {
        "tensor_parallel_size": 8,
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.9,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 128,
    }
    assert (generator.enable_batching, generator.batch_size, generator.batch_timeout) == (True, 16, 0.5)
    assert loaded.settings.processing.parallel_workers == 8
    assert loaded.settings.capacity == generator.vllm_args["max_num_seqs"]
    assert loaded.settings.model_name == "meta-llama/Llama-2-7b-chat-hf"
    assert loaded.warnings == ()


def test_core_batching() -> None:
    """A generator_settings at the top is the model's."""
    loaded = load("core_batching.yaml")
    generator = loaded.settings.model.generator_settings

    assert (generator.enable_batching, generator.batch_size, generator.batch_timeout) == (True, 16, 0.5)
    assert loaded.warnings == ()


def test_vllm_performance() -> None:
    """A vllm_args at the top is the generator's; its seed is vLLM's and not the sampling's."""
    loaded = load("vllm_performance.yaml")
    generator = loaded.settings.model.generator_settings

    assert generator.vllm_args == {
        "tensor_parallel_size": 8,
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.9,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 128,
        "dtype": "auto",
        "seed": 42,
    }
    assert generator.seed is None
    assert loaded.warnings == ()


def test_workers_and_batch_size() -> None:
    """The block holds two setups one after the other: the second counts, and two warnings name the lines of both."""
    loaded = load("workers_and_batch_size.yaml")
    generator = loaded.settings.model.generator_settings

    assert (generator.batch_size, generator.batch_timeout) == (8, 0.5)
    assert loaded.settings.processing.parallel_workers == 4
    assert loaded.settings.capacity == 32
    file = BLOCKS / "workers_and_batch_size.yaml"
    assert [warning.split("already")[0] for warning in loaded.warnings] == [
        f"{file}:7: processing: given at {file}:1 ",
        f"{file}:9: generator_settings: given at {file}:3 ",
    ]


def test_conservative_start() -> None:
    """Settings at the top, without any section, find their places."""
    loaded = load("conservative_start.yaml")
    generator = loaded.settings.model.generator_settings

    assert (generator.enable_batching, generator.batch_size, generator.batch_timeout) == (True, 8, 1.0)
    assert loaded.settings.processing.parallel_workers == 4
    assert loaded.warnings == ()


def test_production() -> None:
    """Three fragments at the top, together one configuration."""
    loaded = load("production.yaml")
    generator = loaded.settings.model.generator_settings

    assert (generator.enable_batching, generator.batch_size, generator.batch_timeout) == (True, 16, 0.3)
    assert generator.server_startup_timeout == 300
    assert generator.vllm_args == {"tensor_parallel_size": 8, "gpu_memory_utilization": 0.85, "max_num_seqs": 64}
    assert loaded.settings.processing.parallel_workers == 8
    assert loaded.warnings == ()


def test_no_block_is_without_a_test() -> None:
    """A block that is added needs a test of its own above."""
    assert {file.stem for file in BLOCKS.iterdir()} == {
        name.removeprefix("test_") for name in globals() if (BLOCKS / f"{name[5:]}.yaml").exists()
    }
