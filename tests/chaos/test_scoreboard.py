"""What several calls of `scripts/chaos` came to is added up by `--add`, and nothing that does not belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.driver import Outcome
from tests.chaos.schedule import SHORT, schedule_for
from tests.chaos.scoreboard import Scoreboard, added, as_text


def a_board(*seeds: int, network: str = "proxy") -> Scoreboard:
    """A scoreboard on which everything follows from the seeds."""
    outcomes = []
    for seed in seeds:
        outcome = Outcome(
            schedule_for(seed),
            Path(),
            questions=440,
            looks=seed,
            recovered_s=[float(seed)],
            elapsed_s=2.0 * seed,
            cpu_s=1.7,
        )
        outcome.befell["kill-worker"] = seed
        outcome.verdict.lost = seed % 2
        outcome.verdict.findings += ["lost"] * (seed % 2)
        outcomes.append(outcome)
    return Scoreboard(SHORT, f"seeds {seeds}", network, "Redis 7", outcomes)


def test_the_sum_of_two_calls_is_what_one_would_have_shown() -> None:
    """Counts are added, and percentiles are those of all values."""
    parts, whole = [a_board(1, 2).as_dict(), a_board(3, 4, 5).as_dict()], a_board(1, 2, 3, 4, 5).as_dict()

    total = added(parts)

    assert {**total, "command": ""} == {**whole, "command": ""}
    assert total["failed_seeds"] == [1, 3, 5]
    assert (total["lost"], total["faults"], total["recovery_s"]["max"]) == (3, {"kill-worker": 15}, 5.0)
    assert as_text(total) == as_text(whole)


@pytest.mark.parametrize(
    ("other", "words"), [(a_board(2, 3), "in more than one"), (a_board(3, network="namespaces"), "differ in network")]
)
def test_what_does_not_belong_together_is_not_added(other: Scoreboard, words: str) -> None:
    """A seed that counts twice, or partitions of another kind, would make a figure that says nothing."""
    with pytest.raises(ValueError, match=words):
        added([a_board(1, 2).as_dict(), other.as_dict()])
