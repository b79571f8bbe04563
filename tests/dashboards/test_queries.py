"""Every query of the dashboard and of the alerts, asked of a real Prometheus that scrapes a fleet under load.

scripts/test-gateway unpacks Prometheus where it is missing.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import yaml

from batchfleet.metrics.exposition import expose
from batchfleet.metrics.worker_metrics import WorkerMetrics
from batchfleet.settings.schema import MetricsSettings
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.gpus.devices import GpuUse
from gpu_worker.reports.worker_report import Report
from tests.dashboards.prometheus import ALERTS, FOLDER, Prometheus, figures
from tests.processes import PATIENCE_S, ROOT, Processes, batchfleet, wait_until, write_questions
from tests.submissions import KEYS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="PROMETHEUS_FOLDER names no folder of Prometheus: see scripts/test-gateway"),
]
DASHBOARD = ROOT / "deploy/grafana/batchfleet.json"
CHECKS = (
    ["test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
    ["check", "config", str(ALERTS.with_name("prometheus.yml"))],
)
COMPARISON = re.compile(r"==|!=|<=|>=|<|>")
SELECTOR = re.compile(r"(\{[^}]*\})")


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """(Where, query) of each panel, with Grafana's variables as it would fill them in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$__rate_interval", "10s").replace("$model", ".*")
            assert "$" not in query
            yield f"{panel['title']} {target['refId']}", query


def alert_queries() -> Iterator[tuple[str, str]]:
    """(Name, query) of each alert, whose comparisons give 0 or 1: without an alert there would be nothing to see."""
    for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]:
        # Those in braces say which series are meant.
        parts = [
            part if part.startswith("{") else COMPARISON.sub(r"\g<0> bool", part)
            for part in SELECTOR.split(rule["expr"])
        ]
        yield rule["alert"], "".join(parts)


def test_each_alert_fires_and_none_without_a_reason() -> None:
    """By Prometheus' own tests of rules, on made-up figures; and it takes the example configuration."""
    for command in CHECKS:
        done = subprocess.run([f"{FOLDER}/promtool", *command], capture_output=True, text=True, check=False)  # noqa: S603
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_gives_figures(tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """Of a fleet under load, with failures, with a GPU and a dead engine that are made up, and of its gateway."""
    write_questions(tmp_path / "questions.jsonl", 50_000)
    settings = {
        "BATCHFLEET_METRICS_PORT": "0", "BATCHFLEET_STUB_STEP_S": "0.02", "BATCHFLEET_STUB_REFUSE_ON": "7.",
    }  # fmt: skip
    with Processes(redis_server.url, tmp_path, settings) as fleet:
        client.config_set("maxmemory", "500mb")
        client.hincrby(KEYS.engine_deaths, "stub", 1)
        fleet.batcher()
        fleet.worker()
        fleet.start("gateway", "gateway", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"))
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        wait_until(lambda: re.search(r"listening on http://(\S+)/v1", fleet.log("gateway")), "the gateway listens")
        wait_until(lambda: has_failed(client), "a question has failed")
        status = json.loads(batchfleet("status", "--redis", redis_server.url, "--json").stdout)
        gateway = re.search(r"listening on http://(\S+)/v1", fleet.log("gateway"))
        assert gateway is not None
        # The stub has no GPU that could be asked; a report of one is shown as a worker shows its own.
        report = Report("imaginary", "stub", capacity=1, gpu_use=(GpuUse("GPU-0", 1 << 30, 80 << 30, 93),))
        targets = [one["metrics"] for one in (*status["workers"], *status["batchers"])]
        targets.append(expose(WorkerMetrics(report), MetricsSettings(port=0)))
        prometheus = Prometheus(tmp_path, [*targets, gateway[1]])
        try:
            left = dict([*dashboard_queries(), *alert_queries()])
            asked = len(left)

            def all_give_figures() -> bool:
                # Requests of the gateway, some of them refused: its own metrics do not count them otherwise.
                httpx2.get(f"http://{gateway[1]}/v1/models", timeout=PATIENCE_S)
                for where in [where for where, query in left.items() if figures(prometheus.ask(query))]:
                    del left[where]
                return not left

            try:
                wait_until(all_give_figures, "every query gives figures", 120)
            finally:
                print(f"{asked - len(left)} of {asked} queries gave figures; the others: {left}")
            firing = prometheus.ask('ALERTS{alertstate="firing", severity="critical"}')
            assert not firing, firing
        finally:
            prometheus.stop()


def has_failed(client: redis.Redis) -> bool:
    """Whether the worker has reported a failure."""
    names: Any = client.zrange(KEYS.workers, 0, 0)
    failed: Any = client.hget(KEYS.worker(names[0].decode()), "failed") if names else None
    return int(failed or 0) > 0
