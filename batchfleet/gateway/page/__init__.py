"""`/`: the fleet at a glance, live, for people.

One `observer` looks at Redis for everyone who looks at the page; `view` says what is shown as words and figures,
`templates/` as HTML, `live` makes that once a look. htmx, from the wheel of django-htmx, fetches it: no script is ours.
"""

from batchfleet.gateway.page.routes import lifespan, routes

__all__ = ["lifespan", "routes"]
