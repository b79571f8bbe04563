"""The whole fleet in containers, scaled, killed and stopped under load: every question is answered once."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter

from tests.compose.composed import Composed
from tests.processes import lines_in, read_answers, wait_until, write_questions

CONFIG = "limits: {run_window: 20000}\n"


def summary(producer: subprocess.Popen[str]) -> dict[str, int]:
    """What a `submit --json` said in the end; it must have answered everything."""
    out, err = producer.communicate(timeout=200)
    assert producer.returncode == 0, err[-3000:]
    found: dict[str, int] = json.loads(out)
    return found


def assert_answered_once(fleet: Composed, ids: list[str], run: str) -> None:
    """Each question has one line, and the ledger agrees."""
    answers = read_answers(fleet.folder / "answers.jsonl")
    assert {answer["status"] for answer in answers} == {"answered"}
    assert Counter(answer["id"] for answer in answers) == Counter(ids)
    verified = fleet.ask("verify", run, "--json")
    assert verified.returncode == 0
    ledger = json.loads(verified.stdout)
    assert (ledger["answered"], ledger["missing"], ledger["duplicates"]) == (len(ids), 0, 0)


def test_20000_questions_while_the_fleet_grows_shrinks_and_loses_parts(fleet: Composed) -> None:
    """From one worker to four, two and three; then a worker and the leading batcher are killed, and Redis restarts.

    Nothing is lost or doubled. Scaling down is no accident: a worker that is told to go finishes what it has, so that
    until the first kill every answer was a first attempt.
    """
    fleet.configure(CONFIG)
    fleet.environ["STUB_STEP_S"] = "0.013"
    fleet.up(workers=1)
    ids = write_questions(fleet.folder / "questions.jsonl", 20_000)
    answers = fleet.folder / "answers.jsonl"
    producer = fleet.start("submit", "/data/questions.jsonl", "-o", "/data/answers.jsonl", "--run", "grows", "--json")
    wait_until(lambda: lines_in(answers) > 200, "answers come")

    for workers in (4, 2, 3):
        fleet.up("gpu-worker", workers=workers)
        assert len(fleet.containers("gpu-worker")) == workers
        so_far = lines_in(answers)
        wait_until(lambda so_far=so_far: lines_in(answers) > so_far, "they keep coming")  # type: ignore[misc]
    assert {answer["attempts"] for answer in read_answers(answers)} == {1}
    assert len(read_answers(answers)) < len(ids), "too fast: nothing was left when it became interesting"

    fleet.kill(fleet.containers("gpu-worker")[0])
    leader = next(batcher["name"] for batcher in fleet.status()["batchers"] if batcher["state"] == "leading")
    fleet.kill(leader.split("-")[0])
    so_far = lines_in(answers)
    wait_until(lambda: lines_in(answers) > so_far, "they keep coming without these two")
    assert len(read_answers(answers)) < len(ids)
    fleet.compose("restart", "redis")

    assert summary(producer)["answered"] == len(ids)
    assert_answered_once(fleet, ids, "grows")


def test_scaling_down_takes_less_than_the_grace_and_does_no_question_twice(fleet: Composed) -> None:
    """Workers that are told to go finish what they have, and none is killed.

    Three of four are told to go with their engines full of questions that take seconds. Each ends with code 0 by
    itself, and no question is given to a second worker, neither what they had nor what they gave back.
    """
    fleet.configure(CONFIG)
    fleet.environ["STUB_STEP_S"] = "0.06"
    fleet.up(workers=4)
    ids = write_questions(fleet.folder / "questions.jsonl", 1_500)
    answers = fleet.folder / "answers.jsonl"
    producer = fleet.start("submit", "/data/questions.jsonl", "-o", "/data/answers.jsonl", "--run", "shrinks", "--json")
    wait_until(lambda: all(worker["in_flight"] >= 64 for worker in fleet.workers("running")), "all four are full")
    before = fleet.containers("gpu-worker")
    grace_s = float(fleet.inspect(before[0], "{{.Config.StopTimeout}}"))

    since_s = time.time()
    fleet.up("gpu-worker", workers=1)
    returned_s = time.time() - since_s
    endings = fleet.endings(since_s)
    to_come = len(ids) - lines_in(answers)
    left = set(before) - set(fleet.containers("gpu-worker"))
    fleet.up("gpu-worker", workers=4)

    assert summary(producer)["answered"] == len(ids)
    assert_answered_once(fleet, ids, "shrinks")
    assert {answer["attempts"] for answer in read_answers(answers)} == {1}
    assert set(endings) == left
    assert len(left) == 3
    print(
        f"scaled down in {returned_s:.1f} s of {grace_s:.0f} s; workers took "
        f"{sorted(round(ending.took_s, 1) for ending in endings.values())} s"
    )
    assert {(ending.exit_code, ending.signals) for ending in endings.values()} == {(0, ("15",))}
    # Shorter than a second, and there was nothing to finish.
    assert all(1 < ending.took_s < grace_s for ending in endings.values())
    assert returned_s < grace_s
    assert to_come > 0, "too fast: nothing was left when it became interesting"


def test_questions_outlive_down_and_up(fleet: Composed) -> None:
    """5 000 wait, nobody answers; everything is taken down and comes up again; the same command fetches all answers."""
    fleet.configure(CONFIG)
    fleet.up(workers=0)
    ids = write_questions(fleet.folder / "questions.jsonl", 5_000)
    submit = (
        "submit",
        "/data/questions.jsonl",
        "-o",
        "/data/answers.jsonl",
        "--run",
        "waits",
        "--model",
        "stub",
        "--json",
    )
    producer = fleet.start(*submit)
    wait_until(
        lambda: json.loads(fleet.ask("verify", "waits", "--json").stdout or '{"accepted": 0}')["accepted"] == len(ids),
        "all are accepted",
    )
    fleet.stop_runs()
    producer.communicate(timeout=30)
    assert producer.returncode == 130

    fleet.compose("down")
    fleet.up(workers=2)

    assert summary(fleet.start(*submit))["answered"] == len(ids)
    assert_answered_once(fleet, ids, "waits")
