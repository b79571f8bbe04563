"""What an extraction gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from batchfleet.scoring.numbers import Number

RULES_VERSION = "2"
"""Of the rules in docs/scoring.md. Raised with each change that could read an answer differently."""

Missing = Literal["empty", "several", "refused", "truncated", "nothing"]


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an answer says.

    Attributes:
        value: A label or a number; None if the text does not say, or not clearly.
        rule: Which rule found it, or decided that there is none to be found.
        missing: Why there is no value; None if there is one.
    """

    value: str | Number | None
    rule: str
    missing: Missing | None = None
