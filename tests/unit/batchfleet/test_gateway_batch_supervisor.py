"""The process of batches is tried again for as long as the gateway lives, but ever more rarely."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchfleet.gateway import batch_supervisor
from batchfleet.gateway.batch_supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, LOOK_S
from batchfleet.supervisor import processes
from batchfleet.supervisor.processes import Supervised

TRIES = 9


class _EnoughError(Exception):
    """Ends the watch."""


@pytest.mark.parametrize("code", [1, 2])
async def test_pauses_between_tries_grow_up_to_a_longest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Each pause, once it was given up, is followed by one try; also of a process that says that it cannot work."""
    monkeypatch.setattr(processes, "MOST_FAILURES", 0)
    started, pauses = 0, list[float]()

    def start() -> subprocess.Popen[bytes]:
        nonlocal started
        started += 1
        return subprocess.Popen(  # noqa: S603 (our own command line)
            [sys.executable, "-ISc", f"raise SystemExit({code})"]
        )

    async def sleep(seconds: float) -> None:
        process.process.wait()
        if seconds != LOOK_S:
            assert started == len(pauses) + 1
            pauses.append(seconds)
        if len(pauses) == TRIES:
            raise _EnoughError

    process = Supervised("it", start, tmp_path / "log")
    with pytest.raises(_EnoughError):
        await batch_supervisor._watch(process, sleep)

    ceilings = [min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number) for number in range(TRIES)]
    assert all(ceiling / 2 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True)), pauses
