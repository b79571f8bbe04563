"""What a stranger says reaches a terminal as letters, and what is too long is broken between words."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import pty
import shlex
import struct
import sys
import termios
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfleet.cli.main import main
from batchfleet.cli.standard_output import deliver
from batchfleet.console import TerminalConsole
from batchfleet.logs import set_up
from batchfleet.runs.eta import EtaEstimator
from batchfleet.runs.progress_text import ProgressSnapshot, one_line
from batchfleet.runs.resume_hint import how_to_go_on
from batchfleet.runs.summary import Outcome, as_text
from batchfleet.status.advice import advise
from batchfleet.status.model import FleetStatus, QueueStatus, Trouble, WorkerStatus
from batchfleet.status.view import draw
from batchfleet.terminal import folded, folded_command, guarded_streams, printable
from producer.run_tally import RunTally
from tests.builders import an_answer
from wire.messages import ErrorDetail, Failure

EVIL = "evil\x1b]0;title\x07\x1b[2J\x9b31m\x7f\r\u202egpj\u2066\u2028\ud83d\x00\b"


def is_safe(text: str) -> bool:
    """No control character but line ends and tabs, no half of a character, nothing that turns the direction of text."""
    return not any(
        (unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} and letter not in "\n\t")
        or letter in "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\ufeff"
        for letter in text
    )


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    """Of any text; and what is safe already stays as it is."""
    assert is_safe(printable(text))
    assert printable(printable(text)) == printable(text)
    assert not is_safe(text) or printable(text).encode() == text.encode() or not text.isascii()


def test_letters_of_all_languages_stay() -> None:
    """Only what is no letter is written as an escape."""
    assert printable("naïve Привет 你好 سلام می‌خواهم 👩‍🔬\t½\n") == "naïve Привет 你好 سلام می‌خواهم 👩‍🔬\t½\n"
    assert printable("a\x1b[31mb\x9b\u202e") == r"a\x1b[31mb\x9b\u202e"


def a_summary() -> None:
    """At the end of a run: ids, kinds and messages."""
    tally = RunTally(2, started=1.0, ended=3.0)
    tally.count(an_answer(EVIL.replace("\ud83d", "")))
    tally.count(Failure(run="r", index=1, request_id=EVIL, error=ErrorDetail(kind=EVIL, message=EVIL)))
    print(as_text(Outcome(EVIL, EVIL, tally), Path(EVIL.replace("\0", "")), None), file=sys.stderr)


def a_progress_line() -> None:
    """While it is on: what is waited for."""
    tally = RunTally(2, started=1.0, sent=2, waiting_for=EVIL)
    print(one_line(ProgressSnapshot.of(tally, None, EtaEstimator(), silent_s=9.0)), file=sys.stderr)


def a_status() -> None:
    """The fleet's tables and advice: names, states, models, the engines' words."""
    worker = WorkerStatus(EVIL, EVIL, EVIL, EVIL, waits_for=EVIL, failures={EVIL: 3})
    trouble = Trouble("engine_dead", 1.0, EVIL, EVIL, EVIL)
    status = FleetStatus((QueueStatus(EVIL, 5),), (worker,), troubles=(trouble,), leader=EVIL)
    TerminalConsole().print(draw(status, advise(status)))


def an_error() -> None:
    """The name of a file that is not there."""
    main(["run", f"{EVIL.replace(chr(0), '')}.jsonl", "-o", "answers.jsonl", "--engine", "stub"])


def a_flag() -> None:
    """A flag that there is not."""
    with contextlib.suppress(SystemExit):
        main(["run", f"--{EVIL}"])


def a_log_line() -> None:
    """What a program logs."""
    set_up("warning", "text").learn([])
    logging.getLogger("test").warning("the server says %s", EVIL)


SCREENS = [a_summary, a_progress_line, a_status, an_error, a_flag, a_log_line]


@pytest.mark.parametrize("screen", SCREENS)
def test_what_strangers_say_is_shown_as_letters(screen: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Ids, models, messages, names of files and flags, on each kind of screen."""
    with guarded_streams():
        screen()
    shown = "".join(capsys.readouterr())

    assert "evil" in shown
    assert is_safe(shown)


@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1), min_size=1),
    st.integers(20, 100),
    st.integers(0, 6),
)
def test_lines_are_broken_between_words(words: list[str], width: int, indent: int) -> None:
    """No word is lost or broken, and a line is longer than the terminal only if it is one word."""
    text = " " * indent + " ".join(words) + "\n"

    lines = folded(text, width).splitlines()

    assert " ".join(lines).split() == words
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)
    assert folded(text, width).endswith("\n")


def test_what_follows_stands_below_the_words() -> None:
    """Not below their label, so that labels can be found with the eye."""
    assert folded("  failed    3 x prompt_too_long, such as q2: it has 5 000 tokens\n  answers   a.jsonl\n", 44) == (
        "  failed    3 x prompt_too_long, such as q2:\n            it has 5 000 tokens\n  answers   a.jsonl\n"
    )


@given(st.lists(st.text(), min_size=1, max_size=12), st.integers(20, 100))
def test_a_command_over_several_lines_is_still_that_command(words: list[str], width: int) -> None:
    """As a shell reads it, which joins lines at a backslash."""
    shown = folded_command(shlex.join(words), width)

    assert shlex.split(shown.replace(" \\\n", " ")) == words


def on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, show: Callable[[], object]) -> str:
    """What a terminal of so many columns gets of both streams."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "stdout", stream)
        with guarded_streams():
            show()
    found = b""
    # The end of what a terminal was given is an error.
    with os.fdopen(ours, "rb", buffering=0) as seen, contextlib.suppress(OSError):
        while more := seen.read(65536):
            found += more
    return found.decode().replace("\r\n", "\n")


TEXT = " ".join(["question"] * 40)


def test_an_error_stream_on_a_terminal_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 words in 80 columns."""
    shown = on_a_terminal(80, monkeypatch, lambda: print(TEXT, file=sys.stderr))

    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == TEXT.split()


def test_data_on_a_terminal_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to standard output is for programs, and somebody may copy it from the screen."""
    assert on_a_terminal(80, monkeypatch, lambda: print(TEXT)) == f"{TEXT}\n"


def test_answers_that_go_to_a_terminal_are_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON escapes most of what a terminal obeys, and not all of it."""
    arguments = argparse.Namespace(output="-", run=None)

    def command() -> int:
        Path(arguments.output).write_text('{"text": "a\x9b31mb\u202ec"}\n', encoding="utf-8")
        return 0

    shown = on_a_terminal(80, monkeypatch, lambda: deliver(arguments, command))

    assert is_safe(shown)
    assert "31mb" in shown


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_words_of_ctrl_c_fit_the_terminal(width: int) -> None:
    """Sentences broken between words, commands between their words with a backslash."""
    again = (
        "batchfleet submit /home/scientist/questions/part-001.jsonl -o answers.jsonl --redis redis://queue.example:6379"
    )
    tally = RunTally(1000, on_disk=250, answered=250, sent=850, settled=250, started=1.0)

    shown = folded(how_to_go_on(tally, Path("a.jsonl"), again, "batchfleet cancel r", kept_s=7e5, width=width), width)

    assert all(len(line) <= width or len(line.split()) <= 2 for line in shown.splitlines())
    assert again in " ".join(shown.replace(" \\\n", " ").split())
