"""Which option an answer chooses. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from batchfleet.scoring.answer_keys import Options
from batchfleet.scoring.answer_patterns import CHOOSING, LEANING, REFUSAL, REVISION, STATEMENT, marked
from batchfleet.scoring.echo import read_around_echo, without_sentences
from batchfleet.scoring.extraction import Extraction
from batchfleet.scoring.normalize import folded, normal

SEVERAL = "?"
"""In place of a label: more than one was named."""

_MOST_CHARS_ALONE = 200
"""Of a label with everything around it."""

_SENTENCE = re.compile(r"[^\n]{0,400}?(?=[.!?](?:\s|$)|\n|$)")
_OPEN = r"(?:[\s*_`\"'\[({<$]|\\(?:text|mathrm|mathbf|textbf|boxed|rm|bf)\b|\\\(){0,12}"
_NAMES = (
    r"(?:(?:(?:the|an?)\s+)?(?:either|probably|most\s+likely|likely|clearly|definitely|indeed|therefore|simply|just|between|both|option|choice|letter"
    r"|answer|number|la|le|el|die|der|das|opci\u00f3n|opzione|lettre|buchstabe)(?!\w)[\s:*_]{0,6}){0,6}"
)
_CLOSED = r"[\s*_`\"'\])}>$.:,]{0,12}"
_JOINT = r"(?:(?:or|and|und|oder|ou|y|o)(?!\w)|[/&])"


@lru_cache(maxsize=64)
class _Patterns:
    """The expressions for one set of labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        every = "|".join(
            re.escape(label)
            for label in sorted({*labels, *(label.lower() for label in labels)}, key=lambda label: (-len(label), label))
        )
        if labels[0] in ("yes", "true"):
            every = f"(?i:{every})"
        one = rf"(?P<label>{every})(?![\w+#\u00b0])(?!['-]\w)(?!\.\w)"
        other = one.replace("P<label>", "P<other>")
        self.here = re.compile(rf"{_OPEN}{_NAMES}{_OPEN}{one}")
        self.joined = re.compile(
            rf"{_CLOSED}(?:{_JOINT}|,(?=\s*[(*]*(?:{every})(?:[)*]*\s*(?:,|and\b|or\b|[.]?$))))\s*(?:maybe|perhaps|possibly|else)?{_OPEN}{_NAMES}{_OPEN}{other}"
        )
        self.whole = re.compile(rf"{_OPEN}{_NAMES}{_OPEN}{one}[\W_]*", re.IGNORECASE)
        self.leading = re.compile(rf"{_OPEN}{one}(?:[*_]*[).\]:,][*_]*(?:\s|$)|\s+(?:because|since)\b)")
        self.ending = re.compile(rf"[:=>]\s*{_OPEN}{one}[\W_]*\Z")
        self.bracketed = re.compile(rf"[(\[]{one}[)\]]|\b(?:[Oo]ption|[Cc]hoice)\s+[*(\"]*{other}")
        self.praised = re.compile(
            r"(?<![\w'])(?<!nor "
            rf")(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+)?[(*\"]*{one}(?:[)*\"]*|[).:*]+\s[^\n.]{{1,100}}?)"
            r",?\s+(?:is|seems|looks|must\s+be|would\s+be)\s+"
            r"(?:(?:clearly|indeed|definitely|therefore|thus|most\s+likely|probably)\s+)?(?:the\s+)?(?:only\s+|most\s+|single\s+|best\s+)?"
            r"(?:correct|right|best|answer|accurate|appropriate|suitable|my\s+(?:final\s+)?(?:answer|choice))(?!\w)"
        )


def choose(text: str, options: Options, *, question: str = "", is_truncated: bool = False) -> Extraction:
    """Which option a text chooses, by the rules of docs/scoring.md, the first of which that says something decides.

    Args:
        question: As it was asked, to know it again where the text repeats it.
        is_truncated: The text was cut off, so that only an answer that it states outright counts.
    """
    return read_around_echo(
        text,
        question,
        options,
        lambda turn, is_cut: _choose(turn, options, question, is_truncated=is_cut),
        is_truncated=is_truncated,
    )


