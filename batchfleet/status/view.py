"""The fleet's state as tables for people: what `batchfleet status` prints, and `--watch` keeps showing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.text import Text

from batchfleet.humanize import count, duration, gib, plural
from batchfleet.status.by_host import Host, are_worth_a_table, by_host, cells
from batchfleet.status.figures import busy, failures_of, memory, per_s, room_of, state_of
from batchfleet.status.model import FleetStatus, HostStatus, QueueStatus, RunStatus, WorkerStatus
from batchfleet.status.table import Column, Kind, columns_of, fit, rich_table

STATE_STYLES = {
    "running": "green",
    "leading": "green",
    "standby": "cyan",
    "waiting": "yellow",
    "booting": "yellow",
    "draining": "yellow",
    "dead": "red",
    "unusable": "red",
}
KINDS_SHOWN = 4
OVER = frozenset({"complete", "cancelled"})
"""States of runs of which nothing more comes."""


def draw(
    status: FleetStatus, advice: Sequence[str], *, width: int | None = None, most_workers: int | None = None
) -> RenderableType:
    """All of it.

    Args:
        width: Columns of the terminal; None for as many as it takes.
        most_workers: So many are shown, first those that are not running, and how many more there are; None for all.
    """
    # By name, so that nothing moves from one look to the next.
    ordered = sorted(status.workers, key=lambda worker: (worker.state == "running", worker.host, worker.name))
    shown = ordered[:most_workers]
    every_host = by_host(status)
    # A terminal has no room for all where it has none for all workers.
    some_hosts = every_host[:most_workers] if are_worth_a_table(every_host) else []
    queues, hosts, workers = fit(_queues(status), width), fit(_hosts(some_hosts), width), fit(_workers(shown), width)
    runs = fit(_runs([run for run in status.runs if run.state not in OVER]), width)
    parts: list[RenderableType] = [Text(_first_line(status))]
    parts += [Text(f"{line}\n") for line in _ranges(status.hosts)]
    parts += [rich_table(queues), Text()] if status.queues else [Text("no questions were ever sent to this fleet\n")]
    parts += [rich_table(runs), Text()] if runs.columns else []
    parts += [rich_table(hosts)] if some_hosts else []
    if some_hosts and len(some_hosts) < len(every_host):
        parts.append(Text(f"... and {plural(len(every_host) - len(some_hosts), 'more host')}", style="dim"))
    parts += [Text()] if some_hosts else []
    parts += [rich_table(workers)] if shown else [Text("no worker reports")]
    if len(shown) < len(status.workers):
        parts.append(Text(f"... and {plural(len(status.workers) - len(shown), 'more worker')}", style="dim"))
    parts.append(Text())
    parts += (
        [Text(f"columns left out: {left_out}", style="dim")]
        if (left_out := _left_out(queues.dropped, runs.dropped, hosts.dropped, workers.dropped))
        else []
    )
    parts += [Text(line) for line in _failures(status)]
    parts += [Text.assemble(("advice  ", "bold yellow"), line) for line in advice] or [
        Text("nothing needs you", style="green")
    ]
    return Group(*parts)


def _left_out(
    of_queues: Sequence[str], of_runs: Sequence[str], of_hosts: Sequence[str], of_workers: Sequence[str]
) -> str:
    whose = (("", of_queues), ("of runs ", of_runs), ("of hosts ", of_hosts), ("of workers ", of_workers))
    return "; ".join(who + ", ".join(names) for who, names in whose if names)


def _first_line(status: FleetStatus) -> str:
    states = Counter(worker.state for worker in status.workers)
    workers = ", ".join(f"{number} {state}" for state, number in states.most_common()) or "none"
    memory = status.redis
    of = f" of {gib(memory.max_bytes)}" if memory.max_bytes else ""
    others = sum(batcher.name != status.leader for batcher in status.batchers)
    words = [
        f"workers: {workers}",
        f"batchers: {'1 leads' if status.leader else 'none leads'}" + (f", {others} standing by" if others else ""),
        f"Redis: {memory.used_bytes / 2**20:.0f} MiB{of}",
    ]
    return "   ".join([*words, *([plural(status.dead_letters, "dead letter")] if status.dead_letters else [])]) + "\n"


def _ranges(hosts: Sequence[HostStatus]) -> Iterator[str]:
    """Of the hosts that scale by the backlog."""
    for host in hosts:
        if host.least < host.most:
            leaving = f", {host.leaving} leaving" if host.leaving else ""
            yield (
                f"{host.shown(hosts)}: {plural(host.workers, 'worker')} of {host.least}:{host.most}, "
                f"{host.wanted} wanted for {host.model or 'no model'}{leaving}"
            )


def _queues(status: FleetStatus) -> list[Column]:
    return columns_of(
        [
            ("model", Kind.NAME, None),
            ("waiting", Kind.NUMBER, None),
            ("longest wait", Kind.NUMBER, 3),
            ("batches waiting", Kind.NUMBER, 4),
            ("in flight", Kind.NUMBER, None),
            ("batches full", Kind.NUMBER, 5),
            ("answers", Kind.NUMBER, 1),
            ("tokens", Kind.NUMBER, 2),
        ],
        [
            _queue(queue, [worker for worker in status.workers if worker.model == queue.model])
            for queue in status.queues
        ],
    )


def _queue(queue: QueueStatus, workers: Sequence[WorkerStatus]) -> tuple[str, ...]:
    return (
        queue.model,
        count(queue.waiting_questions),
        duration(queue.oldest_s) if queue.waiting_questions else "-",
        count(queue.waiting_batches) + (f" and {count(queue.newer_batches)} newer" if queue.newer_batches else ""),
        _full(queue.in_flight_questions, room_of(workers)),
        "-" if queue.batch_fill is None else f"{queue.batch_fill:.0%}",
        per_s(sum(worker.answers_per_s for worker in workers), "-"),
        per_s(sum(worker.tokens_per_s for worker in workers), "-"),
    )


def _runs(runs: Sequence[RunStatus]) -> list[Column]:
    columns = [
        ("run", Kind.NAME, None),
        ("state", Kind.WORDS, 2),
        ("model", Kind.NAME, 6 if len({run.model for run in runs}) == 1 else 3),
        ("priority", Kind.NUMBER, 5 if len({run.priority for run in runs}) == 1 else 1),
        ("done", Kind.NUMBER, None),
        ("failed", Kind.NUMBER, 4),
        ("average", Kind.NUMBER, 0),
        ("asked by", Kind.NAME, 7),
    ]
    return columns_of(columns, [_run(run) for run in runs]) if runs else []


def _run(run: RunStatus) -> tuple[str, ...]:
    of = count(run.questions) if run.questions >= 0 else "?"
    done = f"{count(run.answered + run.failed)} of {of}"
    return (
        run.run,
        run.state,
        run.model,
        str(run.priority),
        done,
        count(run.failed),
        per_s(run.answers_per_s, "-"),
        run.collected_by or "-",
    )


def _full(in_flight: int, room: int) -> str:
    """A worker takes a last batch while there is room for one question, so it may hold more than its capacity.

    Full, and nothing wrong.
    """
    return f"full ({count(in_flight)})" if in_flight >= room > 0 else f"{count(in_flight)} of {count(room)}"


def _hosts(hosts: Sequence[Host]) -> list[Column]:
    rows = [cells(host, clocks=any(one.clock_is_wrong for one in hosts)) for host in hosts]
    if not any(worker.gpus for host in hosts for worker in host.workers):
        rows = [{name: cell for name, cell in row.items() if name != "GPUs"} for row in rows]
    kinds = {"host": (Kind.NAME, None), "state": (Kind.WORDS, None), "in flight": (Kind.NUMBER, 4)}
    kinds |= {"answers": (Kind.NUMBER, 3), "tokens": (Kind.NUMBER, 1), "GPUs": (Kind.NUMBER, 2)}
    kinds |= {"clock": (Kind.WORDS, None)}
    return columns_of([(name, *kinds[name]) for name in rows[0]], [tuple(row.values()) for row in rows]) if rows else []


def _workers(workers: Sequence[WorkerStatus]) -> list[Column]:
    """What goes first in a narrow terminal: what is the same for all of them."""
    one_model = len({worker.model for worker in workers}) == 1
    none_failed = not any(worker.failed for worker in workers)
    columns = [
        ("worker", Kind.NAME, None),
        ("state", Kind.WORDS, None),
        ("model", Kind.NAME, 10 if one_model else 2),
        ("in flight", Kind.NUMBER, None),
        ("answers", Kind.NUMBER, 1),
        ("tokens", Kind.NUMBER, 4),
        ("answered", Kind.NUMBER, 7),
        ("failed", Kind.NUMBER, 8 if none_failed else 3),
    ]
    if any(worker.gpu_use or worker.gpus for worker in workers):
        columns += [("GPUs", Kind.NUMBER, 9), ("busy", Kind.NUMBER, 5), ("memory", Kind.NUMBER, 6)]
    made = columns_of(columns, [_worker(worker)[: len(columns)] for worker in workers])
    styles = tuple(STATE_STYLES.get(worker.state, "") for worker in workers)
    return [replace(column, styles=styles) if column.heading == "state" else column for column in made]


def _worker(worker: WorkerStatus) -> tuple[str, ...]:
    works = worker.answered or worker.failed
    return (
        worker.name,
        state_of(worker),
        worker.model,
        _full(worker.in_flight, worker.capacity),
        per_s(worker.answers_per_s, "0.0/s") if works else "-",
        per_s(worker.tokens_per_s, "0.0/s") if works else "-",
        count(worker.answered),
        count(worker.failed),
        str(len(worker.gpus)),
        busy(worker.gpu_use, "?"),
        memory(worker.gpu_use, "?"),
    )


def _failures(status: FleetStatus) -> Iterator[str]:
    if kinds := failures_of(status.workers):
        yield (
            "failed  "
            + ", ".join(f"{count(number)} {kind}" for kind, number in kinds.most_common(KINDS_SHOWN))
            + "  (by the workers that report)"
        )
