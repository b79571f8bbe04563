"""The worker as RQ's own tools see it, whatever state Redis is in."""

from __future__ import annotations

import pytest
import redis
from rq import Worker

from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import stop_all
from gpu_worker.reports.rq_identity import RqIdentity
from wire.keys import Keys


def test_a_worker_is_registered_when_it_first_reports(client: redis.Redis) -> None:
    """And leaves when it leaves."""
    identity = RqIdentity(client, Keys(), "stub", "w-1")

    identity.report(busy=True)
    identity.report(busy=False)
    assert [worker.name for worker in Worker.all(connection=client)] == ["w-1"]
    identity.leave()
    assert Worker.all(connection=client) == []


def test_an_identity_can_be_made_while_redis_is_away(redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """An engine that has just booted must not end for that: only the report fails, and the next one succeeds."""
    assert redis_server.process is not None
    stop_all([redis_server.process], grace_s=5)
    identity = RqIdentity(client, Keys(), "stub", "w-1")
    with pytest.raises(redis.ConnectionError):
        identity.report(busy=False)
    identity.leave()

    redis_server.start()
    identity.report(busy=False)
    assert [worker.name for worker in Worker.all(connection=client)] == ["w-1"]


def test_killed_workers_go_from_rqs_lists_without_everybody_looking(client: redis.Redis) -> None:
    """Whoever reported longest ago looks after them: a thousand workers that each ask for each would fill a Redis."""
    keys, identity = Keys(), RqIdentity(client, Keys(), "stub", "w-1")
    RqIdentity(client, keys, "stub", "killed").report(busy=False)
    client.delete("rq:worker:killed")

    client.zadd(keys.workers, {"w-0": 1, "w-1": 2})
    identity.report(busy=False)
    listed = client.smembers("rq:workers")
    client.zadd(keys.workers, {"w-0": 3})
    identity.report(busy=False)

    assert b"rq:worker:killed" in set(listed)
    assert client.smembers("rq:workers") == {b"rq:worker:w-1"}
