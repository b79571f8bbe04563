"""The input file of a batch: what fails it, with OpenAI's codes and line numbers, and what does not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from batchfleet.gateway.batch_file import ENDPOINTS, MOST_PROBLEMS, check_batch_file
from producer.options import ReadingLimits

CHAT = ENDPOINTS[0]


def a_line(custom_id: object = "r1", **changed: object) -> dict[str, Any]:
    """A request of OpenAI's guide; `changed` replaces a field, None takes it out."""
    body = {"model": "stub", "messages": [{"role": "user", "content": "Why?"}]}
    fields = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **changed}
    return {name: value for name, value in fields.items() if value is not None}


def checked(path: Path, *lines: object) -> list[tuple[str, int | None, str | None]]:
    """Code, line and parameter of each problem of a file with these lines; texts stand as they are."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text)
    found = check_batch_file(path, CHAT, ReadingLimits())
    return [(problem.code, problem.line, problem.param) for problem in found.problems]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ("{not json}", ("invalid_json_line", 3, None)),
        ("[1, 2]", ("invalid_json_line", 3, None)),
        (a_line(None), ("missing_required_parameter", 3, "custom_id")),
        (a_line("r2", method=None), ("missing_required_parameter", 3, "method")),
        (a_line("r2", url=None), ("missing_required_parameter", 3, "url")),
        (a_line("r2", body=None), ("missing_required_parameter", 3, "body")),
        (a_line("r2", body={"messages": []}), ("missing_required_parameter", 3, "body.model")),
        (a_line("r2", body={"model": "gpt-4o", "messages": []}), ("model_mismatch", 3, "body.model")),
        (a_line("r2", url="/v1/completions"), ("url_mismatch", 3, "url")),
        (a_line("r2", method="GET"), ("invalid_method", 3, "method")),
        (a_line(7), ("invalid_custom_id", 3, "custom_id")),
        (a_line("x" * 600), ("invalid_custom_id", 3, "custom_id")),
        (a_line("r2", body="text"), ("invalid_body", 3, "body")),
        (a_line("r1"), ("duplicate_custom_id", 3, "custom_id")),
    ],
)
def test_a_bad_line_is_told_by_code_and_number(tmp_path: Path, bad: object, expected: tuple[str, int, str]) -> None:
    """Blank lines count as lines; the good ones beside it are not complained of."""
    assert checked(tmp_path / "in.jsonl", a_line("r1"), "", bad, a_line("r9")) == [expected]


def test_all_bad_lines_are_listed_in_order_up_to_a_bound(tmp_path: Path) -> None:
    """Whatever is wrong with each; a file of nothing but bad lines is not read to its end."""
    several = checked(tmp_path / "a.jsonl", "oops", a_line("r1"), a_line("r1"), a_line("r2", method="PUT"))
    assert several == [("invalid_json_line", 1, None), ("invalid_method", 4, "method")]
    mixed = checked(tmp_path / "b.jsonl", a_line("r1"), a_line("r2", method="PUT"), a_line("r1"))
    assert mixed == [("invalid_method", 2, "method"), ("duplicate_custom_id", 3, "custom_id")]
    assert len(checked(tmp_path / "c.jsonl", *["{"] * (2 * MOST_PROBLEMS))) == MOST_PROBLEMS


@pytest.mark.parametrize("content", [b"", b"\n \n\n", b"\xef\xbb\xbf\n"])
def test_a_file_without_a_request_is_empty(tmp_path: Path, content: bytes) -> None:
    """Blank lines are no requests."""
    (tmp_path / "in.jsonl").write_bytes(content)

    assert [problem.code for problem in check_batch_file(tmp_path / "in.jsonl", CHAT, ReadingLimits()).problems] == [
        "empty_file"
    ]


def test_what_is_packed_is_never_unpacked(tmp_path: Path) -> None:
    """A kilobyte may stand for gigabytes: compressed files are refused as they are, and so is anything binary."""
    bomb = gzip.compress(json.dumps(a_line()).encode() + b"\n" + b"\n" * 10_000_000)
    for content in (bomb, b"PK\x03\x04....", b"PAR1\x00", b"\x28\xb5\x2f\xfd\x00"):
        (tmp_path / "in.jsonl").write_bytes(content)
        found = check_batch_file(tmp_path / "in.jsonl", CHAT, ReadingLimits())
        assert [(problem.code, problem.line) for problem in found.problems] == [("invalid_json_line", 1)]
        assert "not compressed" in found.problems[0].message


def test_a_fault_of_one_request_fails_that_request_alone(tmp_path: Path) -> None:
    """A parameter that nobody knows, no messages, a stream: the batch goes on without them, as OpenAI's does."""
    bad: list[dict[str, Any]] = [{"max_tokens": "many"}, {"messages": []}, {"stream": True}]
    body: dict[str, Any] = {"model": "stub", "messages": [{"role": "user", "content": "Why?"}]}
    lines = [a_line(f"r{number}", body={**body, **more}) for number, more in enumerate(bad)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, a_line("good")]))

    found = check_batch_file(tmp_path / "in.jsonl", CHAT, ReadingLimits())

    assert not found.problems
    assert found.checked is not None
    assert (found.checked.count, found.checked.invalid, found.model) == (4, 3, "stub")


def test_a_line_that_is_too_long_is_passed_over_without_being_held(tmp_path: Path) -> None:
    """Its number is told, and what is allowed."""
    (tmp_path / "in.jsonl").write_text(f"{json.dumps(a_line())}\n{json.dumps(a_line('x', body={'model': 'x' * 5000}))}")

    (problem,) = check_batch_file(tmp_path / "in.jsonl", CHAT, ReadingLimits(1000)).problems

    assert (problem.code, problem.line) == ("invalid_json_line", 2)
    assert "at most 1000 are allowed" in problem.message
