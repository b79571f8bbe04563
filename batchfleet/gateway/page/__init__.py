"""`/`: the fleet at a glance, and `/metrics`."""

from __future__ import annotations

from starlette.routing import BaseRoute

routes: list[BaseRoute] = []
