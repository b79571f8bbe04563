"""What browsers ask for."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from batchfleet.admin.control import cancel_run
from batchfleet.gateway import batches, files
from batchfleet.gateway.api_keys import no_key
from batchfleet.gateway.errors import ApiError
from batchfleet.gateway.list_page import Listing
from batchfleet.gateway.page.batch_cards import MOST_BATCHES, BatchCard, card
from batchfleet.gateway.page.live import HERE, TEMPLATES, Live, LiveParts
from batchfleet.gateway.page.observer import Observer, observed
from batchfleet.settings.redis_address import redis_address
from wire.connection import connect
from wire.errors import FleetError
from wire.keys import Keys
from wire.redis_errors import translated

SAFE = {
    # Even if something were not escaped, it would be no script: only our own files are run, loaded or talked to.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OF_A_VERSION = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
MOST_FORM_BYTES = 4096
MOST_LOOKS_AT_ONCE = 64
"""Answers to viewers that are under way; each takes a millisecond, so this is some thousand viewers."""


class Page:
    """What the handlers below share; `app.state.page` while the app runs."""

    def __init__(self, app: Starlette) -> None:
        options = app.state.options
        self.app = app
        self.keys = options.keys
        self.address = redis_address(options.settings)
        self.run_ttl_s = options.settings.limits.run_ttl_s
        self.observer = Observer()
        self.parts = LiveParts(self.observer, has_keys=bool(self.keys.entries))
        self.answering = 0
        self.making = asyncio.Lock()

    async def live(self, owner: str | None) -> Live:
        """What is shown to that owner: made by one request, in a thread, and given to those that wait for it."""
        async with self.making:
            if (made := self.parts.cached(owner)) is not None:
                return made
            cards = partial(self.cards, owner)
            return await run_in_threadpool(self.parts.get, owner, cards)

    def cards(self, owner: str | None) -> list[BatchCard]:
        """The latest batches of an owner; nobody has none."""
        if owner is None:
            return []
        state, known = self.app.state, {run.run: run for run in getattr(self.observer.status, "runs", ())}
        made = []
        for batch in state.batches.list(owner, Listing(MOST_BATCHES))["data"]:
            run, errors = known.get(batch["id"]), batch["error_file_id"]
            left_s = self.observer.left_s(run) if run else None
            path = state.store.content(errors) if errors else state.store.journal(batch["id"])
            made.append(card(batch, left_s, path))
        return made

    def cancel_run(self, run: str) -> str:
        """What came of it, in words; to be called in a thread.

        Raises:
            FleetError: There is no such run, or no Redis.
        """
        with translated(self.address), connect(self.address) as client:
            accepted, done = cancel_run(client, Keys(self.address.namespace), run, run_ttl_s=self.run_ttl_s)
        return f"Run {run} is cancelled: {done} of {accepted} questions had their record."


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """While the app runs, one reader looks at Redis."""
    app.state.page = Page(app)
    async with observed(app.state.page.observer, app.state.page.address):
        yield


async def index(request: Request) -> Response:
    page: Page = request.app.state.page
    # Without keys everyone is the owner of all; with keys, nobody is known before one is typed in.
    live = await page.live(None if page.keys.entries else "")
    text = TEMPLATES.get_template("page.html").render(
        live=Markup(live.html.decode()),  # noqa: S704 (made by our own template, which escaped what is in it)
        has_keys=bool(page.keys.entries),
        has_htmx=HTMX is not None,
    )
    return HTMLResponse(text, headers=SAFE)


async def live(request: Request) -> Response:
    """The part that changes; asked for every two seconds by each viewer, and made once for all of them."""
    page: Page = request.app.state.page
    if page.answering >= MOST_LOOKS_AT_ONCE:
        words = "Too many people are looking at this page; it will continue on its own."
        return notice(words, 503, {"Retry-After": "2"})
    page.answering += 1
    try:
        owner, _ = await fields(request)
        made = await page.live(owner)
    except ApiError as error:
        return notice(str(error), error.status)
    finally:
        page.answering -= 1
    packs = "gzip" in request.headers.get("accept-encoding", "")
    headers = SAFE | {"Vary": "Accept-Encoding"} | ({"Content-Encoding": "gzip"} if packs else {})
    return HTMLResponse(made.packed if packs else made.html, headers=headers)


async def cancel(request: Request) -> Response:
    """Cancel a run that is no batch of the gateway's. With keys nobody may: whose it is, no key tells."""
    page: Page = request.app.state.page
    try:
        _, form = await fields(request)
        if page.keys.entries:
            return notice("With keys, runs are cancelled at the command line: batchfleet cancel RUN.", 403)
        return notice(await run_in_threadpool(page.cancel_run, form.get("id", "")))
    except ApiError as error:
        return notice(str(error), error.status)
    except FleetError as error:
        return notice(str(error), 409)


