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
GATEWAY_WORDS = "Of each gateway, at `/metrics` of its own address, whatever `metrics.port` says; no key is needed."
FLEET_WORDS = "Of the whole fleet, given by the batcher that leads, which asks Redis at each scrape."
TAIL = """\
## Dashboards and alerts

`deploy/grafana/batchfleet.json` is a dashboard of all of it: Grafana, Dashboards, New, Import, and name the Prometheus that scrapes the fleet.
`deploy/prometheus/alerts.yml` has the alerts, each with what to do; `deploy/prometheus/prometheus.yml` shows how both files are named:

    prometheus --config.file=deploy/prometheus/prometheus.yml

`scripts/test-gateway` evaluates every query of both against a Prometheus that scrapes a fleet under load.
"""


def text() -> str:
    """The whole page, as Markdown."""
    tables = (
        ("Workers", WORKER_WORDS, names.WORKER),
        ("Batchers", BATCHER_WORDS, names.BATCHER),
        ("Fleet", FLEET_WORDS, names.FLEET),
        ("Gateways", GATEWAY_WORDS, names.GATEWAY),
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
