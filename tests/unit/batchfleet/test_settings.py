"""The schema: what follows from settings, and what cannot be."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from batchfleet.settings.schema import ModelSettings, ProcessingSettings, Settings, StubSettings
from batchfleet.settings.sections.generator import GeneratorSettings
from batchfleet.settings.sections.limits import LeaseSettings, LimitSettings
from batchfleet.settings.sections.redis_server import RedisSettings
from batchfleet.settings.setting_names import ENVIRONMENT, FIELDS, MAPPINGS, SECTIONS, SETTINGS, SHORT_NAMES, expected
from batchfleet.settings.to_options import batcher_options


def with_generator(**settings: object) -> Settings:
    """Settings with these generator settings, and defaults else."""
    return Settings(model=ModelSettings(generator_settings=GeneratorSettings.model_validate(settings)))


def test_capacity_is_workers_times_batch_size() -> None:
    """The guide's 8 workers with batches of 16 keep 128 questions in the engine."""
    settings = with_generator(batch_size=16).model_copy(update={"processing": ProcessingSettings(parallel_workers=8)})

    assert settings.capacity == 128


def test_without_batching_a_batch_counts_as_one_question() -> None:
    """The batch size, though set, has no say."""
    settings = with_generator(batch_size=16, enable_batching=False).model_copy(
        update={"processing": ProcessingSettings(parallel_workers=8)}
    )

    assert settings.capacity == 8
    assert settings.questions_per_batch == 1


def test_capacity_is_the_engines_own_unless_workers_are_set() -> None:
    """A batch size alone says nothing about the engine."""
    assert with_generator(batch_size=16).capacity is None


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, None),
        ({"vllm_args": {"model": "d"}}, "d"),
        ({"vllm_args": {"model": "d", "served_model_name": ["c", "x"]}}, "c"),
        ({"vllm_args": {"model": "d", "served_model_name": "c"}, "hf_model_id": "b"}, "c"),
        ({"vllm_args": {"model": "d", "served_model_name": "c"}, "hf_model_id": "b", "model": "a"}, "a"),
        ({"vllm_args": {"model": 7, "served_model_name": []}}, None),
    ],
)
def test_the_model_is_named_by_the_most_explicit_setting(settings: dict[str, object], name: str | None) -> None:
    """In this order: model, hf_model_id, vLLM's served name, vLLM's model."""
    assert with_generator(**settings).model_name == name


def test_sampling_defaults_are_only_what_is_set() -> None:
    """What nobody set is left to the engine."""
    settings = GeneratorSettings(top_p=0.9, stop=["\n"])

    assert settings.sampling_defaults == {"temperature": 0.0, "max_tokens": 1024, "top_p": 0.9, "stop": ["\n"]}


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        (LeaseSettings, {"heartbeat_s": 1.5}, r"leader_s \(4\) is less than three times heartbeat_s \(1.5\)"),
        (
            LeaseSettings,
            {"batch_s": 2.0},
            r"batch_s \(2\) is less than three times heartbeat_s \(1\); set batch_s to at least 3",
        ),
        (LeaseSettings, {"stall_s": 5.0}, r"batch_s \(6\) is above stall_s \(5\)"),
        (LimitSettings, {"run_window": 200_001}, r"run_window \(200001\) is above max_pending_questions \(200000\)"),
        (LimitSettings, {"max_pending_bytes": 1024 * 1024}, r"max_batch_bytes \(4194304\) is above max_pending_bytes"),
        (
            LimitSettings,
            {"max_pending_bytes": 512 * 1024, "max_batch_bytes": 1024},
            r"max_question_bytes \(1048576\) is above max_pending_bytes",
        ),
        (LimitSettings, {"run_ttl_s": 3599.5}, r"question_timeout_s \(3600\) is above run_ttl_s \(3599.5\)"),
        (StubSettings, {"min_tokens": 129}, r"min_tokens \(129\) is above max_tokens \(128\)"),
        (GeneratorSettings, {"boot_local": False}, "no server is given"),
        (RedisSettings, {"tls_key_file": "k"}, "a certificate needs its key"),
        (RedisSettings, {"url": "redis://h", "tls_ca_file": "c"}, "does not use TLS"),
        (RedisSettings, {"url": "redis://:x@h", "password": "y"}, "a password is given here and in the url"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    section: type[LeaseSettings | LimitSettings | StubSettings | GeneratorSettings | RedisSettings],
    values: dict[str, object],
    words: str,
) -> None:
    """Each is fine by itself; the message names both."""
    with pytest.raises(ValidationError, match=words):
        section.model_validate(values)


