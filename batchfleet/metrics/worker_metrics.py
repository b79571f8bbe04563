"""A worker's metrics, read from its counters when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from batchfleet.metrics import names
from gpu_worker.reports.worker_report import Report

STATES = ("booting", "standby", "running", "waiting", "draining", "dead", "unusable")


class WorkerMetrics(Collector):
    """Runs in the scraping thread: it reads plain numbers and never waits, and the event loop knows nothing of it."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        report, counts, model = self._report, self._report.counts, (self._report.model,)
        yield names.WORKER_STATE.values(*(((*model, state), float(report.shown_state == state)) for state in STATES))
        yield names.IN_FLIGHT.values((model, report.in_flight))
        yield names.CAPACITY.values((model, report.capacity))
        yield names.ANSWERED.values((model, counts.answered))
        # A copy, which CPython makes in one step: the worker may meet a new kind meanwhile.
        yield names.FAILED.values(*(((*model, kind), number) for kind, number in dict(counts.failures).items()))
        yield names.PROMPT_TOKENS.values((model, counts.prompt_tokens))
        yield names.COMPLETION_TOKENS.values((model, counts.completion_tokens))
        yield names.QUESTION_WAIT.histograms((model, counts.wait_s))
        yield names.QUESTION_ENGINE.histograms((model, counts.engine_s))
        yield names.CLAIMED.values((model, counts.batches))
        yield names.LEASES_LOST.values((model, counts.leases_lost))
        gpus = report.gpu_use
        yield names.GPU_BUSY.values(*(((gpu.uuid,), gpu.busy_percent / 100) for gpu in gpus))
        yield names.GPU_USED.values(*(((gpu.uuid,), gpu.memory_used_bytes) for gpu in gpus))
        yield names.GPU_MEMORY.values(*(((gpu.uuid,), gpu.memory_bytes) for gpu in gpus))
