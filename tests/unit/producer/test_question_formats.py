"""The bytes of a file -> its entries: both formats, any size, any damage."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.options import ReadingLimits
from producer.questions import json_array
from producer.questions.entries import Unreadable
from producer.questions.formats import read_entries
from producer.questions.json_array import array_entries
from producer.questions.question_file import Invalid, ParsedQuestion, read_questions
from tests.builders import a_source
from wire.errors import UsageError

GENEROUS = 1024 * 1024

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\[]{},\n\u00e9\u4e16', max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\]}', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test puts its file."""
    return tmp_path / "questions"


def entries(path: Path, max_bytes: int = GENEROUS) -> list[tuple[int, Any]]:
    """All entries of a file."""
    return list(read_entries(path, max_bytes))


def elements(array: bytes, max_bytes: int = GENEROUS) -> list[tuple[int, Any]]:
    """All elements of an array, given from behind its opening bracket on."""
    return list(array_entries(io.BytesIO(array), Path("a.json"), max_bytes))


def reasons(found: list[tuple[int, Any]]) -> list[tuple[int, str]]:
    """Those that are unreadable."""
    return [(number, entry.reason) for number, entry in found if isinstance(entry, Unreadable)]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_may_come_from_any_editor(file: Path, mark: bytes, end: bytes) -> None:
    """Byte order mark, CRLF, blank lines and a missing last line end are nothing special.

    Lines are counted as an editor does.
    """
    file.write_bytes(mark + end + b'{"id": 1}' + end + b"  \t" + end + b'{"id": 2}')

    assert [(number, json.loads(entry)) for number, entry in entries(file)] == [(2, {"id": 1}), (4, {"id": 2})]


def test_a_line_as_long_as_allowed_is_read_and_a_longer_one_skipped(file: Path) -> None:
    """The limit is on the line without its end; the lines behind a long one keep their numbers."""
    file.write_bytes(b"x" * 10 + b"\r\n" + b"y" * 11 + b"\n" + b"z" * 1000 + b"\n" + b"w" * 10)

    found = entries(file, 10)

    assert [(number, entry) for number, entry in found if isinstance(entry, bytes)] == [(1, b"x" * 10), (4, b"w" * 10)]
    assert [number for number, _ in reasons(found)] == [2, 3]
    assert "at most 10 are allowed" in reasons(found)[0][1]


@given(st.lists(json_values, max_size=6), st.sampled_from([None, 0, 3]), st.integers(1, 9), st.integers(0, 3))
def test_an_array_is_cut_into_its_elements(values: list[Any], indent: int | None, chunk: int, blanks: int) -> None:
    """However it is written, and wherever the pieces end in which it is read."""
    array = json.dumps(values, indent=indent, ensure_ascii=False).encode()[1:] + b" " * blanks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_CHUNK_BYTES", chunk)
        found = elements(array)

    assert [(number, json.loads(entry)) for number, entry in found] == list(enumerate(values, 1))


@given(st.lists(json_values, max_size=6), st.integers(1, 9), st.integers(1, 12))
def test_long_elements_of_an_array_are_skipped_alone(values: list[Any], chunk: int, most: int) -> None:
    """Each element that is too long is told with its size, and its neighbours are read."""
    texts = [json.dumps(value).encode() for value in values]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_CHUNK_BYTES", chunk)
        found = elements(b",".join(texts) + b"]", most)

    assert [entry if isinstance(entry, bytes) else size_in(entry) for _, entry in found] == [
        text if len(text) <= most else len(text) for text in texts
    ]


def size_in(entry: Unreadable) -> int:
    """The size that the reason tells."""
    found = re.search(r"is (\d+) bytes long", entry.reason)
    assert found, entry
    return int(found[1])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (b"", [(1, "the file ends before")]),
        (b'{"a": 1}', [(1, "the file ends before")]),
        (b'{"a": 1}, ', [(2, "the file ends before")]),
        (b'{"a": 1}, {"b": "x', [(2, "the file ends before")]),
        (b'{"a": 1},]', [(2, "nothing here")]),
        (b",1]", [(1, "nothing here")]),
        (b" ] \n ", []),
    ],
)
def test_a_damaged_array_is_told_where_it_is_damaged(array: bytes, expected: list[tuple[int, str]]) -> None:
    """What can be read is; the place of what cannot is an element's number."""
    found = reasons(elements(array))

    assert [number for number, _ in found] == [number for number, _ in expected]
    assert all(words in reason for (_, reason), (_, words) in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (b'{"question": "a?"}]\n[{"question": "b?"}]', "each line is an object, not a list"),
        (b'{"question": "a?"}] x', "nothing behind it would be asked"),
    ],
)
def test_text_behind_an_array_is_never_left_out(array: bytes, expected: str) -> None:
    """The file is refused as a whole, whatever is to be skipped: else 999 of 1 000 lines would be lost."""
    with pytest.raises(
        UsageError, match=rf"a\.json: there is more text after the `]` that closes the array; {expected}"
    ):
        elements(array)


