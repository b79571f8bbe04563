"""What attacks name as function, callback or class: whoever imports it leaves a file behind.

A worker could: it is on its path.
"""

import os
from pathlib import Path

Path(os.environ["HOSTILE_MARKER"]).touch()


def call(*_: object) -> None:
    """Importing this was too much already."""
