"""Runs a sweep: one run after another, and a new fleet only where the engine must be another."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchfleet.console import TerminalConsole
from batchfleet.runs.progress import ProgressView
from batchfleet.runs.run_request import STDIN, RunRequest, prepare
from batchfleet.runs.signals import Interruption
from batchfleet.runs.unserved import asked_models, ensure_served
from batchfleet.settings import to_options
from batchfleet.settings.mask import to_file_text
from batchfleet.settings.schema import ModelSettings, Settings, SweepSettings
from batchfleet.settings.sections.generator import SAMPLING_FIELDS, GeneratorSettings
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely
from batchfleet.supervisor.local_fleet import LocalFleet
from batchfleet.supervisor.local_plan import LocalPlan
from batchfleet.supervisor.processes import ChildGaveUpError
from batchfleet.sweep.combinations import Combination, combinations
from batchfleet.sweep.comparison import Accuracy, Comparison, Row, count_answers
from producer.answers.answers_file import AnswersFile
from producer.file_run import RunCancelledError, Runner
from producer.resume import FileRun, take_stock
from producer.run_loop import StuckError
from producer.sender_thread import NotFinishedError
from wire.errors import UsageError

Load = Callable[[Mapping[str, object], str], Settings]
"""Reads the configuration again with these settings in place of its own.

