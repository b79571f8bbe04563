"""`python -m gpu_worker` is `batchfleet worker`.

A composition root: the only place of this package that may know `fleet`.
"""

import sys

from batchfleet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["worker", *sys.argv[1:]]))
