"""Sources and their order: defaults, file, environment, command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchfleet.settings.load import load_settings
from batchfleet.settings.schema import Settings
from wire.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts its settings file."""
    return tmp_path / "fleet.yaml"


def from_environment(**variables: str) -> Settings:
    """Settings from these variables, named without their prefix."""
    return load_settings(None, {f"BATCHFLEET_{name}": value for name, value in variables.items()}, {}).settings


def test_without_any_source_the_defaults_count() -> None:
    """No file, nothing set."""
    assert load_settings(None, {}, {}).settings == Settings()


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "---\n", "redis:\n  # url: redis://h\nvllm_args:\nlimits: {}\n", "\ufeff"]
)
def test_an_empty_file_changes_nothing(file: Path, text: str) -> None:
    """Nor do sections whose lines are all commented out."""
    file.write_text(text, encoding="utf-8")

    assert load_settings(file, {}, {}).settings == Settings()


def test_each_source_wins_over_those_before_it(file: Path) -> None:
    """Only in what it says; the rest shines through."""
    file.write_text("limits: {max_models: 2, max_attempts: 2, run_window: 2}", encoding="utf-8")
    environ = {"BATCHFLEET_LIMITS_MAX_ATTEMPTS": "3", "BATCHFLEET_LIMITS_RUN_WINDOW": "3"}

    limits = load_settings(file, environ, {"limits.run_window": 4}).settings.limits

    assert (limits.max_dead_letters, limits.max_models, limits.max_attempts, limits.run_window) == (10_000, 2, 3, 4)


def test_vllm_args_of_all_sources_are_joined(file: Path) -> None:
    """Key by key, the last source winning; their values are replaced whole."""
    file.write_text("vllm_args: {a: 1, b: 1, c: {x: 1}}", encoding="utf-8")

    loaded = load_settings(
        file, {"BATCHFLEET_VLLM_ARGS": "{b: 2, c: {y: 2}, d: [e]}"}, {"vllm_args.e": "1e-3", "vllm_args.f.g": "yes"}
    )

    assert loaded.settings.model.generator_settings.vllm_args == {
        "a": 1,
        "b": 2,
        "c": {"y": 2},
        "d": ["e"],
        "e": 0.001,
        "f": {"g": True},
    }


@pytest.mark.parametrize(
    "text",
    [
        "model: {generator_settings: {vllm_args: {a: 1}, batch_size: 3}}",
        "generator_settings: {vllm_args: {a: 1}, batch_size: 3}",
        "generator_settings: {vllm_args: {a: 1}}\nbatch_size: 3",
        "vllm_args: {a: 1}\nbatch_size: 3",
        "vllm_args: {a: 1}\nmodel: {generator_settings: {batch_size: 3}}",
    ],
)
def test_fragments_mean_the_same_wherever_they_stand(file: Path, text: str) -> None:
    """Written out in full, in part, or not at all."""
    file.write_text(text, encoding="utf-8")

    generator = load_settings(file, {}, {}).settings.model.generator_settings

    assert (generator.vllm_args, generator.batch_size) == ({"a": 1}, 3)


def test_a_setting_given_in_two_forms_takes_the_later_one(file: Path) -> None:
    """With a warning that names both lines."""
    file.write_text("generator_settings:\n  batch_size: 3\nbatch_size: 4\n", encoding="utf-8")

    loaded = load_settings(file, {}, {})

    assert loaded.settings.model.generator_settings.batch_size == 4
    assert loaded.warnings[0].startswith(f"{file}:3: model.generator_settings.batch_size: given at {file}:2 already")


def test_a_repeated_section_is_replaced_whole(file: Path) -> None:
    """As everywhere in YAML: what stands in the first one is ignored, mistakes included."""
    file.write_text("limits: {max_models: 2, bogus: 1}\nlimits: {max_attempts: 3}\n", encoding="utf-8")

    loaded = load_settings(file, {}, {})

    assert (loaded.settings.limits.max_models, loaded.settings.limits.max_attempts) == (64, 3)
    assert loaded.warnings[0].startswith(f"{file}:2: limits: given at {file}:1 already")


def test_the_environment_has_short_and_long_names() -> None:
    """Short for the generator's settings and processing, as in a file."""
    settings = from_environment(
        REDIS_URL="redis://h", LEASES_BATCH_S="9", STUB_STEP_S="0.01", BATCH_SIZE="3", PARALLEL_WORKERS="4"
    )

    assert settings.redis.url == "redis://h"
    assert (settings.leases.batch_s, settings.stub.step_s, settings.capacity) == (9.0, 0.01, 12)
    assert from_environment(MODEL_GENERATOR_SETTINGS_BATCH_SIZE="5").questions_per_batch == 5


