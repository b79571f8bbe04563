"""Whether the process that collects a run is gone is said only where it can be known."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from producer import claim_token
from producer.claim_token import describe, has_ended, new_token

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a lease is waited for")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A living process, which ends with the test."""
    with subprocess.Popen([sys.executable, "-ISc", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def token_of(process: subprocess.Popen[bytes]) -> str:
    """What this process would have named itself."""
    host, _, here, _, rest = new_token().split(":")
    return ":".join([host, str(process.pid), here, claim_token._state(process.pid)[1], rest])


def changed(token: str, part: int, value: str) -> str:
    """The same but for one part."""
    parts = token.split(":")
    return ":".join([*parts[:part], value, *parts[part + 1 :]])


def test_a_living_process_has_not_ended(process: subprocess.Popen[bytes]) -> None:
    """Nor have we."""
    assert not has_ended(new_token())
    assert not has_ended(token_of(process))


def test_a_dead_process_has_ended(process: subprocess.Popen[bytes]) -> None:
    """Whether or not its parent has taken note of its death."""
    token = token_of(process)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(token)
    process.wait()
    assert has_ended(token)


def test_a_number_that_another_process_has_by_now_is_no_life(process: subprocess.Popen[bytes]) -> None:
    """Numbers come again; the time of the start tells."""
    assert has_ended(changed(token_of(process), 3, "17"))


def test_of_processes_elsewhere_nothing_is_known(process: subprocess.Popen[bytes]) -> None:
    """Even with our host name and a number that nobody has here.

    Containers on the host's network share the one and have their own of the other.
    """
    token = token_of(process)
    process.kill()
    process.wait()
    assert not has_ended(changed(token, 2, "another"))
    assert not has_ended(changed(token, 2, ""))


@pytest.mark.parametrize(
    "token",
    ["", "somebody", "host:1", "host:1:deadbeef", "host:x:y:z:a", "h:1:" + ":" * 50, "host:99999999999999999999:::"],
)
def test_what_is_no_token_has_not_ended(token: str) -> None:
    """An older version's, or a stranger's: its claim ends by itself."""
    assert not has_ended(token)


def test_people_are_told_who_it_is() -> None:
    """Host and number, and of what is no token that it is none."""
    assert describe("there:17:x:y:z") == "process 17 on there"
    assert "not a producer's name" in describe("junk")
