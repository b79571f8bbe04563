"""A real Prometheus, as scripts/test-gateway unpacks it."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import yaml

from batchfleet.supervisor.processes import stop_all
from tests.processes import PATIENCE_S, ROOT, wait_until

FOLDER = os.environ.get("PROMETHEUS_FOLDER", "")
ALERTS = ROOT / "deploy/prometheus/alerts.yml"


class Prometheus:
    """A real one, on a port of its own choice."""

    def __init__(self, folder: Path, targets: list[str], labels: Mapping[str, str] | None = None) -> None:
        self._log = folder / "prometheus.log"
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": "batchfleet", "static_configs": [{"targets": targets, "labels": dict(labels or {})}]}
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        flags = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--web.listen-address=127.0.0.1:0"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 (Debian's)
                [f"{FOLDER}/prometheus", *flags], cwd=folder, stdout=log, stderr=log
            )
        wait_until(self._listens, "Prometheus listens")
        found = self._listens()
        assert found is not None
        self._address = f"http://127.0.0.1:{found[1]}"
        wait_until(self._is_ready, "Prometheus is ready")

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query gives now."""
        reply = httpx2.get(f"{self._address}/api/v1/query", params={"query": query}, timeout=PATIENCE_S).json()
        found: dict[str, Any] = reply["data"]
        return [{"value": found["result"]}] if found["resultType"] == "scalar" else list(found["result"])

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        stop_all([self.process], grace_s=10)

    def _listens(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self._log.read_text()
        return re.search(r"msg=\"Listening on\".* address=127\.0\.0\.1:(\d+)", self._log.read_text())

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self._address}/-/ready", timeout=PATIENCE_S).status_code == 200
        except httpx2.TransportError:
            return False


def figures(samples: list[dict[str, Any]]) -> list[float]:
    """Their values, without NaN and infinity."""
    return [value for sample in samples if math.isfinite(value := float(sample["value"][1]))]
