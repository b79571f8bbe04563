"""What `benchmarks engine` found, for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from batchfleet.tuning.table_report import Report, Table, from_to, middle
from benchmarks.chart import Lines

NOTES = [
    (
        "Raw: vLLM's AsyncLLM, a process of its own for each worker of the fleet, on the same GPUs, with the same "
        "arguments, a part of the same prompts, and so many requests in flight. The fastest counts, by what all did "
        "until the last was done. Sum of rates: each until itself was done."
    ),
    (
        "Batches at a time: one raw engine again; each batch is awaited whole before another takes its place. Once, "
        "and not for all questions: some ways are very slow."
    ),
    (
        "Fleet: workers at their default capacity, one batcher, Redis and a producer; "
        "from the first push to the last line on disk."
    ),
    (
        "Every answer has exactly its number of tokens (min_tokens, max_tokens, ignore_eos). "
        "All engines are booted once, answer all questions once before the first round, and are measured in turn."
    ),
]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run.

    Attributes:
        fed: How, in words.
        round: 0 for the warm-up.
        size: Questions in a batch, or in flight; 0: all at once.
        raw: By AsyncLLM itself.
        at_once: Whole batches at a time; 0 if a batch is no barrier.
        again: Questions that were given to a worker more than once.
        sum_of_rates: Answers/s of each raw engine until itself was done, added up; 0 if it is not asked for.
    """

    fed: str
    round: int
    questions: int
    elapsed_s: float
    size: int = 0
    raw: bool = False
    at_once: int = 0
    again: int = 0
    sum_of_rates: float = 0.0

    @property
    def rate(self) -> float:
        return self.questions / self.elapsed_s

    def in_words(self) -> str:
        again = f", {self.again} questions begun again" if self.again else ""
        added = f", {self.sum_of_rates:.1f}/s added up" if self.sum_of_rates else ""
        when = f"round {self.round}" if self.round else "warm-up"
        return f"{when}: {self.fed}: {self.rate:.1f}/s in {self.elapsed_s:.2f} s{added}{again}"


def report(parameters: dict[str, Any], found: list[Measurement], complaints: list[str]) -> Report:
    notes = [*NOTES, _verdict(found), *complaints]
    return Report(
        "engine", parameters, [_table(found), _by_round(found)], notes, [asdict(one) for one in found], _chart(found)
    )


def _fleets(found: list[Measurement]) -> list[str]:
    """The ways that were measured in every round."""
    return list(dict.fromkeys(one.fed for one in found if one.fed.startswith("fleet: batches")))


def _best_raw(found: list[Measurement]) -> str:
    rates: dict[str, list[float]] = {}
    for one in found:
        if one.raw and not one.at_once:
            rates.setdefault(one.fed, []).append(one.rate)
    return max(rates, key=lambda fed: median(rates[fed]))


def _rate(found: list[Measurement], fed: str) -> float:
    return median(one.rate for one in found if one.fed == fed)


def _table(found: list[Measurement]) -> Table:
    best = _rate(found, _best_raw(found))
    rows = []
    for fed in dict.fromkeys(one.fed for one in found):
        rates = [one.rate for one in found if one.fed == fed]
        rows.append((fed, middle(rates, 1), from_to(rates, 1), round(median(rates) / best, 3)))
    return Table("Answers per second; medians", ("fed", "answers/s", "range", "of the best raw"), rows)


def _pairs(found: list[Measurement]) -> list[tuple[Measurement, Measurement]]:
    """Each fleet's measurement with that of raw engines at their best in the same round."""
    raw = {one.round: one for one in found if one.fed == _best_raw(found)}
    return [(one, raw[one.round]) for one in found if one.fed in _fleets(found)]


def _by_round(found: list[Measurement]) -> Table:
    rows = [
        (
            fleet.round,
            fleet.fed,
            round(fleet.rate, 1),
            round(raw.rate, 1),
            round(raw.sum_of_rates, 1),
            round(fleet.rate / raw.rate, 3),
            round(fleet.rate / raw.sum_of_rates, 3),
        )
        for fleet, raw in _pairs(found)
    ]
    columns = ("round", "fed", "answers/s", "raw", "raw, sum of rates", "fleet / raw", "fleet / sum")
    return Table(f"Each round, beside {_best_raw(found)}", columns, rows)


def _verdict(found: list[Measurement]) -> str:
    ratios: dict[str, list[tuple[float, float]]] = {}
    for fleet, raw in _pairs(found):
        ratios.setdefault(fleet.fed, []).append((fleet.rate / raw.rate, fleet.rate / raw.sum_of_rates))
    whole = {fed: median(ratio for ratio, _ in pairs) for fed, pairs in ratios.items()}
    added = {fed: median(ratio for _, ratio in pairs) for fed, pairs in ratios.items()}
    slowest, fastest = min(whole, key=whole.__getitem__), max(whole, key=whole.__getitem__)
    return (
        f"Fleet / raw, medians of the rounds' ratios: {whole[slowest]:.3f} at the slowest batch size, "
        f"{whole[fastest]:.3f} at the fastest; of the sum of the engines' own rates {added[slowest]:.3f} and "
        f"{added[fastest]:.3f}."
    )


def _chart(found: list[Measurement]) -> Lines:
    def line(*, raw: bool, at_once: int) -> list[tuple[float, float]]:
        these = [
            one for one in found if (one.raw, one.at_once) == (raw, at_once) and (raw or one.fed in _fleets(found))
        ]
        return [
            (float(size), median(one.rate for one in these if one.size == size))
            for size in sorted({one.size for one in these})
        ]

    fleet, one, two = line(raw=False, at_once=0), line(raw=True, at_once=1), line(raw=True, at_once=2)
    sizes = [size for size, _ in (*fleet, *one, *two)]
    best = [(size, _rate(found, _best_raw(found))) for size in (min(sizes), max(sizes))]
    lines = {
        "this fleet": fleet,
        "raw vLLM at its best": best,
        "two batches at a time": two,
        "one batch at a time": one,
    }
    return Lines(
        "What the batch size does to vLLM, by the way to feed it",
        "questions in a batch",
        "answers per second",
        lines,
        log_x=True,
    )
