"""Charts that a benchmark draws, and the clock that jumps."""

from __future__ import annotations

import asyncio
from xml.etree import ElementTree as ET

import pytest

from batchfleet.settings.layers import with_changes
from batchfleet.settings.schema import Settings
from batchfleet.tuning import feed, virtual_clock
from benchmarks.chart import Bars, Lines
from wire.messages import Question

SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_values() -> None:
    """And names that hold markup do no harm."""
    drawing = ET.fromstring(Bars("Rates", "1/s", [("ours", 100.0), ("<theirs>", 25.0)], highlighted="ours").as_svg())  # noqa: S314 (ours)

    ours, theirs = (float(bar.get("width", 0)) for bar in drawing.findall(f"{SVG}rect")[1:])
    assert ours / theirs == pytest.approx(4, rel=0.01)
    assert any(text.text == "<theirs>" for text in drawing.iter(f"{SVG}text"))


def test_doublings_are_equally_far_apart() -> None:
    """On a logarithmic axis; and higher values are higher up."""
    chart = Lines("Sizes", "size", "rate", {"a": [(1, 1.0), (2, 2.0), (4, 3.0)]}, log_x=True)

    drawing = ET.fromstring(chart.as_svg())  # noqa: S314 (ours)

    places = [(float(mark.get("cx", 0)), float(mark.get("cy", 0))) for mark in drawing.findall(f"{SVG}circle")]
    (x1, y1), (x2, y2), (x3, y3) = places
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 > y2 > y3


def test_hours_on_a_virtual_clock_pass_at_once() -> None:
    """In the order in which they are due."""
    seen: list[str] = []

    async def sleeper(name: str, hours: float) -> None:
        await asyncio.sleep(3600 * hours)
        seen.append(name)

    async def both() -> float:
        await asyncio.gather(sleeper("late", 2), sleeper("early", 1))
        return asyncio.get_running_loop().time()

    assert virtual_clock.run(both()) == pytest.approx(7200)
    assert seen == ["early", "late"]


def test_waiting_for_nothing_on_a_virtual_clock_is_an_error() -> None:
    """It would hang for ever."""
    with pytest.raises(RuntimeError, match="nothing is due"):
        virtual_clock.run(asyncio.Event().wait())


def test_the_stub_takes_exactly_as_long_as_its_steps() -> None:
    """Four answers of ten tokens, two at a time: twenty steps; one after the other: forty."""
    stub = {"stub.step_s": 0.5, "stub.max_num_seqs": 2, "stub.min_tokens": 10, "stub.max_tokens": 10}
    settings = with_changes(Settings(), stub)
    questions = [
        Question(run="r", index=i, request_id=f"q{i}", model="stub", prompt=f"{i}", submitted_at=0.0) for i in range(4)
    ]

    assert feed.stub_takes_s(feed.all_at_once, questions, settings) == pytest.approx(10.0)
    assert feed.stub_takes_s(feed.whole_batches(1, 1), questions, settings) == pytest.approx(20.0)
    assert feed.stub_takes_s(feed.by_capacity(2, 1), questions, settings) == pytest.approx(10.0, abs=0.6)
