"""Which column is what, what a template makes of a row, and what goes before it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.questions.column_mapping import Shape
from producer.questions.question_parser import Invalid, ParsedQuestion, QuestionParser
from producer.questions.templates import PromptTemplate
from wire.errors import UsageError

ROW = {"id": "1", "body": "Why?", "gold": "B", "set": "A", "n": 3}


def ask(row: dict[str, Any], shape: Shape, *, is_table: bool = False) -> ParsedQuestion | Invalid:
    """What becomes of a row."""
    return QuestionParser(shape=shape, is_table=is_table).ask(json.dumps(row).encode(), 0, 1)


def asked(row: dict[str, Any], shape: Shape, *, is_table: bool = False) -> ParsedQuestion:
    """The question that a good row becomes."""
    question = ask(row, shape, is_table=is_table)
    assert isinstance(question, ParsedQuestion), question
    return question


def reason(row: dict[str, Any], shape: Shape, *, is_table: bool = False) -> str:
    """Why a row becomes none."""
    question = ask(row, shape, is_table=is_table)
    assert isinstance(question, Invalid)
    return question.reason


def test_columns_have_whatever_name_they_have() -> None:
    """What is mapped takes its place; the rest goes into the metadata, in a table and in JSON Lines alike."""
    shape = Shape(columns={"question": "body", "answer": "gold", "id": "n"})

    for is_table in (False, True):
        question = asked(ROW, shape, is_table=is_table)
        assert (question.request_id, question.prompt, question.metadata) == (
            "3",
            "Why?",
            {"answer": "B", "id": "1", "set": "A"},
        )


def test_metadata_can_be_chosen() -> None:
    """Only what is named travels along, and the answer."""
    assert asked(ROW, Shape({"question": "body", "answer": "gold"}, ("set",))).metadata == {"answer": "B", "set": "A"}
    assert asked(ROW, Shape({"question": "body"}, ())).metadata is None


def test_a_column_that_is_not_there_is_named_with_its_neighbours() -> None:
    """In a table before anything else, in JSON Lines at the line."""
    shape = Shape(columns={"question": "bodi"})

    assert (
        reason(ROW, shape) == "there is no column 'bodi'; did you mean 'body'? The columns are id, body, gold, set, n"
    )
    with pytest.raises(UsageError, match=r"file\.csv: there is no column 'bodi'; did you mean 'body'"):
        shape.ensure_fits(["id", "body"], "file.csv")


def test_an_explicit_question_leaves_other_content_aside() -> None:
    """A row with both a prompt and a question is ambiguous until one is named."""
    row = {"question": "Q", "prompt": "P"}

    assert "both `question` and `prompt`" in reason(row, Shape(), is_table=True)
    question = asked(row, Shape({"question": "prompt"}), is_table=True)
    assert (question.prompt, question.metadata) == ("P", {"question": "Q"})


def test_a_template_makes_the_prompt() -> None:
    """It sees all columns, nested ones too; what it is made of does not travel twice."""
    template = PromptTemplate(
        "{{ question }}\n{% for choice in choices %}\n{{ 'ABCD'[loop.index0] }}. {{ choice }}\n{% endfor %}Answer:"
    )
    question = asked({"question": "Red?", "choices": ["yes", "<no>"], "subject": "art"}, Shape(template=template))

    assert question.prompt == "Red?\nA. yes\nB. <no>\nAnswer:"
    assert question.metadata == {"choices": ["yes", "<no>"], "subject": "art"}


def test_a_template_may_be_a_file(tmp_path: Path) -> None:
    """Its content is what counts for the fingerprint; the last line end is not part of it."""
    path = tmp_path / "a.jinja"
    path.write_text("Q: {{ body | upper }}\n")
    template = PromptTemplate.of(str(path))

    assert asked(ROW, Shape(template=template)).prompt == "Q: WHY?"
    assert Shape(template=template).described() == f"template {PromptTemplate(path.read_text()).digest}"
    with pytest.raises(
        UsageError, match=r"--template nofile: No such file or directory; give a file, or a text with a field in it"
    ):
        PromptTemplate.of("nofile")
    with pytest.raises(UsageError, match=r"--template: line 1: .*; templates are Jinja"):
        PromptTemplate.of("{{ question")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ nosuch }}", "'nosuch' is undefined; the fields are id, body"),
        ("{{ body.__class__ }}", "undefined|unsafe"),
        ("{{ body.__class__.__mro__[1].__subclasses__() }}", "undefined|unsafe"),
        ("{{ ''.format.__globals__ }}", "undefined|unsafe"),
        ("{{ '{0.__class__}'.format(body) }}", "unsafe|undefined|cannot be filled"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "undefined|unsafe"),
        ("{{ self.__init__.__globals__ }}", "undefined|unsafe"),
        ("{% set x = body | attr('__class__') %}{{ x }}", "undefined|unsafe"),
        ("{% include '/etc/passwd' %}", "cannot be filled in"),
        ("{% import 'os' as os %}", "cannot be filled in"),
        ("{% for a in range(100000000) %}x{% endfor %}", "Range too big"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}aaaaaaaa{% endfor %}{% endfor %}",
            "more than 4194304 characters",
        ),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_cannot_leave_its_room(template: str, expected: str) -> None:
    """It sees its row and nothing of this machine.

    Whatever it tries becomes the reason why the question cannot be used.
    """
    try:
        found = reason(ROW, Shape(template=PromptTemplate(template)))
    except UsageError as error:
        found = str(error)

    assert re.search(expected, found)


def test_a_template_has_all_of_jinja() -> None:
    """Loops know their length, filters and operators do what Jinja's do; JSON is not escaped for HTML."""
    template = PromptTemplate(
        "{% for x in many | sort %}{{ loop.index }}/{{ loop.length }}{{ x }}{% endfor %} {{ t | wordwrap(3) }} {{ d | "
        "tojson }} {{ 7 // 2 + 3 ** 2 }}"
    )

    assert (
        template.render({"many": ["b", "a"], "t": "a bc de", "d": {"k": "<1>"}}) == '1/2a2/2b a\nbc\nde {"k":"<1>"} 12'
    )


