"""The fleet's state as tables for people: what `batchfleet status` prints, and `--watch` keeps showing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fleet.status import BatcherStatus, FleetStatus, GpuStatus, QueueStatus, WorkerStatus
from fleet.words import count, duration, gib, plural, rate

STATE_STYLES = {"running": "green", "leading": "green", "standby": "cyan", "booting": "yellow", "draining": "yellow", "dead": "red"}
KINDS_SHOWN = 4


def draw(status: FleetStatus, advice: Sequence[str], *, most_workers: int | None = None) -> RenderableType:
    """All of it.

    Args:
        most_workers: The busiest so many are shown, and how many more there are; None for all.
    """
    parts: list[RenderableType] = [Text(_first_line(status))]
    parts += [_queues(status), Text()] if status.queues else [Text("no questions were ever sent to this fleet\n")]
    parts += [_workers(status.workers, most_workers), Text()] if status.workers else [Text("no worker reports\n")]
    parts += [Text(line) for line in _failures(status)]
    parts += [Text.assemble(("advice  ", "bold yellow"), line) for line in advice] or [Text("nothing needs you", style="green")]
    return Group(*parts)


def _first_line(status: FleetStatus) -> str:
    states = Counter(worker.state for worker in status.workers)
    workers = ", ".join(f"{number} {state}" for state, number in states.most_common()) or "none"
    memory = status.redis
    of = f" of {gib(memory.max_bytes)}" if memory.max_bytes else ""
    words = [f"workers: {workers}", _batchers(status.batchers, status.leader), f"Redis: {memory.used_bytes / 2**20:.0f} MiB{of}"]
    return "   ".join([*words, *([plural(status.dead_letters, "dead letter")] if status.dead_letters else [])]) + "\n"


def _batchers(batchers: Sequence[BatcherStatus], leader: str) -> str:
    others = sum(batcher.name != leader for batcher in batchers)
    return f"batchers: {'1 leads' if leader else 'none leads'}" + (f", {others} standing by" if others else "")


def _queues(status: FleetStatus) -> Table:
    table = _table("model", "waiting >", "longest wait >", "in batches >", "in flight >", "batches full >", "answers >", "tokens >")
    for queue in status.queues:
        workers = [worker for worker in status.workers if worker.model == queue.model]
        room = sum(worker.capacity for worker in workers if worker.state in {"running", "draining"})
        answers_per_s = sum(worker.answers_per_s for worker in workers)
        tokens_per_s = sum(worker.tokens_per_s for worker in workers)
        table.add_row(
            queue.model,
            count(queue.waiting_questions),
            duration(queue.oldest_s) if queue.waiting_questions else "-",
            count(queue.waiting_batches) + (f" and {count(queue.newer_batches)} newer" if queue.newer_batches else ""),
            _full(queue.in_flight_questions, room),
            _fill(queue),
            rate(answers_per_s, "").replace(" /", "/") if answers_per_s else "-",
            rate(tokens_per_s, "").replace(" /", "/") if tokens_per_s else "-",
        )
    return table


def _full(in_flight: int, room: int) -> str:
    """A worker takes a last batch while there is room for one question, so it may hold more than its capacity: full, and nothing wrong."""
    return f"full ({count(in_flight)})" if in_flight >= room > 0 else f"{count(in_flight)} of {count(room)}"


def _fill(queue: QueueStatus) -> str:
    return "-" if queue.batch_fill is None else f"{queue.batch_fill:.0%}"


def _workers(workers: Sequence[WorkerStatus], most: int | None) -> Table:
    with_gpus = any(worker.gpu_use or worker.gpus for worker in workers)
    gpu_columns = ("GPUs >", "busy >", "memory >") if with_gpus else ()
    table = _table("worker", "state", "model", "in flight >", "answers >", "tokens >", "answered >", "failed >", *gpu_columns)
    shown = sorted(workers, key=lambda worker: (-worker.in_flight, worker.name))[:most]
    for worker in shown:
        works = worker.answered or worker.failed
        table.add_row(
            worker.name,
            Text(_state(worker), style=STATE_STYLES.get(worker.state, "")),
            worker.model,
            _full(worker.in_flight, worker.capacity),
            rate(worker.answers_per_s, "").replace(" /", "/") if works else "-",
            rate(worker.tokens_per_s, "").replace(" /", "/") if works else "-",
            count(worker.answered),
            count(worker.failed),
            *((str(len(worker.gpus)), _busy(worker.gpu_use), _memory(worker.gpu_use)) if with_gpus else ()),
        )
    if len(shown) < len(workers):
        table.add_row(f"... and {len(workers) - len(shown)} more", style="dim")
    return table


def _state(worker: WorkerStatus) -> str:
    if worker.waits_for:
        return f"{worker.state}: {worker.waits_for}"
    return f"{worker.state}, idle {duration(worker.idle_s)}" if worker.idle_s >= 1 else worker.state


def _busy(use: Sequence[GpuStatus]) -> str:
    return f"{sum(one.busy_percent for one in use) / len(use):.0f}%" if use else "?"


def _memory(use: Sequence[GpuStatus]) -> str:
    return f"{gib(sum(one.memory_used_bytes for one in use))} of {gib(sum(one.memory_bytes for one in use))}" if use else "?"


def _failures(status: FleetStatus) -> Iterator[str]:
    kinds: Counter[str] = Counter()
    for worker in status.workers:
        kinds.update(worker.failures)
    if kinds:
        yield "failed  " + ", ".join(f"{count(number)} {kind}" for kind, number in kinds.most_common(KINDS_SHOWN)) + "  (by the workers above)"


def _table(*columns: str) -> Table:
    """`>` after a column's name aligns it to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        name, right, _ = column.partition(" >")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    return table
