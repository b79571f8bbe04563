"""A row of somebody's table -> the fields of a question.

Which column is what, which template makes the prompt, which system message goes first. Lines of JSON Lines are rows as
well once one of these is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson

from producer.questions.answered_rows import fields_of, is_answer_line
from producer.questions.fields import FIELDS, no_such_column
from producer.questions.json_object import UnusableError, kind, short
from wire.errors import UsageError
from wire.messages import Task

if TYPE_CHECKING:
    # Jinja takes a tenth of a second to import, in every program of a fleet, and few need it.
    from producer.questions.templates import PromptTemplate

CONTENT_FIELDS = ("question", "prompt", "messages")
_JSON_FIELDS = frozenset({"messages", "params", "metadata", "priority", "deadline_s"})
"""What a cell of a CSV file can hold as JSON only."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows become questions.

    Attributes:
        columns: Field of a question -> column that holds it, where that has another name. `answer` is not a field, but
            goes into the metadata under that name.
        metadata_columns: The columns that travel along as metadata; None for all that are not fields.
        template: Makes the prompt of a row; None for the column that holds it.
        system: A system message to go before each question; turns text into chat messages.
        chat: Turn text into chat messages even without a system message, so that the model's chat template is applied.
        ignores_models: Ask every question of the run's model, whatever model it names.
        task: What the run's model makes of texts, where that is vectors.
        ids_as_asked: Derive ids from what is asked, not from the row, as in answers files that an earlier version
            began.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    metadata_columns: tuple[str, ...] | None = None
    template: PromptTemplate | None = None
    system: str | None = None
    chat: bool = False
    ignores_models: bool = False
    task: Task = "generate"
    ids_as_asked: bool = False

    @property
    def for_ids(self) -> tuple[Shape, ...]:
        """Shapes that derive the ids in place of this one: the first that can read a row.

        Without the form; if need be, with the template.
        """
        is_plain = self.template is None and self.system is None and not self.chat and self.task == "generate"
        if self.ids_as_asked or is_plain:
            return ()
        in_text = replace(self, system=None, chat=False, task="generate")
        return (in_text,) if self.template is None else (replace(in_text, template=None), in_text)

    @property
    def maps(self) -> bool:
        """Whether lines of JSON Lines are to be read as rows of a table."""
        return bool(self.columns) or self.metadata_columns is not None or self.template is not None

    def described(self) -> str:
        """The shape in a few words, for the fingerprint of a run; empty if there is nothing to say."""
        words = [f"{field}={column}" for field, column in sorted(self.columns.items())]
        words += [f"metadata={','.join(self.metadata_columns)}"] if self.metadata_columns is not None else []
        words += [f"template {self.template.digest}"] if self.template else []
        words += [f"system message {short(self.system)!r}"] if self.system is not None else []
        words += ["chat"] if self.chat else []
        words += [f"texts to {self.task}"] if self.task != "generate" else []
        words += ["their models ignored"] if self.ignores_models else []
        return ", ".join(words)

    def ensure_fits(self, columns: Collection[str], place: str) -> None:
        """Check that a table has the columns that are spoken of, and something to ask.

        Args:
            place: The file, for errors.

        Raises:
            UsageError: It does not.
        """
        for column in (*self.columns.values(), *(self.metadata_columns or ())):
            if column not in columns:
                raise UsageError(f"{place}: {no_such_column(column, columns)}")
        if self.template:
            self.template.ensure_fits(columns, place)
        elif not self._asks():
            found = [name for name in CONTENT_FIELDS if name in columns]
            if not found:
                known = ", ".join(map(short, columns))
                raise UsageError(
                    f"{place}: which column is asked? The columns are {known}; name one with --question-column, or use "
                    "--template"
                )

    def wanted_of(self, columns: Iterable[str]) -> frozenset[str] | None:
        """Which columns of a table have to be read; None for all."""
        if self.metadata_columns is None:
            return None
        named = {*self.columns.values(), *self.metadata_columns, *(self.template.needs if self.template else ())}
        # Without an `id` column of its own the ids come from the content; the fields of a question are small.
        return frozenset(name for name in columns if name in named or name in FIELDS)

    def question_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a question, from a row; what is no field goes into `metadata`.

        Raises:
            UnusableError: A column is missing, or its cell holds no JSON where it must.
        """
        if is_answer_line(row):
            return fields_of(row, self.template.render(row) if self.template else None)
        taken: dict[str, Any] = {}
        for name, column in self.columns.items():
            if column not in row:
                raise UnusableError(no_such_column(column, row))
            taken[name] = row[column]
        chosen = self.template is not None or self._asks()
        mapped = set(self.columns.values())
        extra: dict[str, Any] = {"answer": taken.pop("answer")} if "answer" in taken else {}
        for name, value in row.items():
            if name in mapped:
                continue
            if name not in FIELDS or name in taken or (chosen and name in CONTENT_FIELDS and not self.template):
                extra[name] = value
            elif not (chosen and name in CONTENT_FIELDS):
                taken[name] = value
        fields = {name: _cell(name, value) for name, value in taken.items() if value not in (None, "")}
        if self.template:
            fields = {name: value for name, value in fields.items() if name not in CONTENT_FIELDS}
            fields["question"] = self.template.render(row)
        return _with_metadata(fields, self._wanted(extra, row))

    def in_chat(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The same question with the system message before it.

        Raises:
            UnusableError: It has a system message already.
        """
        if self.system is None and not self.chat:
            return fields
        text = next((fields[name] for name in ("question", "prompt") if fields.get(name) is not None), None)
        messages = fields.get("messages")
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        if messages is None:
            if not isinstance(text, str) or not text.strip():
                return fields  # It is refused later, in the words for that.
            messages = [{"role": "user", "content": text}]
        elif not isinstance(messages, list):
            return fields
        elif (
            first and messages and isinstance(messages[0], dict) and messages[0].get("role") in {"system", "developer"}
        ):
            raise UnusableError("it has a system message of its own; leave that or --system out")
        rest = {name: value for name, value in fields.items() if name not in ("question", "prompt")}
        return {**rest, "messages": [*first, *messages]}

    def _asks(self) -> bool:
        return any(name in self.columns for name in CONTENT_FIELDS)

    def _wanted(self, extra: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        if self.metadata_columns is None:
            return extra
        answer = {"answer": extra["answer"]} if "answer" in self.columns else {}
        if missing := [name for name in self.metadata_columns if name not in row]:
            raise UnusableError(no_such_column(missing[0], row))
        return answer | {name: row[name] for name in self.metadata_columns}


AS_IT_STANDS = Shape()


def _cell(name: str, value: Any) -> Any:  # noqa: ANN401 (JSON)
    """The value of a field; where it must be more than a text, a text in its place is JSON."""
    if name in _JSON_FIELDS and isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise UnusableError(f"`{name}` is {short(value)!r}, which is not JSON") from None
    # Columns of structures have every key in every row: what is null there is what is not there.
    if name == "messages" and isinstance(value, list):
        return [_without_nulls(message) for message in value]
    return _without_nulls(value) if name == "params" else value


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 (JSON)
    return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


def _with_metadata(fields: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    if extra:
        metadata = fields.get("metadata", {})
        if not isinstance(metadata, dict):
            raise UnusableError(f"`metadata` is {kind(metadata)}, not an object")
        fields["metadata"] = joined(extra, metadata)
    return fields


def joined(beside: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The fields beside a question and its `metadata` as one.

    Raises:
        UnusableError: A name is in both.
    """
    if twice := beside.keys() & metadata.keys():
        raise UnusableError(f"`{min(twice)}` is both beside the question and in its `metadata`; keep one of them")
    return {**beside, **metadata}


def columns_from_flags(flags: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Field -> column, of what was given."""
    return {name: column for name, column in flags if column is not None}
