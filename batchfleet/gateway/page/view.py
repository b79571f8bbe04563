"""What the page says, as words and figures for its templates. Nothing here is HTML: the templates escape all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from batchfleet.gateway.page.chart import means, path, round_top
from batchfleet.gateway.page.history import Look
from batchfleet.gateway.page.observer import Observer
from batchfleet.humanize import GIB, about, count, duration, gib
from batchfleet.status.advice import advise
from batchfleet.status.by_host import are_worth_a_table, by_host, cells
from batchfleet.status.figures import busy, failures_of, memory, per_s, room_of, state_of
from batchfleet.status.model import FleetStatus, QueueStatus, RunStatus, WorkerStatus

MOST_WORKERS = 100
"""Rows of a table of workers or hosts; the rest is counted."""
MOST_KINDS = 12
TEN = 10
"""From here on figures have no decimals."""
LONGEST_WORDS = 300
"""Characters of one text that comes from workers, questions or answers."""
BATCH, ID_SHOWN = "batch_", 12
"""How ids of batches begin, and what is shown of one that is somebody else's."""
GOOD = frozenset({"running", "leading", "complete", "completed", "asking"})
BAD = frozenset({"dead", "unusable", "failed", "expired"})


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the top row."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure over the last hour. `line`: the `d` of an SVG path; `top`: what stands at the upper edge."""

    name: str
    value: str
    line: str
    top: str


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of a table by their headings. `tone`: good, bad or empty, of the cell `state`."""

    cells: dict[str, str]
    tone: str = ""


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `may_end`: whether there is anything left to cancel."""

    run: str
    state: str
    tone: str
    model: str
    done: int
    questions: int
    progress: str
    failed: str
    rate: str
    left: str
    failures: tuple[FailureRow, ...]
    may_end: bool


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One kind of failure. `example`: what one of them said; empty if it is not to be shown, or not known."""

    kind: str
    number: str
    example: str


def tiles(status: FleetStatus) -> list[Tile]:
    """The fleet in one row."""
    states = Counter(worker.state for worker in status.workers)
    gpus = sum(len(worker.gpus) for worker in status.workers)
    others = ", ".join(f"{number} {state}" for state, number in states.most_common() if state != "running")
    limit, in_flight = status.redis.max_bytes, sum(worker.in_flight for worker in status.workers)
    return [
        Tile(
            "workers running", str(states["running"]), ", ".join(filter(None, (others, f"{gpus} GPUs" if gpus else "")))
        ),
        Tile("answers", per_s(sum(worker.answers_per_s for worker in status.workers))),
        Tile("in flight", count(in_flight), f"of {count(room_of(status.workers))}"),
        Tile("open questions", count(status.pending_questions)),
        Tile("Redis memory", _size(status.redis.used_bytes), f"of {_size(limit)}" if limit else ""),
    ]


def charts(observer: Observer) -> list[Chart]:
    """The last hour, as far as this process saw it."""
    series: tuple[tuple[str, Callable[[Look], float | None], Callable[[float], str], float], ...] = (
        ("answers", lambda look: look.answers_per_s, per_s, 0),
        ("tokens written", lambda look: look.tokens_per_s, per_s, 0),
        ("open questions", lambda look: look.waiting, count, 0),
        ("engines full", lambda look: look.engines_full, _percent, 1.0),
        ("batches full", lambda look: look.batch_fill, _percent, 1.0),
    )
    history, now_s = observer.history, observer.now()
    span_s = history.span_s(now_s)
    drawn = [
        _chart(name, means(history.points(value), now_s, span_s), words, top) for name, value, words, top in series
    ]
    failures = means(history.failures_per_min(), now_s, span_s)
    return [
        *drawn,
        _chart("failures", failures, lambda value: f"{count(value) if value >= TEN else f'{value:.2g}'}/min", 0),
    ]


def _chart(name: str, values: Sequence[float | None], words: Callable[[float], str], top: float) -> Chart:
    known = [value for value in values if value is not None]
    top = top or round_top(max(known, default=0.0))
    return Chart(name, words(known[-1]) if known else "-", path(values, top), words(top))


def workers(status: FleetStatus) -> list[Row]:
    """Those that are not running first, then by host and name."""
    ordered = sorted(status.workers, key=lambda worker: (worker.state == "running", worker.host, worker.name))
    has_gpus = any(worker.gpus or worker.gpu_use for worker in ordered)
    return [_worker(worker, has_gpus=has_gpus) for worker in ordered[:MOST_WORKERS]]


def hosts(status: FleetStatus) -> list[Row]:
    """Those that vanished first, then by name; none where they would say no more than workers do."""
    found = by_host(status)
    if not are_worth_a_table(found):
        return []
    clocks = any(host.clock_is_wrong for host in found)
    return [
        Row({name: cut(cell) for name, cell in cells(host, clocks=clocks).items()}, "bad" if host.has_vanished else "")
        for host in found[:MOST_WORKERS]
    ]


def _worker(worker: WorkerStatus, *, has_gpus: bool) -> Row:
    gpus = {
        "GPUs": str(len(worker.gpus)) if worker.gpus else "-",
        "busy": busy(worker.gpu_use, "-"),
        "memory": memory(worker.gpu_use, "-"),
    }
    cells = {
        "worker": worker.name,
        "state": cut(state_of(worker)),
        "model": worker.model,
        **(gpus if has_gpus else {}),
        "in flight": f"{count(worker.in_flight)} of {count(worker.capacity)}",
        "answers": per_s(worker.answers_per_s),
        "tokens": per_s(worker.tokens_per_s),
        "answered": count(worker.answered),
        "failed": count(worker.failed),
    }
    return Row(cells, tone(worker.state))


def queues(status: FleetStatus) -> list[Row]:
    return [_queue(queue, status) for queue in status.queues]


def _queue(queue: QueueStatus, status: FleetStatus) -> Row:
    ours = [worker for worker in status.workers if worker.model == queue.model]
    cells = {
        "model": queue.model,
        "waiting": count(queue.waiting_questions),
        "longest wait": duration(queue.oldest_s) if queue.waiting_questions else "-",
        "batches waiting": count(queue.waiting_batches),
        "in flight": f"{count(queue.in_flight_questions)} of {count(room_of(ours))}",
        "batches full": "-" if queue.batch_fill is None else _percent(queue.batch_fill),
        "answers": per_s(sum(worker.answers_per_s for worker in ours)),
    }
    return Row(cells)


def runs(observer: Observer, status: FleetStatus, batches: AbstractSet[str], *, is_private: bool) -> list[RunRow]:
    """The latest first, without those that are shown as batches.

    `is_private`: of others' batches no whole id is shown, and of no run what its failures say.
    """
    rows = [
        run_row(run, observer.left_s(run), with_examples=not is_private)
        for run in status.runs
        if run.run not in batches
    ]
    return [
        replace(row, run=f"{row.run[:ID_SHOWN]}…") if is_private and row.run.startswith(BATCH) else row for row in rows
    ]


def run_row(run: RunStatus, left_s: float | None, *, with_examples: bool = False) -> RunRow:
    done = run.answered + run.failed
    is_over = run.state in {"complete", "cancelled"}
    return RunRow(
        run=run.run,
        state=run.state,
        tone=tone(run.state),
        model=run.model,
        done=done,
        questions=max(1, run.questions, run.accepted),
        progress=f"{count(done)} of {count(run.questions) if run.questions >= 0 else '?'}",
        failed=count(run.failed),
        rate=per_s(run.answers_per_s),
        left="-" if is_over else f"{about(left_s)} left" if left_s is not None else "too early to tell",
        failures=failure_rows(run.failures, run.failure_examples if with_examples else {}),
        may_end=not is_over,
    )


def failures(status: FleetStatus, *, with_examples: bool) -> tuple[FailureRow, ...]:
    """By kind, as the workers that report count them."""
    examples: dict[str, str] = {}
    for worker in status.workers if with_examples else ():
        examples.update(worker.failure_examples)
    return failure_rows(failures_of(status.workers), examples)


def failure_rows(kinds: Mapping[str, int], examples: Mapping[str, str]) -> tuple[FailureRow, ...]:
    """The most frequent first."""
    return tuple(
        FailureRow(cut(kind), count(number), cut(examples.get(kind, "")))
        for kind, number in Counter(kinds).most_common(MOST_KINDS)
    )


def advice(status: FleetStatus) -> list[str]:
    return [cut(line) for line in advise(status)]


def tone(state: str) -> str:
    """How a state is coloured."""
    return "good" if state in GOOD else "bad" if state in BAD else ""


def cut(words: str) -> str:
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 1] + "…"


def _size(size_bytes: int) -> str:
    return gib(size_bytes) if size_bytes >= GIB else f"{size_bytes / 2**20:.0f} MiB"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def left_out(status: FleetStatus) -> Iterator[str]:
    """What the tables leave out."""
    if (more := len(status.workers) - MOST_WORKERS) > 0:
        yield f"and {count(more)} more workers that run"
    if (more := len(by_host(status)) - MOST_WORKERS) > 0:
        yield f"and {count(more)} more hosts"
