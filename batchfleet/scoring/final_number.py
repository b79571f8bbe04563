"""Which number an answer ends in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from batchfleet.scoring.answer_patterns import REFUSAL, REVISION, STATEMENT, marked
from batchfleet.scoring.echo import read_around_echo, without_sentences
from batchfleet.scoring.extraction import Extraction
from batchfleet.scoring.numbers import NUMBER_WORDS, Number, numbers_in

_REACH = 400
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_OPERATOR = re.compile(
    r"[\s)(}{$*\\\]\[]*(?:[A-Za-z]+[\s)]*){0,2}[-+*/\u00f7^=\u2248~][\s)(}{$*\\\]\[]*(?:[A-Za-z]{1,12}\s*)?[($\s]*"
)
_EQUALS = re.compile(r"[=\u2248]")
_HEDGE = re.compile(
    r"[\s*$\\]*(?:[A-Za-z]+\s+){0,2}?(?:or|and/or|oder|ou)\s+(?:maybe |perhaps |possibly )?[\s*$\\]*", re.IGNORECASE
)
_ANY_WORD = re.compile(rf"(?<![\w-])({'|'.join(NUMBER_WORDS)})(?![\w-])", re.IGNORECASE)
_WORD = re.compile(rf"[\s*_\"'(:]*(?:exactly\s+)?({'|'.join(NUMBER_WORDS)})(?![\w-])", re.IGNORECASE)

_STEP = re.compile(r"^[ \t>*_#-]*(?:Step\s+)?(?P<number>\d{1,2})[).:][*_]*[ \t]+(?=\S)", re.MULTILINE | re.IGNORECASE)

Found = Number | None


def calculate(text: str, *, question: str = "", is_truncated: bool = False) -> Extraction:
    """Which number a text ends in, by the rules of docs/scoring.md, the first of which that says something decides.

    Args:
        question: As it was asked, to know it again where the text repeats it.
        is_truncated: The text was cut off, so that only an answer that it states outright counts.
    """
    return read_around_echo(
        text,
        question,
        None,
        lambda turn, is_cut: _calculate(turn, question, is_truncated=is_cut),
        is_truncated=is_truncated,
    )


def _calculate(text: str, question: str, *, is_truncated: bool) -> Extraction:
    text = _without_steps(text)
    for rule, value in marked(text):
        number, is_clear = _first(value)
        if number is not None or not is_clear:
            return Extraction(number, rule) if is_clear else Extraction(None, rule, "several")
    stated = list(_stated(text))
    if stated:
        _, number, is_clear = max(stated, key=lambda found: found[0])
        return Extraction(number, "stated") if is_clear else Extraction(None, "stated", "several")
    if is_truncated or REFUSAL.search(without_sentences(text, question)):
        return Extraction(None, "truncation", "truncated") if is_truncated else Extraction(None, "refusal", "refused")
    return _unmarked(text)


def _stated(text: str) -> Iterator[tuple[int, Found, bool]]:
    """(place, number, whether it is one only) for each statement of an answer."""
    for pattern in (STATEMENT, REVISION):
        for match in pattern.finditer(text):
            if pattern is STATEMENT and match["adjective"] in ("right", "best") and not match["noun"]:
                # The right side, the best time.
                continue
            behind = text[match.end() : match.end() + _REACH].lstrip()
            end = _SENTENCE_END.search(behind)
            sentence = behind[: end.start()] if end else behind
            if re.match(r"(?:not|n't)\b", sentence):
                continue
            number, is_clear = _first(sentence, is_near=pattern is REVISION or not match["verb"])
            if number is not None or not is_clear:
                yield match.end(), number, is_clear


def _first(sentence: str, *, is_near: bool = False) -> tuple[Found, bool]:
    """The number that a sentence begins with, or ends a calculation in, and whether it is the only one offered.

    Args:
        is_near: It counts only if nothing but punctuation stands before it.
    """
    sentence = sentence[:_REACH]
    numbers = list(numbers_in(sentence))
    if (word := _WORD.match(sentence)) and not (numbers and numbers[0].start < word.start(1)):
        return Number(Fraction(NUMBER_WORDS[word[1].lower()]), start=word.start(1), end=word.end(1)), True
    if not numbers or (is_near and re.search(r"\w", sentence[: numbers[0].start])):
        return None, True
    if re.search(r"\bbetween\s*\W{0,3}$", sentence[: numbers[0].start]):
        return None, False
    at = result = 0
    calculates = False
    while at + 1 < len(numbers):
        between = sentence[numbers[at].end : numbers[at + 1].start]
        joint = between + ("-" if sentence[numbers[at + 1].start] in "-+" else "")
        if not _OPERATOR.fullmatch(joint):
            break
        at += 1
        calculates = True
        if _EQUALS.search(between):
            result = at
    if calculates and not result:
        return None, True
    number = numbers[result]
    following = next((other for other in numbers if other.start >= number.end), None)
    if following and _HEDGE.fullmatch(sentence[number.end : following.start]) and following.value != number.value:
        return None, False
    return number, True


def _without_steps(text: str) -> str:
    """The numbers of steps, 1, 2, 3 at the beginning of lines, are no answers."""
    steps = list(_STEP.finditer(text))
    if [int(step["number"]) for step in steps] != list(range(1, len(steps) + 1)) or len(steps) == 1:
        return text
    for step in reversed(steps):
        text = text[: step.start("number")] + text[step.end("number") :]
    return text


def _unmarked(text: str) -> Extraction:
    """The last line's result if it has one, else the last number of all."""
    numbers = list(numbers_in(text))
    if not numbers:
        return _in_words(text)
    last = numbers[-1]
    if len(numbers) > 1:
        before = numbers[-2]
        if _HEDGE.fullmatch(text[before.end : last.start]) and before.value != last.value:
            return Extraction(None, "last", "several")
    return Extraction(last, "last")


def _in_words(text: str) -> Extraction:
    """The one number that is written out; "one" is more often no number."""
    found = {
        NUMBER_WORDS[word.lower()]
        for word in _ANY_WORD.findall(text)
        if word.lower() != "one" or text.strip(" .!*").lower() == "one"
    }
    if len(found) == 1:
        return Extraction(Number(Fraction(found.pop())), "in words")
    return Extraction(None, "end", "several" if found else "nothing")
