"""What a person sees while a run is on: a live view on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from batchfleet.console import TerminalConsole
from batchfleet.runs.eta import EtaEstimator, Sample
from batchfleet.runs.progress_text import (
    AT_WORK,
    ProgressSnapshot,
    beside_bar,
    counts,
    one_line,
    speed,
    times,
    waits_for,
)
from batchfleet.runs.status_poller import StatusPoller
from batchfleet.runs.unserved import UnservedNotice
from producer.run_tally import RunTally
from wire.address import RedisAddress

FIRST_LINE_S = 5.0
LONGEST_SILENCE_S = 60.0
PAUSE_SHARE = 0.05
"""Of the time gone by: a run of a month is not to fill a disk with lines."""
LOOK_EVERY_S = 0.25
REFRESH_PER_S = 8


class ProgressView:
    """To be used in a `with` statement; `say` and `show` may be called as often as one likes."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console = TerminalConsole(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._glance: StatusPoller | None = None
        self._models: Collection[str] = ()
        self._pace = EtaEstimator()
        self._standing: ProgressSnapshot | None = None
        self._said = "starting"
        self._began = self._latest = self._clock()
        self._looked_at = 0.0
        self._line_at = self._began + FIRST_LINE_S
        self._done = 0
        self._could_work = False
        self._unserved: UnservedNotice | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(
                get_renderable=self._drawn, console=self._console, refresh_per_second=REFRESH_PER_S, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def follow(self, address: RedisAddress, models: Collection[str]) -> None:
        """Look at the fleet there as well, from now on: at what serves these models."""
        self._models = models
        self._glance = StatusPoller(address)
        self._glance.start()

    def notice_unserved(self, notice: UnservedNotice) -> None:
        """Have this told as well, even if all else is to be quiet."""
        self._unserved = notice

    @property
    def gpu_s(self) -> float:
        """Seconds times GPUs that the fleet's workers held while it was followed."""
        return self._glance.gpu_s if self._glance else 0.0

    def close(self) -> None:
        """Leave the terminal to others."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._glance is not None:
            self._glance.stop()
        self._quiet = True

    def say(self, what: str) -> None:
        """Before there are questions to count: what is going on."""
        self._said = what
        self._print_line(what)

    def show(self, tally: RunTally) -> None:
        now = self._clock()
        if now - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = now
        left, status = tally.questions - tally.on_disk, self._glance.status if self._glance else None
        if self._unserved is not None:
            self._unserved.look(status, now)
        # Of what serves others nothing is ours.
        status = status.of_models(self._models) if status else None
        in_engines = sum(min(worker.in_flight, worker.max_num_seqs) for worker in status.workers) if status else 0
        can_work = status is None or any(worker.state in AT_WORK for worker in status.workers)
        if tally.done != self._done or not tally.with_fleet or can_work > self._could_work:
            # An engine that has just booted is not late with its answers.
            self._done, self._latest = tally.done, now
        self._could_work = can_work
        self._pace.observe(Sample(now, tally.done, tally.completion_tokens), left, in_engines, can_work=can_work)
        standing = ProgressSnapshot.of(tally, status, self._pace, silent_s=now - self._latest)
        self._standing = standing
        self._print_line(one_line(standing))

    def _print_line(self, line: str) -> None:
        now = self._clock()
        if self._quiet or self._live is not None or now < self._line_at:
            return
        self._line_at = now + min(LONGEST_SILENCE_S, max(FIRST_LINE_S, PAUSE_SHARE * (now - self._began)))
        print(line, file=sys.stderr, flush=True)

    def _drawn(self) -> RenderableType:
        standing = self._standing
        if standing is None:
            self._spinner.update(text=Text(f"{self._said}"))
            return self._spinner
        head = Text(beside_bar(times(standing), standing.on_disk, standing.questions, self._console.width))
        waits = waits_for(standing)
        lines: list[RenderableType] = [
            head,
            Text(counts(standing)),
            Text(speed(standing)),
            *([Text(f"waiting: {waits}", style="yellow")] if waits else []),
        ]
        return Group(*lines)
