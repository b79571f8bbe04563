"""What a worker has done since it started, counted where it happens and read by whoever asks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wire.failures import EXAMPLE_CHARACTERS
from wire.histogram import SECONDS, Histogram
from wire.messages import Answer, Failure

MOST_KINDS = 64
OTHER_KINDS = "other"


@dataclass(slots=True)
class Counts:
    """Only ever added to.

    Attributes:
        answered: Answers made.
        failures: Failures made, by kind; beyond `MOST_KINDS` kinds as `other`, so that nobody's words become labels
            without end.
        examples: What the last failure of each of these kinds said, its beginning.
        prompt_tokens, completion_tokens: Of the answers.
        batches: Claimed.
        leases_lost: Batches that went to somebody else while they were worked on.
        wait_s: From a question's submission until it went to the engine.
        engine_s: From there until there was an answer or a refusal, further tries included.
    """

    answered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    batches: int = 0
    leases_lost: int = 0
    wait_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    engine_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    def add(self, record: Answer | Failure) -> None:
        if isinstance(record, Answer):
            self.answered += 1
            self.prompt_tokens += record.usage.prompt_tokens
            self.completion_tokens += record.usage.completion_tokens
        else:
            kind = record.error.kind
            kind = kind if kind in self.failures or len(self.failures) < MOST_KINDS else OTHER_KINDS
            self.failures[kind] += 1
            self.examples[kind] = record.error.message[:EXAMPLE_CHARACTERS]