def test_the_long_name_of_a_variable_wins_over_the_short_one() -> None:
    """And a warning says so, unless they agree."""
    long, short = "BATCHFLEET_MODEL_GENERATOR_SETTINGS_BATCH_SIZE", "BATCHFLEET_BATCH_SIZE"

    differing = load_settings(None, {long: "5", short: "6"}, {})

    assert differing.settings.questions_per_batch == 5
    assert differing.warnings[0].startswith(
        f"environment: {long}: model.generator_settings.batch_size: given at environment: {short} already"
    )
    assert load_settings(None, {long: "5", short: "5"}, {}).warnings == ()


def test_a_key_given_twice_in_a_variable_is_warned_about_too() -> None:
    """The variable's name stands for the line."""
    loaded = load_settings(None, {"BATCHFLEET_VLLM_ARGS": "{a: 1, a: 2}"}, {})

    assert loaded.settings.model.generator_settings.vllm_args == {"a": 2}
    assert loaded.warnings[0].startswith(
        "environment: BATCHFLEET_VLLM_ARGS: a: given at environment: BATCHFLEET_VLLM_ARGS already"
    )


def test_where_a_text_is_wanted_text_is_taken_literally() -> None:
    """No YAML: a password may look like a number, a comment or a list."""
    texts = {
        "STUB_REFUSE_ON": "[x # y",
        "STUB_HANG_ON": "12",
        "CHAT_TEMPLATE": "{% if x %}",
        "MODEL": "null",
        "REDIS_PASSWORD": "007",
        "API_KEY": "null",
    }
    settings = from_environment(**texts)
    generator = settings.model.generator_settings

    assert settings.redis.password is not None
    assert settings.redis.password.get_secret_value() == "007"
    assert generator.api_key is not None
    assert generator.api_key.get_secret_value() == "null"
    assert (settings.stub.refuse_on, settings.stub.hang_on, generator.chat_template, generator.model) == (
        "[x # y",
        "12",
        "{% if x %}",
        None,
    )


@pytest.mark.parametrize(
    ("text", "stop"),
    [("###", "###"), ("END # x", "END # x"), ('["a", "\\n"]', ["a", "\n"]), ('"\\n"', "\n"), ("~", None)],
)
def test_stop_texts_come_as_text_or_as_a_list(text: str, stop: object) -> None:
    """What looks like a list or is quoted is YAML, all else is meant literally."""
    assert from_environment(STOP=text).model.generator_settings.stop == stop


def test_variables_that_are_empty_reserved_or_not_ours_are_left_alone() -> None:
    """Compose files pass on what is unset as an empty text."""
    environ = {
        "BATCHFLEET_REDIS_URL": "",
        "BATCHFLEET_BATCH_SIZE": "",
        "BATCHFLEET_GPUS": "0,1",
        "PATH": "/bin",
        "BATCH_SIZE": "x",
    }

    assert load_settings(None, environ, {}).settings == Settings()


def test_a_variable_can_unset_what_the_file_sets(file: Path) -> None:
    """With null, where a setting may be null."""
    file.write_text("parallel_workers: 4\nmodel: {generator_settings: {chat_template: x}}", encoding="utf-8")

    loaded = load_settings(file, {"BATCHFLEET_PARALLEL_WORKERS": "null", "BATCHFLEET_CHAT_TEMPLATE": "~"}, {})

    assert loaded.settings == Settings()


def test_the_command_line_gives_values_or_text() -> None:
    """Under full names or short ones; None is an option that was not given."""
    overrides = {
        "redis.url": "unix:///r",
        "batch_size": "3",
        "processing.parallel_workers": 4,
        "stub.step_s": None,
        "vllm_args": {"a": {"b": [1]}},
    }

    settings = load_settings(None, {}, overrides).settings

    assert (settings.redis.url, settings.capacity, settings.stub.step_s) == ("unix:///r", 12, 0.0)
    assert settings.model.generator_settings.vllm_args == {"a": {"b": [1]}}


def test_a_server_that_is_not_used_is_warned_about(file: Path) -> None:
    """Whoever names a server rarely wants to load the model here."""
    file.write_text("hf_model_id: m\nserver: localhost\n", encoding="utf-8")

    assert (
        load_settings(file, {}, {})
        .warnings[0]
        .startswith(f"{file}:2: model.generator_settings.server: has no effect while boot_local is true")
    )
    assert load_settings(file, {"BATCHFLEET_BOOT_LOCAL": "false"}, {}).warnings == ()


def test_whole_numbers_do_for_seconds_and_nothing_else_is_converted(file: Path) -> None:
    """1 is a fine number of seconds; "1" and 1.0 are no number of questions."""
    file.write_text("batch_timeout: 1\nlimits: {max_pending_bytes: 1_000_000_000}", encoding="utf-8")

    settings = load_settings(file, {}, {}).settings

    assert settings.model.generator_settings.batch_timeout == 1.0
    assert settings.limits.max_pending_bytes == 10**9
    for value in ('"1"', "1.0", "true"):
        file.write_text(f"batch_size: {value}", encoding="utf-8")
        with pytest.raises(UsageError, match="batch_size: is "):
            load_settings(file, {}, {})
