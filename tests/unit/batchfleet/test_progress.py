"""What is told of a run, look by look."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from batchfleet.runs.progress import ProgressView
from batchfleet.status.model import BatcherStatus, FleetStatus, QueueStatus, WorkerStatus
from producer.run_tally import RunTally


def test_a_silence_does_not_count_the_boot(capsys: pytest.CaptureFixture[str]) -> None:
    """Five seconds after a boot of two minutes, nobody is told that there was no answer for two minutes."""
    now = [time.monotonic()]
    view = ProgressView(clock=lambda: now[0])
    fleet = SimpleNamespace(status=None)
    view._glance, view._models = fleet, ["stub"]  # type: ignore[assignment]  # As far as the view looks at it.
    tally = RunTally(100, sent=100, started=now[0])
    booting, running = WorkerStatus("w1", "booting", "stub"), WorkerStatus("w1", "running", "stub", in_flight=64)
    for _ in range(120):
        fleet.status = FleetStatus(workers=(booting,), batchers=(BatcherStatus("b1", "leading"),), leader="b1")
        now[0] += 1
        view.show(tally)
    fleet.status = FleetStatus(workers=(running,), batchers=fleet.status.batchers, leader="b1")
    booted = capsys.readouterr().err
    for _ in range(60):
        now[0] += 1
        view.show(tally)

    told = capsys.readouterr().err
    assert "waiting: 1 engine still booting" in booted
    assert "no answer for" not in booted
    assert "no answer for" in told
    assert "no answer for 2 min" not in told
    assert "no answer for 3 min" not in told


def test_what_serves_other_models_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Questions of a model without a worker are queued, however many another model's workers hold."""
    now = [time.monotonic()]
    view = ProgressView(clock=lambda: now[0])
    others = WorkerStatus("w1", "running", "other", capacity=64, in_flight=64)
    waiting = (QueueStatus("ours", waiting_questions=100), QueueStatus("other", waiting_questions=9))
    fleet = FleetStatus(waiting, (others,), (BatcherStatus("b1", "leading"),), 164, leader="b1")
    view._glance, view._models = SimpleNamespace(status=fleet), ["ours"]  # type: ignore[assignment]  # As above.
    for _ in range(30):
        now[0] += 1
        view.show(RunTally(100, sent=100, started=now[0] - 30))

    told = capsys.readouterr().err
    assert "in flight 0, queued 100" in told
    assert "no worker serves ours" in told
    assert "other" not in told
