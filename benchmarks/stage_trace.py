"""When one question passed each station, by the clock of Redis, which sees all of them."""

from __future__ import annotations

import threading
import time
from typing import Self

import redis

from wire.errors import FleetError
from wire.keys import Keys

STAGES = {
    "submitted": "producer: encode, send, accepted by Redis",
    "noticed": "batcher: wakes up and asks who is hungry",
    "lingered": "batcher: waits for company (`leases.linger_s`), makes the job",
    "handed_over": "batcher: hands it over, all of it within Redis",
    "claimed": "worker: wakes up and claims the batch",
    "published": "worker: decodes, answers, writes the record",
    "collected": "producer: wakes up and decodes the record",
}
"""In the order in which a question passes them."""

ARRIVES_WITHIN_S = 2.0


class Trace:
    """Everything that Redis does while the `with` block runs.

    It slows Redis down, so never measure anything else with it.
    """

    def __init__(self, url: str, keys: Keys, model: str) -> None:
        self._client = redis.Redis.from_url(url, protocol=2)
        self._seen: list[tuple[float, str]] = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._ended = False
        queue, questions = keys.rq_queue(model), keys.questions(model, 0)
        # How each stage ends, as the beginning of a command in lower case. Scripts are heard command by command:
        # batcher/handover.lua.
        self._ends = {
            "submitted": f"xadd {questions} ",
            "noticed": f"llen {queue}",
            "lingered": f"del {keys.leader}:nothing",
            "handed_over": f"xdel {questions} ",
            "claimed": f"lpop {queue}",
            "published": f"xadd {keys.records('latency')} ",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait(ARRIVES_WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        # Something for it to hear, so that it looks up.
        self._client.ping()
        self._thread.join()
        self._client.close()

    def stages(self, sent_at: float, received_at: float) -> dict[str, float]:
        """Seconds in each stage, for the one question that was sent and received at these times.

        They are Unix times on the machine of Redis.
        """
        self._catch_up(received_at)
        took, at = {}, sent_at
        remaining = iter([(when, command) for when, command in self._seen if when >= sent_at])
        for name, start in self._ends.items():
            when = next((when for when, command in remaining if command.startswith(start)), None)
            if when is None:
                raise FleetError(
                    f"the trace of a question has no {start.split(' ', maxsplit=1)[0].upper()}, "
                    f"which ends its stage {name!r}"
                )
            took[name], at = when - at, when
        self._seen.clear()
        return {**took, "collected": received_at - at}

    def _catch_up(self, until: float) -> None:
        """Wait until what happened before `until` was heard: a command of our own, made after it, says so."""
        deadline = time.monotonic() + ARRIVES_WITHIN_S
        mark = f"echo {until:.6f}"
        self._client.echo(f"{until:.6f}")
        while time.monotonic() < deadline and not any(command == mark for _, command in self._seen[-20:]):
            time.sleep(0.001)

    def _listen(self) -> None:
        with self._client.monitor() as monitor:
            self._listening.set()
            while not self._ended:
                heard = monitor.next_command()
                self._seen.append((heard["time"], heard["command"].lower()))
