"""An answer's text -> what it says. Pure; docs/scoring.md has the rules."""

from __future__ import annotations

from batchfleet.scoring.answer_keys import ChoiceKey, Key
from batchfleet.scoring.choice import choose
from batchfleet.scoring.number import calculate
from batchfleet.scoring.numbers import Number, agree
from batchfleet.scoring.result import Extraction


def extract(text: str, key: Key, *, question: str = "", is_truncated: bool = False) -> Extraction:
    """What a text says. Looks at what can be chosen, never at what is right: the same text gives the same for any right answer.

    Args:
        question: As it was asked, to know it again where the text repeats it.
        is_truncated: The text was cut off at its longest.
    """
    if isinstance(key, ChoiceKey):
        return choose(text, key.options, question=question, is_truncated=is_truncated)
    return calculate(text, question=question, is_truncated=is_truncated)


def is_right(extraction: Extraction, key: Key, tolerance: float = 0.0) -> bool:
    """Whether that is the known answer; numbers may differ by `tolerance`, as a part of the known one."""
    if isinstance(extraction.value, Number):
        return not isinstance(key, ChoiceKey) and agree(extraction.value, key.right, tolerance)
    return isinstance(key, ChoiceKey) and extraction.value == key.right
