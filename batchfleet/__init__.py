"""Ask a fleet of LLM workers from Python.

    from batchfleet import Fleet

    with Fleet("redis://localhost") as fleet:
        for answer in fleet.answer(["Why is the sky blue?", "Why is grass green?"]):
            print(answer.text)

docs/python.md is the guide. What is not named here may change at any time.
"""

from importlib.metadata import PackageNotFoundError, version

from batchfleet._answers import Answer, Failure, Usage
from batchfleet._async_fleet import AsyncFleet
from batchfleet._async_run import AsyncRun
from batchfleet._errors import Errors, QuestionFailedError
from batchfleet._fleet import Fleet
from batchfleet._questions import Question, QuestionLike
from batchfleet._run import Run
from batchfleet._statuses import RunStatus
from fleet.status import FleetStatus
from producer.sending import RunBusyError
from wire.errors import FleetError, LeaseLostError, QueueUnavailableError, QueueUnusableError, UsageError

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

try:
    __version__ = version("batchfleet")
except PackageNotFoundError:
    # A tree on PYTHONPATH that was never installed.
    __version__ = "0+unknown"
