"""Redis as users run it: with users, TLS and client certificates; and one clear line where it cannot be used."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from batchfleet.cli.main import main
from tests.processes import Processes, read_answers, write_questions
from tests.redis_servers import behind_proxy, free_port, make_certificates, pretending, running, speaks_tls, with_tls

QUICK = {"BATCHFLEET_LEASES_HEARTBEAT_S": "0.2", "BATCHFLEET_LEASES_LEADER_S": "1", "BATCHFLEET_LEASES_BATCH_S": "2"}
PASSWORD = "not-a-secret"  # noqa: S105 (of a server that lives for a test)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets."""
    with tempfile.TemporaryDirectory(prefix="bf-test-") as made:
        yield Path(made)


def answers_a_file(fleet: Processes) -> None:
    """A batcher and a worker answer 40 questions."""
    ids = write_questions(fleet.folder / "questions.jsonl", 40)
    fleet.batcher()
    fleet.worker()
    fleet.submit(fleet.folder / "questions.jsonl", fleet.folder / "answers.jsonl", "--run", "r")
    assert fleet.finish("producer") == 0, fleet.log("producer") + fleet.log("worker") + fleet.log("batcher")
    assert Counter(line["id"] for line in read_answers(fleet.folder / "answers.jsonl")) == Counter(ids)


