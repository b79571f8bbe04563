"""What a figure was measured on and with. No host names and no paths: tables are there to be published."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from batchfleet.supervisor.embedded_server import find_server

_PACKAGES = ("batchfleet", "redis", "hiredis", "rq", "msgpack", "pydantic", "orjson", "uvloop")


def describe_machine() -> dict[str, str]:
    """Processor, cores, date and versions; the load is that of the minute before now."""
    # Of the server that a private Redis is; it says `Redis server v=7.0.15 ...`.
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 (the one that we start)
    found = re.search(r"^(\w+) server v=(\S+)", said)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
        ),
        "cores": str(os.cpu_count()),
        "load_before": f"{os.getloadavg()[0]:.2f}",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "redis_server": f"{found[1]} {found[2]}" if found else "unknown",
        **{name: _version(name) for name in _PACKAGES},
    }


def in_words(machine: dict[str, str]) -> str:
    """One line for people, to stand above a table."""
    versions = ", ".join(f"{name} {machine[name]}" for name in _PACKAGES)
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, load {machine['load_before']} before, "
        f"{machine['system']}, "
        f"Python {machine['python']}, {machine['redis_server']}, {versions}"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of this tree" if package == "batchfleet" else "none"
