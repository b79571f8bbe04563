"""One line of a file -> a question, or a reason that helps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.questions.question_parser import Invalid, ParsedQuestion, QuestionParser
from wire.messages import Question

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)

LINE = 17
NAMED = {"id": "q1", "question": "Why?"}


def read(line: dict[str, Any] | bytes) -> ParsedQuestion | Invalid:
    """What becomes of a line."""
    return QuestionParser().ask(line if isinstance(line, bytes) else json.dumps(line).encode(), index=9, line=LINE)


def asked(line: dict[str, Any] | bytes) -> ParsedQuestion:
    """The question that a good line becomes."""
    question = read(line)
    assert isinstance(question, ParsedQuestion), question
    return question


def reason(line: dict[str, Any] | bytes) -> str:
    """Why a bad line is none."""
    question = read(line)
    assert isinstance(question, Invalid), question
    return question.reason


def test_a_full_line_becomes_a_question_field_by_field() -> None:
    """Everything that a line may bring arrives."""
    line = {
        "id": "q1",
        "question": "Why?",
        "model": "m",
        "params": {"max_tokens": 5},
        "priority": 3,
        "deadline_s": 60,
        "metadata": {"page": [1, 2]},
    }

    assert asked(line) == ParsedQuestion(9, LINE, "q1", "Why?", None, "m", {"max_tokens": 5}, 3, 60.0, {"page": [1, 2]})


def test_prompt_and_messages_stand_in_for_question() -> None:
    """`prompt` is `question` under its other name; messages are kept as messages."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
    ]

    assert asked({"id": "q1", "prompt": "Why?"}) == asked(NAMED)
    assert asked({"id": "q1", "messages": messages}).messages == messages


def test_a_null_is_the_same_as_no_field() -> None:
    """Tables that were exported to JSON are full of nulls."""
    nulls = dict.fromkeys(("prompt", "messages", "model", "params", "priority", "deadline_s", "metadata"))

    assert asked({**NAMED, **nulls}) == asked(NAMED)


def test_an_integer_id_becomes_its_digits() -> None:
    """7 and "7" are the same id, so they must look the same."""
    assert asked({"id": 7, "question": "Why?"}).request_id == "7"


def test_an_id_is_derived_from_content_and_position() -> None:
    """The same line at the same place always gets the same id; another content or place, another."""
    line = b'{"question": "Why?", "params": {"seed": 1, "top_k": 2}}'

    first = asked(line)

    assert first.request_id.startswith("0000010-")
    assert QuestionParser().ask(b'{"params": {"top_k": 2, "seed": 1}, "question": "Why?"}', 9, 40) == ParsedQuestion(
        9, 40, *_after_line(first)
    )
    assert first.request_id != QuestionParser().ask(line, 10, LINE).request_id
    assert first.request_id[8:] != asked(b'{"question": "Why?", "params": {"seed": 1, "top_k": 3}}').request_id[8:]


def _after_line(question: ParsedQuestion) -> tuple[Any, ...]:
    return tuple(getattr(question, name) for name in ParsedQuestion.__struct_fields__[2:])


def test_a_known_answer_brings_its_neighbours_into_the_metadata() -> None:
    """Data sets with answers have fields of their own, which their owner wants back."""
    line = {
        "question": "Why?\nA) x\nB) y",
        "answer": "B",
        "text": "passage",
        "question_hash": "ab12",
        "source": None,
        "metadata": {"own": 1},
    }

    question = asked(line)

    assert question.prompt == "Why?\nA) x\nB) y"
    assert question.metadata == {"answer": "B", "text": "passage", "question_hash": "ab12", "source": None, "own": 1}


@pytest.mark.parametrize(
    ("url", "content", "expected"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Why?"}]},
            {"messages": [{"role": "user", "content": "Why?"}]},
        ),
        ("/v1/completions", {"prompt": "Why?"}, {"prompt": "Why?"}),
    ],
)
def test_a_line_of_an_openai_batch_file_means_the_same_as_ours(
    url: str, content: dict[str, Any], expected: dict[str, Any]
) -> None:
    """`custom_id` is the id, what is beside model and content in the body are the parameters."""
    body = {"model": "m", "max_tokens": 5, "stream": False, "metadata": {"own": 1}, **content}

    question = asked({"custom_id": "q1", "method": "POST", "url": url, "body": body})

    assert question == asked(
        {"id": "q1", "model": "m", "params": {"max_tokens": 5}, "metadata": {"own": 1}, **expected}
    )


