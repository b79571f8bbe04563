"""Which settings to try next. Pure but for `measure`: no engine, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from batchfleet.tuning.shapes import Shape

WORTH = 1.02
"""A change is better if it is so by this factor; less is within what two measurements of the same differ by."""
AS_GOOD = 0.99
CAPACITY_FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)
"""Questions in the engine, as a multiple of those that it works on at once."""
USUAL_FACTOR = 1.5
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
GRID_FACTORS, GRID_BATCH_SIZES = (1.0, 1.5, 2.0, 3.0), (8, 32, 128)
MOST_SEQUENCES, FEWEST_SEQUENCES = 2048, 4
ONE_ENGINE = Shape()
CONTENDER = 0.75
"""A shape with this share of the best's rate may still win with another number of sequences."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried.

    Attributes:
        max_num_seqs: Sequences that the engine works on at once; None where the engine is a server, which decides that
            itself.
        capacity: Questions that a worker keeps in flight.
        batch_size: Questions that arrive together.
        shape: How many workers, of how many GPUs each.
        arguments: Further arguments of the engine, by name, as JSON.
    """

    max_num_seqs: int | None
    capacity: int
    batch_size: int
    shape: Shape = ONE_ENGINE
    arguments: tuple[tuple[str, str], ...] = ()

    @property
    def engine(self) -> tuple[object, ...]:
        """What an engine has to be booted anew for."""
        return self.shape, self.max_num_seqs, self.arguments

    def __str__(self) -> str:
        parts = [f"{self.shape}"] if self.shape.gpus > 1 else []
        parts += [] if self.max_num_seqs is None else [f"max_num_seqs {self.max_num_seqs}"]
        parts += [f"{name} {value}" for name, value in self.arguments]
        return ", ".join([*parts, f"capacity {self.capacity}", f"batches of {self.batch_size}"])


@dataclass(frozen=True, slots=True)
class Argument:
    """One of the engine's.

    Attributes:
        values: As JSON, in the order in which they are tried; one after one that was worth nothing is not tried.
        worth: The factor from which on it is taken.
        makes_room: Whether it leaves more memory to the cache, so that more sequences fit.
    """

    name: str
    values: Sequence[str]
    worth: float = 1.0
    makes_room: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """What may be tried beside what is set: other shapes that may fit, and arguments of the engine."""

    shapes: Sequence[Shape] = ()
    arguments: Sequence[Argument] = ()


NOTHING_ELSE = Space()


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


def search(start: Setting, measure: Callable[[Setting], float], tried: Tried, space: Space = NOTHING_ELSE) -> Setting:
    """Find a good setting in few measurements, one dimension after the other.

    The shape first, then the engine's own size, doubling or halving while that helps, and its further arguments; then
    how much more than that is kept waiting inside; then the batches. Of what is about equally fast, the smallest
    capacity wins (least is lost with a worker), and the largest batch (cheapest for the queue).

    Args:
        start: Measured first, so that what is found is never slower than what was there.
        measure: Answers/s of a setting, of all its workers together. May raise OutOfTimeError.
        tried: Filled here.
        space: What may be tried.
    """

    def rate(setting: Setting) -> float:
        if setting not in tried.rates:
            tried.rates[setting] = measure(setting)
        return tried.rates[setting]

    found = start
    try:
        rate(start)
        found = _best_shape(start, space, rate)
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

    There are four engine sizes, and that of `found` if it is another, four capacities and three batch sizes, all in the
    shape and with the arguments of `found`.
    """
    for size, factor, batch_size in product(_sizes(start, found), GRID_FACTORS, GRID_BATCH_SIZES):
        capacity = int((size or start.capacity) * factor)
        if batch_size <= capacity:
            yield replace(found, max_num_seqs=size, capacity=capacity, batch_size=batch_size)


def _sizes(start: Setting, found: Setting) -> Sequence[int | None]:
    if start.max_num_seqs is None or found.max_num_seqs is None:
        return [None]
    return sorted({found.max_num_seqs, *(_bounded(int(start.max_num_seqs * factor)) for factor in (0.5, 1, 2, 4))})


def _best_shape(start: Setting, space: Space, rate: Callable[[Setting], float]) -> Setting:
    """All as `start` is set, then the fastest, and those not far behind it, with sizes and arguments of their own."""
    choices = sorted([start, *(replace(start, shape=shape) for shape in space.shapes)], key=rate, reverse=True)
    best = choices[0]
    for choice in choices:
        if rate(choice) >= CONTENDER * rate(choices[0]):
            own = _best_arguments(_climb(choice, rate), space.arguments, rate)
            best = max(best, own, key=rate)
    return best


def _best_arguments(setting: Setting, arguments: Sequence[Argument], rate: Callable[[Setting], float]) -> Setting:
    best = setting
    for argument in arguments:
        for value in argument.values:
            changed = _with(best, argument.name, value)
            # More room for the cache may be worth nothing but to more sequences.
            choices = [changed, _sized(changed, 2.0)] if argument.makes_room and best.max_num_seqs else [changed]
            better = next((choice for choice in choices if rate(choice) > argument.worth * rate(best)), None)
            if better is None:
                break
            best = better
    for name, _ in best.arguments if len(best.arguments) > 1 else ():
        # What helped before the others came may be in their way.
        best = max(best, _with(best, name, None), key=rate)
    return best if best == setting else _climb(best, rate)


def _with(setting: Setting, name: str, value: str | None) -> Setting:
    others = tuple(one for one in setting.arguments if one[0] != name)
    return replace(setting, arguments=others if value is None else (*others, (name, value)))


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
