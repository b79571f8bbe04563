"""`benchmarks prefixes`: several questions to each of many documents, shuffled; as they come, against side by side."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import orjson

from batchfleet.settings import to_options
from batchfleet.settings.schema import Settings
from batchfleet.tuning.helper import BenchFailedError
from batchfleet.tuning.sample_questions import make_questions
from batchfleet.tuning.table_report import Report, Table, from_to, middle
from benchmarks.rig import Rig, for_bench

NOTES = [
    "Each prompt is a document and a question to it. Each run has its own, so none finds another's in a cache.",
    "As they come: with `group_prefixes: false`. The engines stay, another batcher takes over; the orders take turns.",
    "Cached: the share of all prompt tokens that vLLM found in its prefix cache. At best: each document read once.",
    "Every answer has exactly its number of tokens (min_tokens, max_tokens, ignore_eos).",
]
ORDERS = {"as they come": "false", "side by side": "true"}
TRIED_CHARS, TRIED_DOCUMENTS = 2000, 8
"""Of the run before the first, which warms the engine and shows how many characters a token has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: every number of questions to a document, in both orders in turn, `rounds` times.

    Attributes:
        each: Questions to a document; 1 for nothing shared.
        document_tokens: Length of a document.
        answer_tokens: Length of an answer.
    """

    documents: int = 500
    each: Sequence[int] = (8, 1)
    document_tokens: int = 1500
    answer_tokens: int = 64
    rounds: int = 3
    workers: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run.

    Attributes:
        each: Questions to a document.
        order: One of `ORDERS`.
        cached: Share of the prompts' tokens that came from the prefix cache.
        prompt_tokens: Of all prompts.
    """

    each: int
    order: str
    questions: int
    elapsed_s: float
    cached: float
    prompt_tokens: int

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s


def run(plan: Plan, settings: Settings, say: Callable[[str], None]) -> Report:
    """Measure, and tell `say` after each measurement.

    Raises:
        UsageError: The settings name no model for vLLM.
    """
    to_options.model_name(settings, "vllm")
    own = for_bench(settings, {})
    ready_s = own.model.generator_settings.server_startup_timeout
    found: list[Measurement] = []
    draw = random.Random(plan.seed)  # noqa: S311 (not for secrets)
    with Rig(own, plan.workers, engine="vllm", ready_s=ready_s) as rig:
        tried = _measure(rig, plan, 2, "side by side", _prompts(TRIED_DOCUMENTS, 2, TRIED_CHARS, draw))
        chars = plan.document_tokens * TRIED_DOCUMENTS * 2 * TRIED_CHARS // tried.prompt_tokens
        for number in range(plan.rounds):
            for each in plan.each:
                for order in ORDERS:
                    one = _measure(rig, plan, each, order, _prompts(plan.documents, each, chars, draw))
                    found.append(one)
                    figures = f"{one.rate:.1f}/s in {one.elapsed_s:.1f} s, {one.cached:.3f} cached"
                    say(f"round {number + 1}: {each} to a document, {order}: {figures}")
        complaints = rig.complaints()
    return Report("prefixes", asdict(plan), [_table(found)], [*NOTES, *complaints], [asdict(one) for one in found])


def _prompts(documents: int, each: int, chars: int, draw: random.Random) -> list[str]:
    """Shuffled."""
    texts = make_questions(documents * (chars + each) + each, draw.getrandbits(32))
    prompts = []
    for _ in range(documents):
        document = f"{draw.getrandbits(64):x}"
        while len(document) < chars:
            document += " " + next(texts)
        prompts += [f"{document[:chars]}\n\n{next(texts)[-60:]}" for _ in range(each)]
    draw.shuffle(prompts)
    return prompts


def _measure(rig: Rig, plan: Plan, each: int, order: str, prompts: list[str]) -> Measurement:
    rig.restart_batcher(BATCHFLEET_GROUP_PREFIXES=ORDERS[order])
    params = {"max_tokens": plan.answer_tokens, "min_tokens": plan.answer_tokens, "ignore_eos": True}
    with tempfile.TemporaryDirectory(prefix="batchfleet-bench-") as name:
        questions, answers = Path(name) / "questions.jsonl", Path(name) / "answers.jsonl"
        with questions.open("wb") as file:
            for number, prompt in enumerate(prompts):
                file.write(orjson.dumps({"id": f"q{number}", "question": prompt, "params": params}) + b"\n")
        # Its id comes from what is asked.
        with rig.helper("producer_process", str(questions), str(answers), rig.url, "--engine", "vllm") as producer:
            producer.wait_until_ready()
            producer.go()
            result = producer.result()
            rig.check()
        # Tokens of random weights may have no text. They cost what others cost.
        if result["answered"] + result["empty"] != len(prompts) or not result["answered"]:
            raise BenchFailedError(
                f"{result['answered']} of {len(prompts)} questions were answered, {result['failed']} failed"
            )
        prompt_tokens, cached = _usage(answers.read_bytes().splitlines())
    return Measurement(each, order, len(prompts), result["elapsed_s"], cached / prompt_tokens, prompt_tokens)


def _usage(lines: Iterable[bytes]) -> tuple[int, int]:
    """Tokens of the prompts of all answers, and how many of them were cached."""
    usages = [line["usage"] for line in map(orjson.loads, lines) if line["status"] == "answered"]
    return sum(one["prompt_tokens"] for one in usages), sum(one.get("cached_tokens", 0) for one in usages)


def _table(found: list[Measurement]) -> Table:
    rows = []
    for each in dict.fromkeys(one.each for one in found):
        base = median(one.rate for one in found if (one.each, one.order) == (each, next(iter(ORDERS))))
        for order in ORDERS:
            these = [one for one in found if (one.each, one.order) == (each, order)]
            rates = [one.rate for one in these]
            cached = middle([one.cached for one in these], 3)
            rows.append(
                (
                    each,
                    order,
                    middle(rates, 1),
                    from_to(rates, 1),
                    round(median(rates) / base, 3),
                    cached,
                    best_share(each),
                )
            )
    columns = ("questions to a document", "order", "answers/s", "range", "ratio", "cached", "cached at best")
    return Table("Answers per second; medians", columns, rows)


def best_share(each: int) -> float:
    """Of the prompt tokens that a cache can hold, where each document is read once and the rest counts for little."""
    return round((each - 1) / each, 3)
