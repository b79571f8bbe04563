"""The end of a batch that a bug of ours keeps from any other end: what was answered can still be downloaded."""

from __future__ import annotations

import logging

from batchfleet.gateway.batch_file import FileProblem
from batchfleet.gateway.batch_output import BatchFacts, write_results
from batchfleet.gateway.batch_queue import cancel_in_queue
from batchfleet.gateway.batch_run import BatchContext
from batchfleet.gateway.store import new_id

log = logging.getLogger(__name__)


def fail_batch(context: BatchContext, batch_id: str, tries: int, error: Exception) -> None:
    """End a batch as `failed`, with as much of it in its files as can be.

    Args:
        tries: How many times it was tried.
        error: What the last of them met.
    """
    cancel_in_queue(context.address, batch_id, context.options.run_ttl_s)
    message = (
        f"A bug of the gateway stopped this batch {tries} times ({type(error).__name__}). What was answered is in its "
        "output file. Ask whoever runs the gateway to report what batches.log says of this id, and send the requests "
        "without an answer in another batch."
    )
    problem = FileProblem("internal_error", message)
    try:
        _end(context, batch_id, problem)
    except Exception:
        # The bug may be in this very part: then the output is read from the journal, as while the batch ran.
        log.exception("batch %s: its files cannot be written", batch_id, extra={"run": batch_id})
        context.batches.refuse(batch_id, [problem])


def _end(context: BatchContext, batch_id: str, problem: FileProblem) -> None:
    row = context.batches.row(batch_id)
    if row is None or row["output_file_id"] is None:
        context.batches.refuse(batch_id, [problem])
        return
    errors_id = new_id("file-")
    to = context.store.content(row["output_file_id"]), context.store.content(errors_id)
    # Requests that were not asked are not listed: reading the input may be what fails.
    facts = BatchFacts(row["endpoint"], row["in_progress_at"], "cancelled")
    result = write_results(context.store.journal(batch_id), to, facts, (), lambda: None)
    counts = result.completed, result.failed
    context.batches.end(
        batch_id, "failed", counts, result.usage, errors_id if to[1].exists() else None, problems=[problem]
    )
    context.store.remove_journal(batch_id)
