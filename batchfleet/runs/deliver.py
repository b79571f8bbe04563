"""The answers file of a finished run -> the file that was asked for."""

from __future__ import annotations

import time
from importlib.metadata import version

from producer.answers.destination import Destination
from producer.answers.exporter import export
from producer.questions.question_file import read_checked
from producer.resume import FileRun, RunTally
from wire.messages import JsonObject


def deliver(what: FileRun, tally: RunTally, to: Destination) -> None:
    """Make the file, if it is another than the answers file itself.

    Raises:
        UsageError: It cannot be written; the answers file is whole all the same.
    """
    if to.is_made_at_the_end:
        about = about_run(what.run, tally.questions, tally.answered, tally.failed, what.fingerprint)
        export(to.journal, to, about, lambda: read_checked(what.questions, what.reading, what.checked))


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
