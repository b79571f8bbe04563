"""The end of a batch: what was answered, what failed, and what was never asked, each in its file, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchfleet.gateway.batch_file import ENDPOINTS, check_batch_file, source_of
from batchfleet.gateway.batch_output import BatchFacts, unasked_ids, write_results
from batchfleet.gateway.store import NAME, Store
from producer.answers.answers_file import AnswersFile
from producer.options import ReadingLimits
from producer.resume import FileRun, take_stock
from tests.builders import an_answer
from wire.errors import UsageError
from wire.failures import error_of
from wire.messages import Failure

LIMITS = ReadingLimits()


def a_batch(folder: Path, count: int) -> FileRun:
    """The run of a batch with so many requests, r0 and on."""
    body = {"model": "stub", "messages": [{"role": "user", "content": "Why?"}]}
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": ENDPOINTS[0], "body": body} for number in range(count)
    ]
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = check_batch_file(folder / "in.jsonl", ENDPOINTS[0], LIMITS)
    assert found.checked is not None
    return FileRun("batch_1", source_of(folder / "in.jsonl"), found.checked, LIMITS, "stub", {"count": str(count)})


def lines_of(path: Path) -> list[dict[str, object]]:
    """What a file of JSON Lines says."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_expired_batch_keeps_what_is_done_and_names_the_rest(tmp_path: Path) -> None:
    """Answers in the output; in the error file failures, those taken back, and those never asked. A torn line is none.

    What a process left half written that died here is begun anew.
    """
    what, journal = a_batch(tmp_path, 5), tmp_path / "journal.jsonl"
    failures = [error_of("prompt_too_long", "too long"), error_of("cancelled", "cancelled")]
    with AnswersFile(journal) as answers:
        take_stock(what, answers)
        answers.write([an_answer("r0", index=0)])
        answers.write(
            [
                Failure(run="batch_1", index=n, request_id=f"r{n}", attempts=1, error=error)
                for n, error in enumerate(failures, 1)
            ]
        )
    with journal.open("a") as file:
        file.write('{"id":"r3","status":"answ')
    (tmp_path / "out.half").write_text("half")
    with AnswersFile(journal) as answers:
        state = take_stock(what, answers)

    to = tmp_path / "out", tmp_path / "errors"
    result = write_results(journal, to, BatchFacts(ENDPOINTS[0], 1, "expired"), unasked_ids(what, state), lambda: None)

    assert [line["custom_id"] for line in lines_of(tmp_path / "out")] == ["r0"]
    errors = {line["custom_id"]: line for line in lines_of(tmp_path / "errors")}
    assert errors["r1"]["response"]["body"]["error"]["code"] == "context_length_exceeded"  # type: ignore[index]
    assert [errors[name]["error"]["code"] for name in ("r2", "r3", "r4")] == ["batch_expired"] * 3  # type: ignore[index]
    assert (len(errors), result.completed, result.failed) == (4, 1, 4)


def test_a_batch_without_failures_has_no_error_file(tmp_path: Path) -> None:
    """And one without answers no output, as with OpenAI."""
    what, journal = a_batch(tmp_path, 1), tmp_path / "journal.jsonl"
    with AnswersFile(journal) as answers:
        take_stock(what, answers)
        answers.write([an_answer("r0", index=0)])
        state = take_stock(what, answers)

    facts = BatchFacts(ENDPOINTS[0], 1, "cancelled")
    write_results(journal, (tmp_path / "o", tmp_path / "e"), facts, unasked_ids(what, state), lambda: None)

    assert (tmp_path / "o").exists()
    assert not (tmp_path / "e").exists()
    assert not list(tmp_path.glob("*.half"))


def test_a_folder_of_a_newer_gateway_is_left_alone(tmp_path: Path) -> None:
    """Its tables may mean something else; the error says what to do."""
    store = Store(tmp_path)
    with store.transaction() as database:
        database.execute("PRAGMA user_version = 999")
    store.close()

    with pytest.raises(UsageError, match=rf"{NAME} was written by a newer batchfleet .* upgrade this one"):
        Store(tmp_path)
