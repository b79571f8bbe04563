"""What the fleet is doing: values. `status.read` reads them from Redis."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The questions of one model that have no record yet.

    Attributes:
        waiting_questions: Accepted, and in no batch yet.
        waiting_batches: In RQ's queue, not taken by a worker yet.
        in_flight_questions: In the engines of its workers, as these said last.
        batch_fill: Questions in a batch against the most that fit, lately (else since the batchers started); None
            before the first batch.
        oldest_s: How long the first of `waiting_questions` has waited; 0.0 if there are none.
        suspect_batches: Batches that are run alone, or wait for it, because their workers keep dying.
        newer_batches: Put aside by workers that could not read all of it, until one comes that can; in no other of
            these counts.
        newer_version: The wire version that such a worker has to speak to read them all; 0 if there are none.
        batches_lately, questions_lately, full_lately: Handed over in the last half minute, and how many of the batches
            were full.
    """

    model: str
    waiting_questions: int = 0
    waiting_batches: int = 0
    in_flight_questions: int = 0
    batch_fill: float | None = None
    oldest_s: float = 0.0
    suspect_batches: int = 0
    newer_batches: int = 0
    newer_version: int = 0
    batches_lately: int = 0
    questions_lately: int = 0
    full_lately: int = 0

    def unread_by(self, workers: Sequence[WorkerStatus]) -> bool:
        """Whether batches wait for a version that none of these speaks."""
        return self.newer_batches > 0 and not any(
            worker.model == self.model and worker.wire_version >= self.newer_version for worker in workers
        )


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU, as its worker saw it a few seconds ago."""

    uuid: str
    memory_used_bytes: int
    memory_bytes: int
    busy_percent: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What a worker last said of itself; see `gpu_worker.reports.worker_report`.

    A worker that was killed is shown until its report lapses. `wire_version`: the newest that it reads; 0 if it does
    not say. `failure_examples`: what the last failure of each kind said; it may quote a question.
    """

    name: str
    state: str
    model: str = "?"
    engine: str = "?"
    waits_for: str = ""
    gpus: tuple[str, ...] = ()
    capacity: int = 0
    in_flight: int = 0
    answered: int = 0
    failed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    failure_examples: Mapping[str, str] = field(default_factory=dict)
    answers_per_s: float = 0.0
    tokens_per_s: float = 0.0
    max_num_seqs: int = 0
    idle_s: float = 0.0
    gpu_use: tuple[GpuStatus, ...] = ()
    wire_version: int = 0
    metrics: str = ""
    clock_ahead_s: float = 0.0

    @property
    def host(self) -> str:
        """Where it runs: its name is HOST-TOKEN."""
        return self.name.rpartition("-")[0] or self.name


@dataclass(frozen=True, slots=True)
class VanishedStatus:
    """A worker or an `up` that stopped reporting without taking leave.

    Attributes:
        name: HOST-TOKEN.
        kind: `worker` or `up`.
        ago_s: Since its last report.
        in_flight: Questions that a worker then held; others get them.
        gpus: That it had.
    """

    name: str
    kind: str
    ago_s: float
    model: str = ""
    in_flight: int = 0
    gpus: int = 0

    @property
    def host(self) -> str:
        return self.name.rpartition("-")[0] or self.name


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What a host with a `batchfleet up` last said of itself.

    Attributes:
        name: Unique for ever: HOST-TOKEN.
        workers: How many it is to have; those that are just being restarted included.
        leaving: How many finish what they hold, and go.
        model: That its workers serve, or will once there is work; empty if it is to have none, or does not say.
        least, most: Workers that it may have; the same for a fixed number.
        wanted: Workers that the backlog is worth; there are more while those that hold work finish it.
        heard: Token of the last request that it took; empty before the first.
        clock_ahead_s: By how much its clock is ahead of Redis'; as of workers and batchers.
    """

    name: str
    workers: int = 0
    leaving: int = 0
    model: str = ""
    least: int = 0
    most: int = 0
    wanted: int = 0
    heard: str = ""
    clock_ahead_s: float = 0.0

    @property
    def host(self) -> str:
        return self.name.rpartition("-")[0]

    def shown(self, known: Sequence[HostStatus]) -> str:
        """As people know it: by its host's name, unless several of `known` are there."""
        return self.host if sum(other.host == self.host for other in known) == 1 else self.name


