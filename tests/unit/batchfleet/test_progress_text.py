"""What people read while a run is on and after it.

No negative numbers, no 0/s while something works, no 100 % before the end.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from batchfleet.humanize import about, duration, rate
from batchfleet.runs.eta import EtaEstimator, Sample
from batchfleet.runs.progress_text import ProgressSnapshot, beside_bar, counts, left, one_line, times, waits_for
from batchfleet.runs.resume_hint import command_again, how_to_go_on
from batchfleet.runs.summary import Outcome, as_text, save
from batchfleet.status.model import BatcherStatus, FleetStatus, QueueStatus, WorkerStatus
from producer.run_tally import RunTally
from tests.builders import an_answer
from wire.messages import ErrorDetail, Failure

JUST_NOW = time.monotonic() + 3600
"""However long the tests before take."""
LEADING = (BatcherStatus("b1", "leading"),)
QUEUES = (QueueStatus("stub", 500, 2, 64),)


def a_tally(**fields: Any) -> RunTally:  # noqa: ANN401 (any field of a tally)
    """1 000 questions, of which 250 are done and 600 more with the fleet."""
    defaults: dict[str, Any] = {
        "started": time.monotonic() - 60,
        "questions": 1000,
        "on_disk": 250,
        "answered": 248,
        "failed": 2,
        "sent": 850,
        "settled": 250,
    }
    return RunTally(**{**defaults, **fields})


def a_status(*workers: WorkerStatus, **fields: Any) -> FleetStatus:  # noqa: ANN401 (any field of a fleet)
    """Of a fleet that has 600 questions, and a leading batcher."""
    return FleetStatus(
        **{
            "queues": QUEUES,
            "workers": workers,
            "batchers": LEADING,
            "leader": "b1",
            "pending_questions": 600,
            **fields,
        }
    )


def a_standing(tally: RunTally, status: FleetStatus | None = None, *, silent_s: float = 0.0) -> ProgressSnapshot:
    """A moment of that run."""
    return ProgressSnapshot.of(tally, status, EtaEstimator(), silent_s=silent_s)


AT_WORK = WorkerStatus("w1", "running", "stub", capacity=64, in_flight=64)


def test_nobody_knows_how_long_workers_that_wait_will_wait() -> None:
    """While all of them do, no time is foretold, whatever the rate was before."""
    told = []
    for states in (["waiting", "waiting"], ["waiting", "running"]):
        estimator, tally = EtaEstimator(), a_tally()
        for second in range(30):
            estimator.observe(Sample(float(second), 10 * second, 100 * second), 1000 - 10 * second, 64)
        status = a_status(*(WorkerStatus(f"w{number}", state, "stub") for number, state in enumerate(states)))
        told.append(left(ProgressSnapshot.of(tally, status, estimator, silent_s=0.0)))

    assert told[0] == "no telling how long"
    assert told[1].startswith("about ")


def test_the_counts_add_up() -> None:
    """Answered, failed, in flight, queued and not sent are all questions."""
    assert (
        counts(a_standing(a_tally(), a_status(AT_WORK)))
        == "answered 248   failed 2   in flight 64   queued 536   not sent yet 150"
    )


def test_what_the_fleet_said_a_second_ago_gives_no_negative_numbers() -> None:
    """At the end its workers still seem to hold what we have already."""
    text = counts(a_standing(a_tally(on_disk=990, answered=988, sent=1000, settled=990), a_status(AT_WORK)))

    assert text == "answered 988   failed 2   in flight 10   queued 0"


def test_a_fleet_that_others_use_too_does_not_lend_us_its_figures() -> None:
    """Whose questions are in flight cannot be told then, so nobody claims to."""
    text = counts(a_standing(a_tally(), a_status(AT_WORK, pending_questions=90_000)))

    assert "with the fleet 600 (beside 89 400 of other runs)" in text
    assert "in flight" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_bar_is_as_long_as_there_is_room(width: int) -> None:
    """It goes rather than that the words beside it are broken."""
    words = times(a_standing(a_tally(questions=10_000_000, on_disk=1_234_567)))

    line = beside_bar(words, 1_234_567, 10_000_000, width)

    assert line.endswith(words)
    assert len(line) <= max(width, len(words))
    assert ("█" in line) == (width > len(words) + 8)


def test_100_percent_means_that_nothing_is_left() -> None:
    """999 of 1 000 are 99 %."""
    assert times(a_standing(a_tally(on_disk=999))).startswith("99%  999 of 1 000")


WAITS = {
    "Redis": (
        a_tally(waiting_for="Redis at redis://h does not answer"),
        None,
        0.0,
        "Redis at redis://h does not answer",
    ),
    "nobody leads": (
        a_tally(),
        a_status(AT_WORK, leader=""),
        5.0,
        "no batcher leads, so nothing is handed out (no answer for 5 s)",
    ),
    "starting": (
        a_tally(started=JUST_NOW),
        a_status(leader="", batchers=()),
        5.0,
        "starting: no batcher has reported yet (no answer for 5 s)",
    ),
    "no worker yet": (
        a_tally(started=JUST_NOW),
        a_status(),
        5.0,
        "starting: no worker has reported yet (no answer for 5 s)",
    ),
    "no workers": (a_tally(), a_status(), 5.0, "no worker serves stub (no answer for 5 s)"),
    "booting": (
        a_tally(),
        a_status(WorkerStatus("w1", "booting", "stub")),
        5.0,
        "1 engine still booting",
    ),
    "no GPUs": (
        a_tally(),
        a_status(WorkerStatus("w1", "standby", "stub", waits_for="no free GPU")),
        5.0,
        "no free GPU",
    ),
    "newer": (
        a_tally(),
        a_status(
            WorkerStatus("w1", "running", "stub", wire_version=8),
            queues=(QueueStatus("stub", newer_batches=1, newer_version=9),),
        ),
        5.0,
        "1 batch can only be read by workers of a newer version (no answer for 5 s)",
    ),
    "other model": (
        a_tally(),
        a_status(WorkerStatus("w1", "running", "llama")),
        5.0,
        "no worker serves stub (no answer for 5 s)",
    ),
    "long answers": (a_tally(), a_status(AT_WORK), 40.0, "no answer for 40 s; 1 worker at work on 64"),
    "a moment": (a_tally(), a_status(AT_WORK), 1.0, ""),
    "nothing asked": (a_tally(sent=250), a_status(), 50.0, ""),
}


@pytest.mark.parametrize(("tally", "status", "silent_s", "words"), WAITS.values(), ids=WAITS)
def test_what_is_waited_for_is_said(tally: RunTally, status: FleetStatus | None, silent_s: float, words: str) -> None:
    """And nothing while answers come."""
    standing = a_standing(tally, status, silent_s=silent_s)

    assert waits_for(standing) == words
    assert not words or words in one_line(standing)


def test_numbers_are_written_as_people_read_them() -> None:
    """Slow is not nothing, and an estimate has no seconds after an hour."""
    assert [rate(per_s, "answers") for per_s in (0.05, 3.14, 2733.4)] == [
        "3.0 answers/min",
        "3.1 answers/s",
        "2 733 answers/s",
    ]
    assert [duration(seconds) for seconds in (0.4, 59.7, 200, 7500, 273_600)] == [
        "0 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
        "3 d 4 h",
    ]
    assert [about(seconds) for seconds in (0.2, 17, 62, 433, 4000, 90_000)] == [
        "1 s",
        "17 s",
        "1 min 00 s",
        "7 min 10 s",
        "1 h 07 min",
        "1 d 1 h",
    ]


def test_the_summary_names_each_kind_of_failure_with_an_example(tmp_path: Path) -> None:
    """On the screen and in the file beside the answers."""
    tally = RunTally(4, started=1.0, ended=3.0)
    tally.count(an_answer(latency_s=0.5))
    for name in ("q2", "q3"):
        error = ErrorDetail(kind="prompt_too_long", message=f"{name} is too long")
        tally.count(Failure(run="run-1", index=0, request_id=name, error=error))
    tally.count(an_answer("q4", latency_s=1.5))
    outcome = Outcome("run-1", "stub", tally, gpu_s=8.0)

    saved = save(outcome, tmp_path / "answers.jsonl")
    text = as_text(outcome, tmp_path / "answers.jsonl", saved)

    assert "run run-1: 4 questions, 2 answered, 2 failed" in text
    assert "failed    2 x prompt_too_long, such as q2: q2 is too long" in text
    assert "GPUs      8 GPU-seconds were held by workers, 2.000 per question" in text
    record = json.loads((tmp_path / "answers.jsonl.summary.json").read_text())
    assert record["this_call"]["failures"] == {
        "prompt_too_long": {"count": 2, "example": {"id": "q2", "message": "q2 is too long"}}
    }
    assert (record["finished"], record["this_call"]["latency_p95_s"], record["this_call"]["questions_per_s"]) == (
        True,
        1.5,
        2.0,
    )
    assert math.isclose(record["this_call"]["gpu_s"], 8.0)


def test_a_call_that_adds_nothing_leaves_the_summary_alone(tmp_path: Path) -> None:
    """What the call before wrote of its work still holds."""
    (tmp_path / "answers.jsonl.summary.json").write_text("before")

    save(Outcome("run-1", "stub", RunTally(4, on_disk=4, answered=4, resumed=4)), tmp_path / "answers.jsonl")

    assert (tmp_path / "answers.jsonl.summary.json").read_text() == "before"


def test_the_command_to_go_on_is_the_one_that_was_given() -> None:
    """Quoted for a shell; a password does not stay on the screen."""
    argv = ["/venv/bin/batchfleet", "submit", "my questions.jsonl", "--redis", "redis://:secret@host"]
    assert command_again(argv) == "batchfleet submit 'my questions.jsonl' --redis redis://:********@host"
    assert command_again(["/x/batchfleet/__main__.py", "run", "q.jsonl"]) == "python -m batchfleet run q.jsonl"


def test_whoever_stops_a_run_hears_what_is_where() -> None:
    """On disk, with the fleet, not sent; for a fleet of its own, that the queue is gone."""
    told = how_to_go_on(a_tally(), Path("a.jsonl"), "batchfleet submit q", "batchfleet cancel r", kept_s=7 * 86_400)
    private = how_to_go_on(a_tally(), Path("a.jsonl"), "batchfleet run q", "batchfleet cancel r", kept_s=None)

    assert told.splitlines() == [
        "  250 of 1 000 questions have their line in a.jsonl",
        "  600 are queued or in work; the fleet continues with them and keeps their records for 7 days",
        "  150 were not sent yet",
        "  to resume:   batchfleet submit q",
        "  to give up:  batchfleet cancel r",
    ]
    assert "750 are open; this fleet and its queue end with the command" in private
    assert "cancel" not in private