The text says in errors where they come from.
"""


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What the user asked for.

    Attributes:
        asking: What is asked in every run, and how to talk to the user. Its `answers` is a folder: for one file a run,
            and for the comparison.
        engine: None for what each run's settings describe.
        accuracy: Scores a run's answers when it is complete.
    """

    asking: RunRequest
    engine: str | None = None
    workers: int = 1
    accuracy: Accuracy = lambda _: None

    @property
    def folder(self) -> Path:
        return self.asking.answers


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a sweep, ready to be made."""

    combination: Combination
    settings: Settings
    engine: str
    what: FileRun
    answers: Path
    row: Row

    @property
    def fleet_settings(self) -> Settings:
        """What its fleet is told.

        Sampling travels with the questions, so runs that differ in nothing else share a fleet.
        """
        generator = self.settings.model.generator_settings
        unset = {name: GeneratorSettings.model_fields[name].default for name in SAMPLING_FIELDS}
        model = ModelSettings(generator_settings=generator.model_copy(update=unset))
        # A Redis of its own: nobody else's workers may answer for an engine that is compared.
        own_redis = self.settings.redis.model_copy(update={"url": None, "username": None, "password": None})
        return self.settings.model_copy(update={"model": model, "sweep": SweepSettings(), "redis": own_redis})

    @property
    def fleet_key(self) -> str:
        """The same for runs that can share a fleet."""
        return f"{self.engine} {to_file_text(self.fleet_settings)}"


def run_sweep(plan: SweepPlan, settings: Settings, load: Load) -> int:
    """`batchfleet sweep`.

    Returns:
        The exit code: 0 every question of every run answered, 1 some failed, 3 some run is not finished, 130
            interrupted.

    Raises:
        UsageError: Something in the sweep, in one of its runs' settings, in the questions or in the folder is wrong;
            nothing was begun.
    """
    if STDIN in plan.asking.questions:
        raise UsageError(
            "a sweep reads its questions once for each run, and standard input can be read once; put them into a file"
        )
    asked_for = combinations(settings.sweep)
    # All of them before the folder is made: a sweep that is wrong leaves nothing behind.
    loaded = [load(combination.overrides, f"sweep, run {combination.name}") for combination in asked_for]
    _make(plan.folder)
    steps = [_prepared(plan, combination, own) for combination, own in zip(asked_for, loaded, strict=True)]
    comparison = Comparison(plan.folder, [step.row for step in steps])
    comparison.take_over()
    interrupted = False
    # By fleet, in the order in which each is first needed.
    for key in dict.fromkeys(step.fleet_key for step in steps):
        sharing = [step for step in steps if step.fleet_key == key]
        with contextlib.suppress(ChildGaveUpError):
            interrupted = _run_on_one_fleet(plan, sharing, comparison)
        if interrupted:
            break
    comparison.write()
    return _report(plan, comparison, interrupted=interrupted)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror}; choose another -o") from None


def _prepared(plan: SweepPlan, combination: Combination, settings: Settings) -> Step:
    engine = to_options.engine_kind(settings, plan.engine)
    answers = plan.folder / f"{combination.name}.jsonl"
    asking = dataclasses.replace(plan.asking, answers=answers)
    model = to_options.model_name(settings, engine)
    what = prepare(asking, settings, asking.served_as or model, settings.model.generator_settings.sampling_defaults)
    ensure_served(what, [model])
    what = dataclasses.replace(what, run=f"{combination.name}-{what.run.removeprefix('run-')}")
    row = Row(combination.name, combination.overrides, str(answers), run=what.run, questions=what.checked.count)
    with AnswersFile(answers) as file:
        # Finds out now, not after hours of other runs, that the file is something else's.
        complete = take_stock(what, file).is_complete
        _count(row, answers, plan, complete=complete)
    return Step(combination, settings, engine, what, answers, row)


def _run_on_one_fleet(plan: SweepPlan, steps: Sequence[Step], comparison: Comparison) -> bool:
    """Make those of the runs that are not complete, one after another.

    Returns:
        Whether the user has stopped the sweep.

    Raises:
        ChildGaveUpError: The fleet could not continue; the rows say so.
    """
    to_do = [step for step in steps if step.row.status != "complete"]
    if not to_do:
        return False
    settings = to_do[0].fleet_settings
    local = LocalPlan.of(settings, os.environ, engine=to_do[0].engine, workers=plan.workers)
    with LocalFleet(local) as fleet:
        with _reasons(to_do), ProgressView(quiet=plan.asking.quiet) as view:
            fleet.wait_until_serving(to_options.redis_address(settings, url=fleet.redis_url), view.say)
        for number, step in enumerate(to_do):
            with _reasons(to_do[number:]):
                stopped = _run_one(plan, step, fleet)
            comparison.write()
            if stopped:
                return True
    return False


def _run_one(plan: SweepPlan, step: Step, fleet: LocalFleet) -> bool:
    """Make one run; returns whether the user has stopped it."""
    row = step.row
    if not plan.asking.quiet:
        print(f"run {row.name}", file=sys.stderr, flush=True)
    address = to_options.redis_address(step.fleet_settings, url=fleet.redis_url)
    options = to_options.producer_options(step.settings)
    with (
        AnswersFile(step.answers) as answers,
        Interruption() as interruption,
        ProgressView(quiet=plan.asking.quiet) as view,
    ):
        runner = Runner(
            step.what,
            take_stock(step.what, answers),
            answers,
            address,
            options,
            observe=view.show,
            check_fleet=fleet.check,
        )
        interruption.calls(runner.stop)
        view.follow(address, asked_models(step.what))
        collect_garbage_rarely()
        before, began = runner.tally.on_disk, time.monotonic()
        try:
            runner.run()
        except (NotFinishedError, RunCancelledError, StuckError) as error:
            row.status, row.reason = "not finished", str(error)
        finally:
            row.elapsed_s += time.monotonic() - began
            row.measured_questions += runner.tally.on_disk - before
        _count(row, step.answers, plan, complete=row.status != "not finished")
    return interruption.asked


@contextlib.contextmanager
def _reasons(steps: Sequence[Step]) -> Iterator[None]:
    """A fleet that gives up leaves the reason in the rows that needed it."""
    try:
        yield
    except ChildGaveUpError as error:
        for step in steps:
            if step.row.status != "complete":
                step.row.status, step.row.reason = "not finished", str(error)
        print(f"batchfleet: {error}", file=sys.stderr)
        raise


def _count(row: Row, answers: Path, plan: SweepPlan, *, complete: bool) -> None:
    with answers.open("rb") as lines:
        count_answers(row, lines)
    if complete:
        row.status, row.reason = "complete", ""
        row.accuracy = plan.accuracy(answers)


def _report(plan: SweepPlan, comparison: Comparison, *, interrupted: bool) -> int:
    if plan.asking.as_json:
        print(json.dumps({"runs": [row.as_dict() for row in comparison.rows]}))
    else:
        console = TerminalConsole()
        console.print(comparison.drawn(console.width_if_terminal))
    unfinished = [row for row in comparison.rows if row.status != "complete"]
    if not plan.asking.quiet:
        print(f"answers, comparison.json and comparison.csv are in {plan.folder}", file=sys.stderr)
    if unfinished:
        print(
            (
                f"batchfleet: {len(unfinished)} of {len(comparison.rows)} runs are not finished; "
                "the same command resumes them"
            ),
            file=sys.stderr,
        )
        return 130 if interrupted else 3
    return 1 if any(row.failed for row in comparison.rows) else 0
