"""What `benchmarks engine` and `benchmarks shapes` make of their measurements."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning.shapes import Shape, candidates
from benchmarks import engine_report, shape_table
from benchmarks.engine_report import Measurement
from benchmarks.shape_table import Plan, in_order, steps_of


def raw(number: int, rate: float, added: float, fed: str = "raw: 96 in flight") -> Measurement:
    """A hundred questions."""
    return Measurement(fed, number, 100, 100 / rate, size=96, raw=True, sum_of_rates=added)


def fleet(number: int, rate: float) -> Measurement:
    """A hundred questions."""
    return Measurement("fleet: batches of 16", number, 100, 100 / rate, size=16)


def measured() -> dict[str, Any]:
    """Two rounds, and a slow way to feed."""
    slow = Measurement("raw: one question at a time", 1, 10, 10, size=1, raw=True, at_once=1)
    found = [
        raw(1, 100, 125),
        raw(1, 50, 50, "raw: 64 in flight"),
        fleet(1, 100),
        raw(2, 200, 200),
        fleet(2, 180),
        slow,
    ]
    return engine_report.report({}, found, []).as_dict({})


def test_ratios_are_those_of_each_round() -> None:
    """Medians of ratios to raw at its best without barriers: to what all engines did, and to the sum of their rates."""
    found = measured()

    _, rounds = found["tables"].values()
    assert [(row["fleet / raw"], row["fleet / sum"]) for row in rounds] == [(1.0, 0.8), (0.9, 0.9)]
    assert any("0.950 at the slowest batch size" in note for note in found["notes"])


def test_the_ends_come_before_what_is_between() -> None:
    """Cut off, the table still has what people ask first; scaling and a killed worker with the most workers."""
    ordered = in_order(candidates(8))

    assert list(map(str, ordered)) == ["8xTP1", "1xTP8", "4xTP2", "2xTP4"]
    assert in_order([Shape()]) == [Shape()]
    told = {str(shape): " ".join(steps_of(Plan(), shape, 400)) for shape in ordered}
    assert told["8xTP1"].endswith("--fed-by 1 --killed 1 --fewer 4 2 1")
    assert told["1xTP8"].endswith("--fed-by 1")
    assert told["4xTP2"].endswith("--fed-by")
    assert "--killed" not in " ".join(steps_of(Plan(), Shape(), 400))


def test_a_step_that_fails_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is named with its reason, and what there is has been written before the next one begins."""
    written = []

    def measure(plan: Plan, settings: Settings, shape: Shape, most_s: float) -> dict[str, Any] | str:  # noqa: ARG001
        file = plan.folder / "shapes.md"
        written.append(file.read_text(encoding="utf-8") if file.exists() else "")
        return "batchfleet: no" if shape.workers == 1 else measured()

    monkeypatch.setattr(shape_table, "_measure", measure)
    settings = with_changes(Settings(), {"model.generator_settings.hf_model_id": "any"})
    said: list[str] = []

    report = shape_table.run(Plan(folder=tmp_path / "found", gpus=4), settings, said.append)

    assert said == [
        "4xTP1: fleet 140.0/s; fleet / raw by round 1.0, 0.9",
        "1xTP4: batchfleet: no",
        "2xTP2: fleet 140.0/s; fleet / raw by round 1.0, 0.9",
    ]
    assert "4xTP1" in written[1]
    assert "1xTP4: batchfleet: no" in written[2]
    assert [row[0] for row in report.tables[1].rows] == ["4xTP1", "4xTP1", "2xTP2", "2xTP2"]
    assert asdict(raw(1, 1, 1)).items() <= {**report.measurements[0], "elapsed_s": 100.0, "sum_of_rates": 1}.items()
