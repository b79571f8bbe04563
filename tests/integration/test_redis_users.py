"""The user of deploy/redis-users.acl: a fleet works as that user, and the user may do nothing that no fleet needs."""

from __future__ import annotations

import itertools
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis

from batcher.handover import HandOver
from batcher.leadership import Leadership
from tests.hostile.attacks import JOBS, KEYS, MODEL
from tests.hostile.commands_in_code import commands_in_code
from tests.integration.test_fences import put_question
from tests.processes import PATIENCE_S, ROOT, Processes, batchfleet, read_answers, wait_until, write_questions
from tests.redis_servers import Server, free_port, running
from wire.errors import LeaseLostError

PASSWORD = "not-a-secret"  # noqa: S105 (of a server that lives for a test)
LEASES = {"BATCHFLEET_LEASES_HEARTBEAT_S": "0.2", "BATCHFLEET_LEASES_LEADER_S": "1", "BATCHFLEET_LEASES_BATCH_S": "0.8"}
USERS = (ROOT / "deploy" / "redis-users.acl").read_text()
ALLOWED = {word.removeprefix("+") for word in USERS.splitlines()[-1].split() if word.startswith("+")}
FOR_ALL = {"auth", "hello", "quit", "reset"}
PARENTS = {"acl", "client", "config", "memory", "script", "xinfo"}
"""Commands that are many, by their second word."""


class Guarded:
    """A server with those users, whose passwords are changed.

    The fleet's way to it is TCP, the administrator's is its socket.
    """

    def __init__(self, server: Server, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self.admin = redis.Redis.from_url(server.url, protocol=2, username="admin", password=f"{PASSWORD}2")
        self.fleet = redis.Redis.from_url(self.url, protocol=2, username="fleet", password=PASSWORD)
        self.anybody = redis.Redis.from_url(server.url, protocol=2)
        self.environ = {**LEASES, "BATCHFLEET_REDIS_USERNAME": "fleet", "BATCHFLEET_REDIS_PASSWORD": PASSWORD}

    def command(self, *arguments: str, **environ: str) -> int:
        """Run a command as that user; returns its exit code."""
        settings: Mapping[str, str] = {f"BATCHFLEET_{key}": value for key, value in environ.items()}
        return batchfleet(*arguments, environ={**self.environ, "BATCHFLEET_REDIS_URL": self.url, **settings}).returncode


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="bf-test-") as made:
        yield Path(made)


@pytest.fixture
def guarded(folder: Path) -> Iterator[Guarded]:
    """Nothing is in it."""
    assert USERS.count(">change-this") == 2
    (folder / "users.acl").write_text(
        USERS.replace(">change-this-too", f">{PASSWORD}2").replace(">change-this", f">{PASSWORD}")
    )
    port = free_port()
    with running(folder, "--aclfile", str(folder / "users.acl"), "--bind", "127.0.0.1", "--port", str(port)) as server:
        yield Guarded(server, port)


