"""The command that asked the questions, as it is kept beside the answers for `retry`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

PASSWORD_LEFT_OUT = "--redis"  # noqa: S105 (a flag)
_WITH_PASSWORD = re.compile(r"://[^\s/@]*:[^\s@]*@")
_ONCE = {
    "--retry": 0,
    "--kind": 1,
    "--update": 0,
    "--keep-removed": 0,
    "--dry-run": 0,
    "--max-tokens-total": 1,
    "--max-seconds": 1,
    "--quiet": 0,
    "--json": 0,
}
"""Flags that are of one call and not of the run, with how many words follow each."""


def kept_command(argv: Sequence[str], arguments: argparse.Namespace) -> tuple[str, ...]:
    """The words of a command, good from any folder.

    Without what is of one call alone, and without `--redis` if it holds a password.

    Args:
        argv: The words, without the program.
        arguments: What they mean.

    Returns:
        Nothing if they cannot be kept: what is no text, or questions that came from standard input.
    """
    if argv[:1] not in (["run"], ["submit"]) or "-" in arguments.questions:
        return ()
    paths = {*arguments.questions, arguments.output, arguments.config, _file(arguments.template)} - {None}
    kept: list[str] = []
    skip = 0
    for word in argv:
        flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", "")
        if skip:
            skip -= 1
        elif flag in _ONCE:
            skip = 0 if equals else _ONCE[flag]
        elif _WITH_PASSWORD.search(word):
            if kept[-1:] == [PASSWORD_LEFT_OUT]:
                kept.pop()
        elif word in paths:
            kept.append(str(Path(word).absolute()))
        else:
            kept.append(f"{flag}={Path(value).absolute()}" if equals and value in paths else word)
    try:
        "".join(kept).encode()
    except UnicodeEncodeError:
        return ()
    return tuple(kept)


def _file(template: object) -> str | None:
    """The file that a template was read from."""
    name = getattr(template, "name", None)
    return name if isinstance(name, str) and Path(name).is_file() else None
