"""How far a share, or the difference of two, can be trusted. Pure; no table of a distribution is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054
"""Of the normal distribution: 95 % lie within so many standard deviations."""

_EXACT_UP_TO = 1000


def wilson(right: float, total: int) -> tuple[float, float]:
    """The 95 % interval of Wilson (1927) for a share, or a mean of shares; (0, 1) without any."""
    if not total:
        return 0.0, 1.0
    share, square = right / total, Z_95 * Z_95
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total * total)) / (1 + square / total)
    return (0.0 if right == 0 else max(0.0, middle - half), 1.0 if right == total else min(1.0, middle + half))


def paired_difference(only_first: int, only_second: int, total: int) -> tuple[float, float]:
    """The 95 % interval for how much more the second gets right of the same questions.

    Wald's, with half a question added to each of the four cells (Agresti and Min, 2005), so that it does not vanish
    where the two never differ.

    Args:
        only_first, only_second: Questions that one alone got right.
    """
    size, first, second = total + 2, only_first + 0.5, only_second + 0.5
    middle = (second - first) / size
    half = Z_95 * math.sqrt(max(0.0, first + second - (second - first) ** 2 / size)) / size
    return max(-1.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """The probability, by McNemar's test, of a difference at least as large if both were equally good.

    Exact (a coin for each question on which they differ) up to a thousand such questions; above, the normal
    approximation with continuity correction.
    """
    differing, smaller = only_first + only_second, min(only_first, only_second)
    if differing <= _EXACT_UP_TO:
        tail = sum(math.comb(differing, count) for count in range(smaller + 1))
        return min(1.0, 2 * tail / (1 << differing))
    distance = max(0.0, abs(only_first - only_second) - 1) / math.sqrt(differing)
    return math.erfc(distance / math.sqrt(2))


def holm(probabilities: Sequence[float]) -> list[float]:
    """The same probabilities, made larger for how many comparisons there are (Holm, 1979).

    Chance alone brings any below p with probability p.
    """
    adjusted, largest = [0.0] * len(probabilities), 0.0
    by_size = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    for rank, place in enumerate(by_size):
        largest = max(largest, min(1.0, probabilities[place] * (len(probabilities) - rank)))
        adjusted[place] = largest
    return adjusted
