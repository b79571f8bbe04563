"""The same submission continues; anything else is refused, with the difference named.

And what a producer does when Redis is away.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import redis

from batchfleet.runs.run_request import RunRequest, prepare
from batchfleet.settings import to_options
from batchfleet.settings.load import load_settings
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from producer import run_loop as run_module
from producer.answers.answers_file import AnswersFile
from producer.file_run import Runner
from producer.resume import take_stock
from producer.run_tally import RunTally
from tests.processes import Processes, batchfleet, lines_in, read_answers, wait_until, write_questions


def test_a_run_id_that_was_used_for_something_else_is_refused(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """Also with another answers file: what Redis knows of the run is compared, and what differs is named."""
    write_questions(tmp_path / "questions.jsonl", 3)
    write_questions(tmp_path / "others.jsonl", 3, prefix="o")
    submit = ("submit", "--model", "stub", "--run", "mine", "--redis", redis_server.url)
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker()
        first = batchfleet(*submit, str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "a.jsonl"))
        same = batchfleet(*submit, str(tmp_path / "questions.jsonl"), "-o", str(tmp_path / "a.jsonl"))
        others = batchfleet(*submit, str(tmp_path / "others.jsonl"), "-o", str(tmp_path / "b.jsonl"))
        warmer = batchfleet(
            *submit,
            str(tmp_path / "questions.jsonl"),
            "-o",
            str(tmp_path / "c.jsonl"),
            environ={"BATCHFLEET_TEMPERATURE": "0.5"},
        )

    assert (first.returncode, same.returncode, others.returncode, warmer.returncode) == (0, 0, 2, 2)
    assert "run mine exists and was made of something else; different: questions (" in others.stderr
    assert """different: parameters (the workers' own then, {"temperature": 0.5} now)""" in warmer.stderr


def test_another_template_under_the_same_file_name_is_another_run(tmp_path: Path) -> None:
    """What a template says counts, not what its file is called."""
    write_questions(tmp_path / "questions.jsonl", 3)
    template = tmp_path / "template.jinja"
    arguments = (
        "run",
        str(tmp_path / "questions.jsonl"),
        "-o",
        str(tmp_path / "answers.jsonl"),
        "--engine",
        "stub",
        "--run",
        "mine",
    )
    environ = {"BATCHFLEET_CHAT_TEMPLATE": str(template)}

    template.write_text("{{ messages[0].content }}")
    first = batchfleet(*arguments, environ=environ)
    template.write_text("Be brief. {{ messages[0].content }}")
    changed = batchfleet(*arguments, environ=environ)

    assert (first.returncode, changed.returncode) == (0, 2), first.stderr
    assert "template (" in changed.stderr


def test_sampling_that_the_producer_sets_is_used(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """What it does not set is the workers' to say, and what a question brings itself wins over both."""
    lines = [{"id": "plain", "question": "Why?"}, {"id": "own", "question": "Why?", "params": {"max_tokens": 9}}]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        fleet.worker(MAX_TOKENS="50", TEMPERATURE="0.3")
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "set.jsonl", name="set", MAX_TOKENS="7")
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "unset.jsonl", name="unset")
        assert fleet.finish("set") == fleet.finish("unset") == 0

    def used(name: str) -> dict[str, tuple[int, float]]:
        return {
            line["id"]: (line["params"]["max_tokens"], line["params"]["temperature"])
            for line in read_answers(tmp_path / name)
        }

    assert used("set.jsonl") == {"plain": (7, 0.3), "own": (9, 0.3)}
    assert used("unset.jsonl") == {"plain": (50, 0.3), "own": (9, 0.3)}


def test_a_redis_that_goes_before_the_last_settle_does_not_spoil_a_complete_run(
    tmp_path: Path, redis_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is on disk; that Redis could not be told so is no failure of the run."""
    monkeypatch.setattr(run_module, "LAST_SETTLE_S", 0.2)
    (tmp_path / "questions.jsonl").write_text("not JSON\n" * 50)
    settings = load_settings(None, {"BATCHFLEET_REDIS_URL": redis_server.url}, {}).settings
    asking = RunRequest((str(tmp_path / "questions.jsonl"),), tmp_path / "answers.jsonl", skip_invalid=True)
    what = prepare(asking, settings, "stub", {})

    def kill_redis_at_the_end(tally: RunTally) -> None:
        if tally.on_disk == tally.questions and redis_server.process is not None:
            stop_all([redis_server.process], grace_s=5)

    with AnswersFile(asking.answers) as answers:
        stock = take_stock(what, answers)
        runner = Runner(
            what,
            stock,
            answers,
            to_options.redis_address(settings),
            to_options.producer_options(settings),
            observe=kill_redis_at_the_end,
        )
        tally = runner.run()

    assert (tally.on_disk, lines_in(asking.answers)) == (50, 50)


def test_a_producer_waits_for_a_redis_that_is_away_says_so_and_stops_in_the_end(
    tmp_path: Path, redis_server: EmbeddedServer
) -> None:
    """After `redis.patience_s`, with exit code 3; the same command resumes the run once Redis is back."""
    ids = write_questions(tmp_path / "questions.jsonl", 400)
    slow = {"BATCHFLEET_STUB_STEP_S": "0.02"}
    with Processes(redis_server.url, tmp_path, slow) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "patient", REDIS_PATIENCE_S="7")
        wait_until(lambda: lines_in(tmp_path / "answers.jsonl") > 10, "the first answers")
        assert redis_server.process is not None
        stop_all([redis_server.process], grace_s=10)
        assert fleet.finish("producer") == 3
        said = fleet.log("producer")
        redis_server.start()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "patient", name="again")
        assert fleet.finish("again") == 0
    assert said.count("does not answer") >= 2, "while it waits, and at the end"
    assert "for 7 s; the same command resumes the run" in said
    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)


def test_a_cancelled_run_says_how_to_ask_the_rest(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Its window was smaller than the file, so that some was never accepted: exit code 3, and what to do."""
    write_questions(tmp_path / "questions.jsonl", 300)
    with Processes(redis_server.url, tmp_path, {"BATCHFLEET_LIMITS_RUN_WINDOW": "100"}) as fleet:
        fleet.batcher()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", "--run", "unwanted")
        wait_until(lambda: client.hget("batchfleet:run:unwanted", "accepted") == b"100", "the window is full")
        assert batchfleet("cancel", "unwanted", "--redis", redis_server.url).returncode == 0
        assert fleet.finish("producer") == 3
        said = fleet.log("producer")
    assert (
        "run unwanted was cancelled; 100 of 300 questions have a line. To ask the rest, choose another --run and -o"
        in said
    )
