"""The YAML of the settings: text to blocks that know their lines, and back.

A careful dialect of YAML: the safe loader's, minus what surprises (dates, 12:30 as a number, 010 as eight, tags, merge
keys), plus numbers such as 1e-3, and bounded in size, depth and what aliases expand to. Nothing of a value is ever
repeated in an error: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from wire.errors import UsageError

MAX_TEXT_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_DIGITS = 40
MAX_NODES = 20_000
"""Most values in a text, counted after aliases are replaced by what they stand for."""

_TAG = "tag:yaml.org,2002:"
# What a plain word means: its kind, what it looks like, the characters that it may begin with.
_PLAIN_WORDS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$", "tTfFyYnNoO"),
    (
        "float",
        r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)$",
        "-+0123456789.",
    ),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
    ("int", r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F_]*[0-9a-fA-F])$", "-+0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^<<$", "<"),
)


class NotOurYamlError(UsageError):
    """A text that is not YAML, or not of this dialect.

    Attributes:
        problem: What is wrong and what to do, without the place.
    """

    def __init__(self, where: Where, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.problem = problem


class Where(NamedTuple):
    """Where a setting was given: a file, the environment or the command line, and in a file its line, from 1."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Entry:
    """One key with its value.

    Attributes:
        value: Plain data, a `Block`, or `Raw` text that becomes a value once it is known for which setting.
    """

    key: str
    where: Where
    value: object


@dataclass(frozen=True, slots=True)
class Block:
    """A mapping, in the order of the text; no key twice."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as the environment and the command line give it: text."""

    text: str


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
        loader = _Loader(text)
        root = loader.get_single_node()
    except _TooMuchError as error:
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


def dump(data: object, *, one_line: bool = False) -> str:
    """YAML that `parse` reads as the same data; keys in the order of the data."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=one_line, width=2**31
    )
    return text


class _TooMuchError(Exception):
    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


class _Loader(yaml.SafeLoader):
    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        line: int = self.line + 1
        if self.depth > MAX_DEPTH:
            raise _TooMuchError(_TOO_DEEP, line)
        if self.nodes > 2 * MAX_NODES:  # Keys are nodes too.
            raise _TooMuchError(_TOO_MANY, line)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML would write these line breaks as they are, and read them back as spaces.
        return self.represent_scalar(
            f"{_TAG}str", data, style='"' if re.search("[\x85\u2028\u2029\ufeff]", data) else None
        )


_Dumper.add_representer(str, _Dumper.represent_str)

# Reader and writer agree on what needs quotes. Without the empty tables they would inherit PyYAML's words as well.
_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in _PLAIN_WORDS:
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), list(_first))
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), list(_first))

_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep; settings never are"
_TOO_MANY = f"holds more than {MAX_NODES} values, aliases included; settings never do"


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
            raise self.refused(node, _TOO_MANY)
        if depth > MAX_DEPTH:  # An alias may stand for something that contains it.
            raise self.refused(node, _TOO_DEEP)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self.block(node, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_TAG):
            return self.scalar(node)
        raise self.refused(node, "has a YAML tag, which settings do not know; a text that begins with ! needs quotes")

    def block(self, node: yaml.MappingNode, depth: int) -> Block:
        kept: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.refused(key_node, "a key is a list or a mapping; keys are words")
            key = key_node.value
            if key_node.tag == f"{_TAG}merge":
                raise self.refused(key_node, "merge keys (<<) are not supported; write the keys out")
            if key in kept:
                first = kept.pop(key)[0]
                self.warnings.append(repeated(self.where(key_node), shown(key), self.where(first)))
            kept[key] = (key_node, value_node)
        return Block(
            tuple(Entry(key, self.where(nodes[0]), self.value(nodes[1], depth + 1)) for key, nodes in kept.items())
        )

    def scalar(self, node: yaml.ScalarNode) -> object:
        kind = node.tag.removeprefix(_TAG)
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
    ("undefined alias", "a word that begins with * and stands for nothing; put a text that begins with * in quotes"),
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
        "this line is indented otherwise than those beside it; indent keys that belong together alike",
    ),
    ("second occurrence", "two anchors (&) of one name; name them apart, and put a text that begins with & in quotes"),
)


def shown(key: str) -> str:
    """A key as a message may show it: short, and without what a forgotten space after a colon made part of it."""
    word = re.match(r"[^:=\s]{1,60}", key)
    cut = word.group() if word else "(no name)"
    return cut if cut == key or not word else f"{cut}..."


def repeated(where: Where, key: str, before: Where) -> str:
    """The warning that a setting is given twice."""
    return f"{where}: {key}: given at {before} already; what stands here counts, what stands there is ignored"


def as_block(data: dict[Hashable, object], where: Where) -> Block:
    """A block from plain data, everything of it from one place."""
    return Block(
        tuple(
            Entry(str(key), where, as_block(value, where) if isinstance(value, dict) else value)
            for key, value in data.items()
        )
    )
