"""Which runs a sweep makes, and what they are called."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfleet.settings.schema import SweepSettings
from batchfleet.sweep.combinations import MAX_COMBINATIONS, MAX_NAME_CHARS, combinations
from wire.errors import UsageError


def made(**sweep: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401 (whatever YAML can hold)
    """The overrides of each run, by its name."""
    return {combination.name: dict(combination.overrides) for combination in combinations(SweepSettings(**sweep))}


def test_a_grid_is_every_combination_of_its_values() -> None:
    """The last key changes fastest; names say what differs."""
    assert made(grid={"temperature": [0.0, 0.7], "max_tokens": [5, 100]}) == {
        "temperature-0.0_max_tokens-5": {"temperature": 0.0, "max_tokens": 5},
        "temperature-0.0_max_tokens-100": {"temperature": 0.0, "max_tokens": 100},
        "temperature-0.7_max_tokens-5": {"temperature": 0.7, "max_tokens": 5},
        "temperature-0.7_max_tokens-100": {"temperature": 0.7, "max_tokens": 100},
    }


def test_listed_runs_are_what_they_say() -> None:
    """With a name of their own or one made of their settings; dotted keys go by their last part."""
    assert made(runs=[{"name": "greedy", "temperature": 0.0}, {"vllm_args.max_num_seqs": 64, "top_p": 0.9}]) == {
        "greedy": {"temperature": 0.0},
        "max_num_seqs-64_top_p-0.9": {"vllm_args.max_num_seqs": 64, "top_p": 0.9},
    }


def test_listed_runs_and_a_grid_are_multiplied() -> None:
    """Each model, at each temperature."""
    assert made(
        runs=[{"name": "a", "hf_model_id": "org/a"}, {"name": "b", "hf_model_id": "org/b"}],
        grid={"temperature": [0.0, 1.0]},
    ) == {
        f"{model}_temperature-{temperature}": {"hf_model_id": f"org/{model}", "temperature": temperature}
        for model in ("a", "b")
        for temperature in (0.0, 1.0)
    }


def test_values_that_look_alike_in_a_name_get_different_names() -> None:
    """Also where a file system takes capitals for small letters."""
    names = list(made(grid={"stop": ["a/b", "a b", "A-B"], "top_k": [-1, 1]}))

    assert len({name.lower() for name in names}) == 6


VALUES = st.lists(st.text(max_size=200), min_size=1, max_size=4, unique=True)


@given(st.dictionaries(st.text(min_size=1, max_size=20), VALUES, min_size=1, max_size=3))
def test_every_name_can_be_a_file_and_a_run(grid: dict[str, Any]) -> None:
    """Whatever the values are; and no two runs have the same one."""
    try:
        names = [combination.name for combination in combinations(SweepSettings(grid=grid))]
    except UsageError:
        return

    assert all(0 < len(name) <= MAX_NAME_CHARS for name in names)
    assert all(
        set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") and name[0].isalnum()
        for name in names
    )
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("sweep", "complaint"),
    [
        ({}, "nothing is swept"),
        ({"grid": {"temperature": 0.7}}, "sweep.grid.temperature: it must be a list"),
        ({"grid": {"temperature": []}}, "sweep.grid.temperature: it must be a list"),
        ({"grid": {"temperature": [0.7, 0.7]}}, "twice"),
        ({"grid": {"redis.url": ["redis://a", "redis://b"]}}, "sweep.grid.redis.url: cannot be swept"),
        (
            {"grid": {"temperature": [0.7]}, "runs": [{"temperature": 0.1}]},
            "sweep.runs, entry 1: temperature is in the grid as well",
        ),
        ({"runs": [{}]}, "sweep.runs, entry 1: it must be a mapping"),
        ({"runs": [{"name": "///", "temperature": 0.1}]}, "sweep.runs, entry 1: `name`"),
        ({"runs": [{"name": "one", "top_k": 1}, {"name": "One", "top_k": 2}]}, "two runs would be called One"),
        (
            {"grid": {"top_k": list(range(20)), "seed": list(range(20))}},
            f"20 top_k x 20 seed are 400 combinations, and {MAX_COMBINATIONS}",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(sweep: dict[str, Any], complaint: str) -> None:
    """What, where, and what to do, before anything begins."""
    with pytest.raises(UsageError) as raised:
        made(**sweep)

    assert complaint in str(raised.value)
