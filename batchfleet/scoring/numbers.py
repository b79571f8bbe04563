"""Numbers in running text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_GROUPED = r"[1-9]\d{0,2}(?:,\d{3}){1,60}(?!\d)(?:\.\d{1,200})?"
_INDIAN = r"[1-9]\d?(?:,\d{2}){1,60},\d{3}(?!\d)(?:\.\d{1,200})?"
_EUROPEAN = r"[1-9]\d{0,2}(?:\.\d{3}){1,60},\d{1,200}|[1-9]\d{0,2}(?:\.\d{3}){2,60}(?!\d)"
_SPACED = r"[1-9]\d{0,2}(?:[ ']\d{3}){1,60}(?![\d/])(?:[.,]\d{1,200})?"
_PLAIN = r"\d{1,200}(?:[.,]\d{1,200})?|\.\d{1,200}"
_FIGURE = rf"(?:{_GROUPED}|{_INDIAN}|{_EUROPEAN}|{_SPACED}|{_PLAIN})"
_NUMBER = re.compile(
    rf"""
    (?<![A-Za-z_\d/^])(?<!\^\{{)(?<!\d[.,:])
    (?P<sign>(?:(?<![\w)%])[-+]|(?<=[=:])\s?-\s|\b(?:negative|minus)\s+)?)
    (?:(?:US|A|C)?[$\u20ac\u00a3\u00a5\u20b9]\s?|\\\$\s?)?
    (?P<inner>-?)
    (?:(?P<whole>\d{{1,30}})[ ]{{1,2}}(?=\d{{1,30}}/\d))?
    (?P<figure>{_FIGURE})
    (?:\s?/\s?(?P<below>\d{{1,30}})(?![\d/]))?
    (?:[eE](?P<e>[-+]?\d{{1,3}})(?!\w)|\s?[*x]\s?10\s?(?:\^|\*\*)\s?[({{]*(?P<power>[-+]?\d{{1,3}})[)}}]*)?
    (?P<magnitude>\s?(?:thousand|million|billion|trillion)\b|k\b)?
    (?P<percent>\s?(?:\\?%|percent\b|per\ cent\b))?
    (?!:\d)(?!\d)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MAGNITUDES = {"k": 3, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_TENS = {
    ten: 10 * times
    for times, ten in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 2)
}
NUMBER_WORDS = {
    **{f"{ten}-{one}": value + units for ten, value in _TENS.items() for units, one in enumerate(_WORDS[1:10], 1)},
    **{word: value for value, word in enumerate(_WORDS)},
    **_TENS,
    "hundred": 100,
}
"""Numbers in words, the longer ones first."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and where it stands.

    Attributes:
        value: Exact. A percentage has the value of its figure: 50 % is 50.
        is_percent: Whether a percent sign or word follows.
        start, end: Place in the text; sign, currency and magnitude included, the unit not.
    """

    value: Fraction
    is_percent: bool = False
    start: int = 0
    end: int = 0

    def __str__(self) -> str:
        return written(self.value) + ("%" if self.is_percent else "")


def numbers_in(text: str) -> Iterator[Number]:
    """All numbers, from left to right. Digits within words, such as in CO2, are none."""
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            yield Number(value, match["percent"] is not None, match.start(), match.end())


def agree(found: Number, key: Number, tolerance: float = 0.0) -> bool:
    """Whether two numbers are the same.

    Args:
        tolerance: Largest difference, as a part of the key's size. A percentage agrees by its figure or by its value:
            50 % with 50 and with 0.5.
    """
    if _close(found.value, key.value, tolerance):
        return True
    if found.is_percent == key.is_percent:
        return False
    return (
        _close(found.value / 100, key.value, tolerance)
        if found.is_percent
        else _close(found.value, key.value / 100, tolerance)
    )


def written(value: Fraction) -> str:
    """As a whole number or a decimal where that is exact and short, else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    for places in range(1, 13):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
            return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    return f"{value.numerator}/{value.denominator}"


def _close(found: Fraction, key: Fraction, tolerance: float) -> bool:
    return abs(found - key) <= abs(key) * Fraction(tolerance)


def _value(match: re.Match[str]) -> Fraction | None:
    value = _figure(match["figure"])
    if match["below"]:
        below = int(match["below"])
        if not below:
            return None
        value /= below
    if match["whole"]:
        value += int(match["whole"])
    exponent = int(match["e"] or match["power"] or 0) + _MAGNITUDES.get((match["magnitude"] or "").strip().lower(), 0)
    value *= Fraction(10) ** exponent
    return -value if ("+" not in match["sign"] and match["sign"].strip()) or match["inner"] else value


def _figure(text: str) -> Fraction:
    """What digits mean: the last of `.` and `,` begins the decimals, unless it only groups thousands."""
    text = text.replace(" ", "").replace("'", "")
    if re.fullmatch(rf"{_GROUPED}|{_INDIAN}", text):
        text = text.replace(",", "")
    elif re.fullmatch(_EUROPEAN, text):
        text = text.replace(".", "").replace(",", ".")
    whole, _, decimals = text.replace(",", ".").partition(".")
    return Fraction(int(whole + decimals or "0"), 10 ** len(decimals))