class Recorded:
    """In a `with` block: every command that comes over TCP or from a script, as Redis' own MONITOR shows them."""

    def __init__(self, admin: redis.Redis) -> None:
        self._admin = admin
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.commands: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(PATIENCE_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admin.echo("that was all")
        self._thread.join(PATIENCE_S)

    def _listen(self) -> None:
        with self._admin.monitor() as monitor:
            self._begun.set()
            for seen in monitor.listen():
                words = seen["command"].lower().split()
                if seen["client_type"] != "unix":
                    self.commands.add("|".join(words[:2]) if words[0] in PARENTS else words[0])
                elif words[0] == "echo":
                    return


def has_accepted(guarded: Guarded, run: str) -> bool:
    """Whether all questions of a run are with the fleet."""
    return guarded.admin.hget(KEYS.run(run), "accepted") == b"60"


def everyday(guarded: Guarded, fleet: Processes) -> None:
    """A run, another that overtakes it, and every command that a person may give."""
    for name, priority in (("r", ""), ("urgent", ', "priority": 9')):
        write_questions(fleet.folder / f"{name}.jsonl", 60, prefix=name)
        text = (fleet.folder / f"{name}.jsonl").read_text()
        (fleet.folder / f"{name}.jsonl").write_text(text.replace("}\n", f'{priority}, "deadline_s": 600}}\n'))
        fleet.submit(fleet.folder / f"{name}.jsonl", fleet.folder / f"{name}.out", "--run", name, name=name)
        wait_until(partial(has_accepted, guarded, name), "all are queued")
    fleet.batcher()
    wait_until(lambda: guarded.admin.llen(KEYS.rq_queue(MODEL)) == 8, "all are in batches")
    fleet.worker()
    assert [fleet.finish(name) for name in ("r", "urgent")] == [0, 0]
    workers: Any = guarded.admin.zrange(KEYS.workers, 0, 0)
    for command in (
        ["status"],
        ["verify", "r"],
        ["health"],
        ["cancel", "r"],
        ["forget", "r"],
        ["drain", workers[0].decode()],
    ):
        assert guarded.command(*command) == 0, command
    assert fleet.finish("worker") == 0


def damage(guarded: Guarded, fleet: Processes) -> None:
    """What cannot be read is put aside, and a person sees to it."""
    fleet.worker("mender")
    wait_until(lambda: "serves" in fleet.log("mender"), "a worker serves")
    JOBS[0].write(guarded.admin, fleet.folder / "marker")
    guarded.admin.delete(KEYS.suspects(MODEL))
    guarded.admin.set(KEYS.suspects(MODEL), "not a list")
    wait_until(lambda: guarded.admin.xlen(KEYS.dead) == 2, "two dead letters")
    entries: Any = guarded.admin.xrange(KEYS.dead)
    letters = [entry.decode() for entry, _ in entries]
    said = {
        "list": 0,
        f"show {letters[0]}": 0,
        f"retry {letters[0]}": 2,
        f"drop {letters[1]}": 0,
        f"drop {letters[0]}": 0,
    }
    for words, code in said.items():
        assert guarded.command("dead", *words.split()) == code, words
    # A second signal gives back what it holds, be it nothing.
    fleet.kill("mender", signal.SIGTERM)
    assert fleet.finish("mender") == 0


def a_culprit(guarded: Guarded, fleet: Processes) -> None:
    """Workers die of a question, which is isolated and given up."""
    (fleet.folder / "culprit.jsonl").write_text('{"id": "k", "question": "KILLER"}\n')
    fleet.submit(fleet.folder / "culprit.jsonl", fleet.folder / "culprit.out", name="culprit")
    lives = itertools.count()
    name = ""

    def over() -> bool:
        nonlocal name
        if not name or fleet.started[name].poll() is not None:
            name = f"life-{next(lives)}"
            fleet.worker(name, STUB_CRASH_ON="KILLER")
        return fleet.started["culprit"].poll() is not None

    wait_until(over, "the culprit is found")
    assert [answer["error"]["kind"] for answer in read_answers(fleet.folder / "culprit.out")] == ["engine_killed"]
    fleet.kill("batcher", signal.SIGTERM)
    assert fleet.finish("batcher") == 0
    assert guarded.admin.exists(KEYS.leader) == 0


def a_lost_lease(guarded: Guarded) -> None:
    """A batcher that does not lead any more, and does not know it, hands nothing over."""
    lost = Leadership(guarded.fleet, KEYS, "lost", lease_s=60.0, renew_s=60.0)
    lost.hold()
    question = put_question(guarded.admin)
    guarded.admin.set(KEYS.leader, "another")
    with pytest.raises(LeaseLostError):
        HandOver(guarded.fleet, KEYS, lost).commit(MODEL, 0, [[question]])


def test_the_user_may_run_what_a_fleet_runs_and_nothing_else(guarded: Guarded, folder: Path) -> None:
    """Whatever was seen or stands in the code is allowed, and nothing that is neither.

    And Redis has refused nothing.
    """
    with Recorded(guarded.admin) as recorded:
        with Processes(guarded.url, folder, guarded.environ) as fleet:
            everyday(guarded, fleet)
            damage(guarded, fleet)
            a_culprit(guarded, fleet)
        a_lost_lease(guarded)

    # AUTH is everybody's. What is allowed besides is in the code, on paths that this run does not take.
    assert recorded.commands - {"auth"} <= ALLOWED
    everything: Any = guarded.admin.command()
    assert commands_in_code(everything) - FOR_ALL <= ALLOWED
    assert recorded.commands | commands_in_code(everything) >= ALLOWED
    # Libraries say who they are, which nobody needs to allow.
    refused = [entry for entry in guarded.admin.acl_log() if "client" not in str(entry["object"])]
    assert refused == [], [(entry["reason"], entry["object"]) for entry in refused]


FORBIDDEN: list[list[str]] = [
    ["FLUSHALL"],
    ["FLUSHDB"],
    ["CONFIG", "GET", "*"],
    ["CONFIG", "SET", "dir", "/"],
    ["KEYS", "*"],
    ["SHUTDOWN"],
    ["DEBUG", "SLEEP", "0"],
    ["ACL", "LIST"],
    ["CLIENT", "KILL", "TYPE", "normal"],
    ["MONITOR"],
    ["REPLICAOF", "NO", "ONE"],
    ["MODULE", "LIST"],
    ["GET", "another-application"],
    ["SET", "another-application", "x"],
    ["RENAME", "batchfleet:pending", "another-application"],
    ["RESTORE", "batchfleet:x", "0", "x"],
    ["SCRIPT", "FLUSH"],
    ["PUBLISH", "channel", "x"],
]


def test_the_fleets_user_may_do_nothing_else(guarded: Guarded) -> None:
    """Neither the server nor the keys of others are its to touch, not from a script either."""
    for command in FORBIDDEN:
        # Redis 7 allows DEBUG to nobody, in other words.
        with pytest.raises(redis.ResponseError, match=r"permission|not allowed"):
            guarded.fleet.execute_command(*command)
    for key in ("another-application", "rq:queue:another"):
        script = guarded.fleet.script_load(f"return redis.call('SET', '{key}', 'x')")
        with pytest.raises(redis.ResponseError, match=r"can't access|NOPERM|No permissions"):
            guarded.fleet.evalsha(script, 0)
        with pytest.raises(redis.ResponseError, match=r"can't access|NOPERM|No permissions"):
            guarded.fleet.eval(f"return redis.call('GET', '{key}')", 0)
    with pytest.raises(redis.exceptions.AuthenticationError):
        guarded.anybody.ping()
