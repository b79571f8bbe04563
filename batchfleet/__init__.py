"""Ask a fleet of LLM workers from Python.

    from batchfleet import Fleet

    with Fleet("redis://localhost") as fleet:
        for answer in fleet.answer(["Why is the sky blue?", "Why is grass green?"]):
            print(answer.text)

docs/python.md is the guide. What is not named here may change at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from batchfleet.client.answers import Answer, Failure, Usage
    from batchfleet.client.async_fleet import AsyncFleet
    from batchfleet.client.async_run import AsyncRun
    from batchfleet.client.fleet import Fleet
    from batchfleet.client.question_errors import Errors, QuestionFailedError
    from batchfleet.client.questions import Question, QuestionLike
    from batchfleet.client.run_handle import Run
    from batchfleet.client.run_status import RunStatus
    from batchfleet.status.model import FleetStatus
    from producer.sender import RunBusyError
    from wire.errors import FleetError, LeaseLostError, QueueUnavailableError, QueueUnusableError, UsageError

_HOMES = {
    "Answer": "batchfleet.client.answers",
    "AsyncFleet": "batchfleet.client.async_fleet",
    "AsyncRun": "batchfleet.client.async_run",
    "Errors": "batchfleet.client.question_errors",
    "Failure": "batchfleet.client.answers",
    "Fleet": "batchfleet.client.fleet",
    "FleetError": "wire.errors",
    "FleetStatus": "batchfleet.status.model",
    "LeaseLostError": "wire.errors",
    "Question": "batchfleet.client.questions",
    "QuestionFailedError": "batchfleet.client.question_errors",
    "QuestionLike": "batchfleet.client.questions",
    "QueueUnavailableError": "wire.errors",
    "QueueUnusableError": "wire.errors",
    "Run": "batchfleet.client.run_handle",
    "RunBusyError": "producer.sender",
    "RunStatus": "batchfleet.client.run_status",
    "Usage": "batchfleet.client.answers",
    "UsageError": "wire.errors",
}
"""Public name -> where it is defined.

Imported when first asked for: a command that needs no client does not pay for one.
"""

__all__ = [
    "Answer",
    "AsyncFleet",
    "AsyncRun",
    "Errors",
    "Failure",
    "Fleet",
    "FleetError",
    "FleetStatus",
    "LeaseLostError",
    "Question",
    "QuestionFailedError",
    "QuestionLike",
    "QueueUnavailableError",
    "QueueUnusableError",
    "Run",
    "RunBusyError",
    "RunStatus",
    "Usage",
    "UsageError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415, TID251 (see _HOMES)

    home = import_module(_HOMES[name])
    value: object = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (see _HOMES)

    try:
        return version("batchfleet")
    except PackageNotFoundError:
        # A tree on PYTHONPATH that was never installed.
        return "0+unknown"
