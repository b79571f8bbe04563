"""The process that runs batches, kept alive by the gateway that it belongs to, and gone with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.concurrency import run_in_threadpool

from batchfleet.gateway.options import GatewayOptions
from batchfleet.settings.mask import child_environment, to_file_text
from batchfleet.supervisor.processes import ChildGaveUpError, Supervised, keep_short, spawn, stop_all
from wire.backoff import Backoff

log = logging.getLogger(__name__)

LOOK_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 900.0
"""Before each further try, once it has failed many times in a row. It never ends: the batches of people wait for it."""
STOP_S = 25.0
LOG_NAME = "batches.log"
LOG_BYTES = 16 * 1024 * 1024


@contextlib.asynccontextmanager
async def supervised_batches(options: GatewayOptions) -> AsyncIterator[None]:
    """Batches run as long as the block lasts."""
    log_file = options.data_folder / LOG_NAME
    # Started by the thread that runs the loop, with which it dies: another one might end before the gateway does.
    process = Supervised("the process of batches", lambda: _start(options), log_file)
    watching = asyncio.create_task(_watch(process))
    try:
        yield
    finally:
        watching.cancel()
        await run_in_threadpool(stop_all, [process.process], STOP_S)


async def _watch(process: Supervised, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        try:
            process.check()
            keep_short(process.log_file, LOG_BYTES)
            if process.is_steady:
                pauses.reset()
            await sleep(LOOK_S)
        except (ChildGaveUpError, OSError) as error:
            pause_s = pauses.next_s()
            log.error("the process of batches: %s\nbatches wait; trying again in %.0f s", error, pause_s)  # noqa: TRY400 (a process's, not ours)
            await sleep(pause_s)
            process.try_again()


def _start(options: GatewayOptions) -> subprocess.Popen[bytes]:
    # Its settings, which it removes once it has read them; secrets travel in the environment.
    config = options.data_folder / f"settings-{secrets.token_hex(8)}.yaml"
    with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:  # noqa: PTH123 (a descriptor)
        file.write(to_file_text(options.settings))
    command = [sys.executable, "-m", "batchfleet.gateway.batch_process", "--config", str(config)]
    command += ["--data", str(options.data_folder), "--priority", str(options.batch_priority)]
    return spawn(command, child_environment(options.settings, os.environ), options.data_folder / LOG_NAME)
