"""`batchfleet status` on a terminal or in a file.

With `--watch` kept current on a terminal, or printed again and again elsewhere.
"""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from batchfleet.console import TerminalConsole
from batchfleet.status.advice import advise
from batchfleet.status.model import FleetStatus
from batchfleet.status.read import read_status
from batchfleet.status.view import draw
from wire.address import RedisAddress
from wire.connection import connect
from wire.errors import QueueUnavailableError
from wire.keys import Keys
from wire.redis_errors import translated

EVERY_S = 1.0
PRINT_EVERY_S = 10.0
FEWEST_WORKERS = 3


def show(status: FleetStatus) -> None:
    """Print it once: on a terminal, to fit it; elsewhere as wide as it is."""
    console = TerminalConsole()
    console.print(draw(status, advise(status), width=console.width_if_terminal))


def watch(address: RedisAddress) -> None:
    """Show the state until interrupted. Redis away: say so, and continue when it is back."""
    console = TerminalConsole()
    if not console.is_terminal:
        while True:
            console.print(_look(address, console))
            time.sleep(PRINT_EVERY_S)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_look(address, console), refresh=True)
            time.sleep(EVERY_S)


def fitting(status: FleetStatus, heading: RenderableType, console: Console) -> RenderableType:
    """All that a terminal has room for: of more workers than that, only some are shown."""
    advice, width = advise(status), console.width if console.is_terminal else None
    whole = Group(heading, draw(status, advice, width=width))
    too_many = len(console.render_lines(whole)) - console.height if console.is_terminal else 0
    if too_many <= 0:
        return whole
    # One line says how many are left out.
    return Group(
        heading, draw(status, advice, width=width, most_workers=max(FEWEST_WORKERS, len(status.workers) - too_many - 1))
    )


def _look(address: RedisAddress, console: TerminalConsole) -> RenderableType:
    heading = Text(
        f"{datetime.now().astimezone():%H:%M:%S}  {address.shown()}  (Ctrl-C ends this view, not the fleet)\n",
        style="dim",
    )
    try:
        with connect(address) as client, translated(address):
            status = read_status(client, Keys(address.namespace))
    except QueueUnavailableError as error:
        return Group(heading, Text(f"{error}; trying again", style="red"))
    return fitting(status, heading, console)
