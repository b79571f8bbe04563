"""Logs for programs: one object a line, ids as fields, secrets nowhere."""

from __future__ import annotations

import json
import logging

import pytest

from batchfleet import logs
from batchfleet.humanize import MASK
from batchfleet.settings.mask import secret_texts
from batchfleet.settings.schema import Settings

log = logging.getLogger("gpu_worker.test")


def test_ids_are_fields_of_a_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A line break in a message is no second line."""
    logs.set_up("info", "json")

    log.warning("batch %s\nis late", "b7", extra={"batch": "b7", "run": "r1", "request": "q3"})

    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "gpu_worker.test",
        "message": "batch b7\nis late",
        "run": "r1",
        "batch": "b7",
        "request": "q3",
    }


def test_an_exception_is_a_field_too(capsys: pytest.CaptureFixture[str]) -> None:
    """With its traceback, still on one line."""
    logs.set_up("info", "json")
    try:
        json.loads("nothing")
    except ValueError:
        log.exception("failed")

    (line,) = capsys.readouterr().err.splitlines()
    assert "JSONDecodeError: Expecting value" in json.loads(line)["exception"]


@pytest.mark.parametrize("form", logs.FORMATS)
def test_secrets_are_masked_wherever_they_occur(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In messages, ids and tracebacks; the passwords of URLs even if nobody told us."""
    settings = Settings.model_validate(
        {
            "redis": {"url": "redis://:sw%40rdfish@host:1"},
            "model": {"generator_settings": {"api_key": "sk-12345", "vllm_args": {"hf_token": "hf_abcdef"}}},
        }
    )
    logs.set_up("info", form).learn(secret_texts(settings))
    try:
        int("sk-12345")
    except ValueError:
        log.exception("sw@rdfish sw%%40rdfish hf_abcdef at %s", "postgres://me:unknown@db/x", extra={"run": "sk-12345"})

    text = capsys.readouterr().err
    assert not [secret for secret in ("sw@rdfish", "sw%40rdfish", "hf_abcdef", "unknown", "sk-12345") if secret in text]
    assert f"postgres://me:{MASK}@db/x" in text
