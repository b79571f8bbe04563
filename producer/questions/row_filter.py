"""`--where`: which rows are asked, or which answers are written, by a condition on their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from jinja2 import TemplateError, UndefinedError

from producer.questions.entries import Unreadable
from producer.questions.fields import listed
from producer.questions.json_object import UnusableError
from producer.questions.templates import sandbox
from wire.errors import UsageError


class RowFilter:
    """A condition, in Jinja's words, such as `status == "answered"`; in the same sandbox as templates.

    Raises:
        UsageError: It is no condition.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._holds = sandbox().compile_expression(text, undefined_to_none=False)
        except TemplateError as error:
            raise UsageError(
                f"--where {text}: {error.message}; write a condition such as 'status == \"answered\"'"
            ) from None

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """Whether it holds for these fields.

        Raises:
            UnusableError: It cannot be told, for one because a field is not there.
        """
        try:
            return bool(self._holds(**fields))
        except UndefinedError as error:
            raise UnusableError(f"--where {self.text}: {error.message}; the fields are {listed(fields)}") from None
        except Exception as error:  # noqa: BLE001 (a condition can do whatever Jinja can, and so fail with anything)
            raise UnusableError(f"--where {self.text}: {str(error)[:200] or type(error).__name__}") from None

    def passes(self, entry: bytes | Unreadable) -> bool:
        """Whether a row is to be read on: where it holds, and where there is no object, which is told then.

        Raises:
            UnusableError: As `holds`.
        """
        if isinstance(entry, Unreadable):
            return True
        try:
            fields = orjson.loads(entry)
        except orjson.JSONDecodeError:
            return True
        return self.holds(fields) if isinstance(fields, dict) else True
