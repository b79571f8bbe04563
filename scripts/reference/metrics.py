"""The text of docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchfleet.metrics import names
from batchfleet.metrics.names import Name

HEAD = """\
# Metrics

<!-- Written by `.venv/bin/python -m scripts.reference.metrics >docs/metrics.md`. Edit scripts/reference/metrics.py or batchfleet/metrics/names.py instead. -->

Batchers and workers can be scraped by Prometheus. It is off by default; this turns it on:

    metrics:
      port: 9400

Each process takes the first free port from there on, at most `metrics.ports` of them, and answers at `/metrics`. So with the same configuration
a host's batcher and its workers have ports 9400, 9401 and so on, and Prometheus may be given all of them as targets:

    scrape_configs:
      - job_name: batchfleet
        static_configs:
          - targets: ["localhost:9400", "localhost:9401", "localhost:9402", "localhost:9403"]

`metrics.port: 0` takes any free port. `batchfleet status --json` says where each process can be scraped. Only this machine can reach the endpoint
unless `metrics.host` says otherwise (`0.0.0.0` in a container). There is no password: whoever reaches it reads model names and counts, never
questions or answers.

A scrape reads counters that are kept anyway, in a thread of its own, one scrape at a time; it does not touch the path of a question. Counters
begin at 0 with each process, as Prometheus expects. Process metrics (`process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_start_time_seconds`, ...) come along on Linux.
"""
WORKER_WORDS = "Of each worker; `model` is its model."
BATCHER_WORDS = "Of each batcher, what it handed over itself."
FLEET_WORDS = "Of the whole fleet, given by the batcher that leads, which asks Redis at each scrape."
TAIL = """\
## Alerts

    # Nobody hands out questions.
    sum(batchfleet_batcher_leading) < 1
    # Questions wait, and nothing is answered.
    max(batchfleet_pending_questions) > 0 and sum(rate(batchfleet_worker_answered_questions_total[10m])) == 0
    # Something waits longer than it should.
    batchfleet_queue_oldest_seconds > 3600
    # More than one question in twenty fails.
    sum(rate(batchfleet_worker_failed_questions_total[10m])) / sum(rate(batchfleet_worker_answered_questions_total[10m])) > 0.05
    # Engines keep dying.
    increase(batchfleet_engine_deaths_total[1h]) > 3
    # Redis fills up.
    batchfleet_redis_memory_used_bytes > 0.8 * (batchfleet_redis_memory_max_bytes > 0)
    # Somebody must look at what could not be read.
    batchfleet_dead_letters > 0

How full the engines are: `sum(batchfleet_worker_in_flight_questions) / sum(batchfleet_worker_capacity_questions)`. How full batches are:
`rate(batchfleet_batcher_batch_questions_sum[5m]) / rate(batchfleet_batcher_batch_questions_count[5m])`.
"""


def text() -> str:
    """The whole page, as Markdown."""
    tables = (
        ("Workers", WORKER_WORDS, names.WORKER),
        ("Batchers", BATCHER_WORDS, names.BATCHER),
        ("Fleet", FLEET_WORDS, names.FLEET),
    )
    return "\n".join([HEAD, *("\n".join(_section(*table)) for table in tables), TAIL])


def _section(title: str, words: str, metrics: Iterable[Name]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{words}\n"
    yield "| metric | type | labels | what it says |"
    yield "|---|---|---|---|"
    for metric in metrics:
        yield f"| `{metric.full}` | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.words} |"
    yield ""


if __name__ == "__main__":
    print(text(), end="")