def _choose(text: str, options: Options, question: str, *, is_truncated: bool) -> Extraction:
    for rule, found in _findings(text, options, is_truncated=is_truncated):
        if found == SEVERAL:
            return Extraction(None, rule, "several")
        if found is not None:
            return Extraction(found, rule)
    if REFUSAL.search(without_sentences(text, question)):
        return Extraction(None, "refusal", "refused")
    return Extraction(None, "end", "truncated" if is_truncated else "nothing")


def _findings(text: str, options: Options, *, is_truncated: bool) -> Iterator[tuple[str, str | None]]:
    patterns = _Patterns(options.labels)
    for rule, value in marked(text):
        yield rule, _short(value, options, patterns)
    yield "stated", _stated(text, options, patterns)
    # One token may be all that was allowed.
    whole = patterns.whole.fullmatch(text) if len(text) <= _MOST_CHARS_ALONE else None
    yield (
        "alone",
        _as_label(whole["label"], options) if whole else _option_at(text, 0, options) if "\n" not in text else None,
    )
    if is_truncated:
        return
    weaker: tuple[tuple[str, Callable[[str, Options, _Patterns], str | None]], ...] = (
        ("alone", _alone),
        ("leading", _leading),
        ("ending", _ending),
        ("leaning", _leaning),
        ("option text", _option_text),
        ("only one named", _only_one_named),
    )
    for rule, find in weaker:
        yield rule, find(text, options, patterns)


def _short(value: str, options: Options, patterns: _Patterns) -> str | None:
    """A value marked as the answer: a label in either case, an option's text, or a sentence that begins with one."""
    if match := patterns.whole.fullmatch(value):
        return _as_label(match["label"], options)
    return _option_at(value, 0, options) or _label_at(value, 0, options, patterns) or _option_in(value, options)


def _stated(text: str, options: Options, patterns: _Patterns) -> str | None:
    """The last statement of an answer, a change of mind included."""
    found: list[tuple[int, str]] = []
    for pattern, takes_text in ((STATEMENT, True), (CHOOSING, True), (REVISION, False)):
        for match in reversed(list(pattern.finditer(text))):
            if _leaves_option(match, patterns):
                continue
            label = _option_at(text, match.end(), options) or _label_at(text, match.end(), options, patterns)
            if label is None and takes_text and (pattern is CHOOSING or match["verb"]):
                label = _option_stated(text, match.end(), options, patterns)
            if label is not None:
                found.append((match.end(), label))
                break
    praised = patterns.praised.finditer(text)
    found += [
        (match.start("label"), _as_label(match["label"], options))
        for match in praised
        if _is_label_of_praise(match, options)
    ]
    return max(found, key=lambda place: place[0])[1] if found else None


def _leaves_option(match: re.Match[str], patterns: _Patterns) -> bool:
    """Whether words within an option, "B) the best answer", would speak of what the next line says."""
    begin = match.string.rfind("\n", 0, match.start()) + 1
    return "\n" in match[0] and patterns.leading.match(match.string[begin : match.end()].lstrip()) is not None


def _is_label_of_praise(match: re.Match[str], options: Options) -> bool:
    """Not the article in "A newton is the right unit"."""
    behind = match.string[match.end("label") : match.end()].lstrip('*"')
    return _is_plain(match["label"], options) or behind.startswith((" is", ")", ".", ":"))


def _option_stated(text: str, at: int, options: Options, patterns: _Patterns) -> str | None:
    """An option by its text, or by a letter in brackets, in the sentence that begins here."""
    sentence = _SENTENCE.match(text, at)
    if sentence is None or re.match(r"\s*(?:not|n't)\b", sentence[0]):
        return None
    named = {_as_label(match["label"] or match["other"], options) for match in patterns.bracketed.finditer(sentence[0])}
    if named:
        return named.pop() if len(named) == 1 else SEVERAL
    return _option_in(sentence[0], options)


