"""What people are told: every problem, its line, and what to do; never a secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from batchfleet.settings.load import load_settings
from batchfleet.settings.validate import MAX_PROBLEMS
from wire.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts its settings file."""
    return tmp_path / "fleet.yaml"


def told(file: Path, text: str) -> list[str]:
    """The lines of the error that a file gives, the file's name replaced by F."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_settings(file, {}, {})
    return str(caught.value).replace(str(file), "F").split("\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "batch_size: 0",
            (
                "F:1: model.generator_settings.batch_size: is 0; give a whole number, at least 1 and at most 65536 "
                "(default 16)"
            ),
        ),
        (
            "port: 99999",
            "F:1: model.generator_settings.port: is 99999; give a whole number, at least 1 and at most 65535",
        ),
        (
            "batch_timeout: -1",
            (
                "F:1: model.generator_settings.batch_timeout: is -1; "
                "give a number, at least 0 and at most 3600 (default 0.5)"
            ),
        ),
        (
            "leases: {batch_s: .inf}",
            "F:1: leases.batch_s: is not a finite number; give a number, more than 0 and at most 3600 (default 6)",
        ),
        (
            "stub: {step_s: .nan}",
            "F:1: stub.step_s: is not a finite number; give a number, at least 0 and at most 60 (default 0)",
        ),
        (
            f"seed: 0x{'f' * 38}",
            (
                "F:1: model.generator_settings.seed: is a very large number; give a whole number, at least "
                "-9223372036854775808"
            ),
        ),
        (
            "max_tokens: '16'",
            'F:1: model.generator_settings.max_tokens: is the text "16"; give a whole number, at least 1',
        ),
        ("batch_size:", "F:1: model.generator_settings.batch_size: is empty; give a whole number"),
        ("max_tokens: many", "F:1: model.generator_settings.max_tokens: is a text; give a whole number"),
        ("max_tokens: [1]", "F:1: model.generator_settings.max_tokens: is a list; give a whole number"),
        ("max_tokens: {a: 1}", "F:1: model.generator_settings.max_tokens: is a mapping; give a whole number"),
        ("max_tokens: true", "F:1: model.generator_settings.max_tokens: is true; give a whole number"),
        ("boot_local: 1", "F:1: model.generator_settings.boot_local: is 1; give true or false (default true)"),
        ("boot_local: 'yes'", "F:1: model.generator_settings.boot_local: is a text; give true or false (default true)"),
        ("hf_model_id: 7", "F:1: model.generator_settings.hf_model_id: is a number; give a text, in quotes"),
        ("hf_model_id: ''", "F:1: model.generator_settings.hf_model_id: is empty; give a text, or leave the key out"),
        (
            f"hf_model_id: {'x' * 257}",
            "F:1: model.generator_settings.hf_model_id: is longer than 256; give a text no longer than that",
        ),
        ("stop: [1]", "F:1: model.generator_settings.stop: is a list; give a text or a list of texts"),
        (
            "stop: ''",
            "F:1: model.generator_settings.stop: is empty; give a text or a list of texts, or leave the key out",
        ),
        (
            "stop: []",
            "F:1: model.generator_settings.stop: is empty; give a text or a list of texts, or leave the key out",
        ),
        (
            "vllm_args: 5",
            "F:1: model.generator_settings.vllm_args: is a number; give a mapping, as KEY: VALUE lines below it",
        ),
        ("limits: 5", "F:1: limits: is a number; put its settings on lines of their own below it"),
        (
            "model: llama",
            (
                "F:1: model: is a text; put its settings on lines of their own below it, indented, each as KEY: VALUE "
                "with "
                "a space; the name of"
            ),
        ),
        ("redis: {namespace: 'a b'}", "F:1: redis.namespace: cannot be part of a Redis key; use 1 to 64 letters"),
        (
            "leases: {stall_s: 5}",
            "F:1: leases.stall_s: batch_s (6) is above stall_s (5); lower batch_s or raise stall_s",
        ),
        (
            "\n\nleases:\n\n  heartbeat_s: 1.5",
            (
                "F:5: leases.heartbeat_s: leader_s (4) is less than three times heartbeat_s (1.5); set leader_s to at "
                "least 4.5"
            ),
        ),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_could_be(file: Path, text: str, message: str) -> None:
    """The line, the full key, what is there, what may be there."""
    (line,) = told(file, text)

    assert line.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bach_size: 1", "F:1: bach_size: unknown key; did you mean model.generator_settings.batch_size?"),
        ("modle: {}", "F:1: modle: unknown key; did you mean model?"),
        ("limits: {max-modles: 1}", "F:1: limits.max-modles: unknown key; did you mean max_models?"),
        ("model: {batch_size: 1}", "F:1: model.batch_size: unknown key; it belongs under model.generator_settings"),
        (
            "generator_settings: {parallel_workers: 1}",
            "F:1: model.generator_settings.parallel_workers: unknown key; it belongs under processing",
        ),
        ("stub: {redis: {}}", "F:1: stub.redis: unknown key; it belongs at the top level"),
        ("redis: {vllm_args: {}}", "F:1: redis.vllm_args: unknown key; it belongs under model.generator_settings"),
        (
            "max_num_seqs: 1",
            "F:1: max_num_seqs: unknown key; for vLLM it belongs under vllm_args, for the stub engine under stub",
        ),
        (
            "max_model_len: 1",
            (
                "F:1: max_model_len: unknown key; known here: model, input, output, processing, redis, limits, leases, "
                "metrics, images, stub, sweep; "
                "arguments of vLLM go under vllm_args"
            ),
        ),
        ("ragg: {enabled: true}", "F:1: ragg: unknown key; did you mean rag?"),
        ("output: {a: 1}", "F:1: output.a: unknown key; known here: output_directory, output_prefix"),
        ("checkpoint: {a: 1}", "F:1: checkpoint: unknown key; known here: "),
        ("grader: {a: 1}", "F:1: grader: unknown key; known here: "),
        ("generator: {a: 1}", "F:1: generator: unknown key; known here: "),
        ("8: 1", "F:1: 8: unknown key; known here: "),
        ("'': 1", "F:1: (no name): unknown key; known here: "),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(file: Path, text: str, message: str) -> None:
    """And with where it belongs, if it is known elsewhere."""
    (line,) = told(file, text)

    assert line.startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "F:2: not valid YAML: a tab where YAML wants spaces"),
        ("a: 1\nb: 'x\nc: 1", "F:2: not valid YAML: a quote that is opened here is never closed"),
        ("a: 1\nb: [1, 2\n", "F:2: not valid YAML: a bracket that is opened here is never closed"),
        ("a: b: c", "F:1: not valid YAML: a colon where none can be"),
        ("a: 1\n b: 2", "F:2: not valid YAML: a colon where none can be"),
        ("a:\n    b: 1\n  c: 2", "F:3: not valid YAML: this line is not indented like its neighbours"),
        ("a: 1\nb", "F:2: not valid YAML: a line without a colon"),
        ("a: 1\n---\nb: 1", "F:2: not valid YAML: a second document begins here"),
        ("a: @x", "F:1: not valid YAML: a text begins with a character that means something to YAML"),
        ("a: 1\nb: \x01", "F:2: a character that YAML does not allow"),
        ("a: !x 1", "F:1: has a YAML tag, which settings do not know"),
        ("a: !!python/object:os.system 1", "F:1: has a YAML tag, which settings do not know"),
        ("a: !!binary aGk=", "F:1: has a YAML tag, which settings do not know"),
        ("a: !!int x", "F:1: has a YAML tag that the value does not fit"),
        ("? [a]\n: 1", "F:1: a key is a list or a mapping"),
        ("a: &b {}\nc: {<<: *b}", "F:2: merge keys (<<) are not supported"),
        ("- 1", "F:1: the file is a list; settings are lines of the form KEY: VALUE"),
        ("batch_size:16", "F:1: the file is a text; settings are lines of the form KEY: VALUE"),
    ],
)
def test_what_is_not_yaml_is_explained_with_its_line(file: Path, text: str, message: str) -> None:
    """In words of people who write settings, not of those who write parsers."""
    (line,) = told(file, text)

    assert line.startswith(message)


def test_all_problems_are_told_at_once_from_top_to_bottom(file: Path) -> None:
    """Unknown keys and wrong values alike, so that one round of repair is enough."""
    lines = told(file, "batch_size: 0\nragg: {}\nredis:\n  port: 1\n  url: x\n  tls_key_file: y\n")

    assert [line.split(":")[1] for line in lines] == ["1", "2", "4", "5"]


def test_contradictions_are_told_once_everything_else_is_right(file: Path) -> None:
    """A misspelt key would contradict the default that it meant to change."""
    assert len(told(file, "boot_local: false\nservr: x")) == 1
    assert len(told(file, "boot_local: false\nstub: {min_tokens: 200}")) == 2


def test_a_thousand_problems_are_cut_short(file: Path) -> None:
    """Somebody gave us another program's file."""
    lines = told(file, "".join(f"bogus_{n}: 1\n" for n in range(1000)))

    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == f"... and {1000 - MAX_PROBLEMS} more problems"


