"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """One line of the program, broken.

    Attributes:
        what: What is wrong then, in a few words.
        promise: Which of `PROMISES` it breaks.
        file: Where.
        before, after: What stands there, exactly once, and what is put in its place.
        test: The test that must fail, as pytest names it.
    """

    what: str
    promise: str
    file: str
    before: str
    after: str
    test: str
