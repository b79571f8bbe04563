"""`python -m fleet.bench` is `batchfleet bench`."""

import sys

from fleet.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
