"""`python -m scripts.reference.records docs/records.md` writes the tables of that page anew, from the code that reads and writes what they describe."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from producer.answers.answers_file import ANSWER_FIELDS
from producer.questions.fields import FIELDS
from wire.failures import KINDS

TABLES: dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = {
    "fields of a question": (
        ("field", "holds", "if it is missing"),
        [(f"`{name}`", field.holds, field.missing) for name, field in FIELDS.items()],
    ),
    "fields of an answer": (("field", "holds"), [(f"`{name}`", holds) for name, holds in ANSWER_FIELDS.items()]),
    "kinds of failure": (
        ("kind", "retryable", "means", "what to do"),
        [(f"`{kind}`", "yes" if about.retryable else "no", about.means, about.advice) for kind, about in KINDS.items()],
    ),
}


def renewed(page: str) -> str:
    """The page with each table, from its comment to the next blank line, as it should be.

    Raises:
        ValueError: A table's comment is not there, once.
    """
    for name, (head, rows) in TABLES.items():
        comment = f"<!-- The {name}: written by `python -m scripts.reference.records docs/records.md`. -->"
        table = "\n".join([comment, _row(head), "|---" * len(head) + "|", *map(_row, rows)])
        # Backslashes in a replacement would be read as references to groups.
        plain = table.replace("\\", r"\\")
        page, count = re.subn(rf"^<!-- The {name}:.*?(?=\n\n)", plain, page, flags=re.DOTALL | re.MULTILINE)
        if count != 1:
            msg = f"{count} comments that begin with '<!-- The {name}:'; there must be one"
            raise ValueError(msg)
    return page


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
