"""How many worker jobs the questions left are worth, as Redis has it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import redis

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.status.backlog import unanswered_questions
from batchfleet.status.workers import see_workers
from batchfleet.supervisor.engine_measures import SERVING, EngineMeasures
from batchfleet.supervisor.scale_rule import Load, Scale, needed_workers
from wire.keys import Keys

USUAL_CAPACITY = 256
"""What a worker is taken to keep in flight until the first one says: vLLM's default."""


@dataclass(slots=True)
class NeededJobs:
    """Of one model.

    Args:
        workers_per_job: Workers on a node.
    """

    keys: Keys
    model: str
    batch_size: int
    idle_s: float
    workers_per_job: int
    measures: EngineMeasures
    unanswered: int = 0
    _scale: Scale = field(default_factory=lambda: Scale(0))
    _numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, keys: Keys, model: str, workers_per_job: int) -> NeededJobs:
        return cls(
            keys,
            model,
            to_options.most_in_a_batch(settings),
            settings.processing.scale_down_s,
            workers_per_job,
            EngineMeasures(settings.capacity or 0),
        )

    def wanted_jobs(self, client: redis.Redis, now_s: float) -> int:
        """How many jobs of workers are worth having, those that run included."""
        seen = see_workers(client, self.keys)
        for worker in seen:
            # In place of process ids, which are those of several hosts. 0: it had booted when it was first seen.
            self._numbers.setdefault(worker.name, 0 if worker.state in SERVING else len(self._numbers) + 1)
        seen = [replace(worker, pid=self._numbers[worker.name]) for worker in seen]
        self.measures.observe([worker.pid for worker in seen if worker.pid], seen, now_s)
        self.unanswered = unanswered_questions(client, self.keys, self.model, self.batch_size)
        measures = self.measures
        load = Load(self.unanswered, measures.capacity or USUAL_CAPACITY, measures.per_s, measures.boot_s)
        self._scale = self._scale.after(-(-needed_workers(load) // self.workers_per_job), now_s, self.idle_s)
        return self._scale.wanted
