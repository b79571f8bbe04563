"""The answers file: one JSON line per question, appended as records come, whole after any crash."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import orjson

from producer.answers.answer_line import answer_line, parse_line
from producer.answers.locked_file import open_locked
from producer.answers.sidecar import IS_UPDATED, MAX_SIDECAR_BYTES, difference, has_fewer_samples, parse_sidecar
from producer.atomic_file import open_new, sync_folder, write_beside
from wire.errors import UsageError
from wire.messages import Answer, Failure

BOM = b"\xef\xbb\xbf"
"""Byte order mark, as some editors put it before the first line."""


class OutputFullError(UsageError):
    """The answers file could not be written, or is not there any more.

    What was acknowledged before is in it, the rest waits in Redis.
    """


class AnswersFile:
    """Owns the answers file and, beside it, `NAME.run`, which says what the answers are to.

    One producer at a time may have it open.

    Args:
        path: Where the answers go; made if missing, continued if there.
        follows_link: Whether `path` may be a link: it is what the user named, not a name that we made.

    Raises:
        UsageError: The folder is missing or not writable, the path is not a regular file, or another producer
            has it open.

    Attributes:
        key_of: The key of a row (`producer.questions.row_keys`), to go into its line.
    """

    def __init__(self, path: Path, *, follows_link: bool = True) -> None:
        self.path = path
        self.sidecar = path.with_name(path.name + ".run")
        self.key_of: Callable[[int], str | None] = lambda _: None
        self._replaced: list[int] = []
        self._file = open_locked(path, os.O_APPEND | (0 if follows_link else os.O_NOFOLLOW), path)
        try:
            # Both: one file may have several names, each with a sidecar of its own.
            self._lock = open_locked(self.sidecar, os.O_NOFOLLOW, path)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the descriptor releases the lock.
        for file in (self._file, self._lock, *self._replaced):
            os.close(file)

    def claim(
        self, run: str, fingerprint: dict[str, str], about: dict[str, Any], changed_row: Callable[[dict[str, Any]], str]
    ) -> None:
        """Make the file that of one run.

        Args:
            about: What else is to be known of the run later.
            changed_row: Takes what is known of the run that the file is of, and names a row that has changed.

        Raises:
            UsageError: It holds answers of another run, or of this run made of something else; or the disk is full.
        """
        about = {"run": run, "fingerprint": fingerprint, **about}
        stored = self.stored()
        is_ours = stored is not None and (stored.get("run"), stored.get("fingerprint")) == (run, fingerprint)
        is_more = stored is not None and has_fewer_samples(stored["fingerprint"], fingerprint)
        if is_ours or is_more:
            self._end_torn_line()
        if self.size() == 0:
            # Of whatever it was before, nothing is left.
            stored = None
        elif stored is None:
            raise UsageError(
                f"{self.path} already has lines, and no {self.sidecar.name} says of which run; move it away, or "
                "choose another -o"
            )
        if stored is None or (is_more and IS_UPDATED not in stored):
            self._store(orjson.dumps(about) + b"\n")
        elif IS_UPDATED in stored:
            raise UsageError(f"an update of {self.path} was interrupted; --update finishes it")
        elif not is_ours:
            msg = f"{self.path} holds answers to something else: {difference(stored, run, fingerprint, changed_row)}. "
            msg += (
                "Give what it was made of to resume it, add --update to ask only what has changed, or choose another -o"
            )
            raise UsageError(msg)

    def become(self, about: dict[str, Any]) -> None:
        """Assign it to another run: what `claim` stores, with `run` and `fingerprint`."""
        self._store(orjson.dumps(about) + b"\n")

    def _store(self, what: bytes) -> None:
        """In one step, so that answers never lack their run."""
        try:
            self._lock, held = self._put_in_place(self.sidecar, [what]), self._lock
        except OSError as error:
            raise OutputFullError(
                f"cannot write to {self.sidecar}: {error.strerror}; free some space and run the same command again"
            ) from None
        self._replaced.append(held)

    def forget_run(self) -> None:
        """Assign it to no run."""
        os.ftruncate(self._lock, 0)

    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file).st_size

    def ids(self) -> Iterator[tuple[str, bool]]:
        """The ids of its questions, in its order, each with whether it was answered."""
        return (
            (fields["id"], fields["status"] == "answered") for _, _, fields in self.lines() if not fields.get("removed")
        )

    def lines(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """All lines: the byte at which each begins, how it stands there, and what it says.

        Blank lines, as editors leave them, are none.

        Raises:
            UsageError: One is no answer line.
        """
        start = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                fields = parse_line(line.removeprefix(BOM)) if line.strip() else None
                if fields is not None:
                    yield start, line, fields
                elif line.strip():
                    raise UsageError(
                        f"{self.path}:{number}: not an answer line; correct or move the file, or choose another -o"
                    )
                start += len(line)

    def replace_lines(self, lines: Iterable[bytes]) -> None:
        """Replace all lines in one step.

        Raises:
            OutputFullError: The disk is full, or fails; all is as it was.
        """
        try:
            # Through a link: it is the file behind it that holds the answers.
            self._file, held = self._put_in_place(self.path.resolve(), lines), self._file
        except OSError as error:
            raise OutputFullError(
                f"cannot write to {self.path}: {error.strerror}; free some space and run the same command again"
            ) from None
        # Who has opened the file that had the name must not get the lock on it, as long as this process lives.
        self._replaced.append(held)

    def _put_in_place(self, path: Path, lines: Iterable[bytes]) -> int:
        """Write the file; returns its descriptor, locked."""
        scratch = write_beside(path, lines, os.fstat(self._file).st_mode)
        held = open_locked(scratch, os.O_APPEND | os.O_NOFOLLOW, self.path)
        scratch.replace(path)
        sync_folder(path.parent)
        return held

    def conclude(self, *, is_complete: bool) -> None:
        """Nothing more is written for now, or ever (`is_complete`). Nothing to do here."""

    def lines_of(self, request_id: str) -> list[int]:
        """The numbers of the lines that bear an id; two at most."""
        with self.path.open("rb") as lines:
            found = (
                number
                for number, line in enumerate(lines, 1)
                if (parse_line(line.removeprefix(BOM)) or {}).get("id") == request_id
            )
            return list(itertools.islice(found, 2))

    def cut(self, size: int) -> None:
        """Truncate to `size` bytes.

        Raises:
            OutputFullError: The disk fails.
        """
        try:
            os.ftruncate(self._file, size)
            os.fsync(self._file)
        except OSError as error:
            raise OutputFullError(
                f"cannot cut {self.path} back to {size} bytes: {error.strerror}; remove it, or choose another -o"
            ) from None

    def write(self, records: Sequence[Answer | Failure]) -> None:
        """Append records. What was written survives this process; `sync` makes it survive the machine.

        Raises:
            OutputFullError: The disk is full, or fails.
        """
        key_of = self.key_of
        data = memoryview(b"".join(answer_line(record, key_of(record.index)) for record in records))
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise OutputFullError(
                f"cannot write to {self.path}: {error.strerror}; free some space and run the same command again; "
                "nothing is lost"
            ) from None

    def sync(self) -> None:
        """Make what was written survive the machine.

        Raises:
            OutputFullError: The disk fails, or the file is not there any more; then a copy of it is.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise OutputFullError(
                f"cannot write to {self.path}: {error.strerror}; free some space and run the same command again; "
                "nothing is lost"
            ) from None
        if not self._is_in_place():
            raise OutputFullError(self._rescued())

    def _is_in_place(self) -> bool:
        """Whether what we write to is still what has the name.

        An editor that saves a file puts another in its place.
        """
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except OSError:
            return False

    def _rescued(self) -> str:
        """Copy what would be lost with this process; returns what to tell the user."""
        copy = self.path.with_name(f"{self.path.name}.{os.getpid()}.rescued")
        what = f"{self.path} was removed, moved or replaced while answers were written to it"
        try:
            with open(os.dup(self._file), "rb") as ours, copy.open("xb") as file:  # noqa: PTH123 (a descriptor, not a path)
                ours.seek(0)
                shutil.copyfileobj(ours, file)
                os.fsync(file.fileno())
            if not self.sidecar.exists():
                with open_new(self.sidecar) as file:
                    file.write(os.pread(self._lock, os.fstat(self._lock).st_size, 0))
        except OSError as error:
            return f"{what}, and they could not be kept ({error.strerror})"
        return f"{what}; they are all in {copy}: put that in its place, and run the same command again"

    def stored(self) -> dict[str, Any] | None:
        """What is known of the file's run; None if nothing is."""
        return parse_sidecar(os.pread(self._lock, MAX_SIDECAR_BYTES, 0))

    def _end_torn_line(self) -> None:
        """A line without its end was being written when the machine or the disk failed; its record is still in Redis.

        Unless it is whole: then an editor has left out the end.
        """
        end = size = self.size()
        while end > 0:
            start = max(0, end - 65536)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            if parse_line(os.pread(self._file, size - end, end)):
                os.write(self._file, b"\n")
            else:
                os.ftruncate(self._file, end)
