"""`python -m batchfleet.gateway.batch_process`: runs the batches of a data folder, beside the gateway that started it.

A process of its own, so that reading ten million lines delays no request. Each batch has a thread; that it is the only
one is a lock on a file, held by the process: should it die, another takes the batch up.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path

from batchfleet import logs
from batchfleet.gateway.batch_failure import fail_batch
from batchfleet.gateway.batch_run import BatchContext, BatchRun, StopError
from batchfleet.gateway.batch_table import BatchTable
from batchfleet.gateway.file_table import FileTable
from batchfleet.gateway.store import Store
from batchfleet.gateway.upload_table import UploadTable
from batchfleet.settings import to_options
from batchfleet.settings.load import load_settings
from batchfleet.settings.mask import secret_texts
from batchfleet.supervisor.garbage_collection import collect_garbage_rarely

log = logging.getLogger(__name__)

LOOK_S = 0.2
MOST_RUNNING = 16
"""Batches of one gateway at once; others wait as `validating`. The fleet shares itself among them."""
CLEAN_S = 60.0
STRAY_S = 3600.0
"""Bytes that belong to nothing go after such a time without a write."""
JOIN_S = 20.0
RETRY_S = 30.0
"""Before another try after a bug; each further one waits so much longer."""
MOST_TRIES = 5
"""That end with a bug, without a request answered in between. Then the batch fails."""


class BatchProcess:
    """Takes up whatever batch nobody runs."""

    def __init__(self, context: BatchContext, files: FileTable) -> None:
        self._context = context
        self._files = files
        self._uploads = UploadTable(context.store, files)
        self._threads: dict[str, threading.Thread] = {}
        self._not_before: dict[str, float] = {}
        self._clean_at = 0.0

    def serve(self) -> None:
        """Until told to stop."""
        stopping = self._context.stopping
        while not stopping.is_set():
            self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
            self._take_up()
            if time.monotonic() >= self._clean_at:
                self._clean()
            stopping.wait(LOOK_S)
        until = time.monotonic() + JOIN_S
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _take_up(self) -> None:
        for batch_id in self._context.batches.open_ids():
            if len(self._threads) >= MOST_RUNNING:
                return
            if batch_id in self._threads or time.monotonic() < self._not_before.get(batch_id, 0.0):
                continue
            lock = _locked(self._context.store.journal(batch_id).with_suffix(".lock"))
            if lock is not None:
                thread = threading.Thread(target=self._run, args=(batch_id, lock), name=batch_id, daemon=True)
                self._threads[batch_id] = thread
                thread.start()

    def _run(self, batch_id: str, lock: int) -> None:
        try:
            BatchRun(self._context, batch_id).run()
            self._forget(batch_id)
        except StopError:
            pass
        except sqlite3.OperationalError as error:
            # No bug: the disk is full, or the like. That passes.
            log.warning("batch %s waits for the gateway's database: %s", batch_id, error, extra={"run": batch_id})
            self._not_before[batch_id] = time.monotonic() + RETRY_S
        except Exception as error:
            log.exception("batch %s", batch_id, extra={"run": batch_id})
            # Another try may still get through, but not for ever: nothing of the batch is lost by its end.
            self._not_before[batch_id] = time.monotonic() + RETRY_S
            tries = self._context.batches.count_bug(batch_id)
            self._not_before[batch_id] = time.monotonic() + RETRY_S * tries
            if tries >= MOST_TRIES:
                fail_batch(self._context, batch_id, tries, error)
                self._forget(batch_id)
        finally:
            os.close(lock)

    def _forget(self, batch_id: str) -> None:
        self._not_before.pop(batch_id, None)
        self._context.store.journal(batch_id).with_suffix(".lock").unlink(missing_ok=True)

    def _clean(self) -> None:
        self._clean_at = time.monotonic() + CLEAN_S
        try:
            self._files.remove_expired()
            self._uploads.remove_expired()
            self._context.batches.remove_old()
            self._files.remove_strays(STRAY_S)
        except Exception:
            log.exception("removing files whose time is over")


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock; None if somebody else does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    os.close(file)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m batchfleet.gateway.batch_process")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--priority", type=int, default=0)
    arguments = parser.parse_args()
    secrets = logs.set_up("info", "text")
    settings = load_settings(arguments.config, os.environ, {}).settings
    arguments.config.unlink(missing_ok=True)
    secrets.learn(secret_texts(settings))
    store = Store(arguments.data)
    files = FileTable(store)
    context = BatchContext(
        store,
        BatchTable(store, files),
        to_options.redis_address(settings),
        to_options.producer_options(settings, priority=arguments.priority),
        to_options.reading_limits(settings),
        threading.Event(),
        settings.processing.scaled_models,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: context.stopping.set())
    collect_garbage_rarely()
    BatchProcess(context, files).serve()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
