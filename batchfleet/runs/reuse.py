"""`--share-identical` and `--cache`: what a run need not ask, because it is answered already or will be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import JsonValue

from batchfleet.humanize import count
from batchfleet.runs.long_step import LongStep
from batchfleet.runs.run_request import RunRequest
from batchfleet.runs.signals import Interruption
from batchfleet.settings.schema import Settings
from producer.answers.answers_file import AnswersFile
from producer.resume import FileRun, ResumeState
from producer.reuse.cache import AnswerCache
from producer.reuse.identical import IdenticalQuestions, Identity
from wire.errors import UsageError
from wire.messages import JsonObject


@contextmanager
def opened_reuse(
    what: FileRun, asking: RunRequest, settings: Settings, engine: str | None, sampling: JsonObject
) -> Iterator[IdenticalQuestions | None]:
    """None if nothing is to be shared.

    Args:
        engine: The kind of engine that answers; None if only the workers know.
        sampling: What is used where a question says nothing, as far as it is known here.

    Raises:
        UsageError: The cache cannot be used, or nobody knows for which answers.
    """
    # What failed is asked again by itself: another answer need not have been there when it was asked.
    if not asking.shares_identical or asking.retry is not None:
        yield None
        return
    if asking.cache is not None and engine is None:
        raise UsageError(
            "--cache needs the engine, its revision and every parameter, which only the workers know with submit; "
            "use it with run, or --share-identical for the questions of this run"
        )
    identity = Identity(what.default_model, sampling, {} if engine is None else _engine(what, settings, engine))
    with ExitStack() as closing:
        cache = None
        if asking.cache is not None:
            cache = closing.enter_context(AnswerCache(asking.cache, settings.limits.max_cache_bytes))
        yield closing.enter_context(IdenticalQuestions(what, identity, cache))


def take_over(
    identical: IdenticalQuestions | None,
    stock: ResumeState,
    answers: AnswersFile,
    interruption: Interruption,
    *,
    quiet: bool,
) -> None:
    """Write what need not be asked, and say so."""
    if identical is None or stock.is_complete:
        return
    with LongStep(
        "looking for identical questions", "rows", "nothing more was submitted", check=interruption.check, quiet=quiet
    ) as step:
        identical.take_over(stock, answers, step)
    if quiet:
        return
    if taken_over := stock.tally.taken_over:
        print(f"batchfleet: {count(taken_over)} questions are answered already, by identical ones", file=sys.stderr)
    if not identical.can_share:
        msg = (
            "--share-identical shares nothing: only answers at temperature 0 are shared, and these questions have "
            "another, or none that is known here; give --temperature 0"
        )
        print(f"batchfleet: warning: {msg}", file=sys.stderr)


def _engine(what: FileRun, settings: Settings, engine: str) -> JsonObject:
    """What answers depend on, besides question, model and sampling. Rather too much of it than too little."""
    generator = settings.model.generator_settings
    about: JsonObject = {"kind": engine, "template": what.fingerprint["template"]}
    if engine == "stub":
        return {**about, "stub": settings.stub.model_dump(mode="json", exclude={"step_s", "max_num_seqs"})}
    if engine == "openai":
        return {**about, "server": generator.server, "port": generator.port}
    loaded = generator.hf_model_id or str(generator.vllm_args.get("model"))
    return {**about, "loaded": loaded, "files": _files(Path(loaded)), "vllm_args": dict(generator.vllm_args)}


def _files(folder: Path) -> list[JsonValue]:
    """Of a model in a folder, what changes when somebody puts another one there."""
    if not folder.is_dir():
        return []
    found = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.is_file())
    return [[name, status.st_size, status.st_mtime_ns] for name, status in found]
