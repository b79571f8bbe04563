"""The answers file of a finished run -> the file that was asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

from batchfleet.runs.long_step import LongStep
from producer.answers.destination import Destination
from producer.answers.exporter import export
from producer.questions.question_file import read_checked, ticked
from producer.resume import FileRun
from producer.run_tally import RunTally
from wire.messages import JsonObject


def deliver(what: FileRun, tally: RunTally, to: Destination, check: Callable[[], None], *, quiet: bool) -> None:
    """Make the file, if it is another than the answers file itself.

    Args:
        check: Raises KeyboardInterrupt where it is to stop.

    Raises:
        UsageError: It cannot be written; the answers file is whole all the same.
    """
    if to.is_made_at_the_end:
        about = about_run(what.run, tally.questions, tally.answered, tally.failed, what.fingerprint)
        after = f"the answers are safe in {to.journal}, and the same command continues"
        with LongStep("writing the answers", "rows", after, check=check, quiet=quiet) as step:
            asked = lambda: ticked(read_checked(what.questions, what.reading, what.checked), step)  # noqa: E731 (begins anew with each call)
            export(to.journal, to, about, asked, step)


def about_run(
    run: str | None, questions: int, answered: int, failed: int, made_of: dict[str, str] | None = None
) -> JsonObject:
    """What the JSON format says in its `metadata`."""
    return {
        "evaluation_metadata": {
            "script_name": "batchfleet",
            "script_version": version("batchfleet"),
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "run": run,
            "configuration": dict(made_of or {}),
            "question_statistics": {"total_questions": questions, "answered": answered, "failed": failed},
        }
    }
