"""What `NAME.run`, beside a file of answers, says of the run that the answers are of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

IDS_OF_ROWS = "rows"
"""In what is known of a run: ids that were derived are those of the rows, whatever form these were asked in."""

SAMPLES = "samples"
"""In the fingerprint of a run: how often each question is asked. Answers of a run with fewer are kept."""

IS_UPDATED = "is_updated"
"""In what is known of a run: its lines were about to become those of another; only an update can go on from there."""

MAX_SIDECAR_BYTES = 1024 * 1024


def stored_about(path: Path) -> dict[str, Any]:
    """What is known of the run that a file of answers, or a file that was made from one, is of; empty if nothing is."""
    for sidecar in (f"{path}.run", f"{path}.journal.run"):
        with contextlib.suppress(OSError), Path(sidecar).open("rb") as file:
            return parse_sidecar(file.read(MAX_SIDECAR_BYTES)) or {}
    return {}


def derives_ids_as_asked(about: dict[str, Any]) -> bool:
    """Whether an earlier version began the answers.

    One that derived ids from what was asked, in the form in which it was asked.
    """
    return bool(about) and about.get("ids") != IDS_OF_ROWS and "asked as" in about.get("fingerprint", {})


def has_fewer_samples(then: dict[str, str], now: dict[str, str]) -> bool:
    """Whether the same was asked, with fewer samples of each question."""
    counts = then.get(SAMPLES, ""), now.get(SAMPLES, "")
    is_same = {**then, SAMPLES: ""} == {**now, SAMPLES: ""}
    return is_same and all(map(str.isdecimal, counts)) and int(counts[0]) < int(counts[1])


def parse_sidecar(data: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(orjson.JSONDecodeError):
        found = orjson.loads(data)
        if isinstance(found, dict) and isinstance(found.get("fingerprint"), dict):
            return found
    return None


def difference(
    stored: dict[str, Any], run: str, fingerprint: dict[str, str], changed_row: Callable[[dict[str, Any]], str]
) -> str:
    theirs = stored["fingerprint"]
    changed = [name for name in {**fingerprint, **theirs} if theirs.get(name) != fingerprint.get(name)]
    if not changed:
        return f"run {stored.get('run')} then, {run} now"
    if "questions" not in changed:
        return "different: " + ", ".join(
            f"{name} ({theirs.get(name, 'nothing')} then, {fingerprint.get(name, 'nothing')} now)" for name in changed
        )
    others = [name for name in changed if name not in ("questions", "count")]
    return ", ".join(
        [
            *(
                f"{name} ({theirs.get(name, 'nothing')} then, {fingerprint.get(name, 'nothing')} now)"
                for name in others
            ),
            changed_row(stored),
        ]
    )
