"""`bench engine`: how much of what vLLM can do by itself a fleet gets out of it, whatever the batch size."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import orjson

from fleet import building
from fleet.bench.questions import make_questions, texts_of
from fleet.bench.report import Report, Table, from_to, middle
from fleet.bench.rig import BenchFailedError, Helper, Rig, environment, for_bench, write_config
from fleet.settings.schema import Settings

NOTES = [
    "Raw: vLLM's AsyncLLM in a process of its own, with the same arguments and prompts, fed with so many requests in flight. The fastest counts.",
    "Fleet: one worker at its default capacity, one batcher, Redis and a producer; from the first push to the last line on disk.",
    "Every answer has exactly its number of tokens (min_tokens, max_tokens, ignore_eos). Both engines are booted once and measured in turn.",
]
EVEN = (0.0, 0.0)
ONE_AT_A_TIME = 16
SLOW_SHARE = 8
"""One batch at a time is so slow that it is measured with this fraction of the questions, and in the first round only."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: raw vLLM and the fleet at every batch size, in turn, `rounds` times.

    Attributes:
        tokens: Shortest and longest answer.
        lognormal: Mean and deviation of the logarithm of the answers' lengths; `EVEN` for an even spread.
        prompt_chars: Shortest and longest prompt; made ones are cut to between these, those of a file are left alone.
    """

    count: int = 4096
    batch_sizes: Sequence[int] = (8, 16, 64, 256)
    rounds: int = 3
    seed: int = 1
    source: Path | None = None
    tokens: tuple[int, int] = (8, 128)
    lognormal: tuple[float, float] = EVEN
    prompt_chars: tuple[int, int] = (20, 200)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run. `fed`: how; `raw`: by AsyncLLM itself; `again`: questions that were given to a worker more than once."""

    fed: str
    raw: bool
    questions: int
    elapsed_s: float
    again: int = 0

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement.

    Raises:
        UsageError: The settings name no model for vLLM.
    """
    building.model_name(settings, "vllm")
    own = for_bench(settings, {})
    ready_s = own.model.generator_settings.server_startup_timeout
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        folder = Path(name)
        _write_questions(folder / "questions.jsonl", plan)
        write_config(folder, own)
        with Helper("fleet.bench.raw_vllm", (str(folder / "questions.jsonl"),), environment(own), folder) as raw:
            sequences = int(raw.wait_until_ready()["max_num_seqs"])
            with Rig(own, 1, engine="vllm", ready_s=ready_s) as rig:
                for number in range(plan.rounds):
                    for one in _round(plan, raw, sequences, rig, folder, number):
                        found.append(one)
                        again = f", {one.again} questions begun again" if one.again else ""
                        say(f"round {number + 1}: {one.fed}: {one.rate:.1f}/s in {one.elapsed_s:.2f} s{again}")
                complaints = rig.complaints()
    parameters = {**asdict(plan), "source": plan.source.name if plan.source else "generated", "max_num_seqs": sequences}
    return Report("engine", parameters, [_table(found)], [*NOTES, _verdict(found), *complaints], [asdict(one) for one in found])


def _round(plan: Plan, raw: Helper, sequences: int, rig: Rig, folder: Path, number: int) -> Iterator[Measurement]:
    slow = max(ONE_AT_A_TIME, plan.count // SLOW_SHARE)
    for count, in_flight, whole, words in (
        (plan.count, sequences, False, f"{sequences} in flight"),
        (plan.count, sequences * 3 // 2, False, f"{sequences * 3 // 2} in flight"),
        (plan.count, 0, False, "all at once"),
        (slow, ONE_AT_A_TIME, True, f"one batch of {ONE_AT_A_TIME} at a time"),
    ):
        if whole and number:
            continue
        raw.tell(json.dumps([count, in_flight, whole]))
        yield Measurement(f"raw: {words}", raw=True, questions=count, elapsed_s=raw.result()["elapsed_s"])
    for size in plan.batch_sizes:
        yield _fleet(plan, size, rig, folder, number)


def _fleet(plan: Plan, size: int, rig: Rig, folder: Path, number: int) -> Measurement:
    rig.batch_by(size)
    run = f"batches-of-{size}-round-{number}"
    arguments = (str(folder / "questions.jsonl"), str(folder / f"{run}.jsonl"), rig.url, "--engine", "vllm", "--run", run)
    with rig.helper("producing", *arguments) as producer:
        producer.wait_until_ready()
        producer.go()
        result = producer.result()
        rig.check()
    if result["answered"] != plan.count:
        msg = f"{result['answered']} of {plan.count} questions were answered, {result['failed']} failed"
        raise BenchFailedError(msg)
    return Measurement(f"fleet: batches of {size}", raw=False, questions=plan.count, elapsed_s=result["elapsed_s"], again=result["again"])


def _write_questions(path: Path, plan: Plan) -> None:
    draw = random.Random(plan.seed)  # noqa: S311 (not for secrets)
    texts = texts_of(plan.source, plan.count) if plan.source else make_questions(plan.count, plan.seed)
    with path.open("wb") as file:
        for number, text in enumerate(texts):
            prompt = text if plan.source else text[: draw.randint(*plan.prompt_chars)]
            length = _length(plan, draw)
            params = {"max_tokens": length, "min_tokens": length, "ignore_eos": True}
            file.write(orjson.dumps({"id": f"q{number}", "question": prompt, "params": params}) + b"\n")


def _length(plan: Plan, draw: random.Random) -> int:
    if plan.lognormal == EVEN:
        return draw.randint(*plan.tokens)
    return int(min(max(draw.lognormvariate(*plan.lognormal), plan.tokens[0]), plan.tokens[1]))


def _table(found: list[Measurement]) -> Table:
    best = _best_raw(found)
    rows = []
    for fed in dict.fromkeys(one.fed for one in found):
        rates = [one.rate for one in found if one.fed == fed]
        rows.append((fed, middle(rates, 1), from_to(rates, 1), round(median(rates) / best, 3)))
    return Table("Answers per second; medians", ("fed", "answers/s", "range", "of the best raw"), rows)


def _best_raw(found: list[Measurement]) -> float:
    return max(median(one.rate for one in found if one.fed == fed) for fed in {one.fed for one in found if one.raw})


def _verdict(found: list[Measurement]) -> str:
    fleets = [median(one.rate for one in found if one.fed == fed) for fed in dict.fromkeys(one.fed for one in found if not one.raw)]
    return (
        f"Fleet / raw: {min(fleets) / _best_raw(found):.3f} at the slowest batch size, {max(fleets) / _best_raw(found):.3f} at the fastest; "
        f"between these lie {100 * (1 - min(fleets) / max(fleets)):.1f} %."
    )