async def cancel_batch(request: Request) -> Response:
    """As `/v1/batches/ID/cancel`."""
    try:
        batch = await _as_owner(request, "id", "batch_id")
        await batches.cancel(request)
    except ApiError as error:
        return notice(str(error), error.status)
    return notice(f"Batch {batch} is being cancelled; what is done stays.")


async def download(request: Request) -> Response:
    """As `/v1/files/ID/content`, for a form."""
    try:
        file_id = await _as_owner(request, "file", "file_id")
        response = await files.content(request)
    except ApiError as error:
        return PlainTextResponse(f"{error}\n", error.status, headers=SAFE)
    # The id came out of the database, so it is a file's name.
    response.headers["Content-Disposition"] = f'attachment; filename="{file_id}.jsonl"'
    return response


async def _as_owner(request: Request, name: str, parameter: str) -> str:
    """Put the owner of the key in the form, and the id in its field `name`, where handlers of the API look for them."""
    owner, form = await fields(request)
    if owner is None:
        raise no_key(given=False)
    request.state.owner = owner
    request.scope["path_params"] = {parameter: form.get(name, "")}
    return form.get(name, "")


async def fields(request: Request) -> tuple[str | None, dict[str, str]]:
    """Whose the key in a form is ('' for anyone where there are no keys, None for no key), and the form.

    Raises:
        ApiError: The key is nobody's, or this is no form of the page's.
    """
    page: Page = request.app.state.page
    if len(await request.body()) > MOST_FORM_BYTES:
        raise ApiError(413, "This form is larger than any of the page's.")
    form = {name: value for name, value in (await request.form(max_files=0)).items() if isinstance(value, str)}
    if not page.keys.entries:
        return "", form
    key = form.get("key", "").strip()
    owner: str | None = page.keys.owner_of(key) if key else None
    if key and owner is None:
        raise ApiError(401, "This key is not one of this gateway's.", code="invalid_api_key")
    return owner, form


def notice(words: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A sentence, to be put into the page."""
    return HTMLResponse(escape(words), status, headers={**SAFE, **(headers or {})})


async def style(_request: Request) -> Response:
    return FileResponse(HERE / "static" / "style.css", headers=OF_A_VERSION)


async def htmx(_request: Request) -> Response:
    """Not there: the page then loads itself anew every ten seconds."""
    if HTMX is None:
        raise ApiError(404, "htmx is not installed: pip install django-htmx", code="not_found")
    return FileResponse(HTMX, media_type="text/javascript", headers=OF_A_VERSION)


def _find_htmx() -> Path | None:
    """In the wheel of django-htmx, which carries it; nothing of Django's is imported."""
    spec = importlib.util.find_spec("django_htmx")
    found = [
        Path(folder) / "static/django_htmx/htmx-2.min.js" for folder in (spec and spec.submodule_search_locations) or ()
    ]
    return next((path for path in found if path.exists()), None)


HTMX = _find_htmx()
routes: list[BaseRoute] = [
    Route("/", index),
    Route("/page/live", live, methods=["POST"]),
    Route("/page/cancel", cancel, methods=["POST"]),
    Route("/page/cancel-batch", cancel_batch, methods=["POST"]),
    Route("/page/download", download, methods=["POST"]),
    Route("/page/style.css", style),
    Route("/page/htmx.js", htmx),
]
