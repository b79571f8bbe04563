"""Logs on stderr: lines for people, or one JSON object a line for programs. Secrets are masked in both."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from batchfleet.humanize import MASK

FORMATS = ("text", "json")
IDS = ("run", "batch", "request", "worker", "model")
"""What a log call may give as `extra`: the ids of what it speaks of, each a field of its own in JSON."""

SHORTEST_SECRET = 4
"""Shorter ones are part of every other word; masking them would hide the log, not the secret."""
_PASSWORD_IN_URL = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*:)[^\s@/]+@")


def set_up(level: str, form: str) -> Secrets:
    """Send the logs of this process to stderr; returns what masks them, to be told the secrets once they are known."""
    secrets = Secrets()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(secrets) if form == "json" else TextLines(secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    return secrets


class Secrets:
    """Masks known secrets, and passwords in URLs, wherever they occur."""

    def __init__(self) -> None:
        self._known: re.Pattern[str] | None = None

    def learn(self, texts: Iterable[str]) -> None:
        """Mask these from now on. Longest first: one may begin with another."""
        long = sorted({text for text in texts if len(text) >= SHORTEST_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, long))) if long else None

    def masked(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _PASSWORD_IN_URL.sub(rf"\1{MASK}@", text)


class TextLines(logging.Formatter):
    """Time, level, logger, message."""

    def __init__(self, secrets: Secrets) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return self._secrets.masked(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object a line.

    Its fields: `time` (UTC), `level`, `logger`, `message`, the ids that are known, and `exception` if there was one.
    """

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._secrets.masked(record.getMessage()),
        }
        line |= {
            name: self._secrets.masked(str(getattr(record, name)))
            for name in IDS
            if getattr(record, name, None) is not None
        }
        if record.exc_info:
            line["exception"] = self._secrets.masked(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)
