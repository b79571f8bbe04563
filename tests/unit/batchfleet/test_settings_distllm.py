"""Configurations of distllm's evaluation scripts load as they stand.

What means something takes effect, what means nothing is said once.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from batchfleet.settings.load import LoadedSettings, load_settings
from wire.errors import UsageError

WHOLE = """\
questions_file: "questions.json"
model:
  generator:
    generator_type: "vllm"
  generator_settings:
    server: "host7"
    port: 9999
    api_key: "key"
    model: "some/model"
    temperature: 0.0
    max_tokens: 64
    auto_port: true
    local_host: "127.0.0.1"
  grader_shortname: "gpt-4.1"
  model_config_file: "model_servers.yaml"
rag:
  enabled: false
  rag_config_file: null
  retriever_config:
    faiss_config:
      name: "index"
      dataset_dir: "/data/chunks"
      dataset_chunk_paths: null
    encoder_config:
      name: "auto"
      quantization: false
    pooler_config:
      name: "mean"
    batch_size: 4
  retrieval_top_k: 5
processing:
  parallel_workers: 4
  question_format: "mc"
  verbose: true
  random_selection: null
  random_seed: null
  enable_checkpointing: true
  checkpoint_interval: 100
  checkpoint_directory: "checkpoints"
  resume_from_checkpoint: null
  auto_resume: true
  progress_bar: true
  save_incremental: false
output:
  save_incorrect: true
  output_directory: "results"
  output_prefix: "first"
"""


def load(tmp_path: Path, text: str) -> LoadedSettings:
    """The text as a file, by itself."""
    (tmp_path / "fleet.yaml").write_text(text)
    return load_settings(tmp_path / "fleet.yaml", {}, {})


def test_a_whole_file_loads(tmp_path: Path) -> None:
    """Model, server, sampling, capacity, questions and output take effect."""
    settings = load(tmp_path, WHOLE).settings
    generator = settings.model.generator_settings

    assert (generator.server, generator.port, generator.model, generator.max_tokens) == (
        "host7",
        9999,
        "some/model",
        64,
    )
    assert not generator.boot_local
    assert settings.input.questions_file == "questions.json"
    assert (settings.output.output_directory, settings.output.output_prefix) == ("results", "first")
    assert settings.capacity == 64


def test_what_means_nothing_is_said_in_one_warning(tmp_path: Path) -> None:
    """Each key that is not null is in it, or the section that it is in; what to do in its place stands beside it."""
    (warning,) = load(tmp_path, WHOLE).warnings

    assert warning.startswith(f"{tmp_path}/fleet.yaml:4: these have no meaning here and are ignored: ")
    for key in (
        "model.generator.generator_type",
        "model.generator_settings.auto_port",
        "model.grader_shortname",
        "output.save_incorrect",
        "rag (",
    ):
        assert key in warning
    for key in (
        "question_format",
        "verbose",
        "enable_checkpointing",
        "checkpoint_directory",
        "progress_bar",
        "save_incremental",
    ):
        assert f"processing.{key}" in warning
    assert "random_seed" not in warning
    assert "resume_from_checkpoint" not in warning
    assert "the same command resumes where it stopped" in warning


def test_the_proxy_of_its_other_generator_is_a_server(tmp_path: Path) -> None:
    """`base_url` is our `server`; a model to boot would say otherwise."""
    settings = "  generator_settings:\n    model: m\n    base_url: 'http://proxy:44497/v1'\n"
    generator = load(
        tmp_path, f"model:\n  generator:\n    generator_type: argo\n{settings}"
    ).settings.model.generator_settings

    assert (generator.server, generator.boot_local) == ("http://proxy:44497/v1", False)
    local = load(
        tmp_path, "generator_settings:\n  server: localhost\n  hf_model_id: m\n"
    ).settings.model.generator_settings
    assert local.boot_local


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rag:\n  enabeld: true", "fleet.yaml:2: rag.enabeld: unknown key; did you mean enabled?"),
        (
            "rag:\n  retriever_config:\n    pooler_confg: {}",
            "fleet.yaml:3: rag.retriever_config.pooler_confg: unknown key; did you mean pooler_config?",
        ),
        ("processing:\n  checkpoint_intervall: 5", "did you mean checkpoint_interval?"),
        ("output:\n  output_dir: x", "output.output_dir: unknown key; did you mean output_directory?"),
        ("model:\n  grader_shortnam: x", "did you mean grader_shortname?"),
        ("rag: true", "fleet.yaml:1: rag: is true or false; put its settings on lines of their own"),
        (
            "processing:\n  random_selection: 100",
            "fleet.yaml:2: processing.random_selection: leave this out, and give --sample N",
        ),
    ],
)
def test_slips_are_still_errors(tmp_path: Path, text: str, expected: str) -> None:
    """A key that nobody knows, and a setting whose being ignored would cost dearly."""
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)

    assert expected in str(caught.value)
