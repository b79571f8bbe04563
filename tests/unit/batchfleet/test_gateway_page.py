"""What the gateway's page shows, made without a browser and without Redis."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from batchfleet.gateway.page.batch_cards import BatchCard, card, kinds_in
from batchfleet.gateway.page.chart import HEIGHT, MARGIN, WIDTH, Point, means, path, round_top
from batchfleet.gateway.page.history import MOST_LOOKS, SPANS_S, History
from batchfleet.gateway.page.live import LiveParts
from batchfleet.gateway.page.observer import Observer
from batchfleet.status.model import FleetStatus, QueueStatus, RunStatus, Trouble, VanishedStatus, WorkerStatus

HOSTILE = '</q></p><img src=x onerror=alert(1)><script>alert(\'"\')</script>\' hx-get="/x" " onclick=alert(2) '
MAY_BE_THERE = {"article", "b", "button", "div", "figcaption", "figure", "footer", "h2", "h3", "p", "path", "progress"}
MAY_BE_THERE |= {"q", "section", "small", "span", "svg", "table", "tbody", "td", "th", "thead", "tr"}


class Elements(HTMLParser):
    """The elements of a page and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def a_fleet(words: str = "stub", **counts: int) -> FleetStatus:
    """One worker, one queue, one run and one dead engine, all of which say `words` wherever they can."""
    worker = WorkerStatus(
        words, words, words, words, words, (words,), capacity=96, in_flight=48, answered=10,
        failed=counts.get("failed", 2),
        failures={words: 2}, failure_examples={words: words}, answers_per_s=4.0,
    )  # fmt: skip
    run = RunStatus(
        words, model=words, questions=100, accepted=50, answered=counts.get("done", 10), collected_by=words,
        failures={words: 2}, failure_examples={words: words},
    )  # fmt: skip
    trouble = Trouble("engine_dead", 1.0, words, words, words)
    return FleetStatus(
        queues=(QueueStatus(words, waiting_questions=5, oldest_s=9.0),),
        workers=(worker,),
        troubles=(trouble,),
        runs=(run,),
        vanished=(VanishedStatus(words, words, 9.0, words), VanishedStatus("lost-1", "worker", 65.0, words, 48, 2)),
    )


def shown(status: FleetStatus | None, *, has_keys: bool = False, cards: list[BatchCard] | None = None) -> str:
    """The part of the page that changes, for an owner of these batches."""
    observer = Observer()
    observer.take_in(status, "" if status else HOSTILE)
    return LiveParts(observer, has_keys=has_keys).get("", lambda: cards or []).html.decode()


def a_batch(words: str, errors: Path | None = None) -> BatchCard:
    """A batch that says `words` wherever it can."""
    batch = {
        "id": f"batch_{words}", "status": words, "metadata": {words: words},
        "output_file_id": words, "error_file_id": words,
        "request_counts": {"total": 10, "completed": 4, "failed": 1},
        "errors": None if errors else {"data": [{"code": words, "message": words, "line": 3}]},
    }  # fmt: skip
    return card(batch, 60.0, errors)


@pytest.mark.parametrize("has_keys", [False, True])
def test_whatever_the_fleet_says_is_text(*, has_keys: bool) -> None:
    """No name, state, message or metadata adds an element or an attribute to the page."""
    page = Elements(shown(a_fleet(HOSTILE), has_keys=has_keys, cards=[a_batch(HOSTILE)]) + shown(None))

    plain = Elements(shown(a_fleet(), has_keys=has_keys, cards=[a_batch("words")]) + shown(None))
    assert {tag for tag, _ in page.found} <= MAY_BE_THERE
    assert [(tag, set(attributes)) for tag, attributes in page.found] == [
        (tag, set(attributes)) for tag, attributes in plain.found
    ]
    assert "<img src=x onerror=alert(1)>" in page.words


