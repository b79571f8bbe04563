"""The part of the page that changes, made once for all who look, and once for each owner of batches."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from batchfleet.gateway.page import view
from batchfleet.gateway.page.batch_cards import BatchCard
from batchfleet.gateway.page.chart import HEIGHT, WIDTH
from batchfleet.gateway.page.observer import EVERY_S, Observer

HERE = Path(__file__).parent
WORDS = frozenset({"worker", "state", "model", "host", "clock"})
"""Columns that hold words; the others hold figures, and stand on the right."""
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE / "templates"),
    # Whatever workers, questions and answers say is text.
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Live:
    """What is shown now. `looks`: the number of the look at the fleet that it shows."""

    looks: int
    html: bytes
    packed: bytes


@dataclass
class LiveParts:
    """Renders, once a look: a viewer more costs no look at Redis, and no rendering."""

    observer: Observer
    has_keys: bool
    _made: dict[str | None, Live] = field(default_factory=dict)

    def cached(self, owner: str | None) -> Live | None:
        """What is shown to that owner, if it was made of the latest look."""
        made = self._made.get(owner)
        return made if made is not None and made.looks == self.observer.looks else None

    def get(self, owner: str | None, cards: Callable[[], Sequence[BatchCard]]) -> Live:
        """What is shown to that owner; None: to those without a key. `cards`: their batches, asked for once a look.

        Owners are as many as there are keys, so what is kept is bounded.
        """
        made = self.cached(owner)
        if made is None:
            looks = self.observer.looks
            html = self._render(cards()).encode()
            made = self._made[owner] = Live(looks, html, gzip.compress(html, 1))
        return made

    def _render(self, cards: Sequence[BatchCard]) -> str:
        observer, status = self.observer, self.observer.status
        seen: Mapping[str, Any] = (
            {}
            if status is None
            else {
                "advice": view.advice(status),
                "tiles": view.tiles(status),
                "runs": view.runs(observer, status, {card.id for card in cards}, is_private=self.has_keys),
                "queues": view.queues(status),
                "hosts": view.hosts(status),
                "workers": view.workers(status),
                "left_out": view.left_out(status),
                "failures": view.failures(status, with_examples=not self.has_keys),
            }
        )
        return TEMPLATES.get_template("live.html").render(
            seen,
            is_looked_at=status is not None,
            trouble=observer.trouble,
            charts=view.charts(observer),
            since=f"{observer.history.span_s(observer.now()) / 60:g} min",
            batches=cards,
            has_keys=self.has_keys,
            every_s=f"{EVERY_S:g}",
            width=WIDTH,
            height=HEIGHT,
            words=WORDS,
            shown_at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        )
