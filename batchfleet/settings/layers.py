"""What one source gives: values put where they belong, and what is wrong with where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from batchfleet.settings import distllm, setting_names
from batchfleet.settings.blocks import Block, Entry, Raw, Where, repeated, shown
from batchfleet.settings.setting_names import KeyPath
from batchfleet.settings.yaml_lines import NotOurYamlError, parse, plain

SomeSection = TypeVar("SomeSection", bound=BaseModel)


class Problem(NamedTuple):
    """One thing that is wrong. `text` says what and what to do, and never repeats what could be a secret."""

    where: Where
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.text}"


class GivenValue(NamedTuple):
    """A value and where it was given."""

    value: object
    where: Where


@dataclass(slots=True)
class Layer:
    """What one source gives.

    Attributes:
        values: By setting; the entries of `vllm_args` one by one, so that sources can be joined key by key.
        warnings: For the author of the source, one line each.
        ignored: Settings of distllm's that mean nothing here.
    """

    values: dict[KeyPath, GivenValue] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    ignored: dict[KeyPath, Where] = field(default_factory=dict)

    def put_block(self, section: KeyPath, block: Block) -> None:
        """Put everything in a block where it belongs, the block being what stands in `section`; () is the top."""
        for entry in block.entries:
            path = setting_names.place(section, entry.key)
            if path is None and (*section, entry.key) in distllm.KNOWN:
                self._put_foreign((*section, entry.key), entry)
            elif path is None:
                advice = setting_names.what_instead(section, entry.key, of_section=isinstance(entry.value, Block))
                self.problems.append(Problem(entry.where, dotted((*section, entry.key)), f"unknown key; {advice}"))
            elif path not in setting_names.SECTIONS:
                self.put(path, entry)
            elif isinstance(entry.value, Block):
                self.put_block(path, entry.value)
            elif entry.value is not None:  # A section may stand there with all its lines commented out.
                self.problems.append(
                    Problem(entry.where, dotted(path), f"is {kind_of(entry.value)}; {_advice_on_section(path)}")
                )

    def _put_foreign(self, path: KeyPath, entry: Entry) -> None:
        """Note a setting of distllm's; one that is null says nothing."""
        if path in distllm.SECTIONS:
            if isinstance(entry.value, Block):
                self.put_block(path, entry.value)
            elif entry.value is not None:
                self.problems.append(
                    Problem(entry.where, dotted(path), f"is {kind_of(entry.value)}; {_advice_on_section(path)}")
                )
        elif entry.value is None:
            pass
        elif path in distllm.REFUSED:
            self.problems.append(Problem(entry.where, dotted(path), distllm.REFUSED[path]))
        else:
            self.ignored[path] = entry.where

    def put(self, path: KeyPath, entry: Entry) -> None:
        """Put one setting where it belongs."""
        try:
            if path in setting_names.MAPPINGS:
                self._put_mapping(path, entry)
            else:
                self._note(path, GivenValue(_value(path, entry.value), entry.where))
        except NotOurYamlError as error:
            self.problems.append(Problem(entry.where, dotted(path), error.problem))

    def _put_mapping(self, path: KeyPath, entry: Entry) -> None:
        value = entry.value
        if isinstance(value, Raw):
            parsed = parse(value.text, str(entry.where), lines=False)
            self.warnings += parsed.warnings
            value = parsed.value
        if isinstance(value, Block):
            for item in value.entries:
                where = item.where if isinstance(entry.value, Block) else entry.where
                self._note((*path, item.key), GivenValue(plain(item.value), where))
        elif value is not None:
            self.problems.append(
                Problem(
                    entry.where,
                    dotted(path),
                    f"is {kind_of(value)}; give {setting_names.expected(path)}, as KEY: VALUE lines below it",
                )
            )

    def _note(self, path: KeyPath, given: GivenValue) -> None:
        before = self.values.get(path)
        if before is not None and before.value != given.value:
            self.warnings.append(repeated(given.where, dotted(path), before.where))
        self.values[path] = given


def _value(path: KeyPath, value: object) -> object:
    """A value, from its text if it is one.

    Where a text is wanted, text stands for itself, or for nothing if it is `null` or `~`; a secret always stands for
    itself. Where a list would do as well (`stop`), text that begins like a list or with a quote is YAML.
    """
    if not isinstance(value, Raw) or (str not in setting_names.KINDS[path] and path not in setting_names.SECRETS):
        return plain(value)
    if path in setting_names.SECRETS:
        return value.text
    if value.text in _NOTHING:
        return None
    return plain(value) if list in setting_names.KINDS[path] and value.text.startswith(("[", '"', "'")) else value.text


_NOTHING = frozenset({"null", "~"})


def dotted(path: KeyPath) -> str:
    """A key path as people write it."""
    return ".".join(shown(name) for name in path)


def kind_of(value: object) -> str:
    """What a value is, in words that do not repeat it."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str | Raw):
        return "a text"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else "a mapping" if isinstance(value, Block | dict) else f"a {type(value).__name__}"


def _advice_on_section(path: KeyPath) -> str:
    advice = "put its settings on lines of their own below it, indented, each as KEY: VALUE with a space"
    # `model: NAME` is what other tools call it.
    return f"{advice}; the name of a model goes into generator_settings.model" if path == ("model",) else advice


def with_changes(section: SomeSection, changes: Mapping[str, object]) -> SomeSection:
    """Settings with some of them replaced, by dotted names. The values must be possible ones: they are not checked."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        section = section.model_copy(
            update={first: with_changes(getattr(section, first), {rest: value}) if rest else value}
        )
    return section
