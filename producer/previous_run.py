"""What the fleet still has of a run whose file has changed: it is taken before the answers become another run's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import redis

from producer.answers.answers_file import AnswersFile
from producer.answers.sink import Received
from producer.collector import RECORDS_PER_READ
from producer.file_run import FileSink
from producer.options import ProducerOptions
from producer.run_loop import RunLoop
from producer.run_tally import RunTally
from producer.sender_thread import NotFinishedError, RunPlan
from producer.stream_source import StreamSource
from wire.address import RedisAddress
from wire.codec import decode_record, run_counts
from wire.connection import connect
from wire.errors import MalformedMessageError, NewerMessageError
from wire.keys import Keys
from wire.redis_errors import translated


class PreviousRun:
    """Of one run.

    Args:
        fingerprint: What it was made of; a run of the same name that was made of something else is not ours.
    """

    def __init__(self, address: RedisAddress, run: str, fingerprint: Mapping[str, str]) -> None:
        self._address = address
        self._run = run
        self._fingerprint = dict(fingerprint)
        self._keys = Keys(address.namespace)

    def count(self) -> int:
        """How many of its questions were accepted, and have a record that nobody took, or none yet."""
        with translated(self._address), connect(self._address) as client:
            names = ("fingerprint", "accepted", "acknowledged")
            stored, *counts = client.hmget(self._keys.run(self._run), names)
            try:
                is_ours = stored is not None and orjson.loads(stored) == self._fingerprint
            except orjson.JSONDecodeError:
                is_ours = False
            if not is_ours:
                return 0
            accepted, acknowledged = run_counts(self._run, counts)
            return accepted - acknowledged

    def collect(self, answers: AnswersFile, options: ProducerOptions, check: Callable[[], bool]) -> None:
        """Write the records of all that was accepted, and wait for those that are still to come.

        Args:
            answers: Gets them; what it has already is not written again.
            check: Called several times a second; may raise, and returns whether to stop.

        Raises:
            NotFinishedError: Stopped before.
            FleetError: As of `RunLoop`.
        """
        there = self._ids_there(answers)

        def look_around() -> None:
            if check():
                raise NotFinishedError(f"stopped before all that the fleet has of run {self._run} was there")

        plan = RunPlan(self._run, self._fingerprint, int(self._fingerprint.get("count", -1)), sends=False)
        sink = _NewOnly(answers, there)
        loop = RunLoop(self._address, options, plan, StreamSource(self._run, None), sink, look_around)
        try:
            loop.open()
        except BaseException:
            loop.leave()
            raise
        loop.serve()

    def _ids_there(self, answers: AnswersFile) -> set[str]:
        """Ids of the answers file whose records Redis still has, because nobody has told it yet."""
        waiting: set[str] = set()
        with translated(self._address), connect(self._address) as client:
            for data in _records(client, self._keys.records(self._run)):
                try:
                    waiting.add(decode_record(data).request_id)
                except (MalformedMessageError, NewerMessageError):
                    continue
        return {fields["id"] for _, _, fields in answers.lines() if fields["id"] in waiting} if waiting else waiting


class _NewOnly(FileSink):
    """Writes what the file has not."""

    def __init__(self, answers: AnswersFile, there: set[str]) -> None:
        super().__init__(answers, RunTally(0), stop_when_alike=0)
        self._there = there

    def put(self, records: Sequence[Received]) -> None:
        super().put([(entry, record) for entry, record in records if record.request_id not in self._there])


def _records(client: redis.Redis, stream: str) -> Iterator[bytes]:
    start = "-"
    while True:
        entries: Any = client.xrange(stream, start, count=RECORDS_PER_READ // 2)
        if not entries:
            return
        for _, fields in entries:
            yield fields.get(b"a", b"")
        start = f"({entries[-1][0].decode()}"
