"""How many tokens a run may still use."""

from __future__ import annotations

from dataclasses import dataclass

from producer.run_tally import RunTally

QUESTIONS_PER_CHUNK = 8
"""Questions that are sent together under a ceiling: what is sent cannot be called back."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """A ceiling for the tokens of all lines of an answers file together, read and written.

    Questions are sent as long as what they are likely to take fits, so the ceiling is exceeded by no more than the last
    ones are longer than those before.

    Attributes:
        most: The ceiling.
        first_guess: Tokens of a question, as long as none has come.
    """

    most: int
    first_guess: float

    def spent(self, tally: RunTally) -> int:
        """Tokens so far."""
        return tally.tokens_before + tally.prompt_tokens + tally.completion_tokens

    def has_room(self, tally: RunTally, questions: int) -> bool:
        """Whether so many questions fit, those included that were sent and are not in the tally yet."""
        asked = tally.finish_reasons.total() - tally.shared
        each = (tally.prompt_tokens + tally.completion_tokens) / asked if asked > 0 else self.first_guess
        return self.spent(tally) + each * questions <= self.most
