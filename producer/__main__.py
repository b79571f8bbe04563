"""`python -m producer` is `batchfleet submit`.

A composition root: the only place of this package that may know `fleet`.
"""

import sys

from batchfleet.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["submit", *sys.argv[1:]]))
