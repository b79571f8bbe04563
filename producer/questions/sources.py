"""What a user names as questions -> the files they are in, in the order in which they are asked."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from producer.questions.column_mapping import AS_IT_STANDS, Shape
from producer.questions.csv_dialect import FOUND_BY_ITSELF, CsvStyle
from producer.questions.samples import ONCE, Samples
from producer.questions.selection import EVERYTHING, Selection
from producer.remote.download import download_all, scratch_folder
from producer.remote.location import is_remote
from wire.errors import UsageError

if TYPE_CHECKING:
    # It imports Jinja, which takes a tenth of a second.
    from producer.questions.row_filter import RowFilter

MAX_FILES = 100_000

InputFormat = Literal["auto", "jsonl", "csv", "tsv"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from.

    Attributes:
        files: Read one after the other.
        shape: How rows become questions.
        csv: How tables as text are written.
        format: What files are whose first bytes do not tell; `auto` goes by the ending of the name, and takes what says
            nothing for JSON.
        selection: Which of the questions are asked.
        where: Rows for which it does not hold are passed over; None for none.
        samples: How often each of them is.
    """

    files: tuple[Path, ...]
    shape: Shape = AS_IT_STANDS
    format: InputFormat = "auto"
    selection: Selection = EVERYTHING
    csv: CsvStyle = FOUND_BY_ITSELF
    samples: Samples = ONCE
    where: RowFilter | None = None

    def __str__(self) -> str:
        more = len(self.files) - 1
        return f"{self.files[0]} and {more} more files" if more else str(self.files[0])


def find_files(
    names: Iterable[str], fetch: Callable[[str], Sequence[Path]] = lambda url: download_all(url, scratch_folder())
) -> tuple[Path, ...]:
    """The files that are meant, in the order of the names; those of one pattern by name.

    A folder that `save_to_disk` of Hugging Face's datasets made stands for its files. A name with `*`, `?` or `[` that
    is no file is a pattern.

    Args:
        fetch: Copies what is remote, and returns the copies.

    Raises:
        UsageError: Something remote cannot be read, a pattern fits nothing, a folder is something else, or a file is
            named twice.
    """
    found: dict[Path, None] = {}
    for name in names:
        for path in fetch(name) if is_remote(name) else _matching(name):
            for file in _files_of(path):
                if file in found:
                    raise UsageError(f"{file}: it is named twice; each question is asked once")
                found[file] = None
                if len(found) > MAX_FILES:
                    raise UsageError(f"{name}: more than {MAX_FILES} files; join some of them")
    return tuple(found)


def _matching(name: str) -> Sequence[Path]:
    path = Path(name)
    if path.exists() or not glob.has_magic(name):
        return [path]
    found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (Path.glob takes no pattern that begins with /)
    if not found:
        raise UsageError(f"{name}: no file has such a name")
    return [Path(one) for one in found]


def _files_of(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    if (path / "state.json").is_file():
        return _files_of_dataset(path)
    if (path / "dataset_dict.json").is_file():
        splits = sorted(found.parent for found in path.glob("*/state.json"))
        if len(splits) == 1:
            return _files_of_dataset(splits[0])
        raise UsageError(f"{path}: it is a data set in parts; name the one to ask: {', '.join(map(str, splits))}")
    raise UsageError(f"{path}: it is a directory; name the files in it, such as '{path}/*.jsonl'")


def _files_of_dataset(folder: Path) -> Sequence[Path]:
    state_file = folder / "state.json"
    try:
        state: Any = orjson.loads(state_file.read_bytes())
        names = [str(entry["filename"]) for entry in state["_data_files"]]
        is_selection = bool(state.get("_indices_data_files"))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{state_file}: it does not say which files the data set has ({type(error).__name__}); save the data set "
            "again"
        ) from None
    if is_selection:
        raise UsageError(
            f"{folder}: it holds a selection of rows that is not applied; save it again after flatten_indices()"
        )
    if not names:
        raise UsageError(f"{state_file}: the data set has no files; there are no questions in it")
    if wrong := [name for name in names if name in ("", ".", "..") or Path(name).name != name]:
        raise UsageError(f"{state_file}: it names {wrong[0]!r}, which is not in this folder")
    return [folder / name for name in names]
