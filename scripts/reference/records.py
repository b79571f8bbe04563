"""`python -m scripts.reference.records docs/records.md` writes the tables of that page anew, from the code that reads and writes what they describe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from producer.answers.answer_line import ANSWER_FIELDS
from producer.questions.fields import FIELDS
from producer.questions.vector_questions import VECTOR_FIELDS
from wire.failures import KINDS
from wire.parameters import PARAMETERS, SPELLINGS, Parameter, Reach
from wire.vector_parameters import POOLING_PARAMETERS

TASKS = frozenset(task for one in POOLING_PARAMETERS.values() for task in one.tasks)

USED_BY: Mapping[Reach, str] = {
    "everywhere": "",
    "bookkeeping": "nobody; sent to servers",
    "servers": "servers only",
    "other servers": "servers other than vLLM's only",
}

BY_THE_STUB = frozenset({"max_tokens", "tools", "tool_choice", "reasoning_effort"})
"""What the stub does not only record."""


def _parameters() -> Iterator[Sequence[str]]:
    """A row for each kind of parameter, with all names of it."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, parameter in PARAMETERS.items():
        used_by = "also the stub" if name in BY_THE_STUB else USED_BY[parameter.reach]
        alike.setdefault((_takes(parameter), used_by), []).append(f"`{name}`")
    for (takes, used_by), names in alike.items():
        yield ", ".join(names), takes, used_by
    meanings: dict[str, list[str]] = {}
    for name, meaning in SPELLINGS.items():
        meanings.setdefault(meaning, []).append(f"`{name}`")
    for meaning, names in meanings.items():
        yield ", ".join(names), f"as {meaning}", ""


def _vector_parameters() -> Iterator[Sequence[str]]:
    alike: dict[tuple[str, str, str], list[str]] = {}
    for name, one in POOLING_PARAMETERS.items():
        tasks = "all" if len(one.tasks) == len(TASKS) else ", ".join(sorted(one.tasks))
        alike.setdefault((one.parameter.takes, tasks, one.does), []).append(f"`{name}`")
    for cells, names in alike.items():
        yield ", ".join(names), *cells


def _takes(parameter: Parameter) -> str:
    return (
        parameter.takes
        + (" (chats only)" if parameter.chat_only else "")
        + (f"; {parameter.note}" if parameter.note else "")
    )


TABLES: dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = {
    "fields of a question": (
        ("field", "holds", "if it is missing"),
        [(f"`{name}`", field.holds, field.missing) for name, field in FIELDS.items()],
    ),
    "fields of a question for vectors": (
        ("field", "holds", "if it is missing"),
        [(f"`{name}`", field.holds, field.missing) for name, field in VECTOR_FIELDS.items()],
    ),
    "fields of an answer": (("field", "holds"), [(f"`{name}`", holds) for name, holds in ANSWER_FIELDS.items()]),
    "parameters": (("parameter", "takes", "used by"), list(_parameters())),
    "parameters of vectors": (("parameter", "takes", "task", "does"), list(_vector_parameters())),
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
            raise ValueError(f"{count} comments that begin with '<!-- The {name}:'; there must be one")
    return page


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
