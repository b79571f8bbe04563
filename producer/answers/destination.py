"""Where answers go, in which format, and where they are kept during the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from producer.questions.compression import SUFFIXES, without_suffix
from wire.errors import UsageError

OutputFormat = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "openai"]

_BY_ENDING: dict[str, OutputFormat] = {
    ".openai.jsonl": "openai",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_WORKBOOKS = frozenset({".xlsx", ".xls", ".ods"})
_NEVER_COMPRESSED: frozenset[OutputFormat] = frozenset({"parquet", "arrow"})


@dataclass(frozen=True, slots=True)
class Destination:
    """What `-o` and `--format` say.

    Attributes:
        path: The file that is asked for.
        is_ordered: Whether the answers are to be in the order of the questions.
        is_listed: Whether all samples of a question are to be in one line; they are then ordered, too.
        is_csv_safe: Whether cells of CSV and TSV files that a spreadsheet would take for formulas are made text.
    """

    path: Path
    format: OutputFormat = "jsonl"
    is_ordered: bool = False
    is_csv_safe: bool = False
    is_listed: bool = False

    @property
    def journal(self) -> Path:
        """The answers file: JSONL, in the order in which answers come.

        Where that is what is asked for, `path` itself.
        """
        is_plain = self.format == "jsonl" and without_suffix(self.path) == self.path and not self.is_listed
        return self.path if is_plain else self.path.with_name(f"{self.path.name}.journal")

    @property
    def is_made_at_the_end(self) -> bool:
        """Whether there is something to do once all answers are there."""
        return self.is_ordered or self.journal != self.path

    @property
    def wants_questions(self) -> bool:
        """Whether the questions are needed for it: for their order, or because it repeats them."""
        return self.is_ordered or self.format in ("json", "openai")


def destination(
    path: Path,
    given: OutputFormat | None = None,
    *,
    is_ordered: bool = False,
    is_csv_safe: bool = False,
    is_listed: bool = False,
) -> Destination:
    """The format that is given, else the one that the name's ending says; JSONL if it says nothing.

    Raises:
        UsageError: The format is never compressed, and the name says that it is; or the name says one that is not
            written; or the format has no lists of samples.
    """
    if given is None and path.suffix.lower() in _WORKBOOKS:
        raise UsageError(f"{path}: {path.suffix} files are not written; spreadsheets open .csv, too")
    name = without_suffix(path).name.lower()
    by_name: OutputFormat = next((one for ending, one in _BY_ENDING.items() if name.endswith(ending)), "jsonl")
    format_ = given or by_name
    if format_ in _NEVER_COMPRESSED and path.suffix.lower() in SUFFIXES:
        raise UsageError(
            f"{path}: {format_} files compress their columns themselves; leave {path.suffix} out of the name"
        )
    if is_listed and format_ != "jsonl":
        raise UsageError(
            f"{path}: --samples-as list is written as .jsonl; in {format_} each sample has a row of its own"
        )
    return Destination(path, format_, is_ordered or is_listed, is_csv_safe, is_listed)