def test_a_template_changes_nothing() -> None:
    """The row's lists are the same after it."""
    row = {"question": "Why?", "choices": ["a"]}

    assert "unsafe" in reason(row, Shape(template=PromptTemplate("{{ choices.append('b') }}"))) or "not callable"


def test_a_table_without_what_the_template_needs_is_refused_at_once() -> None:
    """One line, before any row is looked at."""
    with pytest.raises(
        UsageError, match=r"--template: there is no column 'bodi'; did you mean 'body'\? .*\(file.csv\)"
    ):
        Shape(template=PromptTemplate("{{ bodi }}")).ensure_fits(["body", "id"], "file.csv")


def test_a_system_message_goes_first() -> None:
    """Text becomes a chat message; messages get it in front; a batch line too; two of them are one too many."""
    shape = Shape(system="Be brief.")
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}
    batch = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [user]}}

    for row in ({"question": "Why?"}, {"messages": [user]}, batch):
        assert asked(row, shape).messages == [system, user]
    assert asked({"question": "Why?"}, Shape(chat=True)).messages == [user]
    assert "system message of its own" in reason({"messages": [system, user]}, shape)


def test_json_lines_stay_strict_without_flags() -> None:
    """A slip in a field is still an error there.

    With a mapping, the line is a row, and what is no field is metadata.
    """
    assert "did you mean `model`" in reason({"question": "Why?", "modle": "m"}, Shape())
    assert asked({"question": "Why?", "modle": "m"}, Shape({"question": "question"})).metadata == {"modle": "m"}


@given(
    row=st.dictionaries(
        st.sampled_from(["id", "question", "body", "messages", "params", "metadata", "x"]),
        st.none() | st.text(max_size=5) | st.integers(),
    ),
    shape=st.builds(
        Shape,
        columns=st.dictionaries(
            st.sampled_from(["id", "question", "answer", "model"]), st.sampled_from(["id", "body", "x"])
        ),
        metadata_columns=st.none() | st.just(("x",)),
        system=st.none() | st.just("s"),
    ),
    is_table=st.booleans(),
)
def test_any_row_gives_a_question_or_a_reason(row: dict[str, Any], shape: Shape, *, is_table: bool) -> None:
    """Never an exception, whatever a row holds and whatever is asked of it."""
    question = ask(row, shape, is_table=is_table)

    assert isinstance(question, ParsedQuestion) or question.reason
