"""Arrow's values -> what JSON can hold: the same with pandas and numpy as without them, and never an exception.

pyarrow's own `to_pylist` does most of the work. It cannot be asked for what Python's dates cannot hold (nanoseconds
without pandas, years beyond 9999) or what is no UTF-8, and gives NaN, which JSON has no form for: such columns are gone
through cell by cell.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

import orjson

from producer.questions.entries import Unreadable, too_long

_DAYS_IN_400_YEARS = 146_097
_DAYS_BEFORE_1970 = dt.date(1970, 1, 1).toordinal() - 1
_SECONDS_IN_A_DAY = 86_400
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class Unwritable(Exception):  # noqa: N818 (it is a value, too: what stands in the place of a cell)
    """A cell that JSON has no form for; says what it is."""


def rows_as_json(pyarrow: Any, batch: Any, max_bytes: int) -> Iterator[bytes | Unreadable]:  # noqa: ANN401 (pyarrow has no types)
    """The rows of a record batch as JSON objects.

    One that is longer than `max_bytes`, or cannot be written, as Unreadable.
    """
    values = _Values(pyarrow)
    names = batch.schema.names
    for cells in zip(*map(values.of_array, batch.columns), strict=True):
        row = dict(zip(names, cells, strict=True))
        try:
            data = orjson.dumps(row, default=_as_text)
        except (TypeError, ValueError) as error:
            bad = next(
                (f"`{name}` {cell}" for name, cell in row.items() if isinstance(cell, Unwritable)),
                f"it cannot be JSON ({error})",
            )
            yield Unreadable(f"{bad}; write it as text, or leave that column out with --metadata-columns")
        else:
            yield data if len(data) <= max_bytes else too_long(len(data), max_bytes)


def row_bytes(pyarrow: Any, row: Any) -> int:  # noqa: ANN401 (pyarrow has no types)
    """How much a batch of one row holds, in bytes, without what only other rows use."""
    is_dictionary = pyarrow.types.is_dictionary
    return sum((column.dictionary_decode() if is_dictionary(column.type) else column).nbytes for column in row.columns)


def _as_text(value: object) -> str:
    if isinstance(value, Unwritable):
        raise TypeError
    return str(value)  # Decimals, durations, intervals.


class _Values:
    """The values of arrays, of whatever type."""

    def __init__(self, pyarrow: Any) -> None:  # noqa: ANN401 (pyarrow has no types)
        self._pyarrow = pyarrow
        self._types = pyarrow.types
        self._is_plain = lru_cache(self._is_plain_type)

    def of_array(self, array: Any) -> list[Any]:  # noqa: ANN401
        if self._types.is_dictionary(array.type):
            # Many rows may share a long text: it is made once.
            indices = array.indices.to_pylist()
            used = [index for index in dict.fromkeys(indices) if index is not None]
            shared = self.of_array(array.dictionary.take(self._pyarrow.array(used, self._pyarrow.int64())))
            cells = dict(zip(used, shared, strict=True))
            return [cells.get(index) for index in indices]
        if self._is_plain(array.type) and not self._has_nan(array):
            try:
                return list(array.to_pylist())
            except (self._pyarrow.ArrowException, ValueError, OverflowError):
                pass
        return [self._of_cell(cell) for cell in array]

    def _of_cell(self, cell: Any) -> Any:  # noqa: ANN401
        try:
            return self._value(cell)
        except Unwritable as problem:
            return problem
        except UnicodeDecodeError:
            return Unwritable("is not UTF-8")
        except (self._pyarrow.ArrowException, ValueError, OverflowError, TypeError, NotImplementedError) as error:
            return Unwritable(f"cannot be read ({str(error)[:200]})")

    def _is_plain_type(self, kind: Any) -> bool:  # noqa: ANN401
        """Whether `to_pylist` gives what is wanted, if it gives anything."""
        types = self._types
        if types.is_struct(kind):
            fields = [kind.field(number) for number in range(kind.num_fields)]
            return len({field.name for field in fields}) == len(fields) and all(
                self._is_plain(field.type) for field in fields
            )
        if self._is_list(kind):
            return self._is_plain(kind.value_type)
        if types.is_temporal(kind):
            return getattr(kind, "unit", "") != "ns" and not types.is_interval(kind)
        is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        is_number = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind) or types.is_decimal(kind)
        return bool(is_text or is_number or types.is_boolean(kind) or types.is_null(kind))

    def _is_list(self, kind: Any) -> bool:  # noqa: ANN401
        types = self._types
        return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))

    def _has_nan(self, array: Any) -> bool:  # noqa: ANN401
        """Whether a plain array has NaN or an infinity in it, or may have."""
        if self._types.is_floating(array.type):
            compute = self._pyarrow.compute
            return compute.all(compute.is_finite(array)).as_py() is False
        if self._types.is_struct(array.type):
            return any(map(self._has_nan, array.flatten()))
        return self._is_list(array.type) and self._has_nan(array.flatten())

    def _value(self, cell: Any) -> Any:  # noqa: ANN401, PLR0911 (one line a type)
        pyarrow, types, kind = self._pyarrow, self._types, cell.type
        if not cell.is_valid:
            return None
        if getattr(kind, "extension_name", None) in {"arrow.uuid", "arrow.bool8"}:
            return cell.as_py()
        if isinstance(
            cell, pyarrow.ExtensionScalar | pyarrow.DictionaryScalar | pyarrow.UnionScalar | pyarrow.RunEndEncodedScalar
        ):
            return self._value(cell.value)
        if types.is_struct(kind):
            return self._of_struct(cell)
        if types.is_map(kind):
            return [[self._value(entry[0]), self._value(entry[1])] for entry in cell.values]
        if types.is_nested(kind):
            return [self._value(item) for item in cell.values]
        if make := self._temporal(kind):
            return make(cell)
        value = cell.as_py()
        if isinstance(value, bytes):
            return _decoded(value)
        if types.is_floating(kind):
            return _finite(float(value))
        return value

    def _of_struct(self, cell: Any) -> dict[str, Any]:  # noqa: ANN401
        names = [cell.type.field(number).name for number in range(cell.type.num_fields)]
        if len(set(names)) < len(names):
            raise Unwritable(f"has two fields of one name ({', '.join(names)[:60]})")
        return {name: self._value(cell[number]) for number, name in enumerate(names)}

    def _temporal(self, kind: Any) -> Callable[[Any], str] | None:  # noqa: ANN401
        types = self._types
        if types.is_timestamp(kind):
            return self._timestamp
        if types.is_duration(kind):
            return _duration
        if types.is_time(kind):
            return _time
        if types.is_date(kind):
            return lambda cell: _date(cell.value if types.is_date32(kind) else cell.value // (1000 * _SECONDS_IN_A_DAY))
        return None

    def _timestamp(self, cell: Any) -> str:  # noqa: ANN401
        """As RFC 3339 has it; in UTC if the time zone is unknown here, or the year is none of Python's."""
        unit, zone = cell.type.unit, cell.type.tz
        seconds, fraction = divmod(cell.value, _PER_SECOND[unit])
        offset = "" if zone is None else "+00:00"
        with suppress(Exception):  # Whatever the name of a time zone can do.
            local = self._pyarrow.scalar(seconds, self._pyarrow.timestamp("s", zone)).as_py()
            if shift := local.utcoffset():
                seconds, offset = seconds + round(shift.total_seconds()), local.isoformat()[19:]
        days, seconds = divmod(seconds, _SECONDS_IN_A_DAY)
        return f"{_date(days)}T{_clock(seconds, fraction, unit)}{offset}"


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unwritable("is bytes that are not UTF-8") from None


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise Unwritable(f"is {value}, which JSON cannot represent")


