"""Tokens of a dry run are counted by the model's own tokenizer, where there is the package for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchfleet.runs.token_count import token_counter

pytestmark = pytest.mark.vllm


def test_a_models_own_tokenizer_counts(tmp_path: Path) -> None:
    """A token a word here, for which the rule of thumb counts four characters each; a file that is none: the rule."""
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({"word": 0, "?": 1}, unk_token="?")  # noqa: S106 (no password)
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    own = token_counter(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    rule = token_counter(str(tmp_path))

    assert (own.name, own.count("word " * 30)) == ("by the model's tokenizer", 30)
    assert (rule.name.partition(",")[0], rule.count("word " * 30)) == ("4 characters each", 38)
