"""What the mender moves aside, a dead letter names: also where the dead letters themselves are damaged."""

from __future__ import annotations

import pytest
import redis

from batcher.maintenance.key_repair import KEYS_PER_SCAN, Mender
from batchfleet.admin.dead_letters import DeadLetters
from tests.hostile.attacks import KEYS, TYPED, wrong


def damage_all(client: redis.Redis) -> set[str]:
    """Something of a wrong type under every key that belongs to no run; runs are moved as a whole."""
    damaged = {key.format(worker="w") for key in TYPED.values() if KEYS.run_of(key) is None}
    for key in damaged:
        wrong(client, key, KEYS.type_of(key) or "?")
    return damaged


def test_every_key_at_once_gets_its_letter(client: redis.Redis) -> None:
    """One search mends them all, and each letter names a key under which the content still is."""
    damaged = damage_all(client)

    Mender(client, KEYS, max_dead_letters=100).search()

    letters = list(DeadLetters(client, KEYS).all())
    assert {letter.where for letter in letters} == damaged
    assert all(client.exists(letter.aside) for letter in letters)


def test_a_list_of_queues_is_mended_among_any_number_of_keys(client: redis.Redis) -> None:
    """Each step reads it, also those in which the scan of all keys has not come to it yet."""
    client.mset({f"{KEYS.namespace}:aside:{number}": "" for number in range(10 * KEYS_PER_SCAN)})
    wrong(client, KEYS.queues, "set")

    Mender(client, KEYS, max_dead_letters=100).search()

    assert [letter.where for letter in DeadLetters(client, KEYS).all()] == [KEYS.queues]


def test_nothing_is_moved_that_no_letter_can_name(client: redis.Redis) -> None:
    """Damaged between the look at the letters and the move of another key, the letters stop that move."""
    wrong(client, KEYS.pending, "hash")
    wrong(client, KEYS.dead, "stream")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        Mender(client, KEYS, max_dead_letters=100)._move(KEYS.pending, "a string where a hash belongs", "hash")

    assert client.get(KEYS.pending) == b"not yours"
    assert not list(client.scan_iter(f"{KEYS.namespace}:aside:*"))
