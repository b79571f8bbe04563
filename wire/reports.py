"""What a batcher says of itself in Redis, as others read it.

What cannot be read was written by a stranger, and is ignored.
"""

from __future__ import annotations

import json
import math
from typing import Any


def batcher_report(text: bytes) -> dict[str, Any] | None:
    """A batcher's report, with its state and its time; None if it is not a report."""
    try:
        report: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or not isinstance(report.get("state"), str):
        return None
    at = report.get("at")
    return report if isinstance(at, int | float) and math.isfinite(at) else None
