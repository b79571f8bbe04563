"""What a person should look into.

Each piece of advice is a pure function of the fleet's state, and says the figures that it comes from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from batchfleet.humanize import count, duration, plural
from batchfleet.status.by_host import CLOCK_S, by_host, shift
from batchfleet.status.model import FleetStatus, QueueStatus, Trouble, WorkerStatus

BUSY_WAIT_S = 3.0
"""Questions pass through in less; what waits longer waits for something."""
STARVING_S = 60.0
IDLE_S = 30.0
FULL_ENOUGH = 0.5
ENOUGH_BATCHES = 10
NEARLY_FULL = 0.8
RECENT_S = 600.0
VANISHED_S = 3600.0
MEMORY_SIGNS = ("out of memory", "outofmemory", "no available memory", "kv cache", "gpu_memory_utilization")
SHOWN = 3


def advise(status: FleetStatus) -> list[str]:
    """All advice, the most urgent first; empty if nothing needs a person."""
    return [line for give in ADVICE for line in give(status)]


def nobody_leads(status: FleetStatus) -> Iterator[str]:
    if not status.leader:
        known = f"{len(status.batchers)} reported lately" if status.batchers else "none reports"
        yield f"no batcher leads ({known}): questions are accepted but not handed out; start `batchfleet batcher`"


def model_without_worker(status: FleetStatus) -> Iterator[str]:
    for queue in status.queues:
        waiting = queue.waiting_questions
        if (waiting or queue.waiting_batches) and queue.model not in status.served_models:
            batches = plural(queue.waiting_batches, "batch", "batches") if queue.waiting_batches else ""
            waits = " and ".join(filter(None, (plural(waiting, "question") if waiting else "", batches)))
            yield (
                f"no worker serves {queue.model}, for which there are {waits}; start `batchfleet worker` for it, or "
                "cancel the run"
            )


def waiting_for_newer(status: FleetStatus) -> Iterator[str]:
    for queue in status.queues:
        if queue.unread_by(status.workers):
            spoken = max((worker.wire_version for worker in status.workers if worker.model == queue.model), default=0)
            here = f"those that run speak up to {spoken}" if spoken else "none that runs does"
            batches = plural(queue.newer_batches, "batch", "batches")
            yield (
                f"{batches} of {queue.model} can only be read by workers of wire version {queue.newer_version} or "
                f"newer ({here}): "
                "start workers of the version that asked, or cancel its run"
            )


def engine_out_of_memory(status: FleetStatus) -> Iterator[str]:
    for model, troubles in _recent(status, of_memory=True).items():
        last = troubles[0]
        yield (
            f"the engine of {model} ran out of memory {plural(len(troubles), 'time')} in {RECENT_S / 60:.0f} min, last "
            f"on {last.worker} "
            f"{duration(last.ago_s)} ago; lower max_num_seqs, max_model_len or gpu_memory_utilization in vllm_args, or "
            "give it more GPUs "
            f"(tensor_parallel_size). It said: {last.message}"
        )


def engine_in_trouble(status: FleetStatus) -> Iterator[str]:
    for model, troubles in _recent(status, of_memory=False).items():
        last = troubles[0]
        what = {"engine_boot": "did not boot", "engine_unusable": "cannot be used"}.get(last.kind, "died")
        yield (
            f"the engine of {model} {what} on {last.worker} {duration(last.ago_s)} ago ({len(troubles)} in "
            f"{RECENT_S / 60:.0f} min): {last.message}"
        )


def batches_run_alone(status: FleetStatus) -> Iterator[str]:
    for queue in status.queues:
        if queue.suspect_batches:
            batches = plural(queue.suspect_batches, "batch", "batches")
            yield f"workers keep dying of {batches} of {queue.model}: each is run alone until the culprit is found"


def idle_workers(status: FleetStatus) -> Iterator[str]:
    """Workers of a model have nothing to do, and questions for it wait."""
    for queue in status.queues:
        idle = [worker for worker in _running(status, queue.model) if worker.idle_s >= BUSY_WAIT_S]
        if idle and queue.waiting_questions and queue.oldest_s >= BUSY_WAIT_S:
            yield (
                f"{_names(idle)} of {queue.model} had nothing to do for "
                f"{duration(min(worker.idle_s for worker in idle))}, although "
                f"{_waiting(queue)}: the batcher does not keep up; "
                "look at its log and at the load of its machine"
            )


def starving_model(status: FleetStatus) -> Iterator[str]:
    """The workers of one model are full, those of another idle."""
    idle = [worker for worker in status.workers if worker.state == "running" and worker.idle_s >= IDLE_S]
    for queue in status.queues:
        ours = _running(status, queue.model)
        others = [worker for worker in idle if worker.model != queue.model]
        if (
            queue.waiting_questions
            and queue.oldest_s >= STARVING_S
            and ours
            and others
            and not any(worker.idle_s for worker in ours)
        ):
            room = sum(worker.capacity for worker in ours)
            yield (
                f"{queue.model} starves: {_waiting(queue)}; its {plural(len(ours), 'worker')} have "
                f"{count(queue.in_flight_questions)} of {count(room)} in flight, while {_names(others)} of "
                f"{others[0].model} had nothing to do for "
                f"{duration(min(worker.idle_s for worker in others))}: start workers of {queue.model} in their place"
            )


def capacity_below_engine(status: FleetStatus) -> Iterator[str]:
    """Settings that keep the engine emptier than it could be."""
    alike: dict[tuple[str, int, int], list[WorkerStatus]] = defaultdict(list)
    for worker in status.workers:
        if worker.state == "running" and 0 < worker.capacity < worker.max_num_seqs:
            alike[worker.model, worker.capacity, worker.max_num_seqs].append(worker)
    for (model, capacity, most), workers in alike.items():
        yield (
            f"{_names(workers)} of {model} keep at most {capacity} questions in flight, but the engine works on {most} "
            "at once: raise "
            f"parallel_workers (x batch_size is the capacity) or leave it out, or lower max_num_seqs to {capacity}"
        )


def batches_not_filling(status: FleetStatus) -> Iterator[str]:
    for queue in status.queues:
        fill = queue.batch_fill
        if fill is None or fill >= FULL_ENOUGH or queue.batches_lately < ENOUGH_BATCHES:
            continue
        mean = queue.questions_lately / queue.batches_lately
        by_time = queue.batches_lately - queue.full_lately
        ours = _running(status, queue.model)
        room = sum(max(0, worker.capacity - worker.in_flight) for worker in ours)
        yield (
            f"batches of {queue.model} are {fill:.0%} full: {mean:.1f} questions on average, and {by_time} of the last "
            f"{queue.batches_lately} went "
            f"before they were full. Its workers have room for {room} more questions: questions come more slowly than "
            "they are answered. "
            "Engines lose nothing by it; for more throughput, send more at once"
        )


def dead_letters(status: FleetStatus) -> Iterator[str]:
    if status.dead_letters:
        letters = plural(status.dead_letters, "dead letter")
        yield f"{letters}: messages that could not be read, and runs that may wait for them; see `batchfleet dead list`"


def redis_memory(status: FleetStatus) -> Iterator[str]:
    memory = status.redis
    if memory.max_bytes and memory.used_bytes >= NEARLY_FULL * memory.max_bytes:
        yield (
            f"Redis uses {memory.used_bytes / 2**20:.0f} of {memory.max_bytes / 2**20:.0f} MiB (maxmemory): at the "
            "limit producers and workers "
            "wait; raise maxmemory, or lower limits.max_pending_bytes and limits.run_window"
        )
    if memory.policy not in {"", "noeviction"}:
        yield (
            f"Redis has maxmemory-policy {memory.policy}: at its limit it would drop questions without a word; set it "
            "to noeviction"
        )


def vanished_hosts(status: FleetStatus) -> Iterator[str]:
    """Hosts of which nothing reports any more, and that took no leave."""
    gone = [host for host in by_host(status) if host.has_vanished and host.vanished_s <= VANISHED_S]
    if gone:
        gone.sort(key=lambda host: host.vanished_s)
        named = _some(f"{host.name} {duration(host.vanished_s)} ago, with {host.held()}" for host in gone)
        what = "others answer those; look whether it runs and reaches Redis"
        yield f"{plural(len(gone), 'host')} stopped reporting: {named}; {what}"


def wrong_clocks(status: FleetStatus) -> Iterator[str]:
    """All times of a fleet are Redis', so nothing is lost by it, but logs and schedules go by the hosts' clocks."""
    hosts = [host for host in by_host(status) if not host.has_vanished]
    wrong = [host for host in hosts if host.clock_is_wrong]
    offsets = [host.clock_ahead_s for host in wrong]
    matters = "leases and deadlines go by Redis' clock and hold, but times in logs do not match; check NTP"
    if len(wrong) == len(hosts) > 1 and max(offsets) - min(offsets) < CLOCK_S:
        yield f"the clock of Redis' host is {shift(-offsets[0])}, by those of all {len(hosts)} other hosts: {matters}"
    elif wrong:
        named = _some(f"{host.name} is {shift(host.clock_ahead_s)}" for host in wrong)
        yield f"clocks differ from Redis': {named}: {matters}"


ADVICE = (
    nobody_leads,
    vanished_hosts,
    model_without_worker,
    waiting_for_newer,
    engine_out_of_memory,
    engine_in_trouble,
    batches_run_alone,
    idle_workers,
    starving_model,
    capacity_below_engine,
    redis_memory,
    dead_letters,
    wrong_clocks,
    batches_not_filling,
)


def _waiting(queue: QueueStatus) -> str:
    number = queue.waiting_questions
    return (
        f"{plural(number, 'question')} {'waits' if number == 1 else 'wait'}, the first for {duration(queue.oldest_s)}"
    )


def _running(status: FleetStatus, model: str) -> list[WorkerStatus]:
    return [worker for worker in status.workers if worker.state == "running" and worker.model == model]


def _recent(status: FleetStatus, *, of_memory: bool) -> dict[str, list[Trouble]]:
    found: dict[str, list[Trouble]] = defaultdict(list)
    for trouble in status.troubles:
        if trouble.ago_s <= RECENT_S and any(sign in trouble.message.lower() for sign in MEMORY_SIGNS) == of_memory:
            found[trouble.model].append(trouble)
    return found


def _some(words: Iterable[str]) -> str:
    first = list(words)
    return ", ".join(first[:SHOWN]) + (f" and {len(first) - SHOWN} more" if len(first) > SHOWN else "")


def _names(workers: Sequence[WorkerStatus]) -> str:
    named = ", ".join(worker.name for worker in workers[:SHOWN])
    more = f" and {len(workers) - SHOWN} more" if len(workers) > SHOWN else ""
    return f"{'worker' if len(workers) == 1 else 'workers'} {named}{more}"
