"""What people and child processes see of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from batchfleet.humanize import MASK
from batchfleet.settings.load import load_settings
from batchfleet.settings.mask import child_environment, secret_environment, show_settings, to_file_text
from batchfleet.settings.schema import Settings
from batchfleet.settings.sections.generator import SAMPLING_FIELDS

SECRETS = Settings.model_validate(
    {
        "model": {
            "generator_settings": {
                "api_key": "hunter2",
                "server": "http://me:hunter2@host:8000/v1",
                "vllm_args": {
                    "hf_token": "hunter2",
                    "apiKey": ["hunter2"],
                    "kv": {"auth-password": "hunter2", "port": 1},
                    "url": "s3://me:hunter2@bucket",
                    "list": [{"secret": 7193}],
                    "tokenizer": "slow",
                    "max_num_batched_tokens": 8192,
                    "token": True,
                },
            }
        },
        "redis": {"url": "rediss://me:hun%40ter2@host:1/0?db=1&ssl_password=hunter2"},
    }
)


def test_everything_in_effect_is_shown_and_secrets_are_masked() -> None:
    """Names of secrets and hosts stay readable; what only sounds like a token does too."""
    text = show_settings(SECRETS)
    shown = yaml.safe_load(text)

    assert "hunter2" not in text
    assert "ter2" not in text
    assert "7193" not in text
    assert shown["redis"]["url"] == f"rediss://me:{MASK}@host:1/0?db=1&ssl_password={MASK}"
    assert shown["model"]["generator_settings"]["api_key"] == MASK
    assert shown["model"]["generator_settings"]["server"] == f"http://me:{MASK}@host:8000/v1"
    assert shown["model"]["generator_settings"]["vllm_args"] == {
        "hf_token": MASK,
        "apiKey": MASK,
        "kv": {"auth-password": MASK, "port": 1},
        "url": f"s3://me:{MASK}@bucket",
        "list": [{"secret": MASK}],
        "tokenizer": "slow",
        "max_num_batched_tokens": 8192,
        "token": True,
    }
    assert shown["limits"] == Settings().limits.model_dump()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("redis://me@h", "redis://me@h"),
        ("redis://:p@h:1", f"redis://:{MASK}@h:1"),
        ("unix://me:p@/run/r", f"unix://me:{MASK}@/run/r"),
        ("redis://h:6379?password=p", f"redis://h:6379?password={MASK}"),
    ],
)
def test_only_the_password_of_a_url_is_masked(url: str, shown: str) -> None:
    """Which host and which user is what one looks for."""
    settings = Settings.model_validate({"redis": {"url": url}})

    assert yaml.safe_load(show_settings(settings))["redis"]["url"] == shown


def test_the_defaults_are_shown_as_they_are() -> None:
    """Without a secret there is nothing to mask or to leave out."""
    assert show_settings(Settings()).startswith("model:\n  generator_settings:\n    hf_model_id: null\n")
    assert to_file_text(Settings()) == show_settings(Settings())
    assert secret_environment(Settings()) == {}


def test_a_file_for_child_processes_has_no_secrets_in_it() -> None:
    """Not even masked: the keys are left out."""
    text = to_file_text(SECRETS)
    written = yaml.safe_load(text)

    assert "hunter2" not in text
    assert "ter2" not in text
    assert "7193" not in text
    assert MASK not in text
    assert "url" not in written["redis"]
    assert written["model"]["generator_settings"]["vllm_args"] == {
        "tokenizer": "slow",
        "max_num_batched_tokens": 8192,
        "token": True,
    }


def test_a_child_process_gets_the_same_settings(tmp_path: Path) -> None:
    """From the file and the environment together, whatever our own environment and command line said."""
    environ = {"BATCHFLEET_BATCH_SIZE": "3", "BATCHFLEET_API_KEY": "old", "BATCHFLEET_GPUS": "0", "PATH": "/bin"}
    ours = load_settings(None, environ, {"batch_size": 4, "api_key": "new"}).settings
    file = tmp_path / "fleet.yaml"
    file.write_text(to_file_text(ours), encoding="utf-8")

    theirs = child_environment(ours, environ)

    assert theirs == {
        "BATCHFLEET_GPUS": "0",
        "PATH": "/bin",
        "PYTHONSAFEPATH": "1",
        "BATCHFLEET_MODEL_GENERATOR_SETTINGS_API_KEY": "new",
    }
    assert load_settings(file, theirs, {}).settings == ours


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["null", "~", "1e3", "a:b@c", "x://u:p@h", "[1]", "'"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.sampled_from(["token", "api_key"]), inner, max_size=3)
    ),
    max_leaves=8,
)
GENERATORS = st.fixed_dictionaries(
    {},
    optional={
        "hf_model_id": WORDS,
        "server": WORDS,
        "api_key": WORDS,
        "chat_template": WORDS,
        "stop": WORDS | st.lists(WORDS, min_size=1, max_size=3),
        "vllm_args": st.dictionaries(WORDS | st.sampled_from(["token", "api_key"]), JSON, max_size=4),
        "temperature": st.floats(0, 2),
        "seed": st.integers(-(2**63), 2**63 - 1) | st.none(),
        "port": st.integers(1, 65535) | st.none(),
    },
)


@given(generator=GENERATORS, password=WORDS, url=st.sampled_from([None, "redis://h", "unix://:x@/r"]))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_file_and_environment_together_are_the_settings(
    tmp_path: Path, generator: dict[str, object], password: str, url: str | None
) -> None:
    """Nothing is lost on the way to a child process, and nothing is changed by being written down."""
    redis = {"url": url} if url and ":x@" in url else {"url": url, "password": password}
    settings = Settings.model_validate({"model": {"generator_settings": generator}, "redis": redis})
    file = tmp_path / "fleet.yaml"
    file.write_text(to_file_text(settings), encoding="utf-8", newline="")

    assert load_settings(file, child_environment(settings, {}), {}).settings == settings


def test_sampling_settings_are_all_settings() -> None:
    """The list of names is kept by hand; this keeps it true."""
    assert set(SAMPLING_FIELDS) <= set(type(Settings().model.generator_settings).model_fields)
