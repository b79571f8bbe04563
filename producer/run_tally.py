"""How a run of a file stands."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from wire.messages import Answer, Failure

LATENCIES_KEPT = 10_000
INSTEAD_OF_TEXT = frozenset({"tool_calls", "function_call", "refusal", "audio"})
"""Details of an answer that may replace its text."""


@dataclass(slots=True)
class RunTally:
    """How a run stands.

    Attributes:
        questions: In the file.
        on_disk: Lines in the answers file.
        answered, failed: Of these.
        sent: Position up to which questions were accepted.
        settled: How many of the questions before `sent` have a line.
        resumed: Lines that were there when this process began.
        tokens_before: Of these, read and written.
        kinds: Failures by kind; `examples` has one (request id, message) of each.
        finish_reasons: Why the answers that this process wrote end, by reason; `empty`: how many of them hold nothing;
            `refusals`: in how many the model says that it will not answer.
        shared: How many of them are those of identical questions, so that nobody was asked.
        taken_over: How many of these had their line before anything was asked; `resumed` counts them, too.
        prompt_tokens, completion_tokens: Of what this process wrote.
        latencies: Seconds from submission to record of the latest answers.
        waiting_for: Why nothing is being submitted now; empty if something is.
    """

    questions: int
    on_disk: int = 0
    answered: int = 0
    failed: int = 0
    sent: int = 0
    settled: int = 0
    resumed: int = 0
    tokens_before: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    empty: int = 0
    refusals: int = 0
    shared: int = 0
    taken_over: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))
    waiting_for: str = ""
    started: float = 0.0
    ended: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """From the first push to the last line on disk, in seconds; up to now while the run is on."""
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0

    @property
    def done(self) -> int:
        """Lines that this process has written."""
        return self.on_disk - self.resumed

    @property
    def with_fleet(self) -> int:
        """Questions that were accepted and have no line yet."""
        return max(0, self.sent - self.settled)

    def count(self, record: Answer | Failure) -> None:
        self.on_disk += 1
        if isinstance(record, Answer):
            if record.latency_s is not None:
                self.latencies.append(record.latency_s)
            # Before the answer counts: a ceiling looks at both, from another thread.
            if hasattr(record, "shared"):
                # The engine was not asked again.
                self.shared += 1
            else:
                self.prompt_tokens += record.usage.prompt_tokens
                self.completion_tokens += record.usage.completion_tokens
            self.answered += 1
            self.finish_reasons[record.finish_reason] += 1
            # Whether there is neither a text nor what a model may give in place of one.
            has_more = record.tool_calls or record.vectors or not INSTEAD_OF_TEXT.isdisjoint(record.details or ())
            self.refusals += "refusal" in (record.details or ())
            self.empty += not has_more and not any(record.texts or [record.text])
        else:
            self.failed += 1
            self.kinds[record.error.kind] += 1
            self.examples.setdefault(record.error.kind, (record.request_id, record.error.message))

    def take_back(self) -> None:
        """Count nothing of what this process wrote."""
        self.failed -= sum(self.kinds.values())
        self.answered -= sum(self.finish_reasons.values())
        self.on_disk = self.resumed
