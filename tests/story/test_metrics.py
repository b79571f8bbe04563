"""What Prometheus sees of a fleet is what happened."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import redis
from prometheus_client.parser import text_string_to_metric_families

from batchfleet.metrics import names
from batchfleet.supervisor.embedded_server import EmbeddedServer
from gpu_worker.options import default_capacity
from tests.processes import PATIENCE_S, Processes, batchfleet, wait_until, write_questions

METRICS = {"BATCHFLEET_METRICS_PORT": "0", "BATCHFLEET_STUB_REFUSE_ON": "Question q7."}


def scrape(address: str) -> dict[tuple[str, ...], float]:
    """Every sample: (name, label values in the order of the labels' names ...) -> value."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=PATIENCE_S) as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_figures_of_a_scrape_add_up(tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis) -> None:
    """Counters, histograms and gauges of batcher and worker agree on 400 questions, one of them refused.

    Every documented metric is there.
    """
    write_questions(tmp_path / "questions.jsonl", 400)
    with Processes(redis_server.url, tmp_path, METRICS) as fleet:
        fleet.batcher()
        fleet.worker()
        fleet.submit(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl")
        assert fleet.finish("producer") == 1
        wait_until(lambda: not client.keys("rq:job:*"), "batch jobs are gone")
        status = json.loads(batchfleet("status", "--redis", redis_server.url, "--json").stdout)
        worker, batcher = scrape(status["workers"][0]["metrics"]), scrape(status["batchers"][0]["metrics"])

    assert worker["batchfleet_worker_answered_questions_total", "stub"] == 399
    assert worker["batchfleet_worker_failed_questions_total", "refused", "stub"] == 1
    assert worker["batchfleet_worker_question_engine_seconds_count", "stub"] == 400
    assert worker["batchfleet_worker_question_wait_seconds_bucket", "+Inf", "stub"] == 400
    assert worker["batchfleet_worker_completion_tokens_total", "stub"] > 399
    assert worker["batchfleet_worker_in_flight_questions", "stub"] == 0
    assert worker["batchfleet_worker_capacity_questions", "stub"] == default_capacity(64)
    assert worker["batchfleet_worker_state", "stub", "running"] == 1
    assert batcher["batchfleet_batcher_leading",] == 1
    assert batcher["batchfleet_batcher_batch_questions_sum", "stub"] == 400
    assert (
        batcher["batchfleet_batcher_batches_total", "stub", "full"]
        + batcher["batchfleet_batcher_batches_total", "stub", "time"]
        == (worker["batchfleet_worker_claimed_batches_total", "stub"])
    )
    assert batcher["batchfleet_queue_waiting_questions", "stub"] == 0
    assert batcher["batchfleet_pending_questions",] == 0
    assert batcher["batchfleet_unanswered_questions", "stub"] == 0
    assert batcher["batchfleet_workers", "stub", "running"] == 1
    assert "process_start_time_seconds" in {name for name, *_ in worker}
    gathered = {name.removesuffix("_bucket") for name, *_ in (*worker, *batcher)}
    # Without GPUs and without a dead engine there are no samples of these.
    absent = {names.GPU_BUSY, names.GPU_USED, names.GPU_MEMORY, names.ENGINE_DEATHS}
    assert {metric.full for metric in (*names.WORKER, *names.BATCHER, *names.FLEET) if metric not in absent} <= gathered
    assert not {"producer", "run"} & {label for sample in (*worker, *batcher) for label in sample[1:]}
