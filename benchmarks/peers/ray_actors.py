"""Ray's actor pool: no queue and no Redis, but a way to have many questions answered by a few processes."""

from __future__ import annotations

from collections.abc import Sequence

import ray
from ray.util import ActorPool

from benchmarks.peers.consumer import answer
from benchmarks.peers.ray_cluster import start

PACKAGES = ("ray",)
CONFIGURED = "ActorPool.map, one call for each question"
_pools: list[ActorPool] = []


@ray.remote
class Answering:
    """One worker."""

    def answer(self, text: str) -> str:
        return answer(text)


def worker_commands(workers: int) -> list[list[str]]:
    start(workers)
    _pools.append(ActorPool([Answering.remote() for _ in range(workers)]))  # type: ignore[attr-defined]  # added by the decorator
    return []


def ask(questions: Sequence[str]) -> list[str]:
    return list(_pools[0].map(lambda actor, text: actor.answer.remote(text), list(questions)))
