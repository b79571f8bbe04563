"""`python -m benchmarks` measures this fleet on this machine."""

import sys

from benchmarks.cli import main

if __name__ == "__main__":
    sys.exit(main())
