"""The message for a vLLM that did not start: the cause, what to change, its last lines. Pure: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpu_worker.engines.vllm.boot_advice import BootContext, advice

LAST_LINES = 12
"""How many of the engine's lines a message quotes."""

_MAX_LINE_CHARS = 300

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

_LOG_PREFIX = re.compile(
    r"^(?:\([\w:.-]+ pid=\d+\) )?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]*\] ?)?)?"
)

_TRACEBACK = re.compile(
    r"^(?:\s|Traceback \(most recent|File \"|\^|During handling of|The above exception|raise |return )"
)

_ERROR = re.compile(
    r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|NotFound)\b(?:: .*)?$|^Value error, "
)

_PYDANTIC = re.compile(r" \[type=\w+, input_value=.*$")

_SECOND_HAND = re.compile(r"initialization failed|See (?:root cause|stack trace)|Failed core proc", re.IGNORECASE)


def explain(error: str, lines: Sequence[str], context: BootContext) -> str:
    """The whole message for a failed start: the cause, what to change, the engine's last lines.

    `error`: the exception's own text. `lines`: what the engine wrote while it started, oldest first.
    """
    readable = [line for line in map(plain, lines) if line]
    suggestion = advice("\n".join([*readable, plain_text(error)]), context)
    parts = [f"vLLM did not start with model {context.model!r}: {cause(error, readable)}"]
    if suggestion is not None:
        parts.append(f"What to change: {suggestion}")
    quoted = last_words(readable)
    if quoted:
        parts += ["The engine's last lines:", *(f"  | {line}" for line in quoted)]
    return "\n".join(parts)


def cause(error: str, lines: Sequence[str]) -> str:
    """The most telling line: the engine's last error that does not merely point at another one.

    If there is none, it is the exception's own text.
    """
    if not _SECOND_HAND.search(error):
        first = [line for line in error.splitlines() if line.strip() and "validation error for" not in line]
        return _cut(_PYDANTIC.sub("", first[0].strip().removeprefix("Value error, "))) if first else "no reason given"
    told = [line for line in lines if _ERROR.match(line) and not _SECOND_HAND.search(line)]
    return _cut(told[-1]) if told else _cut(plain_text(error))


def last_words(lines: Sequence[str]) -> list[str]:
    """The last lines that say something: no tracebacks, no repetition."""
    telling: list[str] = []
    for line in lines:
        if not _TRACEBACK.match(line) and line not in telling[-LAST_LINES:]:
            telling.append(line)
    return [_cut(line) for line in telling[-LAST_LINES:]]


def plain(line: str) -> str:
    """Without colours, and without vLLM's prefix of process, level and time."""
    return _LOG_PREFIX.sub("", _ANSI.sub("", line)).rstrip()


def plain_text(text: str) -> str:
    return " ".join(_ANSI.sub("", text).split())


def _cut(line: str) -> str:
    return line if len(line) <= _MAX_LINE_CHARS else f"{line[:_MAX_LINE_CHARS]}..."
