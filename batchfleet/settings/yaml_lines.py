"""The YAML of the settings: text to blocks that know their lines, and back.

A careful dialect of YAML: the safe loader's, minus what surprises (dates, 12:30 as a number, 010 as eight, tags, merge
keys), plus numbers such as 1e-3, and bounded in size, depth and what aliases expand to. Nothing of a value is ever
repeated in an error: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from batchfleet.settings.blocks import Block, Entry, Raw, Where, repeated, shown
from batchfleet.settings.yaml_dialect import MAX_DEPTH, MAX_NODES, TAG, TOO_DEEP, TOO_MANY, Loader, TooMuchError
from wire.errors import UsageError

MAX_TEXT_BYTES = 1024 * 1024
MAX_DIGITS = 40


class NotOurYamlError(UsageError):
    """A text that is not YAML, or not of this dialect.

    Attributes:
        problem: What is wrong and what to do, without the place.
    """

    def __init__(self, where: Where, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text holds, and what its author should know about it, one line each."""

    value: object
    warnings: tuple[str, ...]


def parse(text: str, source: str, *, lines: bool = True) -> Parsed:
    """Read one YAML text.

    A key that stands twice in one mapping takes the last value, as everywhere in YAML, with a warning.

    Args:
        lines: Whether line numbers mean something to the reader; not so for a value on the command line.

    Raises:
        NotOurYamlError: It is not YAML, or not of the dialect above.
    """
    reader = _Reader(source, lines=lines)
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise reader.refused(
            None, f"is larger than {MAX_TEXT_BYTES} bytes; settings never are, so check that this is the right file"
        )
    try:
        loader = Loader(text)
        root = loader.get_single_node()
    except TooMuchError as error:
        raise reader.refused(error.line, error.problem) from None
    except yaml.MarkedYAMLError as error:
        raise reader.not_yaml(error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise reader.refused(
            line, "a character that YAML does not allow; remove it, or write it as an escape in double quotes"
        ) from None
    value = None if root is None else reader.value(root, depth=1)
    return Parsed(value, tuple(reader.warnings))


def plain(value: object) -> object:
    """The same data without line numbers, as dicts and lists; raw text is read as YAML.

    Raises:
        NotOurYamlError: Raw text that cannot be read.
    """
    if isinstance(value, Raw):
        return plain(parse(value.text, "", lines=False).value)
    if isinstance(value, Block):
        return {entry.key: plain(entry.value) for entry in value.entries}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


class _Reader:
    """Nodes to blocks. Holds what has been counted and noticed on the way."""

    def __init__(self, source: str, *, lines: bool) -> None:
        self.source = source
        self.lines = lines
        self.warnings: list[str] = []
        self.count = 0

    def where(self, node: yaml.Node | int | None) -> Where:
        line = node.start_mark.line + 1 if isinstance(node, yaml.Node) else node
        return Where(self.source, line or 0) if self.lines else Where(self.source)

    def refused(self, node: yaml.Node | int | None, problem: str) -> NotOurYamlError:
        return NotOurYamlError(self.where(node), problem)

    def value(self, node: yaml.Node, depth: int) -> object:
        self.count += 1
        if self.count > MAX_NODES:
            raise self.refused(node, TOO_MANY)
        if depth > MAX_DEPTH:  # An alias may stand for something that contains it.
            raise self.refused(node, TOO_DEEP)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{TAG}map":
            return self.block(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{TAG}seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(TAG):
            return self.scalar(node)
        raise self.refused(node, "has a YAML tag, which settings do not know; a text that begins with ! needs quotes")

    def block(self, node: yaml.MappingNode, depth: int) -> Block:
        kept: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.refused(key_node, "a key is a list or a mapping; keys are words")
            key = key_node.value
            if key_node.tag == f"{TAG}merge":
                raise self.refused(key_node, "merge keys (<<) are not supported; write the keys out")
            if key in kept:
                first = kept.pop(key)[0]
                self.warnings.append(repeated(self.where(key_node), shown(key), self.where(first)))
            kept[key] = (key_node, value_node)
        return Block(
            tuple(Entry(key, self.where(nodes[0]), self.value(nodes[1], depth + 1)) for key, nodes in kept.items())
        )

    def scalar(self, node: yaml.ScalarNode) -> object:
        kind = node.tag.removeprefix(TAG)
        word = node.value.lower().replace("_", "")
        try:
            match kind:
                case "str" | "merge":
                    return str(node.value)
                case "null":
                    return None
                case "bool":
                    return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[word]
                case "int" if len(word) <= MAX_DIGITS:
                    return int(word, 16 if word.startswith("0x") else 10)
                case "float":
                    return float(re.sub(r"\.(inf|nan)$", r"\1", word))
                case "int":
                    raise self.refused(
                        node, f"a number has more than {MAX_DIGITS} digits; put it in quotes if it is a text"
                    )
        except (KeyError, ValueError):
            raise self.refused(
                node, "has a YAML tag that the value does not fit; write the value without the tag"
            ) from None
        raise self.refused(node, "has a YAML tag, which settings do not know; write the value without it")

    def not_yaml(self, error: yaml.MarkedYAMLError) -> NotOurYamlError:
        # At the end of the text, what was left open is what matters.
        problem = error.problem or error.context or "it cannot be read"
        left_open = re.search("end of stream|<stream end>", problem) and error.context_mark
        mark = left_open or error.problem_mark or error.context_mark
        # PyYAML quotes what it found; a single character or the name of a token tells something, a whole word may be a
        # password.
        safe = re.sub(r"(['\"])(?!<)[^'\"]{3,}\1", "something", problem)
        text = next(
            (text for words, text in _PLAINER if words in problem),
            f"{safe}; check the indentation, colons and quotes here and just before",
        )
        return self.refused(None if mark is None else mark.line + 1, f"not valid YAML: {text}")


_PLAINER: Sequence[tuple[str, str]] = (
    (r"'\t'", "a tab where YAML wants spaces; indent with spaces"),
    ("cannot start any token", "a text begins with a character that means something to YAML; put the text in quotes"),
    ("undefined alias", "an alias (*) without an anchor; put text that begins with * in quotes"),
    ("end of stream", "a quote that is opened here is never closed; close it"),
    ("<stream end>", "a bracket that is opened here is never closed; close it"),
    ("another document", "a second document begins here; keep one, without the line of dashes"),
    (
        "mapping values are not allowed",
        "a colon where none can be; put a text with a colon in quotes, and check the indentation here and before",
    ),
    ("could not find expected ':'", "a line without a colon; write KEY: VALUE, with a space after the colon"),
    (
        "expected <block end>",
        "this line is not indented like its neighbours; indent the keys of a section alike",
    ),
    ("second occurrence", "two anchors (&) of one name; name them apart, and put a text that begins with & in quotes"),
)
