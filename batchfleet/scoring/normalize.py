"""An answer's text, brought into the one form that the rules look at. Pure."""

from __future__ import annotations

import re

MOST_CHARS = 50_000
"""Of a text, counted from its end: where answers stand."""

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SIGNS = {
    **_FULL_WIDTH,
    **{ord(dash): "-" for dash in "\u2010\u2011\u2212\ufe63"},
    **{ord(quote): "'" for quote in "\u2018\u2019\u02bc"},
    **{ord(quote): '"' for quote in "\u201c\u201d\u00ab\u00bb"},
    ord("\u3002"): ". ",
    ord("\u00a0"): " ",
    ord("\u202f"): " ",
    ord("\u2009"): " ",
    ord("\u00d7"): "*",
    ord("\u22c5"): "*",
    ord("\u00b7"): "*",
    ord("\u200b"): None,
    ord("\r"): None,
}
_REASONED = re.compile(
    r"</(?:think|thinking|reasoning|thought)>|\[/think\]|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_REASONING_BEGUN = re.compile(
    r"<(?:think|thinking|reasoning|thought)>|\[think\]|<\|channel\|>analysis<\|message\|>", re.IGNORECASE
)
_VULGAR = {
    "\u00bd": "1/2",
    "\u00bc": "1/4",
    "\u00be": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "\u215b": "1/8",
    "\u2155": "1/5",
}
_RAISED = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b\u207a", "0123456789-+")
_RAISED_POWER = re.compile("(?<=10)([\u207b\u207a]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)")
_LATEX = (
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,;! ]"), ""),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"(\d?)\s?\\[dt]?frac\s?\{\s?(-?\d+)\s?\}\s?\{\s?(\d+)\s?\}"), r"\1 \2/\3"),
    (re.compile(r"(\d?)\s?\\[dt]?frac\s?(\d)(\d)"), r"\1 \2/\3"),
    (re.compile(r"-\s+(?=\d+/\d)"), "-"),
)


def normal(text: str) -> str:
    """The end of a text with one kind of minus, quote, space and digit group, fractions as a/b, and without reasoning.

    What stands before the last `</think>` or `[/THINK]` is not part of the answer, and neither is what follows a
    `<think>` that nothing ends.
    """
    text = text[-MOST_CHARS:]
    text = _REASONED.split(text)[-1]
    text = _REASONING_BEGUN.split(text)[0]
    text = text.translate(_SIGNS)
    for sign, fraction in _VULGAR.items():
        text = text.replace(sign, f" {fraction}")
    text = _RAISED_POWER.sub(lambda match: "^" + match[1].translate(_RAISED), text)
    for pattern, plain in _LATEX:
        text = pattern.sub(plain, text)
    return text.strip()


def folded(text: str) -> str:
    """For comparing options: case, runs of white space, quotes, and stops at the end do not count."""
    return re.sub(r"\s+", " ", re.sub(r"[`*\"$]|\\text\b|[{}]", "", text)).strip(" .,;:!'").casefold()