def test_problems_of_the_environment_and_the_command_line_name_their_source() -> None:
    """With the variable's own name, which is what has to be changed."""
    environ = {
        "BATCHFLEET_BATCH_SIZE": "0",
        "BATCHFLEET_RDIS_URL": "x",
        "BATCHFLEET_FOO": "x",
        "BATCHFLEET_VLLM_ARGS": "{a: *b",
    }
    overrides = {"limits.run_windw": 1, "stub.step_s": "fast", "vllm_args.x": "[", "redis": "h"}

    with pytest.raises(UsageError) as caught:
        load_settings(None, environ, overrides)

    starts = {
        "environment: BATCHFLEET_RDIS_URL: unknown variable; did you mean BATCHFLEET_REDIS_URL?",
        "environment: BATCHFLEET_FOO: unknown variable; unset it",
        "environment: BATCHFLEET_BATCH_SIZE: model.generator_settings.batch_size: is 0; give",
        "environment: BATCHFLEET_VLLM_ARGS: model.generator_settings.vllm_args: not valid YAML: an alias (*) without",
        "command line: limits.run_windw: unknown key; did you mean run_window?",
        "command line: stub.step_s: is a text; give a number",
        (
            "command line: model.generator_settings.vllm_args: not valid YAML: a bracket that is opened here is never "
            "closed"
        ),
        "command line: redis: is a text; put its settings",
    }
    lines = str(caught.value).split("\n")
    assert len(lines) == len(starts)
    assert all(any(line.startswith(start) for line in lines) for start in starts), lines


