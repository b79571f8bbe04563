"""The dialect: what plain words mean, and what is too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfleet.settings.yaml_dialect import MAX_DEPTH, MAX_NODES, dump
from batchfleet.settings.yaml_lines import NotOurYamlError, parse, plain


def read(text: str) -> object:
    """The data of a text."""
    return plain(parse(text, "F").value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-3", 0.001),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("-3", -3),
        ("0x1F", 31),
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("010", "010"),
        ("0o17", "0o17"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("meta-llama/Llama-2-7b", "meta-llama/Llama-2-7b"),
        ("1.2.3", "1.2.3"),
        ("y", "y"),
        ("!!str 5", "5"),
    ],
)
def test_plain_words_mean_what_they_look_like(word: str, value: object) -> None:
    """Numbers people write are numbers; dates, clock times and leading zeros are texts."""
    assert read(f"a: {word}") == {"a": value}


def test_an_alias_stands_for_its_anchor() -> None:
    """Aliases are fine as long as they stay small."""
    assert read("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, f"more than {MAX_DEPTH} levels"),
        ("a: " + "{a: " * 40, f"more than {MAX_DEPTH} levels"),
        ("? " * 50_000, f"more than {MAX_DEPTH} levels"),
        ("a: &x [*x]", f"more than {MAX_DEPTH} levels"),
        ("a: [" + "1," * 45_000, f"more than {MAX_NODES} values"),
        (
            "a: &a ["
            + "1," * 100
            + "]\nb: &b ["
            + "*a," * 100
            + "]\nc: &c ["
            + "*b," * 100
            + "]\nd: ["
            + "*c," * 100
            + "]",
            f"more than {MAX_NODES} values",
        ),
        ("a: " + "x" * 1024 * 1024, "larger than 1048576 bytes"),
        ("a: " + "9" * 10_000, "more than 40 digits"),
    ],
    ids=["brackets", "braces", "complex-keys", "self", "list", "aliases", "size", "digits"],
)
def test_what_no_settings_need_is_refused_before_it_costs_anything(text: str, words: str) -> None:
    """Among them a few lines that would expand to a hundred million values."""
    with pytest.raises(NotOurYamlError, match=words):
        parse(text, "F")


def test_as_many_values_as_allowed_are_read() -> None:
    """The bound is about values, not about keys or characters."""
    text = "a: [" + "1," * (MAX_NODES - 2) + "]"

    assert read(text) == {"a": [1] * (MAX_NODES - 2)}


def test_a_repeated_key_inside_a_value_is_warned_about() -> None:
    """Also where any key is allowed."""
    parsed = parse("vllm_args:\n  a: 1\n  b: 2\n  a: 3\n", "F")

    assert plain(parsed.value) == {"vllm_args": {"b": 2, "a": 3}}
    assert parsed.warnings == ("F:4: a: given at F:2 already; what stands here counts, what stands there is ignored",)


TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "1e3",
        "yes",
        "<<",
        "=",
        "~",
        "null",
        "010",
        "0x1",
        "1_0",
        ".inf",
        "2024-01-01",
        "12:30",
        "a: b",
        "# c",
        "- x",
        "\x85",
        "\ufeff",
    ]
)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(data=st.dictionaries(TEXTS, DATA, max_size=4), one_line=st.booleans())
def test_what_is_dumped_is_read_back(data: dict[str, object], *, one_line: bool) -> None:
    """Reader and writer agree on which words need quotes."""
    assert read(dump(data, one_line=one_line)) == data
