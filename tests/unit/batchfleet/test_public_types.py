"""The public names, and what a type checker makes of them.

mypy checks this file with all others. What it must refuse is marked as an error that it expects, and complains of if it
is none any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any, assert_type

import batchfleet
from batchfleet import (
    Answer,
    AsyncFleet,
    AsyncRun,
    Errors,
    Failure,
    Fleet,
    FleetError,
    FleetStatus,
    Question,
    QuestionFailedError,
    Run,
    RunStatus,
    Usage,
)


def test_every_public_name_is_there_and_documented() -> None:
    """And nothing is public by accident."""
    public = {
        name
        for name in dir(batchfleet)
        if not name.startswith("_") and not isinstance(getattr(batchfleet, name), ModuleType)
    }

    assert public == set(batchfleet.__all__) - {"__version__"} | {"TYPE_CHECKING", "annotations"}
    assert batchfleet.__version__
    assert issubclass(QuestionFailedError, FleetError)
    for name in ("Answer", "AsyncFleet", "AsyncRun", "Failure", "Fleet", "Question", "Run", "RunStatus"):
        kind = getattr(batchfleet, name)
        assert kind.__doc__
        assert all(
            getattr(kind, member).__doc__
            for member in vars(kind)
            if not member.startswith("_") and callable(getattr(kind, member))
        )


def blocking(fleet: Fleet, either: Errors) -> None:
    """Never called: for mypy."""
    assert_type(fleet.ask("Why?"), Answer)
    assert_type(fleet.ask({"question": "Why?"}, errors="return", timeout_s=1), Answer | Failure)
    assert_type(fleet.ask(Question("Why?"), errors=either), Answer | Failure)
    assert_type(fleet.answer(["Why?"]), Iterator[Answer])
    assert_type(
        fleet.answer((Question(messages=[{"role": "user", "content": "Why?"}]) for _ in "abc"), errors="return"),
        Iterator[Answer | Failure],
    )
    assert_type(fleet.answer(["Why?"], errors=either, run="mine", window=5), Iterator[Answer | Failure])
    run = fleet.submit([{"question": "Why?"}], params={"max_tokens": 5})
    assert_type(run, Run)
    assert_type(run.results(), Iterator[Answer])
    assert_type(run.results(errors="return"), Iterator[Answer | Failure])
    assert_type(run.wait(5), RunStatus)
    assert_type(run.cancel().is_done, bool)
    assert_type(fleet.run("mine"), Run)
    assert_type(fleet.status(), FleetStatus)
    with Fleet.local("stub", workers=2) as local:
        assert_type(local, Fleet)
    for result in fleet.answer(["Why?"], errors="return"):
        if result.status == "answered":
            assert_type(result, Answer)
            assert_type(result.usage, Usage)
        else:
            assert_type(result, Failure)
            assert_type(result.kind, str)
        assert_type(result.as_dict(), dict[str, Any])


async def on_a_loop(fleet: AsyncFleet, either: Errors) -> None:
    """Never called: for mypy."""
    assert_type(await fleet.ask("Why?"), Answer)
    assert_type(await fleet.ask("Why?", errors=either), Answer | Failure)
    assert_type(fleet.answer(["Why?"]), AsyncIterator[Answer])
    assert_type(fleet.answer(fleet_of_questions(), errors="return"), AsyncIterator[Answer | Failure])
    run = await fleet.submit(fleet_of_questions())
    assert_type(run, AsyncRun)
    assert_type(run.results(errors="return"), AsyncIterator[Answer | Failure])
    assert_type(await run.wait(), RunStatus)
    assert_type(await fleet.status(), FleetStatus)


async def fleet_of_questions() -> AsyncIterator[str]:
    """Never called: for mypy."""
    yield "Why?"


async def what_mypy_must_refuse(fleet: Fleet, loop_fleet: AsyncFleet) -> None:
    """Never called: each line has a mistake, and mypy complains of an `ignore` without one."""
    fleet.ask(5)  # type: ignore[call-overload]
    fleet.ask("Why?", errors="ignore")  # type: ignore[call-overload]
    fleet.answer([5])  # type: ignore[list-item]
    fleet.submit(fleet_of_questions())  # type: ignore[arg-type]
    print(fleet.ask("Why?", errors="return").text)  # type: ignore[union-attr]
    print(fleet.ask("Why?").kind)  # type: ignore[attr-defined]
    fleet.ask("Why?").text = "Because"  # type: ignore[misc]
    print(loop_fleet.ask("Why?").text)  # type: ignore[attr-defined]
    Fleet.local("torch")  # type: ignore[arg-type]
    Question("Why?").prompt = "How?"  # type: ignore[misc]
