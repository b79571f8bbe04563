"""docs/commands.md: every command and flag, from the parsers that read them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from batchfleet.cli import question_flags
from batchfleet.cli.flags import EXIT_CODES, shared_flags
from batchfleet.cli.main import command_parser

HEAD = """\
# Commands

<!-- Written by `.venv/bin/python -m scripts.reference.commands >docs/commands.md`. Edit the modules of batchfleet/cli instead. -->

What `--help` says of each command. Data goes to stdout, everything else to stderr.

{exit_codes} ([more](records.md#exit-codes)).

## Shared flags

Every command has the first three; those that use Redis have `--redis` too.
"""
READING = """
`run`, `submit`, `convert`, `score` and `sweep` read questions with these ([formats.md](formats.md)):
"""
SMALL_HEAD = """
## Other commands

| | | |
|---|---|---|"""
TABLE = "\n| | |\n|---|---|"
FEW = 4
"""Flags that a command shares with one before it are named there once, if they are as many as this."""
SMALL = 3
"""Commands with no more rows than this share a table at the end."""


def text() -> str:
    """The whole reference, as Markdown."""
    shared = [*shared_flags().both]
    reading_flags = argparse.ArgumentParser(add_help=False)
    question_flags.add_flags(reading_flags)
    said_once = [*shared, reading_flags]
    names = {flag for parser in said_once for action in parser._actions for flag in action.option_strings} | {  # noqa: SLF001 (see _commands)
        "-h",
        "--help",
    }
    lines = [
        HEAD.format(exit_codes=_sentence(EXIT_CODES).removesuffix(".")),
        TABLE.lstrip(),
        *(row for parser in shared for row in _rows(parser, set())),
        READING,
        TABLE.lstrip(),
        *_rows(reading_flags, set()),
    ]
    shown: dict[str, str] = {}
    small: list[str] = []
    for name, about, parser in _commands(command_parser()):
        rows = list(_rows(parser, names))
        known = [row for row in rows if row in shown]
        rows = [row for row in rows if len(known) < FEW or row not in known]
        if len(rows) + (len(known) >= FEW) <= SMALL:
            words = [row.strip("| ").replace(" | ", " ") for row in rows]
            words += [_as_before(known, shown)] if len(known) >= FEW else []
            small.append(f"| `{name}` | {_escaped(about)} | {'; '.join(words)} |".replace("|  |", "| |"))
            continue
        before = f" Also {_as_before(known, shown)}." if len(known) >= FEW else ""
        lines += [f"\n## {name}\n", f"{_sentence(about)}{_description(parser)}{before}", TABLE, *rows]
        shown = {**dict.fromkeys(rows, name), **shown}
    return "\n".join([*lines, SMALL_HEAD, *small]) + "\n"


def _as_before(known: list[str], shown: dict[str, str]) -> str:
    """Which flags of an earlier command one takes: all but some, or some."""
    earlier = shown[known[0]]
    left_out = [row for row, name in shown.items() if name == earlier and row not in known]
    if len(left_out) < len(known):
        return f"all that `{earlier}` takes but {_listed(left_out)}"
    return f"{_listed(known)}, as for `{earlier}`"


def _listed(rows: list[str]) -> str:
    return ", ".join(f"`{row.removeprefix('| `').partition('`')[0].split(' ')[0]}`" for row in rows)


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of each, in order; the actions of a command in place of it. argparse has no public way to look at what it was told.

    Its names are as old as it is.
    """
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            for name, nested in action.choices.items():
                inner = [(f"{name} {action}", words, one) for action, words, one in _commands(nested)]
                yield from inner or [(name, about.get(name, ""), nested)]


def _rows(parser: argparse.ArgumentParser, left_out: set[str]) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction) or left_out.intersection(action.option_strings):  # noqa: SLF001
            continue
        about = (action.help or "") % {"default": action.default}
        yield f"| `{_shown(action)}` | {_escaped(about.removesuffix(' (default: None)'))} |"


def _shown(action: argparse.Action) -> str:
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = " ".join(value) if isinstance(value, tuple) else value
    several = {"*": f"[{value} ...]", "+": f"{value} ...", "?": f"[{value}]"}.get(str(action.nargs), value)
    if not action.option_strings:
        return _escaped(several)
    return _escaped(", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {several}"))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _sentence(about: str) -> str:
    return about[:1].upper() + about[1:] + ("" if about.endswith(".") else ".")


def _description(parser: argparse.ArgumentParser) -> str:
    return f" {parser.description}" if parser.description else ""


if __name__ == "__main__":
    print(text(), end="")
