"""How many tokens a text is, before any engine has seen it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHARS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts; `name` says how, for people."""

    name: str
    count: Callable[[str], int]


def token_counter(model: str) -> TokenCounter:
    """The model's own tokenizer if it is on this machine and the package tokenizers is installed, else a rule of thumb.

    Nothing is downloaded.
    """
    home = Path(os.path.expanduser(os.environ.get("HF_HOME", "~/.cache/huggingface")))  # noqa: PTH111 (where others keep it)
    snapshots = home / "hub" / f"models--{model.replace('/', '--')}" / "snapshots"
    found = [Path(model) / "tokenizer.json", *sorted(snapshots.glob("*/tokenizer.json"))]
    file = next((path for path in reversed(found) if path.is_file()), None)
    if file is not None:
        try:
            # Only here: few have it, and it takes a while.
            from tokenizers import Tokenizer  # noqa: PLC0415

            tokenizer = Tokenizer.from_file(str(file))
        except Exception:  # noqa: BLE001, S110 (not installed, or a file that it cannot read: an estimate is all that is lost)
            pass
        else:
            return TokenCounter("by the model's tokenizer", lambda text: len(tokenizer.encode(text).ids))
    return TokenCounter(
        f"{CHARS_PER_TOKEN} characters each, as the model's tokenizer is not here",
        lambda text: -(-len(text) // CHARS_PER_TOKEN),
    )
