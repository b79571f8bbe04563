"""Answers that serve more than one question, in a run or between runs."""