def test_three_heartbeats_fit_exactly() -> None:
    """The bound itself is allowed."""
    assert LeaseSettings(heartbeat_s=1.0, batch_s=3.0, leader_s=3.0).batch_s == 3.0


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:6379/0",
        "redis://me:p%40ss@h/1?protocol=3",
        "rediss://[::1]:6380",
        "unix:///run/redis.sock",
        "unix://me:pw@/run/r?db=1",
        "redis+file:///shared/queue-address",
    ],
)
def test_redis_urls_that_reach_a_server_are_taken(url: str) -> None:
    """TCP, TLS and sockets, with and without users."""
    assert RedisSettings(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "h:6379",
        "http://h",
        "redis://",
        "unix://",
        "redis://h:99999",
        "redis://h:0",
        "redis://:12/34@h",
        "redis://me:12/34@h",
        "redis://me:12#34@h",
        "redis://me:12?34@h",
        "redis://h\n",
        "redis://[h",
    ],
)
def test_redis_urls_that_reach_nothing_are_refused_without_being_repeated(url: str) -> None:
    """Among them those whose password would be taken for something else; none is printed, because of the password."""
    with pytest.raises(ValidationError, match="is not a Redis URL") as caught:
        RedisSettings(url=url)

    assert "12" not in str(caught.value)
    assert "34" not in str(caught.value)


@pytest.mark.parametrize("namespace", ["", "a b", "a:b", "{a}", "-a", "a" * 65, "ä"])
def test_a_namespace_is_safe_in_a_key(namespace: str) -> None:
    """No colons, braces or spaces: keys are split at the first, and Redis clusters mind the second."""
    with pytest.raises(ValidationError, match="cannot be part of a Redis key"):
        RedisSettings(namespace=namespace)


def test_nothing_secret_is_in_a_printed_value() -> None:
    """Somebody will log it one day."""
    redis = RedisSettings(url="redis://me:hunter2@h")
    model = ModelSettings(
        generator_settings=GeneratorSettings.model_validate(
            {"api_key": "hunter2", "vllm_args": {"hf_token": "hunter2"}}
        )
    )

    assert "hunter2" not in repr(Settings(redis=redis, model=model))


def test_settings_are_frozen() -> None:
    """One value, read once, passed down."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().stub.step_s = 1.0


def test_every_setting_says_what_it_is_and_has_a_bound() -> None:
    """The reference documentation is made from the descriptions; promise 6 rests on the bounds."""
    for path in SETTINGS:
        assert FIELDS[path].description, path
        if expected(path).startswith(("a whole number", "a number")):
            assert " at most " in expected(path), path
            assert " at least " in expected(path) or " more than " in expected(path), path


def test_every_setting_has_one_long_variable_and_no_two_share_one() -> None:
    """The table comes from the schema, so a new setting has its variable at once."""
    long = {"BATCHFLEET_" + "_".join(path).upper(): path for path in SETTINGS}
    short = {name: path for name, path in ENVIRONMENT.items() if name not in long}

    assert len(long) == len(SETTINGS)
    assert long.items() <= ENVIRONMENT.items()
    assert {path[:-1] for path in short.values()} == {("model", "generator_settings"), ("processing",)}


def test_short_names_mean_one_place() -> None:
    """The generator's settings win over the stub's; what would be the stub's only by accident has no short name."""
    assert SHORT_NAMES["max_tokens"] == ("model", "generator_settings", "max_tokens")
    assert SHORT_NAMES["vllm_args"] in MAPPINGS
    assert SHORT_NAMES["generator_settings"] in SECTIONS
    assert "max_num_seqs" not in SHORT_NAMES
    assert "model" not in SHORT_NAMES


@pytest.mark.parametrize(
    ("given", "questions", "most_bytes"),
    [
        ({}, 16, 4 * 1024 * 1024),
        ({"task": "embed"}, 65_536, 65_536),
        ({"task": "embed", "batch_size": 32}, 32, 4 * 1024 * 1024),
        ({"task": "embed", "enable_batching": False}, 1, 4 * 1024 * 1024),
        ({"batch_tokens": 1000}, 65_536, 4000),
    ],
)
def test_batches_of_texts_are_bounded_by_tokens(given: dict[str, object], questions: int, most_bytes: int) -> None:
    """Where vectors are made, or where somebody says so; who sets batch_size gets it."""
    limits = batcher_options(with_generator(**given)).limits

    assert (limits.max_questions, limits.max_bytes) == (questions, most_bytes)