@dataclass(frozen=True, slots=True)
class BatcherStatus:
    """What a batcher last said of itself.

    Attributes:
        models: For each model, what it handed over, in all and lately.
        scaled_models: For which its settings say that something starts workers once there is work.
    """

    name: str
    state: str
    at: float = 0.0
    batch_size: int = 1
    batches: int = 0
    questions: int = 0
    by_reason: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    metrics: str = ""
    scaled_models: tuple[str, ...] = ()
    clock_ahead_s: float = 0.0

    @property
    def host(self) -> str:
        """Where it runs: its name is HOST-PID-TOKEN."""
        return self.name.rsplit("-", 2)[0]


@dataclass(frozen=True, slots=True)
class RedisStatus:
    """Its memory. `max_bytes`: 0 for no limit. `policy`: what it does at the limit; empty if it does not say."""

    used_bytes: int = 0
    max_bytes: int = 0
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An engine that died, did not boot or cannot be used, and how many seconds ago.

    `kind` says which: `engine_dead`, `engine_boot` or `engine_unusable`.
    """

    kind: str
    ago_s: float
    worker: str
    model: str
    message: str


@dataclass(frozen=True, slots=True)
class RunStatus:
    """One run.

    Attributes:
        model, priority: Of the questions that were sent last.
        questions: In all; -1 if its producer does not know yet.
        accepted, answered, failed: So far, all calls together.
        collected_by: HOST:PID of its producer; empty if there is none now.
        answers_per_s: On average since it was opened, pauses included.
        failures: By kind.
        failure_examples: How the last failure of each kind begins; it may quote a question.
    """

    run: str
    model: str = "?"
    priority: int = 0
    questions: int = 0
    accepted: int = 0
    answered: int = 0
    failed: int = 0
    is_cancelled: bool = False
    collected_by: str = ""
    answers_per_s: float = 0.0
    failures: Mapping[str, int] = field(default_factory=dict)
    failure_examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.is_cancelled:
            return "cancelled"
        if 0 <= self.questions <= self.answered + self.failed:
            return "complete"
        return "asking" if self.collected_by else "nobody collects"


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """All of it.

    Attributes:
        runs: Those to which something happened last, the latest first.
        hosts: Those on which `batchfleet up` keeps workers.
        pending_questions: Accepted and without a record, of all runs.
        engine_deaths: By model, since the fleet exists.
        leader: Name of the batcher that leads; empty for none.
        vanished: Who stopped reporting within the last day and is not back.
    """

    queues: tuple[QueueStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    batchers: tuple[BatcherStatus, ...] = ()
    pending_questions: int = 0
    dead_letters: int = 0
    redis: RedisStatus = RedisStatus()
    troubles: tuple[Trouble, ...] = ()
    engine_deaths: Mapping[str, int] = field(default_factory=dict)
    leader: str = ""
    runs: tuple[RunStatus, ...] = ()
    hosts: tuple[HostStatus, ...] = ()
    vanished: tuple[VanishedStatus, ...] = ()

    @property
    def served_models(self) -> frozenset[str]:
        """Those that workers serve, and those for which workers are started once there is work."""
        return frozenset(worker.model for worker in self.workers) | self.scaled_models

    @property
    def scaled_models(self) -> frozenset[str]:
        """Those for which a host, or something else that batchers were told of, starts workers once there is work."""
        return frozenset(
            {host.model for host in self.hosts if host.model}.union(*(one.scaled_models for one in self.batchers))
        )

    def of_models(self, models: Collection[str]) -> FleetStatus:
        """What concerns these models; the number of pending questions is that of all."""
        return replace(
            self,
            queues=tuple(queue for queue in self.queues if queue.model in models),
            workers=tuple(worker for worker in self.workers if worker.model in models),
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
