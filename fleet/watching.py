"""`batchfleet status --watch`: the fleet's state, kept current on a terminal, or printed again and again elsewhere."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fleet.advice import advise
from fleet.status_reading import read_status
from fleet.status_view import draw
from wire.connection import RedisAddress, connect, translated
from wire.errors import QueueUnavailableError
from wire.keys import Keys

EVERY_S = 1.0
PRINT_EVERY_S = 10.0
WIDE = 160
"""Columns where there is no terminal: whoever reads a file does not want lines cut."""
LINES_FOR_THE_REST = 14


def console_for_status() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def watch(address: RedisAddress) -> None:
    """Show the state until interrupted. Redis away: say so, and go on when it is back."""
    console = console_for_status()
    if not console.is_terminal:
        while True:
            console.print(_look(address, None))
            time.sleep(PRINT_EVERY_S)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_look(address, max(3, console.height - LINES_FOR_THE_REST)), refresh=True)
            time.sleep(EVERY_S)


def _look(address: RedisAddress, most_workers: int | None) -> RenderableType:
    heading = Text(f"{address.shown()}  {datetime.now().astimezone():%H:%M:%S}  (Ctrl-C ends this view, not the fleet)\n", style="dim")
    try:
        with connect(address) as client, translated(address):
            status = read_status(client, Keys(address.namespace))
    except QueueUnavailableError as error:
        return Group(heading, Text(f"{error}; trying again", style="red"))
    return Group(heading, draw(status, advise(status), most_workers=most_workers))
