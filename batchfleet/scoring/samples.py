"""Several samples of each question: what most of them say, and how often one of k is right. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from batchfleet.scoring.statistics import wilson
from batchfleet.scoring.tally import Scored


def majority(samples: Sequence[Scored]) -> Scored:
    """The answer that most samples give; of two that are given equally often, the one that was given first.

    Samples that say nothing clear have no vote. Where none has one, the question is unclear, or failed.
    """
    votes = Counter(sample.value for sample in samples if sample.value is not None)
    if votes:
        (value, _), *_ = votes.most_common(1)
        chosen = next(sample for sample in samples if sample.value == value)
    else:
        chosen = min(samples, key=lambda sample: sample.outcome != "unclear")
    return replace(chosen, samples=tuple(samples))


def pass_at(k: int, samples: int, right: int) -> float:
    """The chance that one of k samples is right, of which `samples` were drawn and `right` are right.

    The unbiased estimate of Chen et al. (2021), "Evaluating Large Language Models Trained on Code".
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


@dataclass(slots=True)
class SampleTally:
    """The samples of one answers file.

    Attributes:
        each: The most samples that a question has. Those that another one lacks count as not right.
        right: Number of right samples -> number of questions.
        seen, failed: Samples that have a line; of them those that failed.
    """

    each: int = 0
    right: Counter[int] = field(default_factory=Counter)
    seen: int = 0
    failed: int = 0

    @property
    def questions(self) -> int:
        return self.right.total()

    @property
    def missing(self) -> int:
        """Samples that have no line; none where no question has samples."""
        return self.each * self.questions - self.seen

    def count(self, samples: Sequence[Scored]) -> None:
        """Take in a question; one without any line too."""
        self.each = max(self.each, len(samples))
        self.seen += len(samples)
        self.failed += sum(sample.outcome == "failed" for sample in samples)
        self.right[sum(sample.outcome == "right" for sample in samples)] += 1

    def pass_at(self) -> dict[int, tuple[float, float, float]]:
        """For k = 1, 2, 4, ... and all samples: the mean over the questions, and its 95 % interval.

        The interval is Wilson's with the questions as its sample. A chance varies no more from question to question
        than right and wrong do, so it is rather too wide than too narrow.
        """
        ks = [2**power for power in range(self.each.bit_length()) if 2**power < self.each] + [self.each]
        found = {}
        for k in ks if self.each else ():
            total = sum(pass_at(k, self.each, right) * count for right, count in self.right.items())
            found[k] = (total / self.questions, *wilson(total, self.questions))
        return found

    def as_dict(self, votes_right: int) -> dict[str, Any]:
        shares = {str(k): _share(*found) for k, found in self.pass_at().items()}
        vote = (votes_right / self.questions if self.questions else 0.0, *wilson(votes_right, self.questions))
        return {
            "each": self.each,
            "failed": self.failed,
            "missing": self.missing,
            "pass_at": shares,
            "majority": _share(*vote),
        }


def _share(share: float, low: float, high: float) -> dict[str, Any]:
    return {"share": round(share, 6), "interval_95": [round(low, 6), round(high, 6)]}