def test_something_that_is_no_data_is_refused() -> None:
    """Only our own code can pass it, in an override."""
    with pytest.raises(
        UsageError, match=r"vllm_args\.a: a Path inside is nothing that YAML can hold|vllm_args\.a: a PosixPath inside"
    ):
        load_settings(None, {}, {"vllm_args": {"a": Path("x")}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: None, "cannot be read: No such file or directory; check the name"),  # noqa: ARG005
        (lambda file: file.mkdir(), "cannot be read: Is a directory; check the name"),
        (lambda file: file.write_bytes(b"a: 1\nb: \xff\n"), ":2: is not UTF-8 text; save the file as UTF-8"),
        (lambda file: file.write_bytes(b"#" * (1024 * 1024 + 1)), "is larger than 1048576 bytes"),
    ],
    ids=["missing", "directory", "latin-1", "huge"],
)
def test_a_file_that_cannot_be_read_is_named(file: Path, make: object, message: str) -> None:
    """One line, no traceback."""
    assert callable(make)
    make(file)

    with pytest.raises(UsageError, match=re.escape(str(file))) as caught:
        load_settings(file, {}, {})

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "redis: {password: hunter2, url: 'redis://:hunter2@'}",
        "redis:\n  password:hunter2\n  url: redis://h",
        "redis: {password:hunter2: 1}",
        "redis:\n  password: *hunter2",
        "redis:\n  password: !hunter2 x",
        "redis:\n  password: !hunter2!x y",
        "redis:\n  password: &hunter2 &hunter2 x",
        "redis:\n  password: @hunter2",
        "redis:\n  password: %hunter2",
        "redis:\n  password: hunter2: x",
        "redis:\n  password: 'hunter2",
        'redis:\n  password: "\\hunter2"',
        "redis:\n  password: [hunter2]",
        "redis:\n  password: {hunter2: 1}",
        "redis:\n  pasword: hunter2",
        "redis: hunter2",
        "hunter2",
        "api_key: {a: hunter2",
        "port: hunter2",
        "vllm_args: hunter2",
        "boot_local: false\napi_key: hunter2",
        "redis: {password: hunter2, url: 'redis://:hunter2@h'}",
    ],
)
def test_a_secret_is_never_repeated(file: Path, text: str) -> None:
    """However it went wrong: errors end up in logs and in bug reports."""
    assert "hunter2" not in "\n".join(told(file, text))


def test_a_numeric_secret_is_not_repeated_either(file: Path) -> None:
    """Elsewhere the number is shown."""
    assert told(file, "redis: {password: 71936}") == ["F:1: redis.password: is a number; give a text, in quotes"]


@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}#&*!|>'\"%@,? \n\t01.~<\\=redis"), max_size=60))
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_loads_or_is_a_usage_error(file: Path, text: str) -> None:
    """Nothing else gets out, whatever the file holds."""
    file.write_text(text, encoding="utf-8")

    try:
        load_settings(file, {}, {})
    except UsageError as error:
        assert all(line.startswith(str(file)) for line in str(error).split("\n"))  # noqa: PT017 - most texts are errors, some are not
