"""The known answer of a question, and the options it offers. Pure."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchfleet.scoring.normalize import folded, normal
from batchfleet.scoring.numbers import Number, numbers_in
from producer.questions.question_parser import ParsedQuestion

MOST_OPTIONS = 26
_LETTERS_WITHOUT_OPTIONS = 10
_LINE_OPTION = re.compile(r"^[ \t]*[(\[]?([A-Z])[).\]:][ \t]+(\S[^\n]*)$", re.MULTILINE)
_INLINE_OPTION = re.compile(r"\(([A-Z])\)\s{0,9}(.{1,500}?)(?=\s{0,9}[,;]?\s{0,9}\([A-Z]\)|\n|$)")
_LABELLED = re.compile(r"[(\[]?([A-Za-z])(?:[).\]:](?:\s.*)?)?", re.DOTALL)
_YES_OR_NO = (("yes", "no"), ("true", "false"))


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen.

    Attributes:
        labels: Letters in capitals, numbers, or the words yes and no.
        texts: What each label stands for; empty where only the labels are known.
    """

    labels: tuple[str, ...]
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceKey:
    """`right` is one of the labels."""

    options: Options
    right: str

    def __str__(self) -> str:
        return self.right


@dataclass(frozen=True, slots=True)
class NumberKey:
    """The right number."""

    right: Number

    def __str__(self) -> str:
        return str(self.right)


Key = ChoiceKey | NumberKey


def key_of(asked: ParsedQuestion) -> Key | None:
    """What the right answer is; None if the question does not say, or in no form that can be compared."""
    metadata = asked.metadata or {}
    answer = metadata.get("answer")
    if answer is None or isinstance(answer, dict | list):
        return None
    options = _given_options(metadata) or _options_in(text_of(asked))
    if isinstance(answer, bool):
        answer = "true" if answer else "false"
    return _choice(answer, options) or _number(str(answer))


def _choice(answer: object, options: Options | None) -> ChoiceKey | None:
    text = str(answer).strip()
    if options is None:
        for words in _YES_OR_NO:
            if text.lower() in words:
                return ChoiceKey(Options(words), text.lower())
        match = re.fullmatch(r"[(\[]?([A-J])[)\].]?", text)
        return ChoiceKey(Options(tuple(string.ascii_uppercase[:_LETTERS_WITHOUT_OPTIONS])), match[1]) if match else None
    for label, option in zip(options.labels, options.texts, strict=False):
        if text.upper() == label or (not isinstance(answer, int) and folded(option) == folded(text)):
            return ChoiceKey(options, label)
    # As MMLU has it: the place of the right option, counted from 0. Only where it is a number in the file, not a text.
    if isinstance(answer, int) and 0 <= answer < len(options.labels):
        return ChoiceKey(options, options.labels[answer])
    match = _LABELLED.fullmatch(text)
    return ChoiceKey(options, match[1].upper()) if match and match[1].upper() in options.labels else None


def _number(text: str) -> NumberKey | None:
    """The number behind GSM8K's `####` or in LaTeX's box, or a text that is a number with at most a unit."""
    text = normal(text)
    marked = "####" in text or "\\boxed{" in text
    text = text.rpartition("####")[2].rpartition("\\boxed{")[2].strip()
    found = next(numbers_in(text), None)
    if found is None or (not marked and (found.start > 1 or len(text) - found.end > 20)):  # noqa: PLR2004 (a bracket before, a unit behind)
        return None
    return NumberKey(found)


def _given_options(metadata: Mapping[str, Any]) -> Options | None:
    """The options that come with a question: in `choices` or `options`, or in columns named A, B, C, ...

    `choices` and `options` hold a list of texts, letters with texts, or `{"text": [...], "label": [...]}`.
    """
    given = next((metadata[name] for name in ("choices", "options") if metadata.get(name)), None)
    if given is None:
        columns = itertools.takewhile(lambda letter: isinstance(metadata.get(letter), str), string.ascii_uppercase)
        given = {letter: metadata[letter] for letter in columns}
    labels: list[Any]
    texts: list[Any]
    if isinstance(given, list):
        labels, texts = list(string.ascii_uppercase[: len(given)]), given
    elif isinstance(given, dict) and isinstance(given.get("text"), list) and isinstance(given.get("label"), list):
        labels, texts = given["label"], given["text"]
    elif isinstance(given, dict):
        labels, texts = list(given), list(given.values())
    else:
        return None
    return _options(labels, texts)


def _options(labels: list[Any], texts: list[Any]) -> Options | None:
    names = tuple(str(label).strip().upper() for label in labels)
    are_labels = all(re.fullmatch(r"[A-Z]|\d{1,2}", name) for name in names)
    usable = are_labels and 1 < len(names) <= MOST_OPTIONS and len(names) == len(texts) == len(set(names))
    return Options(names, tuple(str(text) for text in texts)) if usable else None


def _options_in(text: str) -> Options | None:
    """The last list of options in a question; its letters go on from A.

    The options are `A) ...` on lines of their own, or `(A) ... (B) ...` within one.
    """
    for pattern in (_LINE_OPTION, _INLINE_OPTION):
        found: list[tuple[str, str]] = []
        best: list[tuple[str, str]] = []
        for label, option in pattern.findall(text):
            if label == "A":
                found = []
            if label == string.ascii_uppercase[len(found) % 26]:
                found.append((label, option.strip()))
            if len(found) > 1:
                best = found
        if best:
            return _options([label for label, _ in best], [option for _, option in best])
    return None


def text_of(asked: ParsedQuestion) -> str:
    """What was asked, as text: the prompt, or all messages."""
    if asked.prompt is not None:
        return asked.prompt
    texts: list[str] = []
    for message in asked.messages or []:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [
                str(part["text"]) for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
    return "\n".join(texts)
