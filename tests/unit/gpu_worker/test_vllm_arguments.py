"""From vllm_args to what an engine is started with; and which vLLM is taken. Without vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker.engines.vllm.arguments import (
    VllmOptions,
    adapters_of,
    argument_problems,
    engine_arguments,
    read_template,
    serving_of,
)
from gpu_worker.engines.vllm.library import check_version
from wire.errors import EngineBootError
from wire.messages import JsonObject

KNOWN = {"model", "tensor_parallel_size", "max_num_seqs", "generation_config", "enable_lora"}


def test_an_unknown_argument_names_the_nearest() -> None:
    """Before anything is started."""
    problems = argument_problems({"tensor_paralel_size": 2, "max-num-seqs": 8, "chat_template": "x", "xyzzy": 1}, KNOWN)

    assert problems == [
        "vLLM has no engine argument 'tensor_paralel_size'; did you mean 'tensor_parallel_size'?",
        "vLLM has no engine argument 'xyzzy'",
    ]


def test_arguments_reach_the_engine_and_the_server_s_do_not() -> None:
    """Hyphens become underscores; adapters switch LoRA on; sampling defaults never come from the model unasked."""
    options = VllmOptions(
        "m", vllm_args={"max-num-seqs": 8, "chat_template": "{{ x }}", "lora_modules": {"poet": "/p"}}
    )

    arguments = engine_arguments(options, serving_of(options))

    assert arguments == {
        "model": "m",
        "max_num_seqs": 8,
        "enable_lora": True,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }


def test_on_cpus_half_of_what_is_free_is_reserved() -> None:
    """Unless the user says how much; on GPUs, vLLM's own share holds."""
    options = VllmOptions(model="m", vllm_args={})
    said = VllmOptions(model="m", vllm_args={"gpu-memory-utilization": 0.7})

    assert engine_arguments(options, serving_of(options), free_share=0.5)["gpu_memory_utilization"] == 0.25
    assert engine_arguments(said, serving_of(said), free_share=0.5)["gpu_memory_utilization"] == 0.7
    assert "gpu_memory_utilization" not in engine_arguments(options, serving_of(options))


def test_on_cpus_the_last_adapter_slot_stays_empty() -> None:
    """Sequences without an adapter use it there; see the test of adapters side by side in tests/integration."""
    options = VllmOptions("m", vllm_args={"lora_modules": {"poet": "/p", "critic": "/c"}})

    assert engine_arguments(options, serving_of(options), free_share=0.5)["max_loras"] == 3
    assert "max_loras" not in engine_arguments(options, serving_of(options))


def test_the_user_may_ask_for_the_model_s_defaults() -> None:
    """Who sets generation_config gets what it says."""
    assert serving_of(VllmOptions("m", vllm_args={"generation_config": "auto"})).uses_generation_config
    assert not serving_of(VllmOptions("m")).uses_generation_config


def test_a_chat_template_is_text_or_a_file(tmp_path: Path) -> None:
    """A path to nothing is an error that says so, not a template that says the path."""
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages }}")

    assert read_template("{{ messages }}") == read_template(str(file)) == "{{ messages }}"
    with pytest.raises(EngineBootError, match="nor a file that can be read"):
        read_template(str(tmp_path / "nowhere.jinja"))


def test_adapters_in_every_form() -> None:
    """A mapping, or the two forms of vLLM's server."""
    expected: JsonObject = {"poet": "/a", "critic": "/b"}

    assert adapters_of(expected) == adapters_of(["poet=/a", {"name": "critic", "path": "/b"}]) == expected
    with pytest.raises(EngineBootError, match="every name once"):
        adapters_of(["poet=/a", "poet=/b"])


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0+cpu", "0.33.1rc1"])
def test_supported_versions(version: str) -> None:
    """Local builds and candidates count as what they are of."""
    assert check_version(version) == version


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "vLLM is not installed for this Python: scripts/install --vllm"),
        ("0.25.1", "vLLM 0.25.1 is installed; this batchfleet works with 0.26 to 0.33"),
        ("0.34.0", "vLLM 0.34.0 is installed; this batchfleet works with 0.26 to 0.33"),
        ("dev", "vLLM dev is installed; this batchfleet works with 0.26 to 0.33"),
    ],
)
def test_other_versions_are_refused_before_anything_starts(version: str | None, message: str) -> None:
    """With what to install."""
    with pytest.raises(EngineBootError, match=message):
        check_version(version)
