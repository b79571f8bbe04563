"""`up --workers MIN:MAX`: workers come with the backlog, and go when it has."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from batchfleet.gateway.models import Models, ServedModel
from batchfleet.runs.unserved import REPEAT_S, UnservedNotice, tell_awaited
from batchfleet.status.advice import model_without_worker
from batchfleet.status.host_reports import read_hosts
from batchfleet.status.read import read_status
from batchfleet.status.served import served_models
from batchfleet.status.workers import see_workers
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.host_control import HostReporter
from producer.options import ReadingLimits
from producer.questions.question_file import check_questions
from producer.resume import FileRun
from tests.builders import a_source
from tests.long_running import CLOCKED, Home, up
from tests.processes import Processes, batchfleet, read_answers, wait_until, write_questions
from wire.address import RedisAddress
from wire.connection import connect_async
from wire.keys import Keys


def test_workers_follow_the_backlog_from_zero_and_back_twice(tmp_path: Path) -> None:
    """Each question is answered once, at its first attempt, and nobody is told that no worker serves the model."""
    home = Home(Path(tempfile.mkdtemp(prefix="bf-up-")))  # The path of a socket has to be short.
    with (
        Processes(home.url, tmp_path, {**CLOCKED, "BATCHFLEET_LEASES_BATCH_S": "100"}) as machine,
        redis.Redis(unix_socket_path=f"{home.folder}/redis.sock") as client,
    ):
        # Sixteen questions in flight at most: the backlog is worth all three before anything is measured.
        settings = {"PROCESSING_PARALLEL_WORKERS": "1", "PROCESSING_SCALE_DOWN_S": "1"}
        up(machine, home, "--workers", "0:3", **settings)
        wait_until(lambda: "up with Redis" in machine.log("up") and read_hosts(client, Keys()), "the host reports")
        for name in ("first", "second"):
            ids = write_questions(tmp_path / f"{name}.jsonl", 300, name)
            machine.submit(tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out", name=name)
            assert machine.finish(name) == 0
            lines = read_answers(tmp_path / f"{name}.out")
            assert Counter(line["id"] for line in lines) == Counter(ids)
            assert {line["attempts"] for line in lines} == {1}
            assert "no worker serves" not in machine.log(name)
            wait_until(lambda: read_hosts(client, Keys())[0].workers == 0, "none is wanted, and none holds work")
            wait_until(lambda: not see_workers(client, Keys()), "all have gone")
        shown = batchfleet("status", "--redis", home.url).stdout

    assert ": 0 workers of 0:3, 0 wanted for stub" in shown
    assert "starting worker-3" in machine.log("up")
    shutil.rmtree(home.folder)


def test_workers_on_loan_are_given_back(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """An `up` that begins with all its workers ends once none has anything to do; another one once Redis is gone."""
    ids = write_questions(tmp_path / "questions.jsonl", 300)
    borrowed = ("up", "--engine", "stub", "--batchers", "0", "--state")
    with Processes(redis_server.url, tmp_path, CLOCKED) as machine:
        machine.batcher()
        machine.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        leaving = (*borrowed, str(tmp_path / "first"), "--workers", "0:2", "--leave-idle")
        machine.start("first", *leaving, PROCESSING_SCALE_DOWN_S="1")
        machine.start("second", *borrowed, str(tmp_path / "second"), "--redis-patience", "1")

        assert machine.finish("producer") == 0
        assert machine.finish("first") == 0
        assert "starting worker-2" in machine.log("first")
        wait_until(lambda: "1 running" in machine.log("second"), "the other one is there")
        assert machine.started["second"].poll() is None
        assert redis_server.process
        redis_server.process.kill()
        assert machine.finish("second") == 3

    assert Counter(line["id"] for line in read_answers(tmp_path / "answers.jsonl")) == Counter(ids)


def test_a_model_whose_workers_are_yet_to_be_started_is_served(
    redis_server: EmbeddedServer, client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At zero workers, `submit`, the gateway, the notice and the advice know the model of a host that may have some.

    Of one that may have none, they do not; the gateway also knows those of `processing.scaled_models`.
    """
    keys, address = Keys(), RedisAddress(redis_server.url)
    host = HostReporter(client, keys, 60.0)
    write_questions(tmp_path / "questions.jsonl", 3)
    client.xadd(keys.questions("stub", 0), {"q": b"", "r": b""})
    client.sadd(keys.queues, "stub:0")
    source = a_source(tmp_path / "questions.jsonl")
    checked = check_questions(source, ReadingLimits())
    run = FileRun("run-1", source, checked, ReadingLimits(), "stub", {})

    def told() -> str:
        began = time.monotonic()
        notice = UnservedNotice(run, served_models(address), began)
        notice.look(read_status(client, keys), began + REPEAT_S)
        return "".join((*model_without_worker(read_status(client, keys)), capsys.readouterr().err))

    async def of_gateway(*scaled: str) -> dict[str, ServedModel]:
        async with connect_async(address) as waiting:
            return await Models(waiting, keys, None, scaled).served()

    host.report({"workers": 0, "leaving": 0, "model": "stub", "least": 0, "most": 8, "wanted": 1})
    assert (served_models(address), told()) == (["stub"], "")
    assert asyncio.run(of_gateway()) == {"stub": ServedModel("stub", 0, 0)}

    host.report({"workers": 0, "leaving": 0, "model": "", "least": 0, "most": 0, "wanted": 0})
    assert (served_models(address), asyncio.run(of_gateway())) == ([], {})
    assert told().count("no worker serves") == 3
    assert asyncio.run(of_gateway("elsewhere")) == {"elsewhere": ServedModel("elsewhere", 0, 0)}

    # What a batcher was told of, as in the chart for Kubernetes, counts like a host's word.
    client.hset(keys.batchers, "b1", json.dumps({"state": "leading", "scaled_models": ["stub"]}))
    assert (served_models(address), told()) == (["stub"], "")
    tell_awaited(run, read_status(client, keys), ())
    assert "no worker of 'stub' runs yet; the fleet starts workers" in capsys.readouterr().err
