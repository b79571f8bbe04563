"""What every peer's workers do with a question.

Make a text as long as the stub's answers, 8 to 128 words, at next to no cost.
"""

from __future__ import annotations

import hashlib

WORDS = (
    "the",
    "a",
    "of",
    "to",
    "energy",
    "mass",
    "force",
    "light",
    "water",
    "cell",
    "heat",
    "time",
    "so",
    "it",
    "is",
    "therefore",
    "one",
    "two",
)
SHORTEST, LONGEST = 8, 128
_LOOP = WORDS * 9


def answer(question: str) -> str:
    """The same for the same question: whoever asked can tell whether it is theirs."""
    seed = hashlib.blake2b(question.encode(), digest_size=8).digest()
    length = SHORTEST + int.from_bytes(seed, "big") % (LONGEST - SHORTEST + 1)
    start = seed[0] % len(WORDS)
    return " ".join(_LOOP[start : start + length])
