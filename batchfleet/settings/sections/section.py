"""What all sections of the settings have in common, and the types of their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from wire.messages import MAX_MODEL_CHARS

KIB = 1024

MIB = 1024 * KIB

HOUR_S = 3600.0

DAY_S = 24 * HOUR_S

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]

LongText = Annotated[str, StringConstraints(min_length=1, max_length=1 * MIB)]

ModelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_MODEL_CHARS)]

Secret = Annotated[SecretStr, Field(min_length=1, max_length=64 * KIB)]

StopTexts = Annotated[list[Text], Field(min_length=1, max_length=64)]


def number_text(value: float) -> str:
    """A number as people write it: 3600 rather than 3600.0."""
    return str(int(value)) if value == int(value) else str(value)


class Contradiction(NamedTuple):
    """Settings that are right one by one and impossible together.

    Attributes:
        keys: Names of the settings, as seen from the section that found it.
        text: What is wrong; what to do. Reads well after any one of the keys.
    """

    keys: tuple[str, ...]
    text: str


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, no silent conversions, no values in error texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    def contradictions(self) -> Iterator[Contradiction]:
        """What is impossible together in this section."""
        return iter(())

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if found := tuple(self.contradictions()):
            kind = "contradiction"
            message = "{text}"
            raise PydanticCustomError(kind, message, {"text": "; ".join(c.text for c in found), "found": found})
        return self


def at_most(section: Section, small: str, large: str) -> Iterator[Contradiction]:
    """A contradiction if the setting `small` exceeds the setting `large`."""
    low, high = getattr(section, small), getattr(section, large)
    if low > high:
        text = f"{small} ({number_text(low)}) is above {large} ({number_text(high)}); lower {small} or raise {large}"
        yield Contradiction((small, large), text)
