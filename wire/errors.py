"""Everything that can go wrong, sorted by who must act.

FleetError
|-- MalformedMessageError    not a message of ours         -> dead letter, never again
|   `-- NewerMessageError      of a version to come          -> leave it, untouched, to a program that speaks it
|-- QueueUnavailableError    Redis did not answer          -> wait, then try again
|   `-- QueueDamagedError    a key of ours holds what no fleet wrote there
|                                                          -> the leading batcher puts it aside; try again
|-- QueueUnusableError       Redis answered, but not so that a fleet could use it (password, version, read-only)
|                                                          -> a person must act
|-- LeaseLostError           somebody else does this now   -> drop it, change nothing
|-- EngineDeadError          this worker, any question     -> finish nothing, exit, let another take it
|-- EngineUnusableError      this worker, any question     -> a person must act; give everything back, exit
|-- EngineBootError          this worker, before any work  -> a person must act; exit without having taken work
|-- ParameterError           this question, any engine     -> refuse the question, continue with the others
`-- UsageError               what the user gave            -> one clear message, exit code 2

A failure of one question is not an exception: it travels as a value (`wire.messages.Failure`), and its batch continues.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

MAX_SHOWN_CHARS = 80
"""Of a value in a message."""


class FleetError(Exception):
    """Base of every error that batchfleet raises on purpose."""


class MalformedMessageError(FleetError):
    """Bytes that are not a message of ours, or a message of a version that nobody speaks any more."""


class NewerMessageError(MalformedMessageError):
    """A message of a wire version that is newer than ours: a newer program can read it.

    `version` is the one it needs.
    """

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class QueueUnavailableError(FleetError):
    """Redis cannot be reached or did not answer in time; trying again later may help."""


class QueueDamagedError(QueueUnavailableError):
    """A key of the fleet holds something of another type or shape.

    The leading batcher moves it out of the way (`batcher.maintenance.key_repair`).
    """


class QueueUnusableError(FleetError):
    """Redis answers, but refuses what a fleet needs; trying again does not help until somebody changes something."""


class LeaseLostError(FleetError):
    """A claim lapsed and may belong to somebody else by now; whatever rested on it must not be finished."""


class EngineDeadError(FleetError):
    """The engine can answer nothing any more; every question in it is unfinished."""


class EngineUnusableError(FleetError):
    """The engine cannot answer until a person acts: the message says how. No question is to blame."""


class EngineBootError(FleetError):
    """The engine could not start. The message says what to change."""


class ParameterError(FleetError):
    """A question's `params` cannot be asked. `kind`: that of the failure, `bad_parameter` or `bad_schema`."""

    def __init__(self, message: str, kind: Literal["bad_parameter", "bad_schema"]) -> None:
        super().__init__(message)
        self.kind = kind


class UsageError(FleetError):
    """Something the user gave is wrong: an argument, a setting, an input file.

    The message says what, where and what to do.
    """


def nearest(name: str, known: Iterable[str], *, least: float = 0.6) -> str:
    """`; did you mean 'x'?`, or nothing if no known name is near; `least`: how near, from 0 to 1 for the same."""
    matches = get_close_matches(name, sorted(known), n=1, cutoff=least)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def shown(value: object) -> str:
    """A JSON value, abbreviated."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
