"""Every metric: its name, type, labels, and what it says. docs/metrics.md is made of this.

No label has values without end: models are bounded by `limits.max_models`, kinds of failure by
`gpu_worker.reports.counters`, GPUs by the worker's slice. Runs, batches and questions are never labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from wire.histogram import Histogram

PREFIX = "batchfleet_"


@dataclass(frozen=True, slots=True)
class Name:
    """One metric.

    Attributes:
        name: Without `batchfleet_`, and without the `_total` of counters.
        words: A sentence without its full stop.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    words: str

    @property
    def full(self) -> str:
        """As Prometheus shows it."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"

    def values(self, *samples: tuple[Sequence[str], float]) -> Metric:
        """With (label values, value) for each."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(PREFIX + self.name, self.words, labels=self.labels)
        for labels, value in samples:
            family.add_metric(labels, value)
        return family

    def histograms(self, *samples: tuple[Sequence[str], Histogram]) -> Metric:
        """With (label values, histogram) for each."""
        family = HistogramMetricFamily(PREFIX + self.name, self.words, labels=self.labels)
        for labels, histogram in samples:
            counts, total, below = tuple(histogram.counts), histogram.total, 0
            buckets = []
            for bound, number in zip((*histogram.bounds, float("inf")), counts, strict=True):
                below += number
                buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), float(below)))
            family.add_metric(labels, buckets, total)
        return family


WORKER = (
    WORKER_STATE := Name(
        "worker_state", "gauge", ("model", "state"), "1 for the worker's current state, 0 for the others"
    ),
    IN_FLIGHT := Name("worker_in_flight_questions", "gauge", ("model",), "Questions in the engine now"),
    CAPACITY := Name("worker_capacity_questions", "gauge", ("model",), "Maximum questions in its engine"),
    ANSWERED := Name("worker_answered_questions", "counter", ("model",), "Questions answered"),
    FAILED := Name(
        "worker_failed_questions", "counter", ("model", "kind"), "Failed questions, by kind (docs/records.md)"
    ),
    PROMPT_TOKENS := Name("worker_prompt_tokens", "counter", ("model",), "Tokens read, of answered questions"),
    COMPLETION_TOKENS := Name(
        "worker_completion_tokens", "counter", ("model",), "Tokens written, of answered questions"
    ),
    QUESTION_WAIT := Name(
        "worker_question_wait_seconds", "histogram", ("model",), "From submission of a question to the engine"
    ),
    QUESTION_ENGINE := Name(
        "worker_question_engine_seconds",
        "histogram",
        ("model",),
        "From there to an answer or refusal, retries included",
    ),
    CLAIMED := Name("worker_claimed_batches", "counter", ("model",), "Batches taken from the queue"),
    LEASES_LOST := Name("worker_lost_leases", "counter", ("model",), "Batches lost to another worker while in work"),
    GPU_BUSY := Name(
        "worker_gpu_busy_ratio", "gauge", ("gpu",), "Share of time in which the GPU was busy (NVML), 0 to 1"
    ),
    GPU_USED := Name("worker_gpu_memory_used_bytes", "gauge", ("gpu",), "GPU memory in use by any process (NVML)"),
    GPU_MEMORY := Name("worker_gpu_memory_bytes", "gauge", ("gpu",), "GPU memory (NVML)"),
)
BATCHER = (
    LEADING := Name("batcher_leading", "gauge", (), "1 if this batcher leads, 0 if it stands by"),
    BATCHES := Name(
        "batcher_batches",
        "counter",
        ("model", "reason"),
        "Batches handed over because they were `full` or their `time` was up",
    ),
    BATCH_SIZE := Name("batcher_batch_questions", "histogram", ("model",), "Questions in each batch handed over"),
    BATCH_WAIT := Name(
        "batcher_batch_wait_seconds", "histogram", ("model",), "Wait of the first question of each batch for others"
    ),
    TAKEN_BACK := Name("batcher_taken_back_batches", "counter", (), "Batches taken back from workers without progress"),
)
FLEET = (
    REDIS_UP := Name(
        "redis_up", "gauge", (), "1 if Redis answered this scrape; if 0, the rest of this table is missing"
    ),
    REDIS_USED := Name("redis_memory_used_bytes", "gauge", (), "Memory that Redis uses"),
    REDIS_MAX := Name("redis_memory_max_bytes", "gauge", (), "Its maxmemory; 0 for none"),
    WAITING := Name("queue_waiting_questions", "gauge", ("model",), "Accepted questions that are in no batch yet"),
    OLDEST := Name("queue_oldest_seconds", "gauge", ("model",), "How long the first of them has waited"),
    WAITING_BATCHES := Name("queue_waiting_batches", "gauge", ("model",), "Batches that no worker has taken yet"),
    SUSPECTS := Name(
        "queue_suspect_batches", "gauge", ("model",), "Batches to be run alone because their workers keep dying"
    ),
    NEWER := Name("queue_newer_batches", "gauge", ("model",), "Batches waiting for a worker with a newer wire version"),
    UNANSWERED := Name(
        "unanswered_questions",
        "gauge",
        ("model",),
        "Questions without a record, including those in engines and those that producers have yet to send; an upper "
        "bound, and exactly 0 if there are none. Scale workers by this",
    ),
    PENDING := Name("pending_questions", "gauge", (), "Accepted questions without a record, of all runs and models"),
    WORKERS := Name("workers", "gauge", ("model", "state"), "Workers by state"),
    DEAD_LETTERS := Name("dead_letters", "gauge", (), "Messages that could not be read"),
    ENGINE_DEATHS := Name(
        "engine_deaths", "counter", ("model",), "Engines that died or did not boot, except by SIGKILL"
    ),
)
GATEWAY = (
    REQUESTS := Name(
        "gateway_requests",
        "counter",
        ("route", "method", "status"),
        "Requests that ended; `route` is its path with names for ids, or `other`; `status` is HTTP's, or `gone` for a "
        "client that went away before it had one",
    ),
    REQUEST_SECONDS := Name(
        "gateway_request_seconds", "histogram", ("route",), "From the head of a request to the end of its response"
    ),
    RECEIVED := Name("gateway_received_bytes", "counter", ("route",), "Bytes of bodies that came in"),
    SENT := Name("gateway_sent_bytes", "counter", ("route",), "Bytes of bodies that went out"),
    OPEN_REQUESTS := Name("gateway_open_requests", "gauge", (), "Requests that have not ended"),
    GATEWAY_BATCHES := Name(
        "gateway_batches",
        "gauge",
        ("status",),
        "Batches in its data folder, by their status now; gateways that share a folder say the same",
    ),
    FILES := Name("gateway_files", "gauge", (), "Files in its data folder"),
    FILE_BYTES := Name("gateway_file_bytes", "gauge", (), "Bytes of these files"),
)
