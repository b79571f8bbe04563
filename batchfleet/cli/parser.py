"""Command lines, read by argparse, with errors that fit on a line or two."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Collection, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Names the command, the mistake and the nearest flag; the twenty flags of a command are for `--help` to list.

    Flags are not to be shortened: what is unique today means something else, or nothing, once there is another flag.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 (argparse's own)
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override] # noqa: ANN401
        """What is not known is this command's mistake.

        Argparse would leave it to the program's first parser, which knows no flags.
        """
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(_unknown(unknown, self._option_string_actions))
        return found, unknown


def _unknown(words: Sequence[str], flags: Collection[str]) -> str:
    flag = next((word.partition("=")[0] for word in words if word.startswith("-")), None)
    if flag is None:
        return f"unexpected {' '.join(words)!r}: put file names together, before or after the flags"
    near = difflib.get_close_matches(flag, flags, 1)
    return f"there is no flag {flag}" + (f"; did you mean {near[0]}?" if near else "")
