"""`python -m fleet.bench.sampled FILE ARGUMENTS` is `batchfleet ARGUMENTS`, with its samples in FILE at the end."""

from __future__ import annotations

import sys
from pathlib import Path

from fleet import cli
from fleet.bench.sampling import sampling


def main() -> int:
    path, *arguments = sys.argv[1:]
    with sampling(Path(path)):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
