"""The table of keys, which is what operators and the repair of damaged keys go by."""

from __future__ import annotations

import re

import wire.keys
from wire.keys import Keys

ROW = re.compile(r"^\| ([a-zA-Z:-]+) +\| (string|hash|list|set|zset|stream|bitmap) +\|", re.MULTILINE)


def test_every_key_of_the_table_is_known_with_its_type() -> None:
    """A key whose type nobody knows is never repaired: whoever damages it stops what needs it, for good."""
    rows = ROW.findall(wire.keys.__doc__ or "")
    known = {name: Keys().type_of(f"batchfleet:{name}") for name, _ in rows}

    assert len(rows) >= 33
    assert known == {name: {"bitmap": "string"}.get(kind, kind) for name, kind in rows}
