"""A prompt template and the fields of a question -> the text that is asked.

Templates are Jinja, in its immutable sandbox: they see the fields and nothing else, can change nothing, and find no
way into Python. What they write is bounded. How long they compute, and how much memory they take on the way, is not:
like a shell command, a template is code of whoever names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from producer.questions.fields import listed, no_such_column
from producer.questions.json_object import UnusableError, short
from wire.errors import UsageError

MAX_TEMPLATE_BYTES = 1024 * 1024
MAX_PROMPT_CHARS = 4 * 1024 * 1024


class PromptTemplate:
    """A template that is known to be Jinja.

    Args:
        text: The template itself.
        name: What it is called in errors.

    Raises:
        UsageError: It is not Jinja.
    """

    def __init__(self, text: str, name: str = "--template") -> None:
        environment = sandbox()
        self.name = name
        try:
            tree = environment.parse(text)
            self.needs = frozenset(meta.find_undeclared_variables(tree))
            self._template = environment.from_string(tree)
        except TemplateSyntaxError as error:
            raise UsageError(
                f"{name}: line {error.lineno}: {error.message}; templates are Jinja, such as {{{{ question }}}}"
            ) from None
        except TemplateError as error:
            raise UsageError(f"{name}: {error.message}; templates are Jinja, such as {{{{ question }}}}") from None
        self.digest = blake2b(text.encode(), digest_size=8).hexdigest()

    @classmethod
    def of(cls, text_or_file: str) -> PromptTemplate:
        """What `--template` means: a file if there is one of that name, else the template itself.

        Raises:
            UsageError: It is neither, or the file cannot be read.
        """
        is_text = "{{" in text_or_file or "{%" in text_or_file
        if is_text or "\n" in text_or_file:
            return cls(text_or_file)
        path = Path(text_or_file)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_TEMPLATE_BYTES + 1)
            if len(data) > MAX_TEMPLATE_BYTES:
                raise UsageError(f"{path}: it is larger than {MAX_TEMPLATE_BYTES} bytes; is it a template?")
            return cls(data.decode(), str(path))
        except OSError as error:
            raise UsageError(
                f"--template {short(text_or_file)}: {error.strerror}; give a file, or a text with a field in it, such "
                "as 'Q: {{ question }}'"
            ) from None
        except UnicodeDecodeError:
            raise UsageError(f"{path}: it is not UTF-8; save it as UTF-8") from None

    def ensure_fits(self, columns: Iterable[str], place: str) -> None:
        """Check that the columns of a table are what the template speaks of.

        Raises:
            UsageError: A column that it names is not there.
        """
        known = list(columns)
        if missing := sorted(self.needs.difference(known)):
            raise UsageError(f"{self.name}: {no_such_column(missing[0], known)} ({place})")

    def render(self, fields: Mapping[str, Any]) -> str:
        """The text for one question.

        Raises:
            UnusableError: The template cannot be filled in from these fields, or writes far too much.
        """
        try:
            pieces = list(_bounded(self._template.generate(fields)))
        except UndefinedError as error:
            raise UnusableError(f"{self.name}: {error.message}; the fields are {listed(fields)}") from None
        except Exception as error:  # noqa: BLE001 (a template can do whatever Jinja can, and so fail with anything)
            raise UnusableError(
                f"{self.name} cannot be filled in: {str(error)[:200] or type(error).__name__}"
            ) from None
        return "".join(pieces)


def sandbox() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    # Jinja's own escapes <, > and & for HTML.
    environment.filters["tojson"] = lambda value: orjson.dumps(value).decode()
    # It would give another prompt each time that the questions are read.
    del environment.filters["random"]
    environment.globals = {"range": environment.globals["range"]}
    return environment


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_PROMPT_CHARS:
            raise SecurityError(f"it makes a prompt of more than {MAX_PROMPT_CHARS} characters")
        yield piece
