"""Which settings to try next. Pure but for `measure`: no engine, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

WORTH = 1.02
"""A change is better if it is so by this factor; less is within what two measurements of the same differ by."""
AS_GOOD = 0.99
CAPACITY_FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)
"""Questions in the engine, as a multiple of those that it works on at once."""
USUAL_FACTOR = 1.5
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
GRID_FACTORS, GRID_BATCH_SIZES = (1.0, 1.5, 2.0, 3.0), (8, 32, 128)
MOST_SEQUENCES, FEWEST_SEQUENCES = 2048, 4


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried.

    Attributes:
        max_num_seqs: Sequences that the engine works on at once; None where the engine is a server, which decides that
            itself.
        capacity: Questions that a worker keeps in flight.
        batch_size: Questions that arrive together.
    """

    max_num_seqs: int | None
    capacity: int
    batch_size: int


class OutOfTimeError(Exception):
    """Raised by `measure` when there is no time for one more; what was found until then counts."""


@dataclass(slots=True)
class Tried:
    """Everything that was measured, in order: answers/s by setting; 0 where the engine did not boot."""

    rates: dict[Setting, float] = field(default_factory=dict)
    complete: bool = True

    @property
    def best(self) -> Setting:
        return max(self.rates, key=lambda setting: self.rates[setting])


def search(start: Setting, measure: Callable[[Setting], float], tried: Tried) -> Setting:
    """Find a good setting in few measurements, one dimension after the other.

    The engine's own size first, doubling or halving while that helps; then how much more than that is kept waiting
    inside; then the batches. Of what is about equally fast, the smallest capacity wins (least is lost with a worker),
    and the largest batch (cheapest for the queue).

    Args:
        start: Measured first, so that what is found is never slower than what was there.
        measure: Answers/s of a setting. May raise OutOfTimeError.
        tried: Filled here.
    """

    def rate(setting: Setting) -> float:
        if setting not in tried.rates:
            tried.rates[setting] = measure(setting)
        return tried.rates[setting]

    found = start
    try:
        rate(start)
        found = _climb(start, rate)
        found = _smallest_capacity(found, rate)
        found = _largest_batch(found, rate)
    except OutOfTimeError:
        tried.complete = False
        if not tried.rates:
            return start
        found = tried.best
    # Whatever the order of trying made of it: never slower than what was seen.
    return found if tried.rates[found] >= AS_GOOD * tried.rates[tried.best] else tried.best


def grid(start: Setting, found: Setting) -> Iterator[Setting]:
    """Every combination near `start` of engine sizes, capacities and batch sizes.

    There are four engine sizes, and that of `found` if it is another, four capacities and three batch sizes.
    """
    for size in _sizes(start, found):
        for factor in GRID_FACTORS:
            capacity = int((size or start.capacity) * factor)
            yield from (
                Setting(size, capacity, batch_size) for batch_size in GRID_BATCH_SIZES if batch_size <= capacity
            )


def _sizes(start: Setting, found: Setting) -> Sequence[int | None]:
    if start.max_num_seqs is None or found.max_num_seqs is None:
        return [None]
    return sorted({found.max_num_seqs, *(_bounded(int(start.max_num_seqs * factor)) for factor in (0.5, 1, 2, 4))})


def _climb(start: Setting, rate: Callable[[Setting], float]) -> Setting:
    if start.max_num_seqs is None:
        return start
    for factor in (2.0, 0.5):
        best = start
        while rate(further := _sized(best, factor)) > WORTH * rate(best):
            best = further
        if best != start:
            return best
    return start


def _sized(setting: Setting, factor: float) -> Setting:
    assert setting.max_num_seqs is not None  # noqa: S101 (callers see to it)
    size = _bounded(int(setting.max_num_seqs * factor))
    return replace(setting, max_num_seqs=size, capacity=int(size * setting.capacity / setting.max_num_seqs))


def _bounded(size: int) -> int:
    return min(max(size, FEWEST_SEQUENCES), MOST_SEQUENCES)


def _smallest_capacity(setting: Setting, rate: Callable[[Setting], float]) -> Setting:
    base = setting.max_num_seqs or int(setting.capacity / USUAL_FACTOR)
    choices = [replace(setting, capacity=int(base * factor)) for factor in CAPACITY_FACTORS]
    return _first_as_good([setting, *choices], rate, order=lambda choice: choice.capacity)


def _largest_batch(setting: Setting, rate: Callable[[Setting], float]) -> Setting:
    # Up to one batch less one is held beyond the capacity: a small share of it, or a dead worker costs more than it has
    # to.
    choices = [
        replace(setting, batch_size=size) for size in BATCH_SIZES if size <= max(BATCH_SIZES[0], setting.capacity // 2)
    ]
    return _first_as_good([setting, *choices], rate, order=lambda choice: -choice.batch_size)


def _first_as_good(
    choices: Sequence[Setting], rate: Callable[[Setting], float], order: Callable[[Setting], int]
) -> Setting:
    best = max(rate(choice) for choice in choices)
    return next(choice for choice in sorted(choices, key=order) if rate(choice) >= AS_GOOD * best)
