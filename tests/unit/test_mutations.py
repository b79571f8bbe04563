"""The list of mutations is current. That each is noticed is seen by `scripts/mutate`, which takes minutes."""

from __future__ import annotations

from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, PROMISES

ROOT = Path(__file__).parent.parent.parent


def test_every_mutation_still_applies() -> None:
    """Its line is there once, and so is its test."""
    for mutation in MUTATIONS:
        assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.before) == 1, mutation.what
        path, _, name = mutation.test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), mutation.what


def test_every_promise_is_broken_once() -> None:
    """A promise that no mutation breaks may have no test."""
    assert {mutation.promise for mutation in MUTATIONS} == set(PROMISES)
