"""What is said when a run was stopped before its end: what is where, and how to continue."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from batchfleet.humanize import MASK, count, duration, plural
from batchfleet.terminal import folded_command
from producer.run_tally import RunTally

_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s@/]+@")


def command_again(argv: Sequence[str]) -> str:
    """The command line that was given, to be given again.

    A password in it is masked, for it would stay on the screen.
    """
    program = Path(argv[0])
    start = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return f"{start} {_PASSWORD.sub(rf'{chr(92)}1{MASK}@', shlex.join(argv[1:]))}"


def how_to_go_on(
    tally: RunTally, answers: Path, again: str, give_up: str, *, kept_s: float | None, width: int | None = None
) -> str:
    """Lines for the person who stopped it.

    Args:
        again: The command that continues.
        give_up: The command that cancels what is queued.
        kept_s: How long the fleet keeps what is queued, in seconds; None if the fleet ends with the command.
        width: Columns that commands are to fit; None for as many as they take.
    """
    lines = list(_lines(tally, answers, kept_s))
    lines.append(to_do("to resume:   ", again, width))
    if kept_s is not None and tally.with_fleet:
        lines.append(to_do("to give up:  ", give_up, width))
    return "\n".join(f"  {line}" for line in lines)


def to_do(label: str, command: str, width: int | None) -> str:
    """The command behind its label or, where there is no room, below it on several lines.

    A shell reads those lines as one.
    """
    if width is None or len(label) + len(command) + 2 <= width:
        return label + command
    return f"{label.rstrip()}\n    " + folded_command(command, width - 4).replace("\n", "\n    ")


def how_to_correct(answers: Path, again: str, run: str | None, *, width: int | None = None) -> str:
    """Lines for the person whose questions all fail.

    Args:
        again: The command that was given.
        run: What Redis could not be made to forget; None for nothing.
        width: Columns that commands are to fit; None for as many as they take.
    """
    lines = [f"none of them was kept: {answers} is as it was before"]
    lines += [f"first:       batchfleet forget {run}"] if run is not None else []
    lines += ["fix what the message names, or ask all of them anyway with --keep-going"]
    lines += [to_do("to resume:   ", again, width)]
    return "\n".join(f"  {line}" for line in lines)


def _lines(tally: RunTally, answers: Path, kept_s: float | None) -> Iterator[str]:
    yield f"{count(tally.on_disk)} of {plural(tally.questions, 'question')} have their line in {answers}"
    not_sent = tally.questions - tally.on_disk - tally.with_fleet
    if kept_s is None:
        yield (
            f"{count(tally.questions - tally.on_disk)} are open; this fleet and its queue end with the command, and "
            "resuming asks them again"
        )
    else:
        if tally.with_fleet:
            kept = f"the fleet continues with them and keeps their records for {duration(kept_s)}"
            yield f"{count(tally.with_fleet)} are queued or in work; {kept}"
        if not_sent > 0:
            yield f"{count(not_sent)} were not sent yet"
