"""`verify` and `dead list` say what is so in words that say no more."""

from __future__ import annotations

import pytest
import redis

from batchfleet.cli.main import main
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.submissions import KEYS, Submitter


def test_what_is_still_on_its_way_is_not_missing(
    client: redis.Redis, redis_server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Queued questions are not answered yet; once they are nowhere, they are missing.

    Exit code 3 both times: it is not finished.
    """
    Submitter(client, "run-1", 5).offer(5)

    codes = [main(["verify", "run-1", "--redis", redis_server.url])]
    client.delete(KEYS.questions("stub", 0))
    codes.append(main(["verify", "run-1", "--redis", redis_server.url]))

    queued, lost = capsys.readouterr().out.splitlines()
    assert queued == "run run-1: 5 accepted, 0 answered, 0 failed, 5 not answered yet, 0 duplicates"
    assert lost == "run run-1: 5 accepted, 0 answered, 0 failed, 5 missing, 0 duplicates"
    assert codes == [3, 3]


def test_a_run_that_is_gone_is_not_named_among_the_latest(
    client: redis.Redis, redis_server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of runs may name for a while one whose counts were put among the dead letters."""
    for run in ("here", "gone"):
        Submitter(client, run, 1).offer(1)
        client.zadd(KEYS.runs, {run: 1})
    client.delete(KEYS.run("gone"))

    assert main(["verify", "gone", "--redis", redis_server.url]) == 2

    assert capsys.readouterr().err.rstrip().endswith("the latest are: here")


def test_no_dead_letters_is_said(redis_server: EmbeddedServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty screen might mean that it did not look."""
    assert main(["dead", "list", "--redis", redis_server.url]) == 0

    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "there are no dead letters\n")
