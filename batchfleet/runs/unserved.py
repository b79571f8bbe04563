"""Questions for models that no worker serves: refused where none ever will, told again and again where one may come."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping

from batchfleet.humanize import count, plural
from batchfleet.status.model import FleetStatus
from producer.questions.checked import ModelUse
from producer.resume import FileRun
from wire.errors import UsageError

REPEAT_S, LONGEST_REPEAT_S = 30.0, 600.0
NAMED = 3


def ensure_served(what: FileRun, served: Collection[str]) -> None:
    """Refuse a run that could never end.

    Args:
        served: The models that its workers, and any others on their Redis, serve.

    Raises:
        UsageError: Questions ask for another one.
    """
    if unserved := _unserved(asked_models(what), served):
        raise UsageError(
            f"{_words(unserved, what.checked.rows)}, but this run serves {_names(served)}; {_instead(served)}"
        )


def asked_models(what: FileRun) -> dict[str, ModelUse]:
    """Each model that the run asks, with how many of its questions do."""
    uses = dict(what.checked.models)
    unnamed = uses.pop("", None)
    if unnamed is not None:
        named = uses.get(what.default_model)
        first = named.first_place if named else unnamed.first_place
        uses[what.default_model] = ModelUse(unnamed.questions + (named.questions if named else 0), first)
    return uses


class UnservedNotice:
    """Tells on standard error of questions that wait for a worker which is not there.

    At once, and then ever more rarely. Whoever wants to hear nothing else wants to hear this: otherwise the command
    waits without a word, perhaps for ever. `scaled`: models for which something starts workers, as the settings say.
    """

    def __init__(self, what: FileRun, served: Collection[str], now_s: float, scaled: Collection[str] = ()) -> None:
        self._asked, self._questions = asked_models(what), what.checked.rows
        self._scaled = frozenset(scaled)
        served = self._scaled.union(served)
        self._repeat_s = REPEAT_S
        self._next_s = now_s + REPEAT_S
        if unserved := _unserved(self._asked, served):
            self._tell(unserved, served)

    def look(self, status: FleetStatus | None, now_s: float) -> None:
        """Tell it again if it is time, and still so."""
        if status is None or now_s < self._next_s:
            return
        served = sorted(self._scaled | status.served_models)
        waiting = {queue.model for queue in status.queues if queue.waiting_questions or queue.waiting_batches}
        if unserved := {model: use for model, use in _unserved(self._asked, served).items() if model in waiting}:
            self._tell(unserved, served)
            self._repeat_s = min(2 * self._repeat_s, LONGEST_REPEAT_S)
        self._next_s = now_s + self._repeat_s

    def _tell(self, unserved: Mapping[str, ModelUse], served: Collection[str]) -> None:
        known = f"workers serve {_names(served)}" if served else "no worker reports"
        words = f"{_words(unserved, self._questions)}, which no worker serves; {known}. They wait until one does; "
        print(f"batchfleet: warning: {words}{_instead(served)}", file=sys.stderr, flush=True)


def tell_awaited(what: FileRun, fleet: FleetStatus, scaled: Collection[str]) -> None:
    """Say on standard error for which models the fleet has yet to start a worker."""
    awaited = fleet.scaled_models.union(scaled) & asked_models(what).keys() - {one.model for one in fleet.workers}
    if awaited:
        words = (
            f"batchfleet: no worker of {_names(sorted(awaited))} runs yet; the fleet starts workers for the questions"
        )
        print(words, file=sys.stderr, flush=True)


def _unserved(asked: Mapping[str, ModelUse], served: Collection[str]) -> dict[str, ModelUse]:
    return {model: use for model, use in asked.items() if model not in served}


def _words(unserved: Mapping[str, ModelUse], questions: int) -> str:
    number = sum(use.questions for use in unserved.values())
    ask = "asks" if number == 1 else "ask"
    first = next(iter(unserved.values())).first_place
    return f"{count(number)} of {plural(questions, 'question')} {ask} for {_names(unserved)} (the first: {first})"


def _names(models: Collection[str]) -> str:
    named = ", ".join(repr(model) for model in list(models)[:NAMED])
    return f"{named} and {len(models) - NAMED} more" if len(models) > NAMED else named


def _instead(served: Collection[str]) -> str:
    name = shlex.quote(next(iter(served))) if len(served) == 1 else "MODEL"
    return f"`--served-as {name}` asks all of that model, whatever they name"
