"""`python -m fleet` is `python -m batchfleet`."""

import sys

from batchfleet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
