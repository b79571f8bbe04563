"""A score as text and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from batchfleet.humanize import count
from batchfleet.scoring.extraction import RULES_VERSION
from batchfleet.scoring.samples import SampleTally
from batchfleet.scoring.score import Score
from batchfleet.scoring.statistics import holm
from batchfleet.scoring.tally import Pair, ScoreTally

_UNCLEAR = {
    "empty": "empty",
    "several": "with several answers",
    "refused": "that say they cannot answer",
    "truncated": "cut off before an answer",
    "nothing": "without an answer that the rules find",
}
"""In a sentence, which answers are unclear."""
_HEAD = ("", "accuracy", "95 % interval", "right", "wrong", "unclear", "failed", "unanswered", "questions")
_PAIRS_HEAD = ("compared", "points", "95 % interval", "right only here", "only there", "p (McNemar)", "p (Holm)")


def as_dict(score: Score, files: Sequence[Path], by: str | None) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for file, tally, groups, samples in zip(files, score.tallies, score.groups, score.samples, strict=True):
        entry = {"answers": str(file), **tally.as_dict()}
        if samples.each:
            entry["samples"] = samples.as_dict(tally.outcomes["right"])
        if by:
            entry["groups"] = {name: groups[name].as_dict() for name in sorted(groups)}
        entries.append(entry)
    pairs = [
        {"first": str(first), "second": str(second), **pair.as_dict(), "p_value_holm": float(f"{adjusted:.4g}")}
        for (first, second), pair, adjusted in _compared(score, files)
    ]
    return {
        "rules": RULES_VERSION,
        "keys": dict(score.kinds),
        "without_key": score.without_key,
        "by": by,
        "scores": entries,
        "comparisons": pairs,
    }


def as_text(score: Score, files: Sequence[Path], by: str | None) -> str:
    rows = [list(_HEAD)]
    for file, tally, groups in zip(files, score.tallies, score.groups, strict=True):
        rows.append(_row(str(file), tally))
        rows += [_row(f"  {name}", groups[name]) for name in sorted(groups)] if by else []
    lines = _table(rows)
    for file, tally in zip(files, score.tallies, strict=True):
        if tally.unclear:
            lines.append(
                f"{file}: unclear: "
                + ", ".join(f"{count(number)} {_UNCLEAR.get(why, why)}" for why, number in tally.unclear.most_common())
            )
    for file, tally, samples in zip(files, score.tallies, score.samples, strict=True):
        lines += _sample_lines(file, tally, samples) if samples.each else []
    if score.pairs:
        rows = [
            list(_PAIRS_HEAD),
            *(_pair_row(first, second, pair, adjusted) for (first, second), pair, adjusted in _compared(score, files)),
        ]
        # With two files there is one comparison, and nothing to adjust for.
        lines += ["", *_table(rows if len(score.pairs) > 1 else [row[:-1] for row in rows]), ""]
    if score.without_key:
        lines.append(
            f"{score.without_key} questions have no known answer that could be compared; they are not counted above"
        )
    return "\n".join([*lines, f"read by version {RULES_VERSION} of the rules (docs/scoring.md)"])


def _sample_lines(file: Path, tally: ScoreTally, samples: SampleTally) -> list[str]:
    rows = [[f"{file}: {count(samples.each)} samples of each question", "share", "95 % interval"]]
    shares = {f"  one of {count(k)} is right (pass@{k})": found for k, found in samples.pass_at().items()}
    low, high = tally.as_dict()["interval_95"]
    shares["  most of them are right (majority vote, as above)"] = (tally.accuracy, low, high)
    rows += [[name, f"{share:.1%}", f"{low:.1%} to {high:.1%}"] for name, (share, low, high) in shares.items()]
    short = {"samples that failed": samples.failed, "samples without a line": samples.missing}
    notes = [f"  {what}, so not right: {count(number)}" for what, number in short.items() if number]
    return ["", *_table(rows), *notes, ""]


def _row(name: str, tally: ScoreTally) -> list[str]:
    counts = tally.as_dict()
    low, high = counts["interval_95"]
    shown = [count(counts[column]) for column in _HEAD[3:]]
    return [name, f"{tally.accuracy:.1%}", f"{low:.1%} to {high:.1%}", *shown]


def _compared(score: Score, files: Sequence[Path]) -> list[tuple[tuple[Path, Path], Pair, float]]:
    """Every two files, how they compare, and the probability adjusted for how many comparisons there are."""
    return list(zip(combinations(files, 2), score.pairs, holm([pair.p_value for pair in score.pairs]), strict=True))


def _pair_row(first: Path, second: Path, pair: Pair, adjusted: float) -> list[str]:
    counts = pair.as_dict()
    low, high = counts["interval_95"]
    only = [str(pair.only_second), str(pair.only_first)]
    points = [_points(counts["difference"]), f"{_points(low)} to {_points(high)}"]
    return [f"{second} against {first}", *points, *only, f"{pair.p_value:.2g}", f"{adjusted:.2g}"]


def _points(share: float) -> str:
    return f"{share * 100:+.1f}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        f"{row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
