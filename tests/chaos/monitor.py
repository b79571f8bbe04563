"""At every look, not only at the end: each question is in a stream, in exactly one batch job, or has its record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from tests.chaos.fleet_under_test import MODEL, FleetUnderTest
from tests.chaos.schedule import PRODUCERS
from wire.codec import decode_batch, decode_question
from wire.keys import RQ_JOB_PREFIX, Keys

KEYS = Keys()
Place = tuple[str, int]
"""Run and index of a question."""

EVERY_S = 0.2
MOST_FINDINGS = 3

# One script, so that what it sees belongs to one instant. KEYS: the stream of questions, then for each run the accepted
# and the done ones.
# ARGV[1]: prefix of RQ's job keys. Returns {encoded questions in the stream, encoded batches, those of them that no
#     worker was given, bitmaps}.
_SEE = """
local waiting, batches, untouched, bitmaps = {}, {}, {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do table.insert(waiting, entry[2][2]) end
for _, job in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local batch = redis.call('HMGET', job, 'data', 'attempts')
  table.insert(batch[2] and batches or untouched, batch[1] or '')
end
for i = 2, #KEYS do table.insert(bitmaps, redis.call('GET', KEYS[i]) or '') end
return {waiting, batches, untouched, bitmaps}
"""


@dataclass(slots=True)
class ConservationWatch:
    """Looks now and then; `findings` has the first few things that must never be."""

    looks: int = 0
    findings: list[str] = field(default_factory=list)
    _next: float = 0.0

    def look(self, fleet: FleetUnderTest, now_s: float) -> None:
        """See whether every question is where it should be, if it is time to; `now_s` is only told."""
        if time.monotonic() < self._next or len(self.findings) >= MOST_FINDINGS:
            return
        self._next = time.monotonic() + EVERY_S
        seen = fleet.ask(see)
        if seen is not None:
            self.looks += 1
            self.findings += [
                f"at {now_s:.2f} s {problem}"
                for problem in problems(seen, fleet.forgotten, rolled_back=fleet.rolled_back)
            ]


@dataclass(frozen=True, slots=True)
class Instant:
    """What is in Redis at one instant.

    Attributes:
        untouched: Questions in the stream, and in batch jobs that no worker was given yet.
        begun: Questions in other batch jobs; some of them may have records already.
        accepted, done: As the ledger says.
    """

    untouched: Sequence[Place]
    begun: Sequence[Place]
    accepted: set[Place]
    done: set[Place]


def problems(seen: Instant, forgotten: Collection[str] = (), *, rolled_back: bool = False) -> list[str]:
    """What is wrong about it.

    Args:
        forgotten: Runs whose names stand for other questions by now: what is still queued of the old ones cannot be
            told from theirs here.
        rolled_back: Redis has lost its last writes: workers answer what in its eyes was never given to them.
    """
    places, accepted, done = Counter([*seen.untouched, *seen.begun]), seen.accepted, seen.done
    found = []
    if nowhere := accepted - done - places.keys():
        found.append(f"{len(nowhere)} questions without record were nowhere, such as {_some(nowhere)}")
    places = Counter({place: count for place, count in places.items() if place[0] not in forgotten})
    if twice := [place for place, count in places.items() if count > 1]:
        found.append(f"{len(twice)} questions were in two places at once, such as {_some(twice)}")
    if unknown := places.keys() - accepted:
        found.append(f"{len(unknown)} questions were in the queue but not in the ledger, such as {_some(unknown)}")
    handed_out_again = done.intersection(seen.untouched).intersection(places)
    if handed_out_again and not rolled_back:
        found.append(
            f"{len(handed_out_again)} questions with a record were waiting for their first worker, such as "
            f"{_some(handed_out_again)}"
        )
    return found


def bits(data: bytes) -> set[int]:
    """Which bits of a Redis bitmap are set."""
    return {8 * place + bit for place, byte in enumerate(data) for bit in range(8) if byte & (0x80 >> bit)}


def see(client: redis.Redis) -> Instant:
    """What is in Redis now."""
    keys = [KEYS.questions(MODEL, 0)] + [key for run in PRODUCERS for key in (KEYS.accepted(run), KEYS.done(run))]
    reply: Any = client.register_script(_SEE)(keys=keys, args=[RQ_JOB_PREFIX])
    waiting, batches, untouched, bitmaps = reply
    accepted = {(run, index) for run, data in zip(PRODUCERS, bitmaps[::2], strict=True) for index in bits(data)}
    done = {(run, index) for run, data in zip(PRODUCERS, bitmaps[1::2], strict=True) for index in bits(data)}
    return Instant(_places([*waiting, *_opened(untouched)]), _places(_opened(batches)), accepted, done)


def _opened(batches: Iterable[bytes]) -> list[bytes]:
    return [question for batch in batches for question in decode_batch(batch)]


def _places(encoded: Iterable[bytes]) -> list[Place]:
    return [(question.run, question.index) for question in map(decode_question, encoded)]


def _some(places: Iterable[Place]) -> str:
    return ", ".join(f"{run}:{index}" for run, index in sorted(places)[:3])
