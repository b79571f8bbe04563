"""What of a text is the answer: not the question that it repeats, nor the ones that a model goes on to invent. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from batchfleet.scoring.answer_keys import Options
from batchfleet.scoring.extraction import Extraction
from batchfleet.scoring.normalize import normal

_LEAST_CHARS = 12
"""Of a line or sentence, for it to be known again as one of the question; shorter ones may be an answer."""
_MOST_LINES = 200
"""Of a question that are looked for, from its end."""

_QUOTE = r"[ \t>*_#`\"'-]*"
_TURN = re.compile(
    rf"^{_QUOTE}(?:(?:next\s+)?(?:question|problem|exercise|q)(?:\s*\d{{1,3}})?|human|user)[*_]*[ \t]*(?:[:.](?!\w)|$)",
    re.IGNORECASE | re.MULTILINE,
)
_ECHO, _ANCHOR = "\u2026", "\u2026\u2026"
"""Stand for a line of the question, and for the one by which its end is known; the rules see no word in them."""
_REPEATED = re.compile(rf"(?:{_ECHO}+[*_`\"')]*\s*?(?:$|\Z){_QUOTE}\s*)+", re.MULTILINE)
_OUTRIGHT = frozenset({"json", "tag", "box", "hashes", "stated", "alone", "refusal"})
"""Rules that are sure enough to end the search before the question that is repeated."""
_BETWEEN_OPTIONS = re.compile(r"[\s>*_#`,;.|\-]*")
_LINE_END = re.compile(r"[ \t*_`\"',;.)|]*(?:\n|$)")


def read_around_echo(
    text: str, question: str, options: Options | None, read: Callable[[str, bool], Extraction], *, is_truncated: bool
) -> Extraction:
    """The part of a text that answers, without the question that the text repeats.

    That is what stands behind the question, or before it if that is the answer and the rest is a repetition.

    Args:
        question: As it was asked; empty if it is not known.
        read: Takes a piece of text, and whether it was cut off at its end.
    """
    text = normal(text)
    if not text:
        return Extraction(None, "empty", "empty")
    before, behind = _around_echo(_without_lists(text, options), question, options)
    first = _read_turns(before, read, is_truncated=is_truncated and not behind)
    if first.rule in _OUTRIGHT or not behind:
        return first
    second = _read_turns(behind, read, is_truncated=is_truncated)
    return second if second.value is not None or first.value is None else first


def _read_turns(text: str, read: Callable[[str, bool], Extraction], *, is_truncated: bool) -> Extraction:
    """Read up to the next question, then from each question to the next.

    Models trained on transcripts go on with questions of their own.
    """
    places = [0, *(match.start() for match in _TURN.finditer(text)), len(text)]
    parts = [part for begin, end in itertools.pairwise(places) if (part := text[begin:end].strip())]
    found = Extraction(None, "end", "nothing")
    for number, part in enumerate(parts, 1):
        found = read(part, is_truncated and number == len(parts))
        if found.missing not in ("nothing", "truncated"):
            break
    return found


def _around_echo(text: str, question: str, options: Options | None) -> tuple[str, str]:
    """(text before the first question of a transcript or the echo, text behind the echo).

    ("", text) if the question is not repeated.
    """
    asked = (
        _TURN.sub("", line).strip() for line in _without_lists(normal(question), options).splitlines()[-_MOST_LINES:]
    )
    lines = [line for line in asked if len(line) >= _LEAST_CHARS]
    anchor = next((line for line in reversed(lines) if lines.count(line) == 1), None)
    for line in _occurring(lines, text):
        text = re.sub(_spaced(line), _ANCHOR if line == anchor else _ECHO, text, flags=re.IGNORECASE)
    # At the end of a line it is the question once more; within a sentence, "the answer to ... is B", the sentence goes
    # on.
    end = next((match.end() for match in _REPEATED.finditer(text) if _ANCHOR in match[0]), None)
    if end is None:
        return "", text
    begin = min(match.start() for pattern in (_REPEATED, _TURN) if (match := pattern.search(text)))
    return text[:begin].strip(), text[end:].strip()


def without_sentences(text: str, question: str) -> str:
    """A text without the sentences of the question that it quotes."""
    sentences = [one.rstrip(".?!: ") for one in re.split(r"(?<=[.?!:])\s+", normal(question)[-20_000:])]
    for sentence in _occurring([one for one in sentences if len(one) >= _LEAST_CHARS], text):
        text = re.sub(_spaced(sentence), "", text, flags=re.IGNORECASE)
    return text


def _occurring(pieces: Sequence[str], text: str) -> list[str]:
    """The pieces that are somewhere in a text.

    Looking is far cheaper than making an expression of each line of a long prompt.
    """
    text = " ".join(text.split()).lower()
    return [piece for piece in pieces if " ".join(piece.split()).lower() in text]


def _spaced(text: str) -> str:
    """The expression for a text, however it is broken into lines."""
    return r"\s+".join(map(re.escape, text.split()))


def _without_lists(text: str, options: Options | None) -> str:
    """Take out two or more options that follow each other with nothing between, to the end of a line.

    They are offered, not chosen.
    """
    if options is None or not options.texts:
        return text
    offered = [normal(option).rstrip(" .;,") for option in options.texts]
    present = set(_occurring(offered, text))
    found = [
        (match.start(), match.end(), number)
        for number, (label, option) in enumerate(zip(options.labels, offered, strict=True))
        if option in present
        for match in re.finditer(
            rf"(?<!\w)[(\[*_]*{re.escape(label)}[*_]*[)\].:]+[*_\s]*{_spaced(option)}(?!\w)[*_]*", text, re.IGNORECASE
        )
    ]
    kept, at = "", 0
    run: list[tuple[int, int, int]] = []
    for option in [*sorted(found), (len(text) + 1, 0, -1)]:
        if run and (option[2] <= run[-1][2] or not _BETWEEN_OPTIONS.fullmatch(text, run[-1][1], option[0])):
            while run and not _LINE_END.match(text, run[-1][1]):
                run.pop()
            if len(run) > 1:
                kept, at = f"{kept}{text[at : run[0][0]]}\n", run[-1][1]
            run = []
        run.append(option)
    return kept + text[at:]
