"""`benchmarks queue`: this fleet at several batch sizes, and other queues with one question per job.

All get the same questions, in turn.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from batchfleet.settings.schema import Settings
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.tuning.helper import BenchFailedError, Helper
from batchfleet.tuning.sample_questions import write_questions
from batchfleet.tuning.table_report import Cell, Report, Table, from_to, middle
from benchmarks import throughput
from benchmarks.chart import Bars
from benchmarks.peers import environments
from benchmarks.resources import cpu_s, tree_cpu_s
from wire.errors import UsageError

NOTES = [
    (
        "From the first push to the last answer in the producer, for this fleet on disk. "
        "Each has a Redis of its own with its append-only file on."
    ),
    "Answers cost nothing and have 8 to 128 words; each is compared with its question.",
    "CPU: seconds per 1 000 questions, of all processes, Redis included, as long as the clock runs.",
    (
        "This fleet checks its file before the first push; "
        "the others have their questions in memory, and keep the answers there."
    ),
]
OURS = "batchfleet, batches of"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: everything in turn, `rounds` times."""

    count: int = 20_000
    batch_sizes: Sequence[int] = (1, 16, 64, 256)
    peers: Sequence[str] = environments.PEERS
    peer_count: int = 5000
    rounds: int = 3
    workers: int = 2
    seed: int = 1
    source: Path | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one queue."""

    queue: str
    questions: int
    elapsed_s: float
    cpu_s: float

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s

    @property
    def cpu_per_1000_s(self) -> float:
        return 1000 * self.cpu_s / self.questions


@dataclass(frozen=True, slots=True)
class Peer:
    """Another queue, ready to be run."""

    name: str
    environment: Path
    questions: Path
    count: int
    workers: int


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement.

    Raises:
        UsageError: A peer cannot be installed, other than those of `environments.MAY_LACK`.
    """
    installed = install(plan.peers, environments.cache_folder(os.environ), say)
    found: list[Measurement] = []
    versions: dict[str, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        questions, fewer = Path(name) / "questions.jsonl", Path(name) / "fewer.jsonl"
        write_questions(questions, plan.count, plan.seed, plan.source)
        write_questions(fewer, plan.peer_count, plan.seed, plan.source)
        peers = [Peer(peer, folder, fewer, plan.peer_count, plan.workers) for peer, folder in installed.items()]
        for number in range(plan.rounds):
            for one in (*_ours(plan, questions, settings), *_theirs(peers, versions)):
                found.append(one())
                say(
                    f"round {number + 1}: {found[-1].queue}: {found[-1].rate:.0f}/s, {found[-1].cpu_per_1000_s:.3f} "
                    "CPU s per 1 000"
                )
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated"}
    tables = [_table(found), *([_versions(versions)] if versions else [])]
    chart = Bars(
        "Whole path, questions per second", "median", [(row[0], row[1]) for row in _rates(found)], highlighted=OURS
    )
    return Report(
        "queue",
        parameters,
        tables,
        [*NOTES, *_left_out(plan, installed), *_verdict(found)],
        [asdict(one) for one in found],
        chart,
    )


def install(peers: Sequence[str], cache: Path, say: Callable[[str], None]) -> dict[str, Path]:
    """The environments of peers; those of `environments.MAY_LACK` may be missing."""
    folders: dict[str, Path] = {}
    for name in _named(peers):
        try:
            folders[name] = environments.environment_of(name, cache, say)
        except UsageError as error:
            if name not in environments.MAY_LACK:
                raise
            say(f"left out: {error}")
    return folders


def _named(peers: Sequence[str]) -> list[str]:
    return [name for name in peers if name != "none"]


def _left_out(plan: Plan, installed: Mapping[str, Path]) -> list[str]:
    lacking = [name for name in _named(plan.peers) if name not in installed]
    return [f"Left out, because not installed: {', '.join(lacking)}."] if lacking else []


def _ours(plan: Plan, questions: Path, settings: Settings) -> list[Callable[[], Measurement]]:
    def measure(size: int) -> Measurement:
        # A batch of one is a job for each question, as with the others: fewer of them take long enough.
        one = throughput.measure(questions, plan.count, size, plan.workers, settings)
        return Measurement(
            f"{OURS} {size}", one.questions, one.elapsed_s, sum(one.cpu_s[name] for name in throughput.PROGRAMS)
        )

    return [lambda size=size: measure(size) for size in plan.batch_sizes]  # type: ignore[misc]  # mypy infers no type for a lambda's default


def _theirs(peers: Sequence[Peer], versions: dict[str, tuple[str, str]]) -> list[Callable[[], Measurement]]:
    return [lambda peer=peer: measure_peer(peer, versions) for peer in peers]  # type: ignore[misc]  # as above


def measure_peer(peer: Peer, versions: dict[str, tuple[str, str]]) -> Measurement:
    """Send a file through another queue, on a fresh Redis; `versions` learns its versions and configuration.

    Raises:
        BenchFailedError: It ended, or gave wrong answers.
    """
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        folder = Path(name)
        server = EmbeddedServer(folder)
        server.start()
        assert server.process is not None  # noqa: S101 (it was just started)
        try:
            with _helper(peer, server.url, folder) as helper:
                said = helper.wait_until_ready()
                versions[peer.name] = (
                    " ".join(f"{package} {number}" for package, number in said["versions"].items()),
                    said["configured"],
                )
                before = tree_cpu_s(helper.pid) + cpu_s(server.process.pid)
                helper.go()
                elapsed_s = helper.result()["elapsed_s"]
                used_s = tree_cpu_s(helper.pid) + cpu_s(server.process.pid) - before
                helper.tell("check the answers")
                right = helper.result()["answered"]
        finally:
            server.process.kill()
            server.process.wait()
    if right != peer.count:
        raise BenchFailedError(f"{peer.name} gave {right} right answers to {peer.count} questions")
    return Measurement(peer.name, peer.count, elapsed_s, used_s)


def _helper(peer: Peer, url: str, folder: Path) -> Helper:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BATCHFLEET_")}
    # Nothing of ours but the peers, wherever the command was given.
    environ |= {"PYTHONPATH": str(environments.tree_in(peer.environment)), "PYTHONSAFEPATH": "1", "PEER_REDIS_URL": url}
    arguments = (peer.name, str(peer.questions), str(peer.workers))
    return Helper(
        "benchmarks.peers.driver",
        arguments,
        environ,
        folder,
        python=environments.python_in(peer.environment),
        with_config=False,
    )


def _rates(found: Sequence[Measurement]) -> list[tuple[str, float, str, float]]:
    """Name, median of questions/s, its range, median of CPU seconds per 1 000.

    The rows are in the order in which they were measured.
    """
    rows = []
    for name in dict.fromkeys(one.queue for one in found):
        same = [one for one in found if one.queue == name]
        rates = [one.rate for one in same]
        rows.append((name, middle(rates, 0), from_to(rates), middle([one.cpu_per_1000_s for one in same])))
    return rows


def _table(found: Sequence[Measurement]) -> Table:
    fastest = _fastest_peer(found)
    rows: list[list[Cell]] = [[*row, round(row[1] / fastest, 2) if fastest else "-"] for row in _rates(found)]
    columns = ("queue", "questions/s", "range", "CPU s/1 000", "times the fastest of the others")
    return Table("Whole path; medians", columns, rows)


def _fastest_peer(found: Sequence[Measurement]) -> float:
    return max((rate for name, rate, *_ in _rates(found) if not name.startswith(OURS)), default=0.0)


def _versions(versions: dict[str, tuple[str, str]]) -> Table:
    return Table(
        "The others", ("queue", "versions", "configured"), [(name, *words) for name, words in versions.items()]
    )


def _verdict(found: Sequence[Measurement]) -> list[str]:
    theirs = [name for name, *_ in _rates(found) if not name.startswith(OURS)]
    if not theirs or len(theirs) == len(_rates(found)):
        return []
    rates = {
        name: median(one.rate for one in found if one.queue == name)
        for name in dict.fromkeys(one.queue for one in found)
    }
    best, fastest = (
        max(rates, key=lambda name: rates[name] * name.startswith(OURS)),
        max(theirs, key=lambda name: rates[name]),
    )
    return [f"{best}: {rates[best] / rates[fastest]:.1f} times {fastest}, the fastest of the others."]