def test_a_fleet_works_with_a_password(folder: Path) -> None:
    """The oldest way, and still the most frequent one."""
    with (
        running(folder, "--requirepass", PASSWORD) as server,
        Processes(server.url, folder, {**QUICK, "BATCHFLEET_REDIS_PASSWORD": PASSWORD}) as fleet,
    ):
        answers_a_file(fleet)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and what it has signed."""
    made = tmp_path_factory.mktemp("certificates")
    make_certificates(made)
    return made


def tls(certificates: Path) -> dict[str, str]:
    """Settings of who is let in."""
    files = {"CA_FILE": "ca.pem", "CERT_FILE": "client.pem", "KEY_FILE": "client.key"}
    return {f"BATCHFLEET_REDIS_TLS_{name}": str(certificates / file) for name, file in files.items()}


own_tls = pytest.param(
    with_tls, id="own", marks=pytest.mark.skipif(not speaks_tls(), reason="this redis-server has no TLS built in")
)
each_tls = pytest.mark.parametrize("served", [own_tls, pytest.param(behind_proxy, id="proxy")])
TlsServer = Callable[[Path, Path], AbstractContextManager[str]]


@each_tls
def test_a_fleet_works_over_tls_with_client_certificates(folder: Path, certificates: Path, served: TlsServer) -> None:
    """Batcher, worker and producer trust the authority, and show what they are."""
    with served(folder, certificates) as url, Processes(url, folder, {**QUICK, **tls(certificates)}) as fleet:
        answers_a_file(fleet)


@each_tls
def test_tls_that_does_not_come_about_says_what_to_set(
    folder: Path,
    certificates: Path,
    served: TlsServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An authority that is not ours, a missing client certificate, and a missing file."""
    good = tls(certificates)

    def said(url: str, *codes: int, without: str = "", **changed: str) -> str:
        with monkeypatch.context() as environ:
            for name, value in {**good, **changed}.items():
                if not name.endswith(without or "?"):
                    environ.setenv(name, value)
            assert main(["status", "--redis", url]) in codes
        return one_line(capsys)

    with served(folder, certificates) as url:
        assert "redis.tls_ca_file" in said(url, 2, without="CA_FILE")
        assert "no client certificate" in said(
            url, 2, BATCHFLEET_REDIS_TLS_CERT_FILE=str(certificates / "no client certificate")
        )
        for name in ("CERT_FILE", "KEY_FILE"):
            good.pop(f"BATCHFLEET_REDIS_TLS_{name}")
        # 3 where the end of the connection overtook the server's word.
        assert "redis.tls_cert_file" in said(url, 2, 3)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command complained of, which is one line and no traceback."""
    said = capsys.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if " INFO " not in line]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("batchfleet: ")
    assert PASSWORD not in said.err
    return lines[0]


@contextlib.contextmanager
def wrong_password(folder: Path) -> Iterator[str]:
    """The password of another server."""
    with running(folder, "--requirepass", f"{PASSWORD}-of-another") as server:
        yield server.url.replace("unix://", f"unix://:{PASSWORD}@")


@contextlib.contextmanager
def no_password(folder: Path) -> Iterator[str]:
    """None, where one is wanted."""
    with running(folder, "--requirepass", PASSWORD) as server:
        yield server.url


@contextlib.contextmanager
def no_permission(folder: Path) -> Iterator[str]:
    """A user who may do little."""
    (folder / "users.acl").write_text(
        f"user default on nopass -@all +ping\nuser little on >{PASSWORD} ~* -@all +ping +info\n"
    )
    with running(folder, "--aclfile", str(folder / "users.acl")) as server:
        yield server.url


@contextlib.contextmanager
def a_replica(folder: Path) -> Iterator[str]:
    """A replica of a primary."""
    port = free_port()
    primary, replica = folder / "p", folder / "r"
    primary.mkdir()
    replica.mkdir()
    with (
        running(primary, "--bind", "127.0.0.1", "--port", str(port)),
        running(replica, "--replicaof", "127.0.0.1", str(port), "--replica-serve-stale-data", "yes") as server,
    ):
        yield server.url


def as_it_says(info: str) -> Callable[[Path], AbstractContextManager[str]]:
    """Something that answers INFO like this."""
    return lambda _: pretending(f"{info}\r\nrole:master\r\n")


@contextlib.contextmanager
def unknown_host(_: Path) -> Iterator[str]:
    """A name that nobody has."""
    yield "redis://no-such-host.invalid:6379/0"


@contextlib.contextmanager
def nobody_there(_: Path) -> Iterator[str]:
    """A port on which nobody listens."""
    yield f"redis://127.0.0.1:{free_port()}/0"


UNUSABLE: dict[str, tuple[Callable[[Path], AbstractContextManager[str]], int, str]] = {
    "wrong password": (wrong_password, 2, "does not accept the user or password"),
    "no password": (no_password, 2, "does not accept the user or password"),
    "no permission": (no_permission, 2, "does not allow what a fleet needs"),
    "a replica": (a_replica, 2, "is a read-only replica; give the address of its primary"),
    "too old": (as_it_says("redis_version:5.0.14"), 2, "is version 5.0.14; 6.2 or newer is needed"),
    "a Sentinel": (
        as_it_says("redis_version:7.0.15\r\nredis_mode:sentinel"),
        2,
        "is a Sentinel, which holds no data; give the address of the primary",
    ),
    "a cluster": (as_it_says("redis_version:7.0.15\r\nredis_mode:cluster"), 2, "is a cluster"),
    "unknown host": (unknown_host, 3, "does not answer"),
    "nobody there": (nobody_there, 3, "does not answer"),
}
COMMANDS = {
    "run": ["run", "{questions}", "-o", "{answers}", "--engine", "stub"],
    "submit": ["submit", "{questions}", "-o", "{answers}", "--model", "stub"],
    "batcher": ["batcher"],
    "worker": ["worker", "--engine", "stub"],
    "status": ["status"],
    "verify": ["verify", "r"],
    "cancel": ["cancel", "r"],
    "forget": ["forget", "r"],
    "drain": ["drain", "w"],
    "dead": ["dead", "list"],
    "health": ["health"],
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_a_redis_that_cannot_be_used_is_one_clear_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """From every command, with its exit code.

    Services wait for a Redis that does not answer, and for a replica, which a failover may make the primary; they end
    where waiting does not help.
    """
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    write_questions(tmp_path / "questions.jsonl", 3)
    serve, code, words = UNUSABLE[why]
    with serve(folder) as url:
        for name, command in COMMANDS.items():
            if (code == 3 or why == "a replica") and name in {"batcher", "worker"}:
                continue
            arguments = [
                part.format(questions=tmp_path / "questions.jsonl", answers=tmp_path / "answers.jsonl")
                for part in command
            ]
            assert main([*arguments, "--redis", url]) == code, name
            assert words in one_line(capsys), name
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_redis_that_is_away_is_no_illness_for_whoever_would_restart_a_worker(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`health --redis-may-be-away` says so and ends with 0; where Redis answers and no worker is here, it is 3."""
    asked = ["health", "--redis-may-be-away", "--redis"]
    with nobody_there(folder) as url:
        assert main([*asked, url]) == 0
        assert "does not answer" in one_line(capsys)
    with running(folder) as server:
        assert main([*asked, server.url]) == 3


def test_a_url_of_sentinel_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """With what to give instead."""
    assert main(["status", "--redis", "redis+sentinel://host:26379/mymaster/0"]) == 2
    assert "Sentinel, which is not supported: give the address of the primary" in capsys.readouterr().err