def test_a_fleet_on_several_hosts_is_shown_by_host() -> None:
    """Sums for each, which of them vanished with what, and whose clock is wrong; one host alone needs no table."""
    workers = [WorkerStatus(f"{host}-{n}", "running", "stub", capacity=96, in_flight=48, answers_per_s=2.0,
                            clock_ahead_s=3600.0 * (host == "b")) for host in "ab" for n in "12"]  # fmt: skip

    page = shown(FleetStatus(workers=(*workers,), vanished=(VanishedStatus("c-1", "worker", 65.0, "m", 48),)))

    table = page.partition("<h2>Hosts</h2>")[2].partition("</table>")[0]
    assert re.findall("<td[^>]*>([^<]*)", table) == [
        *("c", "gone for 1 min 05 s, with 1 worker with 48 questions in flight", "-", "-", "-", "-", "-"),
        *("a", "2 running", "96 of 192", "4.0/s", "-", "0", "right"),
        *("b", "2 running", "96 of 192", "4.0/s", "-", "0", "1 h 00 min ahead"),
    ]
    assert "b is 1 h 00 min ahead" in page
    assert "Hosts" not in shown(FleetStatus(workers=(workers[0],)))


def test_one_rendering_serves_all_viewers() -> None:
    """Batches are asked for once a look and owner, however often the page is; another look shows another state."""
    observer, asked = Observer(), 0

    def cards() -> list[BatchCard]:
        nonlocal asked
        asked += 1
        return []

    parts = LiveParts(observer, has_keys=True)
    observer.take_in(a_fleet(done=10))
    first = [parts.get("alice", cards) for _ in range(100)]
    observer.take_in(a_fleet(done=20))
    later = parts.get("alice", cards)

    assert asked == 2
    assert all(one is first[0] for one in first)
    assert "10 of 100" in first[0].html.decode()
    assert "20 of 100" in later.html.decode()


def test_examples_of_others_are_not_shown_where_there_are_keys(tmp_path: Path) -> None:
    """What failures said may quote a question: without a key only their kinds are shown; of one's own batches all."""
    errors = tmp_path / "errors.jsonl"
    line = {"custom_id": "q", "response": {"body": {"error": {"code": "too_long", "message": "my own words"}}}}
    errors.write_text(f"{json.dumps(line)}\nnot JSON\n{json.dumps(line)}\n" + '{"error": {"message": "cut o')

    status = FleetStatus(
        workers=(WorkerStatus("w", "running", failures={"refused": 2}, failure_examples={"refused": "told"}),),
        runs=(RunStatus("r", failed=1, failures={"too_long": 1}, failure_examples={"too_long": "of a run"}),),
    )
    journal = tmp_path / "journal.jsonl"
    failed = '{"id": "q", "status": "failed", "error": {"kind": "too_long", "message": "still running"}}'
    journal.write_text(f'{{"id": "p", "status": "answered", "text": "no failure"}}\n{failed}\n')
    assert [(row.kind, row.number, row.example) for row in kinds_in(journal)] == [("too_long", "1", "still running")]
    assert "told" in shown(status)
    assert "of a run" in shown(status)
    without_key = shown(status, has_keys=True)
    assert ("told" in without_key, "of a run" in without_key, "too_long" in without_key) == (False, False, True)
    assert "my own words" in shown(status, has_keys=True, cards=[a_batch("b", errors)])
    assert [(row.kind, row.number) for row in kinds_in(errors)] == [("too_long", "2"), ("?", "1")]


def test_history_is_an_hour_at_most() -> None:
    """Looks are bounded in number and age; while Redis is away there are gaps, and no failures less than none."""
    history = History()
    for second in range(0, 3 * int(SPANS_S[-1]), 1):
        history.add(float(second), None if second % 10 == 0 else a_fleet(failed=second % 7))
    now_s = 3 * SPANS_S[-1] - 1

    assert len(history.looks) == MOST_LOOKS
    history.add(now_s + SPANS_S[-1] - 1, a_fleet())
    assert all(look.at_s >= now_s - 1 for look in history.looks)
    assert all((point.value or 0) >= 0 for point in history.failures_per_min())


def test_charts_break_where_nobody_knows() -> None:
    """Values land at their time; a part without one is a gap in the line, and no zero."""
    points = [Point(0.0, 1.0), Point(50.0, None), Point(99.9, 3.0), Point(-1.0, 9.0)]

    values = means(points, now_s=100.0, span_s=100.0)
    assert values[0] == 1.0
    assert values[-1] == 3.0
    assert values.count(None) == WIDTH - 2
    assert path(values, top=3.0) == f"M0 {MARGIN + 2 / 3 * (HEIGHT - 2 * MARGIN):.1f}h1M{WIDTH - 1} {MARGIN:.1f}h1"
    assert [round_top(value) for value in (0.0, 0.3, 1.0, 7.2, 130.0)] == [1.0, 0.5, 1.0, 10.0, 200.0]