def _alone(text: str, options: Options, patterns: _Patterns) -> str | None:
    """Lines that are a label and nothing else."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = {
        _as_label(match["label"], options)
        for line in lines
        if (match := patterns.whole.fullmatch(line.strip()[: _MOST_CHARS_ALONE + 1]))
    }
    return None if not found else found.pop() if len(found) == 1 else SEVERAL


def _leading(text: str, options: Options, patterns: _Patterns) -> str | None:
    """Lines that begin with a label as options do.

    If the options are repeated there are several, and this says nothing.
    """
    found = {
        _as_label(match["label"], options)
        for line in text.splitlines()
        if (match := patterns.leading.match(line.strip()))
    }
    if len(found) == 1:
        return _label_at(text.strip(), 0, options, patterns) or found.pop()
    first = _label_at(text, 0, options, patterns)
    return first if first == SEVERAL else None


def _ending(text: str, options: Options, patterns: _Patterns) -> str | None:
    """A label behind a colon or an arrow, with which the text ends."""
    match = patterns.ending.search(text[-_MOST_CHARS_ALONE:])
    return _as_label(match["label"], options) if match else None


def _leaning(text: str, options: Options, patterns: _Patterns) -> str | None:
    """The last label behind words such as "I think" or "so it must be"."""
    found = [
        label
        for match in LEANING.finditer(text)
        if not _leaves_option(match, patterns)
        and (label := _label_at(text, match.end(), options, patterns)) is not None
    ]
    return found[-1] if found else None


def _option_text(text: str, options: Options, patterns: _Patterns) -> str | None:
    """The one option whose text stands in the last line, or else in the whole.

    The options as they are repeated do not count.
    """
    lines = [line for line in text.splitlines() if line.strip() and not patterns.leading.match(line.strip())]
    return _option_in(lines[-1], options) or _option_in("\n".join(lines), options) if lines else None


def _only_one_named(text: str, options: Options, patterns: _Patterns) -> str | None:
    found = {_as_label(match["label"] or match["other"], options) for match in patterns.bracketed.finditer(text)}
    return None if not found or REFUSAL.search(text) else found.pop() if len(found) == 1 else SEVERAL


def _label_at(text: str, at: int, options: Options, patterns: _Patterns) -> str | None:
    """The label that stands here; `SEVERAL` if another is joined to it.

    None if what stands here is no label, or is called wrong.
    """
    match = patterns.here.match(text, at)
    if match is None:
        return None
    behind = text[match.end("label") : match.end("label") + 60]
    if re.match(
        r"[\s)*\"\].]*(?:is|are|was)(?:n't|\s+(?:\w+\s+)?(?:not|wrong|incorrect|false))\b", behind
    ) or not _stands_alone(match, options, behind):
        return None
    label = _as_label(match["label"], options)
    joined = patterns.joined.match(text, match.end("label"))
    if joined and _as_label(joined["other"], options) != label:
        return SEVERAL
    return label


def _stands_alone(match: re.Match[str], options: Options, behind: str) -> bool:
    """Whether a letter that is also a word, `A`, `I` or a small one, is meant as a label."""
    if _is_plain(match["label"], options) or (
        match.start("label") > 0 and match.string[match.start("label") - 1] in "([*{\"'"
    ):
        return True
    return (
        re.match(r"\s*(?:$|[\n)\].,:;*_\"'`}$<!/&|-]|(?:is|or|and|because|since|as|due|which|with)\b|\()", behind)
        is not None
    )


def _is_plain(label: str, options: Options) -> bool:
    return len(label) > 1 or label.isdigit() or (label in options.labels and label not in "AIO")


def _as_label(found: str, options: Options) -> str:
    return found if found in options.labels else found.upper() if found.upper() in options.labels else found.lower()


def _labels_by_text(options: Options) -> dict[str, str]:
    label_of = {folded(normal(option)): label for label, option in zip(options.labels, options.texts, strict=False)}
    label_of.pop("", None)
    return label_of


def _option_at(text: str, at: int, options: Options) -> str | None:
    """The option whose text, such as "both A and B", is all that stands from here to the end of the line."""
    return _labels_by_text(options).get(folded(text[at:].lstrip().partition("\n")[0][:2000]))


def _option_in(text: str, options: Options) -> str | None:
    """The one option whose text occurs; of options that contain each other, the longer one."""
    text = folded(text)
    label_of = _labels_by_text(options)
    if not label_of or text in label_of:
        return label_of.get(text)
    every = "|".join(re.escape(option) for option in sorted(label_of, key=len, reverse=True))
    found = {label_of[match[0]] for match in re.finditer(rf"(?<!\w)(?<!\d[.,])(?:{every})(?!\w)(?![.,]\d)", text)}
    return found.pop() if len(found) == 1 else None
