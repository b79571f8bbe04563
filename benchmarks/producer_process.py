"""The producer of a benchmark: it does what `batchfleet submit` does.

It also reads the clock of the process where the first question is sent.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from pathlib import Path

import orjson

from batchfleet.runs.progress import ProgressView
from batchfleet.runs.run_request import RunRequest, prepare
from batchfleet.settings import to_options
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely
from batchfleet.tuning import helper
from benchmarks.cpu_profiler import sampling
from producer.answers.answers_file import AnswersFile
from producer.file_run import Runner
from producer.resume import take_stock

PATIENCE_S = 10.0
"""A benchmark whose Redis is gone has nothing to wait for."""


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("questions", "answers", "redis_url"):
        parser.add_argument(name)
    parser.add_argument("--config", required=True)
    parser.add_argument("--engine", default="stub")
    parser.add_argument("--run", help="name of the run, where the same questions are asked more than once")
    parser.add_argument("--samples", help="write samples of the sending and collecting to this file")
    arguments = parser.parse_args()
    settings = helper.load(arguments.config, arguments.redis_url)
    asking = RunRequest((arguments.questions,), Path(arguments.answers), run=arguments.run)
    began_s = time.process_time()
    what = prepare(
        asking,
        settings,
        to_options.model_name(settings, arguments.engine),
        settings.model.generator_settings.sampling_defaults,
    )
    checking_s = time.process_time() - began_s
    options = dataclasses.replace(to_options.producer_options(settings), patience_s=PATIENCE_S, sampling={})
    with AnswersFile(asking.to.journal) as answers, ProgressView() as view:
        runner = Runner(
            what, take_stock(what, answers), answers, to_options.redis_address(settings), options, observe=view.show
        )
        collect_garbage_rarely()
        helper.wait_for_go()
        began_s = time.process_time()
        with sampling(Path(arguments.samples)) if arguments.samples else contextlib.nullcontext():
            tally = runner.run()
        used_s = time.process_time() - began_s
    result = {
        "elapsed_s": tally.elapsed_s,
        "answered": tally.answered,
        "failed": tally.failed,
        "empty": tally.kinds["empty_answer"],
        "cpu_s": used_s,
        "checking_cpu_s": checking_s,
    }
    helper.tell({**result, "again": _begun_again(asking.to.journal)})
    return 0


def _begun_again(answers: Path) -> int:
    """How many questions more than one worker was given, or one worker twice: what lapsed leases cost."""
    with answers.open("rb") as lines:
        return sum(orjson.loads(line)["attempts"] > 1 for line in lines)


if __name__ == "__main__":
    sys.exit(main())
