"""The input file of a batch, checked line by line as OpenAI does: what is wrong with it, with codes and line numbers.

Reading lines, questions and finding equal ids is the producer's; here is what a batch wants beyond that. What is wrong
with one request alone, such as a parameter out of range, is no fault of the file: that request fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from producer.options import ReadingLimits
from producer.questions.checked import Checked
from producer.questions.duplicates import MOST_DUPLICATES
from producer.questions.entries import Unreadable
from producer.questions.fields import request_id_of
from producer.questions.formats import Form, read_entries
from producer.questions.json_object import UnusableError
from producer.questions.question_file import check_questions, read_checked
from producer.questions.sources import Source
from wire.errors import UsageError

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
MOST_PROBLEMS = 100
"""So many are listed; then nobody reads on."""
MOST_LINES = 2**32 - 1
_REQUIRED = ("custom_id", "method", "url", "body")
_SHOWN_CHARS = 100


class FileProblem(NamedTuple):
    """One thing that is wrong, as OpenAI's `errors.data` lists it. `line`: from 1; None for the whole file."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class BatchFile:
    """What one pass over the file found. `checked` and `model` count only where there is no problem."""

    problems: tuple[FileProblem, ...]
    model: str = ""
    checked: Checked | None = None


def source_of(path: Path) -> Source:
    """The file for the producer's readers."""
    return Source((path,), format="jsonl")


def check_batch_file(
    path: Path, endpoint: str, limits: ReadingLimits, tick: Callable[[int], None] = lambda _: None
) -> BatchFile:
    """Go through the whole file, in constant memory.

    Args:
        tick: Called with the number of lines so far, now and then; what it raises ends the reading.
    """
    inspector = _Inspector(endpoint)
    try:
        # Whatever does not begin with an object of JSON, compressed files first of all, is no batch.
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        if start and not start.startswith(b"{"):
            return _unlike_lines(path, limits, inspector)
        checked = check_questions(source_of(path), limits, skip_invalid=True, tick=tick, inspect=inspector)
    except _EnoughError:
        return BatchFile(tuple(inspector.problems))
    except UsageError as error:
        if not inspector.lines:
            return BatchFile((FileProblem("empty_file", "The file is empty; a line of it is one request."),))
        if inspector.problems:
            return BatchFile(tuple(inspector.problems))
        words = (
            f"More than {MOST_DUPLICATES} lines have the custom_id of another." if "have the id" in str(error) else ""
        )
        return BatchFile((FileProblem("duplicate_custom_id" if words else "invalid_file", words or str(error)),))
    problems = [*inspector.problems, *_duplicates(path, limits, checked)]
    problems.sort(key=lambda problem: problem.line or 0)
    return BatchFile(tuple(problems[:MOST_PROBLEMS]), inspector.model, checked)


def _unlike_lines(path: Path, limits: ReadingLimits, inspector: _Inspector) -> BatchFile:
    with path.open("rb") as file:
        start = file.read(4096)
    if b"\0" in start or start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK", b"PAR1", b"BZh")):
        words = "This file is not text; upload a plain JSON Lines file, not compressed."
        return BatchFile((FileProblem("invalid_json_line", words, 1),))
    for line, entry in read_entries(path, limits.max_question_bytes, Form("lines", "line")):
        inspector(line, entry)
    return BatchFile(tuple(inspector.problems))


def _duplicates(path: Path, limits: ReadingLimits, checked: Checked) -> list[FileProblem]:
    """Where they stand. Read once more for it, but only where there are any."""
    found = list[FileProblem]()
    if not checked.duplicates:
        return found
    for question in read_checked(source_of(path), limits, checked):
        keeper = checked.duplicates.get(question.index)
        if keeper is not None:
            words = f"The custom_id of this line is that of {keeper} already; each must be unique in a batch."
            found.append(FileProblem("duplicate_custom_id", words, question.line, "custom_id"))
        if len(found) == MOST_PROBLEMS:
            break
    return found


class _EnoughError(Exception):
    """As many problems as are listed."""


@dataclass(slots=True)
class _Inspector:
    """Looks at each line for what concerns the file."""

    endpoint: str
    model: str = ""
    lines: int = 0
    problems: list[FileProblem] = field(default_factory=list)

    def __call__(self, line: int, entry: bytes | Unreadable) -> None:
        self.lines += 1
        problem = self._problem(line, entry)
        if problem is None:
            return
        self.problems.append(problem)
        if len(self.problems) >= MOST_PROBLEMS:
            raise _EnoughError

    def _problem(self, line: int, entry: bytes | Unreadable) -> FileProblem | None:
        if self.lines > MOST_LINES:
            return FileProblem("too_many_lines", f"A batch has at most {MOST_LINES} requests.", line)
        if isinstance(entry, Unreadable):
            return FileProblem("invalid_json_line", f"This line cannot be read: {entry.reason}.", line)
        try:
            fields = orjson.loads(entry)
        except orjson.JSONDecodeError:
            return FileProblem("invalid_json_line", "This line is not parseable as valid JSON.", line)
        if not isinstance(fields, dict):
            return FileProblem("invalid_json_line", "This line is not a JSON object.", line)
        return self._problem_of(line, fields)

    def _problem_of(self, line: int, fields: dict[str, Any]) -> FileProblem | None:
        missing = next((name for name in _REQUIRED if fields.get(name) is None), None)
        if missing is not None:
            return _missing(line, missing)
        custom_id, url, body = fields["custom_id"], fields["url"], fields["body"]
        if (why := _problem_of_id(custom_id)) is not None:
            return FileProblem("invalid_custom_id", f"This custom_id cannot be used: {why}.", line, "custom_id")
        if fields["method"] != "POST":
            return FileProblem("invalid_method", "The method must be POST.", line, "method")
        if url != self.endpoint:
            words = f"The URL of this request is not the endpoint of the batch, {self.endpoint}."
            return FileProblem("url_mismatch", words, line, "url")
        if not isinstance(body, dict):
            return FileProblem("invalid_body", "The body must be a JSON object.", line, "body")
        return self._problem_of_model(line, body.get("model"))

    def _problem_of_model(self, line: int, model: object) -> FileProblem | None:
        if model is None:
            return _missing(line, "body.model")
        if not isinstance(model, str) or not model:
            return FileProblem("invalid_model", "The model must be a text.", line, "body.model")
        self.model = self.model or model
        if model == self.model:
            return None
        shown, first = model[:_SHOWN_CHARS], self.model[:_SHOWN_CHARS]
        words = f"This request asks for model {shown!r}, others of the batch for {first!r}; a batch is of one model."
        return FileProblem("model_mismatch", words, line, "body.model")


def _problem_of_id(custom_id: object) -> str | None:
    if not isinstance(custom_id, str):
        return "it must be a text"
    try:
        request_id_of(custom_id, "custom_id")
    except UnusableError as error:
        return str(error)
    return None


def _missing(line: int, name: str) -> FileProblem:
    return FileProblem("missing_required_parameter", f"Missing required parameter: '{name}'.", line, name)
