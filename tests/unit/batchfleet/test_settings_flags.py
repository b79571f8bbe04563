"""Flags of `run` and `submit` that stand for settings: a first real answer needs no YAML file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from batchfleet.cli.load_settings import load
from batchfleet.cli.main import command_parser
from batchfleet.settings.schema import Settings
from tests.unit.scripted_server import Reply, ScriptedServer, a_text
from wire.errors import UsageError

YAML = """
model:
  generator_settings: {hf_model_id: from-file, model: name-from-file, temperature: 0.5, port: 8000,
                       vllm_args: {max_num_seqs: 8}}
"""


def settings_of(*words: str) -> Settings:
    """What takes effect with this command line."""
    return load(command_parser(words).parse_args(words)).settings


def test_a_model_of_vllm_is_what_is_loaded(tmp_path: Path) -> None:
    """Given with the engine, without it, and before a file that names another one.

    Answers carry its name, never that of another.
    """
    config = tmp_path / "fleet.yaml"
    config.write_text(YAML)

    for more in (["--engine", "vllm"], [], ["--engine", "vllm", "--config", str(config)], ["--config", str(config)]):
        settings = settings_of("run", "q.jsonl", "-o", "a.jsonl", "--model", "/models/mine", *more)

        assert settings.model.generator_settings.hf_model_id == "/models/mine"
        assert settings.model_name == "/models/mine"


def test_other_engines_load_nothing() -> None:
    """There a model is a name."""
    for words in (
        ("run", "q.jsonl", "--engine", "stub", "--model", "m"),
        ("run", "q.jsonl", "--engine", "openai", "--model", "m"),
        ("run", "q.jsonl", "--server", "http://127.0.0.1:8000", "--model", "m"),
        ("submit", "q.jsonl", "--model", "m"),
    ):
        settings = settings_of(*words)

        assert settings.model.generator_settings.hf_model_id is None
        assert settings.model_name == "m"


def test_a_server_takes_the_place_of_what_the_file_boots(tmp_path: Path) -> None:
    """Its URL says all of its address."""
    config = tmp_path / "fleet.yaml"
    config.write_text(YAML)

    generator = settings_of(
        "run", "q.jsonl", "--server", "http://gpu:9000/v1", "--config", str(config)
    ).model.generator_settings

    assert (generator.server, generator.port, generator.boot_local) == ("http://gpu:9000/v1", None, False)


async def test_a_server_of_one_model_needs_no_name() -> None:
    """The model is asked for; where there are several, or none, or no such list, one sentence says so."""

    async def told(models: Reply) -> str:
        async with ScriptedServer(lambda _: a_text()) as server:
            server.models = models
            words = ("run", "q.jsonl", "--server", f"http://127.0.0.1:{server.port}")
            try:
                return str((await asyncio.to_thread(settings_of, *words)).model_name)
            except UsageError as error:
                return str(error)

    assert await told(Reply(body={"data": [{"id": "its-own"}]})) == "its-own"
    assert "serves 2 models ('one', 'two'): say which with --model" in await told(
        Reply(body={"data": [{"id": "one"}, {"id": "two"}]})
    )
    assert "serves no model" in await told(Reply(body={"data": []}))
    assert "does not say which models it serves (HTTP 404" in await told(Reply(404, {"detail": "Not Found"}))


def test_settings_may_be_given_one_by_one(tmp_path: Path) -> None:
    """Short or whole names, any type; they win over the file, and flags of their own win over `--set`."""
    config = tmp_path / "fleet.yaml"
    config.write_text(YAML)
    words = [
        "submit",
        "q.jsonl",
        "--config",
        str(config),
        "--temperature",
        "0.7",
        "--max-tokens",
        "9",
        "--set",
        "temperature=1.5",
    ]
    words += ["--set", "limits.run_window=50", "--set", "stop=END=", "--set", "vllm_args={max_model_len: 99}"]

    settings = settings_of(*words)

    generator = settings.model.generator_settings
    assert generator.given_sampling == {"temperature": 0.7, "max_tokens": 9, "stop": "END="}
    assert generator.vllm_args == {"max_num_seqs": 8, "max_model_len": 99}
    assert settings.limits.run_window == 50


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "temperature"], "--set temperature: write it as KEY=VALUE"),
        (["--set", "=1"], "--set =1: write it as KEY=VALUE"),
        (
            ["--set", "temprature=1"],
            "command line: temprature: unknown key; did you mean model.generator_settings.temperature?",
        ),
        (["--temperature", "warm"], "command line: model.generator_settings.temperature"),
        (["--set", "api_key=sk-1"], "everybody on this machine can read a command line"),
        (["--set", "redis.password=x"], "everybody on this machine can read a command line"),
    ],
)
def test_what_cannot_be_set_is_said(words: list[str], told: str) -> None:
    """As for a file, with the place; a secret is not for a command line, and is not repeated."""
    with pytest.raises(UsageError) as refused:
        settings_of("run", "q.jsonl", *words)

    assert told in str(refused.value)
    assert "sk-1" not in str(refused.value)
