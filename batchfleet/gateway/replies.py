"""JSON in and out."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import JSONResponse


class JsonReply(JSONResponse):
    """Made by orjson, which is several times as fast as the standard library."""

    def render(self, content: Any) -> bytes:  # noqa: ANN401 (whatever JSON can say)
        return orjson.dumps(content)
