"""Identical questions are asked once, within a run and between runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.processes import batchfleet, read_answers


def test_identical_questions_are_asked_once(tmp_path: Path) -> None:
    """Each has its line and says whose answer it is; with the cache a later run of the same asks nobody."""
    questions, answers, cache = tmp_path / "q.jsonl", tmp_path / "a.jsonl", str(tmp_path / "cache")
    questions.write_text(
        "".join(json.dumps({"id": f"q{n}", "question": f"What is {n % 3}?"}) + "\n" for n in range(30))
    )
    command = ["run", "--engine", "stub", "--cache", cache, str(questions)]

    first = batchfleet(*command, "-o", str(answers))
    # Under other ids the questions are others; what they ask is the same.
    questions.write_text(questions.read_text().replace('"id": "q', '"id": "r'))
    second = batchfleet(*command, "-o", str(tmp_path / "b.jsonl"))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "3 accepted by the fleet" in first.stderr
    assert "ledger" not in second.stderr, "no fleet was started"
    found = {answer["id"]: answer for answer in read_answers(answers)}
    assert len(found) == answers.read_bytes().count(b"\n") == 30
    assert {name for name, answer in found.items() if "shared" not in answer} == {"q0", "q1", "q2"}
    assert all(found[f"q{n}"]["text"] == found[f"q{n % 3}"]["text"] for n in range(30))
    later = read_answers(tmp_path / "b.jsonl")
    assert len(later) == 30
    assert all(answer["shared"]["run"] and answer["attempts"] == 0 for answer in later)
    assert {answer["id"]: answer["text"] for answer in later} == {f"r{n}": found[f"q{n}"]["text"] for n in range(30)}
