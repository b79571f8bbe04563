"""Samples `batchfleet ARGUMENTS` into FILE: `python -m benchmarks.profiled_main FILE ARGUMENTS`."""

from __future__ import annotations

import sys
from pathlib import Path

from batchfleet.cli.main import main as batchfleet
from benchmarks.cpu_profiler import sampling


def main() -> int:
    path, *arguments = sys.argv[1:]
    with sampling(Path(path)):
        return batchfleet(arguments)


if __name__ == "__main__":
    sys.exit(main())
