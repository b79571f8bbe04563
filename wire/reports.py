"""What a batcher says of itself in Redis, as others read it.

What cannot be read was said by somebody else, and is passed over.
"""

from __future__ import annotations

import json
import math
from typing import Any


def batcher_report(text: bytes) -> dict[str, Any] | None:
    """The report of a batcher, with its state and when it was made; None if it is none."""
    try:
        report: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or not isinstance(report.get("state"), str):
        return None
    at = report.get("at")
    return report if isinstance(at, int | float) and math.isfinite(at) else None