def _time(cell: Any) -> str:  # noqa: ANN401
    seconds, fraction = divmod(cell.value, _PER_SECOND[cell.type.unit])
    return _clock(seconds, fraction, cell.type.unit)


def _duration(cell: Any) -> str:  # noqa: ANN401
    """As Python writes it, of any length and to the nanosecond."""
    seconds, fraction = divmod(cell.value, _PER_SECOND[cell.type.unit])
    days, seconds = divmod(seconds, _SECONDS_IN_A_DAY)
    clock = _clock(seconds, fraction, cell.type.unit).removeprefix("0")
    return f"{days} day{'' if abs(days) == 1 else 's'}, {clock}" if days else clock


def _date(days: int) -> str:
    """As ISO 8601 has it, which gives years beyond four digits a sign.

    Args:
        days: Since 1970.
    """
    # The calendar repeats itself every 400 years; Python knows it from 1 to 9999.
    cycles, days = divmod(days + _DAYS_BEFORE_1970, _DAYS_IN_400_YEARS)
    date = dt.date.fromordinal(days + 1)
    year = date.year + 400 * cycles
    return f"{year:04}{date:-%m-%d}" if 0 < year <= dt.MAXYEAR else f"{year:+05}{date:-%m-%d}"


def _clock(seconds: int, fraction: int, unit: str) -> str:
    """A time of day, with as many digits of a second as Python writes, and nine where that would lose some."""
    time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    digits = f"{fraction * (1_000_000_000 // _PER_SECOND[unit]):09}"
    if not fraction:
        return time
    return f"{time}.{digits.removesuffix('000') if digits.endswith('000') else digits}"
