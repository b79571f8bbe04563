"""`batchfleet retry`: what failed is asked again, and the answers file is whole all the while."""

from __future__ import annotations

from pathlib import Path

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions


def test_a_retry_that_is_killed_resumes_and_never_takes_a_line_away(
    tmp_path: Path, redis_server: EmbeddedServer
) -> None:
    """Failures keep their lines until others are there; killed in the middle, the same command asks only the rest."""
    ids = write_questions(tmp_path / "questions.jsonl", 60)
    answers, journal = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.retry"
    with Processes(redis_server.url, tmp_path, {"BATCHFLEET_STUB_STEP_S": "0.01"}) as fleet:
        fleet.batcher()
        fleet.worker("refusing", STUB_REFUSE_ON="Question q")
        # The first part of a file, so that what fails alike is not all there is.
        fleet.submit(tmp_path / "questions.jsonl", answers, "--run", "grows", "--keep-going")
        assert fleet.finish("producer") == 1
        fleet.kill("refusing")
        # One at a time, so that the retry can be killed in its middle.
        slowly = {"STUB_MIN_TOKENS": "10", "STUB_MAX_TOKENS": "10", "STUB_MAX_NUM_SEQS": "1"}
        fleet.worker("answering", **slowly)
        again = ("retry", str(answers), "--kind", "refused")
        fleet.start("first", *again)
        wait_until(lambda: lines_in(journal) > 3, "some are answered again")
        fleet.kill("first")
        assert [line["status"] for line in read_answers(answers)] == ["failed"] * 60
        done_before = {line["id"]: line["latency_s"] for line in read_answers(journal)}

        fleet.start("second", *again)
        assert fleet.finish("second") == 0, fleet.log("second")

    lines = read_answers(answers)
    assert sorted(line["id"] for line in lines) == sorted(ids)
    assert all(line["status"] == "answered" for line in lines)
    assert {line["id"]: line["latency_s"] for line in lines if line["id"] in done_before} == done_before
    assert not journal.exists()


def test_a_retry_needs_to_know_what_was_asked(tmp_path: Path) -> None:
    """A file that is of no run, and one whose command was not kept, are told in a line; nothing is asked."""
    (tmp_path / "answers.jsonl").write_text("")

    unknown = batchfleet("retry", str(tmp_path / "answers.jsonl"))
    (tmp_path / "answers.jsonl.run").write_text('{"run": "run-1", "fingerprint": {}}\n')
    not_kept = batchfleet("retry", str(tmp_path / "answers.jsonl"))

    assert (unknown.returncode, not_kept.returncode) == (2, 2)
    assert "no answers.jsonl.run says which run it is of" in unknown.stderr
    assert "run that command again with --retry" in not_kept.stderr
