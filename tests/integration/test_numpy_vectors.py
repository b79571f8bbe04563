"""Vectors in Python, as NumPy's arrays. Run beside vLLM, which brings NumPy; without it, the program is told."""

from __future__ import annotations

import importlib.util
import json
import math
from array import array
from importlib import import_module

import pytest

from batchfleet import Answer, Fleet, Question


def asked(*questions: Question) -> dict[str, Answer]:
    """Answers of a fleet with the stub, by id."""
    with Fleet.local("stub") as fleet:
        return {answer.id: answer for answer in fleet.answer(questions)}


@pytest.mark.vllm
def test_vectors_come_as_arrays_of_float32() -> None:
    """The numbers of the answer's line, one row for each text; they belong to the program, which may change them."""
    numpy = import_module("numpy")
    answers = asked(
        Question(input=["one", "two"], id="two", params={"dimensions": 6}),
        Question(query="q", documents=["a", "b", "c"], id="scores"),
        Question("Why?", id="text"),
    )

    two = answers["two"].arrays
    assert (two.dtype, two.shape) == (numpy.float32, (2, 6))
    assert two.tolist() == [array("f", vector).tolist() for vector in answers["two"].vectors or ()]
    line = json.loads(json.dumps(answers["two"].as_dict()))
    assert numpy.allclose(line["embeddings"], two)
    assert float(numpy.linalg.norm(answers["two"].array)) == pytest.approx(1, abs=1e-3)
    two *= 2
    assert (answers["scores"].array.dtype, answers["scores"].array.shape) == (numpy.float32, (3,))
    with pytest.raises(ValueError, match="this answer is a text"):
        answers["text"].arrays  # noqa: B018 (it is the access that fails)


@pytest.mark.skipif(importlib.util.find_spec("numpy") is not None, reason="NumPy is installed")
def test_without_numpy_there_are_bytes() -> None:
    """Of the same numbers; the array raises ImportError, which names NumPy."""
    answer = asked(Question(input="one", id="one", params={"dimensions": 6}))["one"]

    assert answer.vectors is not None
    (vector,) = answer.vectors
    assert math.hypot(*array("f", vector)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ImportError, match="numpy"):
        answer.array  # noqa: B018 (it is the access that fails)
