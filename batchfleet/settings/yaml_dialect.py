"""The dialect of YAML in which settings are written: PyYAML's safe loader and dumper, bounded, without surprises."""

from __future__ import annotations

import re

import yaml

MAX_DEPTH = 32
MAX_NODES = 20_000
"""Most values in a text, counted after aliases are replaced by what they stand for."""

TAG = "tag:yaml.org,2002:"

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
TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep; settings never are"
TOO_MANY = f"holds more than {MAX_NODES} values, aliases included; settings never do"


class TooMuchError(Exception):
    """A text is deeper or larger than settings ever are."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


class Loader(yaml.SafeLoader):
    """Reads the dialect, up to its bounds."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        self.nodes += 1
        line: int = self.line + 1
        if self.depth > MAX_DEPTH:
            raise TooMuchError(TOO_DEEP, line)
        if self.nodes > 2 * MAX_NODES:  # Keys are nodes too.
            raise TooMuchError(TOO_MANY, line)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads as the same data."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML would write these line breaks as they are, and read them back as spaces.
        return self.represent_scalar(
            f"{TAG}str", data, style='"' if re.search("[\x85\u2028\u2029\ufeff]", data) else None
        )


Dumper.add_representer(str, Dumper.represent_str)

# Reader and writer agree on what needs quotes. Without the empty tables they would inherit PyYAML's words as well.
Loader.yaml_implicit_resolvers = {}
Dumper.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in _PLAIN_WORDS:
    Loader.add_implicit_resolver(TAG + _kind, re.compile(_pattern), list(_first))
    Dumper.add_implicit_resolver(TAG + _kind, re.compile(_pattern), list(_first))


def dump(data: object, *, one_line: bool = False) -> str:
    """YAML that `parse` reads as the same data; keys in the order of the data."""
    text: str = yaml.dump(
        data, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=one_line, width=2**31
    )
    return text
