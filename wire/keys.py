"""Every Redis key of a fleet: its name, its type, who owns it and what ends it.

| key                     | type   | holds                                                  | ends                                   |
|-------------------------|--------|--------------------------------------------------------|----------------------------------------|
| questions:MODEL:P       | stream | accepted questions that no batch holds yet (q, r)      | entries: on hand-over; with its name   |
| queues                  | set    | the `MODEL:P` above that exist                         | entries: when empty for an hour        |
| expiring                | zset   | the `MODEL:P` in which deadlines are -> the earliest   | entries: when none is left             |
| wake                    | stream | why the batcher should look up now                     | trimmed to about 1 000 entries         |
| news                    | stream | why workers should look up now                         | trimmed to 10 entries; TTL             |
| leader                  | string | token of the batcher that leads                        | TTL, the leadership lease              |
| epoch                   | string | counts leaderships                                     | owned by the fleet                     |
| batchers                | hash   | what each batcher last said of itself                  | TTL; entries dropped when stale        |
| hungry:MODEL            | zset   | workers with room and nothing to do -> until when      | TTL                                    |
| leases:MODEL            | zset   | batch id -> when its lease lapses (ms, server's clock) | entries: on finish, return or reaping  |
| suspects:MODEL          | list   | batches whose workers keep dying, for the batcher      | entries: when judged                   |
| isolated:MODEL          | list   | parts of them, to be run with nothing beside them      | entries: on claim                      |
| isolating:MODEL         | zset   | workers that take isolated batches now -> until when   | entries: when none is left; TTL        |
| crashes:MODEL           | hash   | RUN:EPOCH:INDEX:a, :t of questions that were at a server as it went away, alone or with others -> how often | TTL |
| turn:MODEL              | string | token of the worker that asks a server a question alone | TTL, its turn                         |
| quiet:MODEL             | string | the server to which nothing else goes during that turn | TTL                                    |
| newer:MODEL             | zset   | batches with questions of a newer wire version -> it   | entries: on claim by who speaks it     |
| workers                 | zset   | worker name -> when it last reported (ms)              | entries: when stale; TTL               |
| worker:NAME             | hash   | what the worker last said of itself                    | TTL                                    |
| gpu:UUID                | string | the worker that has this GPU                           | TTL, the GPU's lease                   |
| hosts                   | zset   | each `batchfleet up` -> when it last reported (ms)     | entries: when stale; TTL               |
| host:NAME               | hash   | what it last said of itself                            | TTL                                    |
| vanished                | hash   | who stopped reporting without leaving -> when, and what it held | entries: when it is back, or after a day; TTL |
| control:NAME            | string | what a worker (`drain`) or host (`scale`) is asked for | on being heard; TTL                    |
| pending                 | hash   | questions and bytes accepted and not yet terminal      | owned by the fleet                     |
| refused                 | zset   | runs that found no room -> when (ms)                   | entries: after 2 s; TTL                |
| runs                    | zset   | run id -> last activity (ms)                           | entries: with the run                  |
| cancelled               | set    | RUN:EPOCH of cancelled runs with questions somewhere   | entries: once they have none; TTL      |
| withdrawn               | zset   | RUN:EPOCH:INDEX of questions nobody wants -> when (ms) | entries: with their record, or later; TTL |
| run:ID                  | hash   | fingerprint, epoch, cursor, counts, failures of one run | TTL, renewed by activity               |
| run:ID:accepted         | bitmap | one bit per accepted question                          | TTL, with the run                      |
| run:ID:done             | bitmap | one bit per question with a terminal record            | TTL, with the run                      |
| run:ID:records          | stream | records that the producer has not acknowledged (a)     | entries: on acknowledgement; TTL       |
| run:ID:producer         | string | who collects this run                                  | TTL, the producer's lease              |
| troubles                | stream | engines that died or did not boot, and of what         | trimmed to about 100 entries; TTL      |
| engine-deaths           | hash   | how often engines did, by model                        | owned by the fleet; one field a model  |
| dead                    | stream | what could not be read, with the reason                | trimmed; TTL                           |
| aside:ID                | any    | what was found under a key where it does not belong    | TTL                                    |
| rq:queue:NAMESPACE:MODEL, rq:job:ID, rq:worker:NAME | | RQ's, in RQ's format                    | finish, return or reaping; RQ's TTLs   |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

DEAD_LETTER_TTL_S = 30 * 86_400
"""How long dead letters, and what was moved aside, are kept after the last one."""
DEFAULT_NAMESPACE = "batchfleet"

_TYPES: dict[str, str] = {}
_TYPES_BY_PREFIX = {"questions": "stream"}
_CLAIMS = ("leader", "isolating", "gpu", "control", "refused", "turn", "quiet")
_TYPES_OF_RUN = {"": "hash", "accepted": "string", "done": "string", "records": "stream", "producer": "string"}
RQ_QUEUES = "rq:queues"
RQ_SETS = (RQ_QUEUES, "rq:workers")
"""RQ's lists of what there is. They are not ours alone, but every hand-over and every worker writes to them."""


