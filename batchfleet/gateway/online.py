"""`/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
