"""Takes a run's records as they come, and lets Redis forget those that are on disk."""

from __future__ import annotations

import logging
import time
from typing import Any

import redis

from producer.answers.sink import Sink
from producer.options import ProducerOptions
from producer.sender import Sender
from wire.codec import decode_record
from wire.errors import LeaseLostError, MalformedMessageError, NewerMessageError
from wire.keys import Keys, run_member
from wire.messages import Answer, Failure
from wire.scripts import load_script
from wire.streams import entries_of

log = logging.getLogger(__name__)

RECORDS_PER_READ = 1000
BYTES_PER_READ = 32 * 1024 * 1024
"""About as many bytes as records to be held at once: log probabilities make megabytes of an answer."""

# One step, so that what is deleted is our claim and not that of whoever has come after us. KEYS[1] string
# run:ID:producer; ARGV[1] our token
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Collector:
    """Reads the records of one run in the order in which they were made.

    Attributes:
        open_records: Records received since `settle`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, run: str, sender: Sender, options: ProducerOptions) -> None:
        self._client = client
        self._run = run
        self._records = keys.records(run)
        self._keys = [keys.run(run), self._records, keys.producer(run)]
        self._sender = sender
        self._lease_ms = int(1000 * options.lease_s)
        self._run_ttl_s = int(options.run_ttl_s)
        self._acknowledge = client.register_script(load_script("producer", "acknowledge"))
        self._release = client.register_script(_RELEASE)
        self.open_records = 0
        self._renew_s = options.lease_s / 3
        self._renew_at = 0.0
        self._seen = b"0"
        self._acknowledged = b""
        self._keep_from = ""
        self._garbage = 0
        # Begins with a few, since nothing is known of them.
        self._largest_bytes = BYTES_PER_READ // 64

    def restart(self) -> None:
        """Read again from the oldest record that Redis has: it may have lost the news that some were handled."""
        self._seen = b"0"
        self._acknowledged = b""
        self._keep_from = ""
        self._garbage = 0

    def receive(self, wait_s: float) -> list[Answer | Failure]:
        """The next records, at most `RECORDS_PER_READ`; waits up to `wait_s` seconds for the first one.

        Raises:
            NewerMessageError: One is of a wire version to come; it stays in Redis, and so do those after it.
            QueueDamagedError: The stream has the last entry that it can ever have; call `restart` before the next try.
        """
        return [record for _, record in self.receive_entries(wait_s)]

    def receive_entries(self, wait_s: float) -> list[tuple[bytes, Answer | Failure]]:
        """The same, each with what `handled` is told of it."""
        block_ms = int(1000 * wait_s) or None
        count = max(1, min(RECORDS_PER_READ, BYTES_PER_READ // self._largest_bytes))
        reply: Any = self._client.xread({self._records: self._seen}, count=count, block=block_ms)
        entries = [entry for _, of_stream in entries_of(reply) for entry in of_stream]
        # Halves with each look, so that one giant does not slow reading for good.
        self._largest_bytes = max(self._largest_bytes // 2, 1, *(len(fields.get(b"a", b"")) for _, fields in entries))
        records = []
        for entry_id, fields in entries:
            try:
                records.append((entry_id, self._ours(decode_record(fields.get(b"a", b"")))))
            except NewerMessageError:
                if not records:
                    raise
                # Those before it first.
                break
            except MalformedMessageError as error:
                self._garbage += 1
                log.error("skipped an entry of %s: %s", self._records, error)  # noqa: TRY400 (nothing in the traceback would help)
            self._seen = entry_id
        self.open_records += len(records)
        return records

    def settle(self, sink: Sink) -> bool:
        """Let Redis drop what the sink has handled, and renew our claim to the run.

        Returns:
            Whether that made room for further questions.

        Raises:
            LeaseLostError: Another producer has taken the run over.
        """
        handled = sink.settle(self._seen)
        self.open_records = 0
        is_new = handled != self._acknowledged
        if is_new or time.monotonic() >= self._renew_at:
            if handled:
                self.handled(handled)
            self.acknowledge()
            self._renew_at = time.monotonic() + self._renew_s
            self._acknowledged = handled
        return is_new

    def written(self) -> None:
        """Take note that all that `receive` has returned so far is in the answers file."""
        self.handled(self._seen)

    def handled(self, entry_id: bytes) -> None:
        """Take note that this entry, and all before it, need not come again."""
        milliseconds, dash, counter = entry_id.decode().partition("-")
        if dash:
            self._keep_from = f"{milliseconds}-{int(counter) + 1}"

    def acknowledge(self) -> None:
        """Let Redis drop what is `written`, and renew our claim to the run and its life.

        Call it when the file is safely on disk.

        Raises:
            LeaseLostError: Another producer has taken the run over; nothing was dropped.
        """
        garbage = self._garbage if self._keep_from else 0
        claim: list[str | int] = [
            self._sender.token,
            self._lease_ms,
            self._keep_from,
            garbage,
            self._run_ttl_s,
            self._sender.epoch,
        ]
        if not self._acknowledge(keys=self._keys, args=claim):
            raise LeaseLostError("another producer has taken this run over")
        if self._keep_from:
            self._keep_from, self._garbage = "", 0

    def release(self) -> None:
        """Let another producer take the run at once."""
        self._release(keys=[self._keys[2]], args=[self._sender.token])

    def _ours(self, record: Answer | Failure) -> Answer | Failure:
        if (record.run, record.epoch) != (self._run, self._sender.epoch):
            raise MalformedMessageError(f"a record of run {run_member(record.run, record.epoch)}")
        return record
