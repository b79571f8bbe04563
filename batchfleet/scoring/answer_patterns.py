"""Where a text states its answer: the marks that models set, as JSON, in a box, behind "the answer is". Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_ANSWER = (
    r"(?:answer|answers|result|solution|conclusion|r\u00e9ponse|antwort|respuesta|risposta|resposta"
    r"|\u043e\u0442\u0432\u0435\u0442)"
)
_NOUN = r"\s+(?:option|choice|letter|one|statement|answer|value|number|total)(?!\w)"
_VERB = (
    r"(?:\b(?:is|are|was|would\s+be|should\s+be|must\s+be|will\s+be|comes?\s+(?:out\s+)?to|equals?|est|ist|es|\u00e8|\u00e9)(?![\w'])"
    r"|[:=]|\u662f|\u4e3a)"
)
_GAP = r"[^\n.:=]{0,80}?"
# "To the right" states nothing, "the right one" and "right is" do.
_ADJECTIVE = rf"(?P<adjective>correct|right|best)(?!\w)(?={_NOUN}|{_GAP}{_VERB})"
STATEMENT = re.compile(
    rf"(?:(?<!\w)(?<!as\sa\s)(?:{_ANSWER}(?!\w)|{_ADJECTIVE})|\u7b54\u6848)(?P<noun>{_NOUN})?(?:{_GAP}(?P<verb>{_VERB})[:\s]*(?:not\s+[^\n.]{{1,20}}?,?\s+but\s+(?:rather\s+)?)?|[\s*:#\"'_>|-]*)",
    re.IGNORECASE,
)
"""Ends where the answer begins."""

_HALTING = r"(?:wait|actually|correction|on\s+second\s+thoughts?|scratch\s+that|hold\s+on|let\s+me\s+correct|no)"
_FILLING = (
    r"(?:wait|no|actually|sorry|i\s+think|i\s+meant?|i'?ll|let's|that|this|it'?s|it|makes?|should|must|would|be|is|to|now|my|the\s+answer|answer"
    r"|change|go|with|correction|rather|instead|hmm|so)"
)
REVISION = re.compile(rf"(?<!\w){_HALTING}[\s,.:;!-]+(?:{_FILLING}(?!\w)[\s,.:;!-]*){{0,12}}", re.IGNORECASE)
"""A change of mind; ends where the new answer may begin."""

CHOOSING = re.compile(
    r"(?:^[ \t]{0,9}|\bI(?:\s+would|'d|'ll|\s+will|\s+am|'m)?\s+)"
    r"(?:choose|choosing|select|pick|picking|go(?:ing)?\s+(?:with|for)|opt\s+for)\s+",
    re.IGNORECASE | re.MULTILINE,
)

LEANING = re.compile(
    r"\b(?:I\s+(?:\w+\s+)?(?:think|believe|guess|suspect)|I'd\s+say|my\s+guess|lean(?:ing)?\s+(?:towards?|to)"
    r"|it's|it\s+is|must\s+be|has\s+to\s+be|should\s+be|would\s+be|probably|likely|hence|therefore|thus|so)(?!\w)"
    r"(?:[\s,:]+(?:that|it's|it|is|be|would|must|the|probably|likely|we|have|get|choose|select|pick)(?!\w))*[\s,:]*",
    re.IGNORECASE,
)

_CANNOT = r"(?:can(?:no|')t|can\s+not|unable\s+to|not\s+able\s+to)"
REFUSAL = re.compile(
    rf"\b(?:I(?:'m|\s+am)?\s+(?:\w+\s+)?(?:{_CANNOT}|won't)"
    rf"|{_CANNOT}\s+(?:\w+\s+)?(?:be\s+)?(?:determin|answer|solv|calculat|comput|decid|establish|conclud|infer|deduc|say\b|tell\b|know)\w*"
    r"|(?:not\s+enough|insufficient)\s+information)\b"
    r"|(?:^|[.!?]\s+|\b(?:I|we)\s+(?:\w+\s+)?)(?:do\s+not|don't)\s+know\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Of whoever answers: "they cannot come back" is none."""

_OBJECT = re.compile(r"\{[^{}]{0,20000}\}")
_FIELDS = ("final_answer", "answer", "correct_answer", "choice", "option", "letter", "result", "prediction", "response")
_MOST_BOXES = 20
"""Looked at, from the end."""

_TAG = re.compile(r"<(answer|final_answer|final)>(.{0,2000}?)</\1>", re.DOTALL | re.IGNORECASE)


def marked(text: str) -> Iterator[tuple[str, str]]:
    """(name of the rule, what was marked) for the last mark of each kind, the strongest kind first.

    The marks are those that machines are asked to set.
    """
    if (value := _in_json(text)) is not None:
        yield "json", value
    tags = _TAG.findall(text)
    if tags:
        yield "tag", tags[-1][1].strip()
    if (value := _in_box(text)) is not None:
        yield "box", value
    hashes = re.findall(r"####[ \t]*([^\n]+)", text)
    if hashes:
        yield "hashes", hashes[-1].strip()


def _in_json(text: str) -> str | None:
    for match in reversed(list(_OBJECT.finditer(text))):
        fields = _loaded(match[0])
        named = {str(name).lower().replace(" ", "_"): value for name, value in fields.items()}
        for name in _FIELDS:
            value = named.get(name)
            if isinstance(value, str | int | float) and not isinstance(value, bool):
                return str(value).strip()
    return None


def _loaded(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _in_box(text: str) -> str | None:
    """What is in the last box of LaTeX that is closed."""
    end = len(text)
    for _ in range(_MOST_BOXES):
        begin = text.rfind("\\boxed{", 0, end)
        if begin < 0:
            break
        depth = 0
        for at in range(begin + 6, min(len(text), begin + 2000)):
            depth += (text[at] == "{") - (text[at] == "}")
            if not depth:
                return text[begin + 7 : at].strip()
        end = begin
    return None