def test_an_unbalanced_element_harms_only_itself() -> None:
    """A bracket too many is part of its element, not the end of the array."""
    found = elements(b'{"a": 1}}, {"b": 2}]')

    assert found == [(1, b'{"a": 1}}'), (2, b'{"b": 2}')]


def test_a_quote_that_is_never_closed_is_named_as_a_likely_cause() -> None:
    """It makes one element of the rest of the file; that this is too long is not what people have to mend."""
    found = elements(b'{"a": "x}, {"b": 1}, {"c": ' + b"2" * 100 + b"}]", 20)

    assert "close its strings and brackets" in reasons(found)[0][1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x1f\x8b\x08\x00rest", "gzip, and damaged or incomplete"),
        (b"PK\x03\x04rest", "compressed (zip), or an Excel workbook; unpack it, or save it as CSV"),
        (b"\x28\xb5\x2f\xfdrest", "zstd, and damaged or incomplete"),
        ('{"id": 1}'.encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ('{"id": 1}'.encode("utf-16-le"), "it is UTF-16, or no text at all; save it as UTF-8"),
        ('{"id": 1}'.encode("utf-16-be"), "it is UTF-16, or no text at all; save it as UTF-8"),
        (b"", "there are no questions in it"),
        (b"\n \r\n", "there are no questions in it"),
        (b"\xef\xbb\xbf", "there are no questions in it"),
        (b" [ ]\n", "there are no questions in it"),
    ],
)
def test_a_file_without_readable_questions_is_refused(file: Path, content: bytes, expected: str) -> None:
    """The message starts with the file and says what it is instead."""
    file.write_bytes(content)

    with pytest.raises(UsageError, match=f"^{re.escape(str(file))}: .*{re.escape(expected)}"):
        list(read_questions(a_source(file), ReadingLimits()))


def test_a_file_that_is_none_is_refused(file: Path) -> None:
    """Missing, a folder, a pipe, and a name that no file can have."""
    pipe = file.with_name("pipe")
    os.mkfifo(pipe)
    cases = {
        file: "there is no such file",
        file.parent: "it is a directory",
        pipe: "it is not a regular file",
        Path("a\0b"): "it cannot be read",
    }

    for path, expected in cases.items():
        with pytest.raises(UsageError, match=expected):
            list(read_questions(a_source(path), ReadingLimits()))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(file: Path) -> None:
    """The message speaks of permissions."""
    file.write_bytes(b'{"question": "Why?"}')
    file.chmod(0)

    with pytest.raises(UsageError, match="may not be read"):
        list(read_questions(a_source(file), ReadingLimits()))


def test_a_disk_that_fails_in_the_middle_is_an_error_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError does not reach the caller as such."""
    file.write_bytes(b'{"question": "Why?"}\n')

    def fail(*_: object) -> Iterator[Any]:
        raise OSError(5, "Input/output error")
        yield

    monkeypatch.setattr("producer.questions.formats._lines", fail)

    with pytest.raises(UsageError, match=r"it cannot be read \(Input/output error\)"):
        list(read_questions(a_source(file), ReadingLimits()))


damage = st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=4)
valid = st.sampled_from(
    [
        b'{"id": "q1", "question": "Why?"}\r\n\n{"question": "What?", "answer": "\\u00e9"}\n',
        b'\xef\xbb\xbf[{"question": "Why?", "answer": "A"}, {"prompt": "a", "params": {"n": [1, {}]}}]\n',
        b'{"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Why?"}}\n',
    ]
)


@given(st.binary(max_size=200) | valid, damage, st.sampled_from([5, 30, GENEROUS]))
def test_any_bytes_give_questions_reasons_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    cuts: Any,  # noqa: ANN401
    most: int,
) -> None:
    """Nothing else comes out, and indices count without a gap."""
    for at, bytes_there in cuts:
        content = content[:at] + bytes_there + content[at + len(bytes_there) :]
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)

    try:
        found = list(read_questions(a_source(path), ReadingLimits(max_question_bytes=most)))
    except UsageError as error:
        assert str(path) in str(error)  # noqa: PT017 (raised or not, both are right)
    else:
        assert all(isinstance(question, ParsedQuestion | Invalid) for question in found)
        assert [question.index for question in found] == list(range(len(found)))