class _Name:
    """A key that a fleet has once, under the attribute's name; `kind` is what Redis says of its type."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name.replace("_", "-")
        _TYPES[self._name] = self._kind

    def __get__(self, keys: Keys, owner: type) -> str:
        return f"{keys.namespace}:{self._name}"


class _NameOf:
    """Keys that a fleet has for each model, worker, host or GPU."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        _TYPES_BY_PREFIX[name] = self._kind

    def __get__(self, keys: Keys, owner: type) -> Callable[[str], str]:
        return f"{keys.namespace}:{self._name}:{{}}".format


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of the keys of one fleet. Fleets with different namespaces share a Redis without seeing each other."""

    namespace: str = DEFAULT_NAMESPACE

    queues = _Name("set")
    expiring = _Name("zset")
    wake = _Name("stream")
    news = _Name("stream")
    leader = _Name("string")
    epoch = _Name("string")
    batchers = _Name("hash")
    workers = _Name("zset")
    hosts = _Name("zset")
    vanished = _Name("hash")
    pending = _Name("hash")
    refused = _Name("zset")
    runs = _Name("zset")
    cancelled = _Name("set")
    withdrawn = _Name("zset")
    troubles = _Name("stream")
    engine_deaths = _Name("hash")
    dead = _Name("stream")

    hungry = _NameOf("zset")
    leases = _NameOf("zset")
    suspects = _NameOf("list")
    isolated = _NameOf("list")
    isolating = _NameOf("zset")
    newer = _NameOf("zset")
    crashes = _NameOf("hash")
    turn = _NameOf("string")
    quiet = _NameOf("string")
    worker = _NameOf("hash")
    control = _NameOf("string")
    host = _NameOf("hash")
    gpu = _NameOf("string")

    def questions(self, model: str, priority: int) -> str:
        return self.questions_prefix + queue_member(model, priority)

    @property
    def questions_prefix(self) -> str:
        return f"{self.namespace}:questions:"

    def run(self, run: str) -> str:
        return f"{self.namespace}:run:{run}"

    def accepted(self, run: str) -> str:
        return f"{self.namespace}:run:{run}:accepted"

    def done(self, run: str) -> str:
        return f"{self.namespace}:run:{run}:done"

    def records(self, run: str) -> str:
        return f"{self.namespace}:run:{run}:records"

    def producer(self, run: str) -> str:
        return f"{self.namespace}:run:{run}:producer"

    def aside(self, letter: str) -> str:
        return f"{self.namespace}:aside:{letter}"

    def run_of(self, key: str) -> str | None:
        """The run that a key belongs to; None if it is no key of a run."""
        first, _, rest = key.removeprefix(f"{self.namespace}:").partition(":")
        return rest.partition(":")[0] if first == "run" and key.startswith(f"{self.namespace}:") else None

    def type_of(self, key: str) -> str | None:
        """What Redis must say of the type of a key if it is there; None if the key is not ours."""
        if key in RQ_SETS:
            return "set"
        if key.startswith(self.rq_queue("")):
            return "list"
        if not key.startswith(f"{self.namespace}:"):
            return None
        name = key.removeprefix(f"{self.namespace}:")
        first, _, rest = name.partition(":")
        if first == "run":
            return _TYPES_OF_RUN.get(rest.partition(":")[2])
        return _TYPES_BY_PREFIX.get(first) if rest else _TYPES.get(first)

    def requires_ttl(self, key: str) -> bool:
        """Whether a key is a claim, which never outlasts its TTL."""
        first = key.removeprefix(f"{self.namespace}:").partition(":")[0]
        return first in _CLAIMS or (first == "run" and key.endswith(":producer"))

    def rq_queue_name(self, model: str) -> str:
        """The name by which RQ knows the queue of a model's batch jobs."""
        return f"{self.namespace}:{model}"

    def rq_queue(self, model: str) -> str:
        return f"rq:queue:{self.rq_queue_name(model)}"


RQ_JOB_PREFIX = "rq:job:"

SUSPECT_AFTER_DEATHS = 2
"""A batch whose workers died this often is taken apart.

One death is no evidence: machines are switched off, and workers killed by hand.
"""


def run_member(run: str, epoch: str) -> str:
    """How `cancelled` names a run, so that another of the same id is not meant; a run's id has no colon."""
    return f"{run}:{epoch}" if epoch else run


def parse_run_member(member: str) -> tuple[str, str]:
    """(run, epoch)."""
    run, _, epoch = member.partition(":")
    return run, epoch


def withdrawn_member(run: str, epoch: str, index: int) -> str:
    """How `withdrawn` names a question; an epoch begins with a letter, so this is no run's name."""
    return f"{run_member(run, epoch)}:{index}"


def queue_member(model: str, priority: int) -> str:
    """How `queues` names a stream; the priority comes last because a model's name may contain colons."""
    return f"{model}:{priority}"


def parse_queue_member(member: str) -> tuple[str, int] | None:
    """(model, priority), or None if something else was written there."""
    model, _, priority = member.rpartition(":")
    if not model or not (priority.isascii() and priority.isdigit() and len(priority) == 1):
        return None
    return model, int(priority)