def test_a_tool_call_needs_no_content() -> None:
    """OpenAI's assistant messages have a null content where they call a tool."""
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }

    assert asked({"messages": [call, {"role": "tool", "tool_call_id": "1", "content": "4"}]}).messages is not None


def test_what_is_odd_but_harmless_is_accepted() -> None:
    """NUL, emoji, a number with an exponent beyond 64 bits, and integers that just fit."""
    line = (
        b'{"question": "a\\u0000b \\ud83d\\ude00", '
        b'"params": {"extra_body": {"x": 1e300, "y": 18446744073709551615, "z": -9223372036854775808}}}'
    )

    question = asked(line)

    assert question.prompt == "a\0b \N{GRINNING FACE}"
    assert question.params == {"extra_body": {"x": 1e300, "y": 2**64 - 1, "z": -(2**63)}}


REFUSED: list[tuple[str, bytes | dict[str, Any], str]] = [
    ("broken", b'{"id": "q1", "question": "Why?"', "not JSON (unexpected end of data at column 32)"),
    ("broken_later", b'{"id":\n "q1",\n "question": Why}', "line 3 of it, column 14"),
    ("text", b"What is 2 + 2?", "not JSON"),
    ("array", b'["Why?"]', "it is a list, not an object"),
    (
        "messages",
        b'[{"role": "user", "content": "Why?"}]',
        'it is a list of messages, not an object; write {"messages": [...]} around it',
    ),
    (
        "one_message",
        {"role": "user", "content": "Why?"},
        'it is one message of a chat, not a question; write {"messages": [...]} around',
    ),
    (
        "anthropic",
        {"custom_id": "13", "params": {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}},
        "it is a line of an Anthropic message batch (`custom_id`, `params`); write {",
    ),
    (
        "parameter",
        {**NAMED, "params": {"temprature": 0}},
        "unknown parameter 'temprature'; did you mean 'temperature'?",
    ),
    (
        "parameter_value",
        {**NAMED, "params": {"top_p": 2}},
        "parameter 'top_p' must be a number above 0 and at most 1, not 2",
    ),
    (
        "format",
        {**NAMED, "params": {"response_format": {"type": "xml"}}},
        "'response_format' must have the type text, json_object or json_schema",
    ),
    (
        "chat_parameter",
        {**NAMED, "params": {"reasoning_effort": "low"}},
        "parameter 'reasoning_effort' is for chat messages; this question is a prompt",
    ),
    ("number", b"42", "it is a number, not an object"),
    ("not_utf8", b'{"id": "q1", "question": "caf\xe9"}', "not UTF-8 (byte 0xe9 at byte 30)"),
    ("surrogate", b'{"id": "q1", "question": "half \\ud800"}', "half of a surrogate pair, such as \\ud800 alone"),
    ("nan", b'{"id": "q1", "question": "Why?", "params": {"temperature": NaN}}', "NaN at column 60 is not JSON"),
    (
        "infinity",
        b'{"id": "q1", "question": "Why?", "params": {"temperature": Infinity}}',
        "Infinity at column 60 is not JSON",
    ),
    (
        "deep_for_orjson",
        b'{"question": "Why?", "metadata": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
        "nested more than 100 levels",
    ),
    (
        "deep_for_us",
        b'{"question": "Why?", "metadata": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}",
        "nested more than 100 levels",
    ),
    (
        "deep_priority",
        b'{"question": "Why?", "priority": ' + b"[" * 500 + b"]" * 500 + b"}",
        "`priority` is a list, not an integer",
    ),
    ("huge_integer", b'{"question": "Why?", "params": {"seed": 18446744073709551616}}', "integer beyond 64 bits"),
    ("huge_negative", b'{"question": "Why?", "metadata": {"n": [-9223372036854775809]}}', "integer beyond 64 bits"),
    ("endless_integer", b'{"question": "Why?", "metadata": {"n": ' + b"9" * 300 + b"}}", "integer beyond 64 bits"),
    ("nothing_asked", {"id": "q1"}, "it asks nothing; give it a `question`, `prompt` or `messages`"),
    ("empty", {"question": ""}, "`question` is empty"),
    ("blank", {"prompt": " \n\t\u00a0"}, "`prompt` is empty"),
    ("no_text", {"question": 42}, "`question` is a number, not a text"),
    (
        "two_contents",
        {"prompt": "Why?", "messages": [{"role": "user", "content": "Why?"}]},
        "both `prompt` and `messages`",
    ),
    ("two_names", {"question": "Why?", "prompt": "Why?"}, "both `question` and `prompt`"),
    ("typo", {**NAMED, "modle": "m"}, "`modle` is not a field of a question; did you mean `model`?"),
    (
        "content_typo",
        {"id": "q1", "qestion": "Why?"},
        "`qestion` is not a field of a question; did you mean `question`?",
    ),
    (
        "unknown",
        {**NAMED, "temperature": 0},
        "`temperature` is not a field of a question; sampling parameters go in `params`",
    ),
    (
        "answer_twice",
        {**NAMED, "answer": "B", "metadata": {"answer": "C"}},
        "`answer` is both beside the question and in its `metadata`",
    ),
    ("blank_id", {"id": " ", "question": "Why?"}, "`id` has 1 characters"),
    ("empty_id", {"id": "", "question": "Why?"}, "`id` has 0 characters"),
    ("long_id", {"id": "x" * 513, "question": "Why?"}, "`id` has 513 characters"),
    ("bool_id", {"id": True, "question": "Why?"}, "`id` is true or false, not a text or an integer"),
    (
        "huge_id",
        b'{"id": 18446744073709551616, "question": "Why?"}',
        "`id` is a number, not a text or an integer of at most 64 bits",
    ),
    ("reserved_id", {"id": "invalid-line-3", "question": "Why?"}, "reserved for questions that cannot be used"),
    ("model", {**NAMED, "model": 4}, "`model` is a number, not a text"),
    ("long_model", {**NAMED, "model": "m" * 257}, "`model` has 257 characters"),
    ("params", {**NAMED, "params": [1]}, "`params` is a list, not an object"),
    ("metadata", {**NAMED, "metadata": "x"}, "`metadata` is a text, not an object"),
    ("priority", {**NAMED, "priority": 10}, "`priority` is 10, not an integer from 0 to 9"),
    ("priority_float", {**NAMED, "priority": 1.0}, "`priority` is 1.0, not an integer"),
    ("priority_bool", {**NAMED, "priority": True}, "`priority` is true, not an integer"),
    ("deadline", {**NAMED, "deadline_s": 0}, "`deadline_s` is 0, not a number of seconds above 0"),
    ("deadline_text", {**NAMED, "deadline_s": "y" * 90}, '`deadline_s` is "' + "y" * 59 + "..., not a number"),
    ("messages", {"messages": "Why?"}, "`messages` is a text, not a list of messages"),
    ("no_messages", {"messages": []}, "there is no text in `messages`"),
    ("no_text_in_messages", {"messages": [{"role": "user", "content": " "}]}, "there is no text in `messages`"),
    ("message", {"messages": ["Why?"]}, "message 1 of `messages` is a text"),
    (
        "no_role",
        {"messages": [{"role": "user", "content": "Why?"}, {"content": "Why?"}]},
        "message 2 of `messages` has no `role`",
    ),
    ("no_content", {"messages": [{"role": "user"}]}, "has neither `content` nor `tool_calls`"),
    ("no_parts", {"messages": [{"role": "user", "content": []}]}, "neither a text nor a list of parts"),
    ("bad_part", {"messages": [{"role": "user", "content": ["Why?"]}]}, "neither a text nor a list of parts"),
]

