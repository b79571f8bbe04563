"""A batcher's metrics: its own counters and, while it leads, the fleet's state in Redis at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from batcher.batcher import Batcher
from batchfleet.metrics import names
from batchfleet.status.backlog import unanswered_questions
from batchfleet.status.model import FleetStatus
from batchfleet.status.read import read_status
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated


class BatcherMetrics(Collector):
    """Runs in the scraping thread, with a connection of its own."""

    def __init__(self, batcher: Batcher, address: RedisAddress) -> None:
        self._batcher = batcher
        self._address = address

    def collect(self) -> Iterator[Metric]:
        leads = self._batcher.leads
        yield names.LEADING.values(((), float(leads)))
        yield from self._handed_over()
        # Of the leader alone, so that adding up over batchers counts nothing twice.
        if leads:
            yield from self._fleet()

    def _handed_over(self) -> Iterator[Metric]:
        tally = self._batcher.tally
        models = dict(tally.models)
        reasons = [(model, handed.sums.full, handed.sums.batches) for model, handed in models.items()]
        full = [((model, "full"), full) for model, full, _ in reasons]
        yield names.BATCHES.values(*full, *(((model, "time"), batches - full) for model, full, batches in reasons))
        yield names.BATCH_SIZE.histograms(*(((model,), handed.sizes) for model, handed in models.items()))
        yield names.BATCH_WAIT.histograms(*(((model,), handed.wait_s) for model, handed in models.items()))
        yield names.TAKEN_BACK.values(((), tally.taken_back))

    def _fleet(self) -> Iterator[Metric]:
        try:
            with connect(self._address) as client, translated(self._address):
                keys = Keys(self._address.namespace)
                status = read_status(client, keys)
                batch_size = max((batcher.batch_size for batcher in status.batchers), default=1)
                models = [queue.model for queue in status.queues]
                unanswered = {model: unanswered_questions(client, keys, model, batch_size) for model in models}
        except FleetError:
            yield names.REDIS_UP.values(((), 0))
            return
        yield names.REDIS_UP.values(((), 1))
        yield names.UNANSWERED.values(*(((model,), number) for model, number in unanswered.items()))
        yield from fleet_metrics(status)


def fleet_metrics(status: FleetStatus) -> Iterator[Metric]:
    """What `batchfleet status` shows, as metrics."""
    yield names.REDIS_USED.values(((), status.redis.used_bytes))
    yield names.REDIS_MAX.values(((), status.redis.max_bytes))
    queues = status.queues
    yield names.WAITING.values(*(((queue.model,), queue.waiting_questions) for queue in queues))
    yield names.OLDEST.values(*(((queue.model,), queue.oldest_s) for queue in queues))
    yield names.WAITING_BATCHES.values(*(((queue.model,), queue.waiting_batches) for queue in queues))
    yield names.SUSPECTS.values(*(((queue.model,), queue.suspect_batches) for queue in queues))
    yield names.NEWER.values(*(((queue.model,), queue.newer_batches) for queue in queues))
    yield names.PENDING.values(((), status.pending_questions))
    yield names.WORKERS.values(*Counter((worker.model, worker.state) for worker in status.workers).items())
    yield names.DEAD_LETTERS.values(((), status.dead_letters))
    yield names.ENGINE_DEATHS.values(*(((model,), number) for model, number in status.engine_deaths.items()))
