"""The text of docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchfleet.metrics import names
from batchfleet.metrics.names import Name

HEAD = """\
# Metrics

<!-- Written by `.venv/bin/python -m scripts.reference.metrics >docs/metrics.md`. Edit scripts/reference/metrics.py or batchfleet/metrics/names.py instead. -->

Prometheus can scrape batchers and workers if it is turned on:

    metrics:
      port: 9400

Each process takes the first free port from there, of `metrics.ports`, and answers at `/metrics`. Give Prometheus as many targets as there are processes:

    scrape_configs:
      - job_name: batchfleet
        static_configs:
          - targets: ["localhost:9400", "localhost:9401", "localhost:9402", "localhost:9403"]

`metrics.port: 0` takes any free port; `batchfleet status --json` lists the addresses. Only this machine can reach them unless `metrics.host` says
otherwise (`0.0.0.0` in a container). There is no password: the endpoint shows model names and counts, never questions or answers. Counters begin at 0
with each process. On Linux, process metrics (`process_cpu_seconds_total`, `process_resident_memory_bytes`, ...) are included.
"""
WORKER_WORDS = "Of each worker and its `model`."
BATCHER_WORDS = "Of each batcher, for what it handed over itself."
GATEWAY_WORDS = "Of each gateway, at `/metrics` of its own address, without a key, whatever `metrics.port` says."
FLEET_WORDS = "Of the whole fleet, from the leading batcher, which asks Redis at each scrape."
TAIL = """\
## Dashboards and alerts

Import `deploy/grafana/batchfleet.json` into Grafana (Dashboards, New, Import), and name the Prometheus that scrapes the fleet.
`deploy/prometheus/alerts.yml` has alerts, each with what to do. `deploy/prometheus/prometheus.yml` shows how both files are used:

    prometheus --config.file=deploy/prometheus/prometheus.yml

`scripts/test-gateway` evaluates every query of both on a fleet under load.
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
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for metric in metrics:
        yield f"| `{metric.full}` | {metric.kind} | {', '.join(metric.labels) or '-'} | {metric.words} |"
    yield ""


if __name__ == "__main__":
    print(text(), end="")
