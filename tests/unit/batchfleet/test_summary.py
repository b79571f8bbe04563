"""What a person is told of a run's answers at its end."""

from __future__ import annotations

from pathlib import Path

from batchfleet.runs.summary import Outcome, as_record, as_text
from producer.run_tally import RunTally
from tests.builders import an_answer


def test_answers_to_look_at_are_counted() -> None:
    """Empty ones, and those that ended otherwise than the model wanted.

    A tool call or a refusal in place of a text is not empty.
    """
    tally = RunTally(6, started=1.0, ended=2.0)
    for answer in (
        an_answer(),
        an_answer(text=""),
        an_answer(text="", finish_reason="length", details={"reasoning": ["hm"]}),
        an_answer(text="", texts=["", "x"], finish_reason="length"),
        an_answer(text="", finish_reason="tool_calls", details={"tool_calls": [[{"id": "c"}]]}),
        an_answer(text="", details={"refusal": ["no"]}),
    ):
        tally.count(answer)

    record, text = as_record(Outcome("r", "m", tally)), as_text(Outcome("r", "m", tally), Path("a.jsonl"), None)

    assert "  of these  2 empty, 1 refused by the model, 2 cut off by max_tokens, 1 tool_calls\n" in text
    assert isinstance(record["this_call"], dict)
    assert record["this_call"]["finish_reasons"] == {"stop": 3, "length": 2, "tool_calls": 1}
    assert (record["this_call"]["empty"], record["this_call"]["refusals"]) == (2, 1)


def test_plain_answers_take_no_line() -> None:
    """There is nothing to look at."""
    tally = RunTally(1, started=1.0, ended=2.0)
    tally.count(an_answer())

    assert "of these" not in as_text(Outcome("r", "m", tally), Path("a.jsonl"), None)
