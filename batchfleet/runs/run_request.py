"""What the user asked for -> a checked run of files, which nothing was sent of yet."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from batchfleet.runs.long_step import LongStep
from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from gpu_worker.engines.vllm.arguments import read_template
from producer.answers.destination import Destination, OutputFormat, destination
from producer.answers.exporter import ensure_writable
from producer.answers.sidecar import SAMPLES, derives_ids_as_asked, stored_about
from producer.options import ReadingLimits
from producer.questions.checked import Checked
from producer.questions.column_mapping import AS_IT_STANDS, Shape
from producer.questions.csv_dialect import FOUND_BY_ITSELF, CsvStyle
from producer.questions.question_file import Source, check_questions, read_questions
from producer.questions.question_parser import ParsedQuestion
from producer.questions.row_keys import KeyTaker, RowKeys
from producer.questions.samples import MOST_SAMPLES, Samples
from producer.questions.selection import EVERYTHING, Selection
from producer.questions.sources import InputFormat, find_files
from producer.questions.stdin_spool import spool
from producer.remote.download import copies_folder, download_all
from producer.resume import FileRun
from wire.address import RedisAddress
from wire.errors import EngineBootError, UsageError
from wire.messages import JsonObject

if TYPE_CHECKING:
    # It imports Jinja, which takes a tenth of a second.
    from producer.questions.row_filter import RowFilter

STDIN = "-"
"""What people write for standard input."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for.

    Attributes:
        questions: Files, folders of data sets, and patterns; or `-` alone for standard input.
        answers: The file that is to hold the answers in the end.
        run: Id of the run; None to derive it from the fingerprint.
        skip_invalid: Bad lines become failure records instead of an error.
        keep_going: Ask all of them, even if the first ones all fail alike.
        wait_for_room: Wait while the fleet is full, instead of giving up.
        served_as: The model for all questions, whatever they name; None to ask each of its own.
        upload_to: Address of the object that the answers become in the end; None for a local file alone.
        quiet, as_json: How to talk to the user.
        is_piped: The answers go on to standard output, and the file goes.
        take_back: Makes Redis forget a run, given where it is, its id and how long a run is kept; returns whether it is
            gone.
        forget: Makes Redis forget a run that nobody collects, given where it is and its id.
        priority: Of the questions that bring none.
        retry: The kinds of failures that are asked again, empty for all that are retryable; None to ask none of them.
        updates: Whether a file that has changed is asked what changed in it, and nothing else.
        keeps_removed: Whether then lines of rows that are gone stay.
        max_tokens_total: Tokens that all lines together may take; 0 for any number.
        max_seconds: How long to ask at most; 0 for as long as it takes.
        is_dry: Only say what would be asked.
        command: The command that was given, as it may be kept beside the answers.
        shares_identical: Whether identical questions are asked once.
        cache: Folder with answers of other runs; None for none.
        samples: How often each question is asked; 0 for once, with whatever seed it brings.
        again: The command that was given, for whoever stops it and wants to continue.
    """

    questions: tuple[str, ...]
    answers: Path
    run: str | None = None
    skip_invalid: bool = False
    keep_going: bool = False
    wait_for_room: bool = True
    quiet: bool = False
    as_json: bool = False
    take_back: Callable[[RedisAddress, str, float], bool] = lambda *_: False
    forget: Callable[[RedisAddress, str], None] = lambda *_: None
    retry: frozenset[str] | None = None
    updates: bool = False
    keeps_removed: bool = False
    max_tokens_total: int = 0
    max_seconds: float = 0.0
    is_dry: bool = False
    command: tuple[str, ...] = ()
    again: str = "the same command"
    priority: int = 0
    samples: int = 0
    shares_identical: bool = False
    cache: Path | None = None
    shape: Shape = AS_IT_STANDS
    selection: Selection = EVERYTHING
    where: RowFilter | None = None
    input_format: InputFormat = "auto"
    csv_style: CsvStyle = FOUND_BY_ITSELF
    output_format: OutputFormat | None = None
    is_ordered: bool = False
    is_csv_safe: bool = False
    is_listed: bool = False
    is_piped: bool = False
    served_as: str | None = None
    upload_to: str | None = None

    @property
    def to(self) -> Destination:
        """Where the answers go."""
        return destination(
            self.answers,
            self.output_format,
            is_ordered=self.is_ordered,
            is_csv_safe=self.is_csv_safe,
            is_listed=self.is_listed,
        )


def prepare(asking: RunRequest, settings: Settings, model: str, sampling: JsonObject) -> FileRun:
    """Check all of the questions and name the run; nothing is sent yet.

    Args:
        sampling: What is used where a question says nothing, as far as it is known here.

    Raises:
        UsageError: A file, or a line of it, is unusable.
    """
    limits = to_options.reading_limits(settings)
    ensure_writable(asking.to)
    # An answers file that an earlier version began goes on with the ids that are in it.
    as_before = derives_ids_as_asked(stored_about(asking.to.journal))
    task = settings.model.generator_settings.task
    shape = replace(asking.shape, ignores_models=asking.served_as is not None, ids_as_asked=as_before, task=task)
    samples = _samples(asking.samples, sampling)
    source = Source(
        _files(asking, settings), shape, asking.input_format, asking.selection, asking.csv_style, samples, asking.where
    )
    if asking.answers.exists() and any(path.exists() and asking.answers.samefile(path) for path in source.files):
        raise UsageError(f"{asking.answers} holds the questions; choose another -o")
    keys = RowKeys.new()
    note = KeyTaker(keys, model, _sampling_begun_with(asking, sampling), _chat_template(settings))
    with LongStep("checking the questions", "rows", "nothing was submitted", quiet=asking.quiet) as step:
        checked = check_questions(source, limits, skip_invalid=asking.skip_invalid, tick=step, note=note)
    keys.flush()
    _ensure_samples_differ(source, limits, sampling)
    fingerprint = fingerprint_of(checked, settings, model, sampling)
    if described := shape.described():
        # What it makes of the questions is in their own fingerprint already; here it is named, so that a difference can
        # be told.
        fingerprint["asked as"] = described
    if asking.selection != EVERYTHING:
        fingerprint["limited to"] = str(asking.selection)
    if asking.where is not None:
        fingerprint["where"] = asking.where.text
    if samples.count:
        fingerprint[SAMPLES] = str(samples.count)
    run = (
        asking.run
        or f"run-{hashlib.blake2b(json.dumps(fingerprint, sort_keys=True).encode(), digest_size=6).hexdigest()}"
    )
    what = FileRun(run, source, checked, limits, model, fingerprint, command=asking.command, keys=keys)
    # What is asked again belongs to the run that it failed in, also if other parameters are to help it.
    about = stored_about(asking.to.journal)
    parameters = about.get("fingerprint", {}).get("parameters")
    if asking.retry is None or parameters in (None, what.fingerprint["parameters"]):
        return what
    return replace(what, run=str(about.get("run")), begun_with={**what.fingerprint, "parameters": parameters})


def _samples(count: int, sampling: JsonObject) -> Samples:
    seed = sampling.get("seed")
    first_seed = seed if isinstance(seed, int) else 0
    if count > MOST_SAMPLES or first_seed > 2**63 - MOST_SAMPLES:
        raise UsageError(
            f"--samples {count}: at most {MOST_SAMPLES} are asked of a question, with seeds of at most 64 bits"
        )
    return Samples(count, first_seed)


def _ensure_samples_differ(source: Source, limits: ReadingLimits, sampling: JsonObject) -> None:
    """Greedy decoding gives the same text whatever the seed.

    Raises:
        UsageError: The first question that can be asked is asked at temperature 0.
    """
    if source.samples.count < 2:  # noqa: PLR2004 (one is no repetition)
        return
    usable = (question for question in read_questions(source, limits) if isinstance(question, ParsedQuestion))
    first = next(usable, None)
    temperature = first.params.get("temperature", sampling.get("temperature")) if first else None
    if temperature == 0:
        raise UsageError(
            f"--samples {source.samples.count}: at temperature 0 all samples of a question are the same text; "
            "give --temperature, such as 0.7"
        )


def _files(asking: RunRequest, settings: Settings) -> tuple[Path, ...]:
    if asking.questions == (STDIN,):
        with LongStep("reading standard input", "bytes", "nothing was submitted", quiet=asking.quiet) as step:
            return (spool(sys.stdin.buffer, asking.to.journal, settings.limits.max_stdin_bytes, step),)
    if STDIN in asking.questions:
        raise UsageError(f"{STDIN} is standard input, and stands alone; name it or files")
    folder, most = copies_folder(asking.to.journal), settings.limits.max_stdin_bytes
    with LongStep("copying remote questions", "bytes", "nothing was submitted", quiet=asking.quiet) as step:
        return find_files(asking.questions, lambda url: download_all(url, folder, most, step))


def fingerprint_of(checked: Checked, settings: Settings, model: str, sampling: JsonObject) -> dict[str, str]:
    """What makes two runs the same: the questions, the model, and what is used where a question says nothing."""
    return {
        "questions": checked.fingerprint,
        "count": str(checked.rows),
        "model": model,
        "parameters": json.dumps(sampling, sort_keys=True) if sampling else "the workers' own",
        "template": _chat_template(settings),
    }


def _chat_template(settings: Settings) -> str:
    """Which chat template is used, in short."""
    generator = settings.model.generator_settings
    template = generator.chat_template or generator.vllm_args.get("chat_template")
    if not template:
        return "the model's own"
    return hashlib.blake2b(_template_text(template).encode(), digest_size=8).hexdigest()


def _sampling_begun_with(asking: RunRequest, sampling: JsonObject) -> JsonObject:
    """What an answers file was begun with, also for what is asked again with other parameters: it is the same row."""
    if asking.retry is None:
        return sampling
    stored = stored_about(asking.to.journal).get("fingerprint", {}).get("parameters")
    if stored is None:
        return sampling
    with contextlib.suppress(ValueError):
        return dict(json.loads(stored))
    # The workers' own.
    return {}


def _template_text(template: JsonValue) -> str:
    """A file that is called the same and says something else is another template."""
    try:
        return read_template(template)
    except EngineBootError:
        # It may lie on the workers' machines alone.
        return str(template)
