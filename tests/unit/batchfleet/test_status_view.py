"""`status` on terminals of any width: names may be shortened and columns left out, but what is shown is whole."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from batchfleet.status.model import FleetStatus, GpuStatus, QueueStatus, RedisStatus, WorkerStatus
from batchfleet.status.table import Column, Kind, fit, shortened
from batchfleet.status.view import draw
from batchfleet.status.watch import fitting

MODEL = "/home/scientist/models/checkpoints/Llama-2-7b-chat-hf-sft-v3"
GIB = 2**30
HEADINGS = (
    "model waiting longest wait batches in flight full answers tokens worker state answered failed GPUs busy memory"
)
WIDTHS = [30, 40, 60, 80, 100, 140, 200]


def a_worker(name: str = "vm-d11fe266", **fields: Any) -> WorkerStatus:  # noqa: ANN401 (any field of a worker)
    """One of a host with GPUs, in the middle of much work."""
    use = (GpuStatus("GPU-1", int(85.3 * GIB), int(140.4 * GIB), 100),)
    defaults: dict[str, Any] = {
        "state": "running", "model": MODEL, "capacity": 384, "in_flight": 384, "answered": 123_456,
        "answers_per_s": 55.4, "tokens_per_s": 13_660.0, "gpus": ("GPU-1",), "gpu_use": use,
    }  # fmt: skip
    return WorkerStatus(name, **{**defaults, **fields})


def a_fleet(*workers: WorkerStatus, **fields: Any) -> FleetStatus:  # noqa: ANN401 (any field of a queue)
    """All of them on one model, with ten million questions."""
    waiting: dict[str, Any] = {
        "waiting_questions": 9_876_543,
        "waiting_batches": 12_345,
        "in_flight_questions": 384,
        "batch_fill": 0.99,
        "oldest_s": 750,
    }
    return FleetStatus(
        (QueueStatus(MODEL, **{**waiting, **fields}),), workers or (a_worker(),), redis=RedisStatus(2**21), leader="b1"
    )


def shown(status: FleetStatus, width: int | None, height: int = 100) -> list[str]:
    """The lines that a terminal of so many columns gets."""
    console = Console(width=width or 10_000, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(draw(status, [], width=width))
    return [line.rstrip() for line in captured.get().splitlines()]


def figures(lines: list[str]) -> set[str]:
    """What has a digit, and stands between two blanks or more."""
    return {
        cell
        for line in lines
        for cell in re.split(r"  +", line)
        if re.search(r"\d", cell) and not re.match(r"/home|vm-|GiB", cell)
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    """Nor is anything lost at its edge."""
    lines = shown(
        a_fleet(a_worker(), a_worker("vm-2", state="standby", waits_for="waits for 1 of 8 GPUs", answered=0)), width
    )

    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_no_number_is_cut(width: int) -> None:
    """Every figure that is shown is one of those that a file gets, whole.

    Only the names of models and workers have an ellipsis.
    """
    status = a_fleet(
        a_worker(failed=17),
        a_worker("vm-2", capacity=128, in_flight=64, answers_per_s=4.4, tokens_per_s=0.0, gpus=(), gpu_use=()),
    )

    text = shown(status, width)

    assert figures(text) <= figures(shown(status, None))
    assert "9 876 543" in "\n".join(text)
    assert all(word.startswith(("/h", "vm-")) for line in text for word in line.split() if "…" in word)


@pytest.mark.parametrize("width", WIDTHS[2:])
def test_headings_are_whole_words(width: int) -> None:
    """On one line or two."""
    known = set(HEADINGS.split())
    lines = shown(a_fleet(), width)
    first = next(number for number, line in enumerate(lines) if "model" in line)
    second = next(number for number, line in enumerate(lines) if "worker " in line)
    headings = {
        word for line in (lines[first - 1], lines[first], lines[second - 1], lines[second]) for word in line.split()
    }

    assert headings <= known


def test_eighty_columns_have_room_for_what_says_most() -> None:
    """With a model's name of 60 characters, the figures that say most are still shown.

    They are what waits, what is in flight, the rates, how busy the GPU is and how full.
    """
    text = "\n".join(shown(a_fleet(), 80))

    for heading in ("model", "waiting", "longest", "answers", "tokens", "worker", "state", "busy", "memory"):
        assert heading in text
    assert "85.3 of 140.4 GiB" in text
    assert "columns left out: batches full; of workers model, answered, failed, GPUs" in text


def test_failures_stay_where_there_are_any() -> None:
    """In 80 columns a count of 0 goes early, others late."""
    text = "\n".join(shown(a_fleet(a_worker(failed=17)), 80))

    assert "failed" in text
    assert " 17" in text


def test_a_file_gets_all_of_it() -> None:
    """Nothing is shortened or left out, or broken over two lines, where there is no terminal."""
    lines = shown(a_fleet(a_worker(failed=17)), None)

    assert not any("…" in line or "no room" in line for line in lines)
    assert sum(MODEL in line for line in lines) == 2


def test_names_that_differ_still_differ_when_they_are_shortened() -> None:
    """Wherever in the middle it is that they do."""
    names = [f"/home/scientist/models/{size}/checkpoint-final" for size in ("7b", "13b", "70b")]

    for width in (12, 20, 30):
        found = shortened(names, width)

        assert len(set(found)) == 3
        assert all(len(name) <= width for name in found)
    swept = [f"temperature-{warm}_max_tokens-{most}" for warm in ("0.0", "0.7") for most in (16, 64)]
    assert shortened(swept, 12) == ["…0.0_…ens-16", "…0.0_…ens-64", "…0.7_…ens-16", "…0.7_…ens-64"]
    assert shortened(names, 60) == names
    assert shortened([MODEL], 20) == ["/home/sci…-hf-sft-v3"]


def test_columns_go_in_their_order_and_only_as_many_as_must() -> None:
    """Those that may not go stay, even without room."""
    columns = [Column("a", ("12345",)), Column("b", ("12345",), drop=1), Column("c c", ("12345",), drop=2)]

    assert fit(columns, 21).dropped == ()
    assert fit(columns, 20).gap == 2
    assert [column.heading for column in fit(columns, 20).columns] == ["a", "b", "c\nc"]
    assert fit(columns, 18).dropped == ("c c",)
    assert fit(columns, 11).dropped == ("b", "c c")
    assert [column.heading for column in fit(columns, 2).columns] == ["a"]


def test_a_state_is_told_in_whole_words() -> None:
    """Over as many lines as it takes."""
    fitted = fit([Column("worker", ("w1",)), Column("state", ("standby: waits for 1 of 8 GPUs",), Kind.WORDS)], 19)

    assert fitted.widths == (6, 10)
    assert fitted.columns[1].cells == ("standby:\nwaits for\n1 of 8\nGPUs",)
    (state,) = fit([Column("state", ("running, idle 12 s",), Kind.WORDS)], 16).columns
    assert state.cells == ("running, idle\n12 s",)


def test_of_many_workers_those_that_do_not_run_are_shown_first() -> None:
    """As many are shown as the terminal has lines for, and the advice stays in sight.

    The last line says how many more there are.
    """
    workers = [a_worker(f"vm-{number:02}", max_num_seqs=512) for number in range(40)]
    status = a_fleet(*workers, a_worker("vm-99", state="dead"))
    console = Console(width=100, height=24, file=io.StringIO(), force_terminal=True, color_system=None)

    lines = [
        "".join(part.text for part in line).rstrip()
        for line in console.render_lines(fitting(status, Text("heading\n"), console))
    ]

    assert len(lines) == 24
    names = [line.split()[0] for line in lines if line.startswith("vm-")]
    assert names[:3] == ["vm-99", "vm-00", "vm-01"]
    assert f"... and {41 - len(names)} more workers" in lines
    assert any(line.startswith("advice ") for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_an_empty_fleet_is_told_too(width: int) -> None:
    """Neither queues nor workers."""
    text = "\n".join(shown(FleetStatus(), width))

    assert "no worker" in text