CHAT = {"messages": [{"role": "user", "content": "Why?"}]}
BATCH = {"custom_id": "q1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}


@pytest.mark.parametrize(("body", "content"), [(CHAT, "messages"), ({"model": "m", "prompt": "Why?"}, "prompt")])
def test_a_batch_line_without_method_and_url_is_read(body: dict[str, Any], content: str) -> None:
    """As Together and Novita have it: what the body asks says which endpoint is meant."""
    question = asked({"custom_id": "q1", "body": body})

    assert (question.request_id, question.model, getattr(question, content)) == ("q1", body.get("model"), body[content])


REFUSED_BATCH_LINES: list[tuple[str, dict[str, Any], str]] = [
    (
        "url",
        {**BATCH, "url": "/v1/images"},
        '`url` is "/v1/images"; only /v1/chat/completions, /v1/completions, /v1/embeddings, /classify',
    ),
    (
        "nothing_to_ask",
        {"custom_id": "q1", "body": {"model": "m"}},
        "`body` asks nothing; /v1/chat/completions wants `messages` in it",
    ),
    ("odd_url", {**BATCH, "url": []}, "`url` is a list"),
    ("method", {**BATCH, "method": "GET"}, '`method` is "GET"; only POST can be asked'),
    ("body", {**BATCH, "body": "Why?"}, "`body` is a text, not an object"),
    (
        "no_body",
        {"custom_id": "q1", "url": "/v1/completions"},
        "`body` is null, not an object with `model` and `prompt`",
    ),
    ("other_content", {**BATCH, "url": "/v1/completions"}, "`body` asks nothing; /v1/completions wants `prompt` in it"),
    ("prompts", {**BATCH, "url": "/v1/completions", "body": {"prompt": ["Why?"]}}, "`prompt` is a list, not a text"),
    ("stream", {**BATCH, "body": {**CHAT, "stream": True}}, "`body.stream` is on"),
    (
        "metadata",
        {**BATCH, "metadata": {}, "body": {**CHAT, "metadata": {}}},
        "`metadata` is both in `body` and beside it",
    ),
    ("unknown", {**BATCH, "metod": "POST"}, "`metod` is not a field of a question; did you mean `method`?"),
]


@pytest.mark.parametrize(("line", "expected"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_bad_line_gives_a_reason_that_helps(line: bytes | dict[str, Any], expected: str) -> None:
    """It says what is wrong, and where there is one, the column."""
    assert expected in reason(line)


@pytest.mark.parametrize(
    ("line", "expected"), [case[1:] for case in REFUSED_BATCH_LINES], ids=[case[0] for case in REFUSED_BATCH_LINES]
)
def test_a_bad_batch_line_gives_a_reason_that_helps(line: dict[str, Any], expected: str) -> None:
    """It speaks of the fields that the line has, and the failure gets the line's own id."""
    assert expected in reason(line)
    assert read(line).request_id == "q1"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"id": "q1", "question": ""}, "q1"),
        ({"id": 7, "question": ""}, "7"),
        ({"question": ""}, "invalid-line-17"),
        ({"id": " ", "question": "Why?"}, "invalid-line-17"),
        ({"id": "invalid-line-3", "question": "Why?"}, "invalid-line-17"),
        (b'{"id": "q1"', "invalid-line-17"),
    ],
)
def test_an_invalid_line_keeps_an_id_that_can_be_read(line: bytes | dict[str, Any], expected: str) -> None:
    """Its failure is found under the id that its owner gave it; without one, under its place."""
    assert read(line).request_id == expected


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_line_raises(line: bytes) -> None:
    """Whatever it holds, it is a question or has a reason."""
    assert isinstance(read(line), ParsedQuestion | Invalid)


field_values = json_values | st.sampled_from(
    ["Why?", [{"role": "user", "content": "Why?"}], "POST", "/v1/completions", {"prompt": "Why?"}]
)
fields = [
    "id",
    "question",
    "prompt",
    "messages",
    "model",
    "params",
    "priority",
    "deadline_s",
    "metadata",
    "answer",
    "custom_id",
    "url",
    "body",
    "method",
]


@given(st.dictionaries(st.sampled_from(fields), field_values, max_size=4))
def test_whatever_is_accepted_can_travel(line: dict[str, Any]) -> None:
    """A question that passes here is never refused by the message that carries it."""
    question = read(line)

    if isinstance(question, ParsedQuestion):
        assert Question(
            run="r",
            index=question.index,
            request_id=question.request_id,
            model=question.model or "m",
            prompt=question.prompt,
            messages=question.messages,
            params=question.params,
            priority=question.priority or 0,
            metadata=question.metadata,
            submitted_at=0,
        )
