"""Whatever a server does, no question is lost, and none fails by a fault that is not its own.

Docs/engines.md has the table.
"""

from __future__ import annotations

import pytest

from tests.integration.server_faults import FAULTS, OTHERS, PAGE, outcomes, table

SOME_STATUSES = ("302", "307", "400", "401", "403", "404", "408", "413", "418", "422", "429", "500", "503", "529")


@pytest.mark.timeout(1200)
def test_faults_have_the_outcomes_that_the_table_says() -> None:
    """Those without a status, and some of each kind of status.

    To one question or to all, once, for a while or for ever.
    """
    made = table(outcomes([*SOME_STATUSES, *OTHERS]))

    rows = dict(_rows(PAGE.read_text(encoding="utf-8")))
    assert {name: rows[name] for name, _ in _rows(made)} == dict(_rows(made))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_table_of_faults_is_current() -> None:
    """Every status from 300 to 599 too: it is what `python -m tests.integration.server_faults` writes."""
    assert table(outcomes(FAULTS)) in PAGE.read_text(encoding="utf-8")


def _rows(page: str) -> list[tuple[str, str]]:
    """Each fault with the rest of its row."""
    found = []
    for line in page.splitlines():
        names, _, outcome = line.removeprefix("| ").partition(" | ")
        for name in names.split("; "):
            for one in (
                name.split(", ")
                if name[:3].isdigit() and not name[3:].startswith((" with", ", code", ", model"))
                else [name]
            ):
                first, _, last = one.partition(" to ")
                statuses = range(int(first), int(last or first) + 1) if first.isdigit() else [one]
                found += [(str(status), outcome) for status in statuses]
    return found
