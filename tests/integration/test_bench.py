"""The benchmarks run and say what they measured.

Their timings are nobody's business here: machines that run tests are busy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from batchfleet.tuning.sample_questions import LONGEST, MEDIAN_CHARS, SHORTEST, make_questions
from batchfleet.tuning.table_report import Table, percentile
from benchmarks.stage_trace import STAGES
from tests.integration import tiny_model
from tests.isolation import shared_cache
from tests.processes import PATIENCE_S, TREES, write_questions


def bench(*arguments: str, timeout_s: float = PATIENCE_S, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one benchmark to its end, as a user would."""
    env = {**os.environ, "PYTHONPATH": TREES, **environ}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603 (ours)


def measured(*arguments: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """What a benchmark prints with --json."""
    done = bench(*arguments, "--json", timeout_s=timeout_s)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_throughput_accounts_for_every_program(tmp_path: Path) -> None:
    """A rate for each count and batch size, CPU and memory of all four programs, and what Redis was asked."""
    write_questions(tmp_path / "questions.jsonl", 50)

    found = measured(
        "throughput",
        "--count",
        "600",
        "--batch",
        "16",
        "64",
        "--rounds",
        "1",
        "--questions",
        str(tmp_path / "questions.jsonl"),
    )

    one = found["measurements"][-1]
    assert [(each["questions"], each["batch_size"]) for each in found["measurements"]] == [(600, 16), (600, 64)]
    assert {*one["cpu_s"]} == {"producer", "batcher", "workers", "redis", "checking"}
    assert one["cpu_s"]["producer"] > 0
    assert all(0 < end <= most for _, end, most in one["memory_mib"].values())
    # Each question at least once into and once out of Redis; and batching is there to keep this small.
    assert 4 < one["commands"] / 600 < 20
    assert 0 < one["reads"] < one["commands"]
    assert {"date", "processor", "cores", "python", "redis_server"} <= {*found["machine"]}


def test_batching_compares_fleets_with_other_ways_to_feed(tmp_path: Path) -> None:
    """Each size is answered in full and set against the ideal.

    The ways to feed come out in the order that logic demands, and in a drawing.
    """
    arguments = (
        "--count",
        "240",
        "--batch",
        "1",
        "16",
        "--rounds",
        "1",
        "--step-s",
        "0.002",
        "--sequences",
        "8",
        "--tokens",
        "2",
        "20",
    )

    found = measured("batching", *arguments, "--fed-by", "1", "8", "--save", str(tmp_path / "found"))

    fleets, fed = found["tables"].values()
    assert [row["fed"] for row in fleets] == ["ideal: all at once, no fleet", "batches of 1", "batches of 16"]
    assert all(row["of the ideal"] > 0 for row in fleets)
    for row in fed:
        assert row["one at a time"] < row["8 at a time, whole"] <= row["when there is room"] * 1.02
    assert (tmp_path / "found" / "batching.svg").read_text(encoding="utf-8").startswith("<svg")
    assert json.loads((tmp_path / "found" / "batching.json").read_text(encoding="utf-8")) == found
    assert "| batches of 16" in (tmp_path / "found" / "batching.md").read_text(encoding="utf-8")


@pytest.mark.vllm
@pytest.mark.slow  # Two to five minutes; what is made of the measurements is tested without vLLM.
@pytest.mark.parametrize("workers", [1, 2])
def test_engine_sets_a_fleet_beside_vllm_by_itself(tmp_path: Path, workers: int) -> None:
    """Real engines in turn: as many raw ones as workers, and a fleet at each batch size, of which a worker is killed.

    Only what has no barriers counts as raw at its best.
    """
    generator = {"hf_model_id": str(tiny_model.cached()), "vllm_args": tiny_model.ENGINE_ARGUMENTS}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"model": {"generator_settings": generator}}), encoding="utf-8")
    arguments = ["--config", str(tmp_path / "tiny.yaml"), "--shape", f"{workers}xTP1", "--count", "64"]
    arguments += ["--tokens", "2", "8"]
    arguments += ["--batch", "8", "512", "--fed-by", "1", "16", "--rounds", "1", "--save", str(tmp_path / "found")]
    arguments += ["--killed", "1"] if workers > 1 else []

    found = measured("engine", *arguments, timeout_s=2 * PATIENCE_S)

    rows, rounds = found["tables"].values()
    ways = ["64 in flight", "96 in flight", "all at once"]
    slow = ["one question", "eight questions", "one batch of 16", "two batches of 16"]
    assert [row["fed"] for row in rows] == [
        *(f"raw: {way}" for way in ways),
        "fleet: batches of 8",
        "fleet: batches of 512",
        *(f"raw: {way} at a time" for way in slow),
        *["fleet: 1 of 2 workers killed"][: workers - 1],
    ]
    assert max(row["of the best raw"] for row in rows[:3]) == 1
    assert [one["questions"] for one in found["measurements"][:5]] == [64] * 5
    assert [row["fed"] for row in rounds] == ["fleet: batches of 8", "fleet: batches of 512"]
    assert (tmp_path / "found" / "engine.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_shape_without_gpus_for_it_is_refused(tmp_path: Path) -> None:
    """In one line, before anything boots."""
    config = tmp_path / "any.yaml"
    config.write_text("model: {generator_settings: {hf_model_id: any}}\n", encoding="utf-8")

    done = bench("engine", "--config", str(config), "--shape", "2xTP2", BATCHFLEET_GPUS="GPU-0,GPU-1")

    assert (done.returncode, done.stderr) == (2, "batchfleet: 2xTP2 needs 4 GPUs, and this host lets it have 2\n")


@pytest.mark.vllm
@pytest.mark.slow
def test_embeddings_sets_a_fleet_beside_vllm_by_itself(tmp_path: Path) -> None:
    """Two real engines in turn, each text with a vector; a rate for each way to feed, and each program's memory."""
    folder = str(tiny_model.cached_for("embed"))
    generator = {"hf_model_id": folder, "vllm_args": tiny_model.ENGINE_ARGUMENTS}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"model": {"generator_settings": generator}}), encoding="utf-8")
    arguments = ("--config", str(tmp_path / "tiny.yaml"), "--count", "64", "--rounds", "2")

    found = measured("embeddings", *arguments, timeout_s=2 * PATIENCE_S)

    rates, memory = found["tables"].values()
    assert [row["round"] for row in rates] == [1, 2]
    for row, one in zip(rates, found["measurements"], strict=True):
        ratios = [one["fleet"] / rate for rate in one["raw"].values()]
        assert any(row["of the best raw"] == pytest.approx(ratio, abs=0.001) for ratio in ratios)
    assert {row["program"] for row in memory} == {"redis", "batcher", "worker-1"}


@pytest.mark.vllm
@pytest.mark.slow
def test_prefixes_sets_two_orders_side_by_side(tmp_path: Path) -> None:
    """What shares documents and what shares nothing; how much of it the real engine's cache had."""
    generator = {"hf_model_id": str(tiny_model.cached()), "vllm_args": tiny_model.ENGINE_ARGUMENTS}
    (tmp_path / "tiny.yaml").write_text(json.dumps({"model": {"generator_settings": generator}}), encoding="utf-8")
    sizes = (
        "--documents",
        "6",
        "--document-tokens",
        "300",
        "--answer-tokens",
        "2",
        "--each",
        "3",
        "1",
        "--rounds",
        "1",
    )

    found = measured("prefixes", "--config", str(tmp_path / "tiny.yaml"), *sizes, timeout_s=2 * PATIENCE_S)

    (rows,) = found["tables"].values()
    assert [(row["questions to a document"], row["order"]) for row in rows] == [
        (3, "as they come"),
        (3, "side by side"),
        (1, "as they come"),
        (1, "side by side"),
    ]
    assert rows[1]["cached"] > 0
    assert [row["cached"] for row in rows[2:]] == [0, 0]


def test_scale_sets_simulated_workers_against_the_ideal() -> None:
    """Every number of workers answers its questions; the busiest program is named with what to do about it."""
    arguments = (
        "--workers",
        "1",
        "3",
        "--per-worker",
        "60",
        "--batch",
        "8",
        "--step-s",
        "0.002",
        "--sequences",
        "8",
        "--tokens",
        "2",
        "20",
    )

    found = measured("scale", *arguments)

    rows, of_redis = found["tables"].values()
    assert all(0 < row["way p50, ms"] <= row["way p99, ms"] and row["CPU us/question"] >= 0 for row in of_redis)
    assert [(one["workers"], one["questions"]) for one in found["measurements"]] == [(1, 60), (3, 180)]
    assert all(0 < row["of the ideal"] <= 1.1 for row in rows)
    assert "What gives out first: the " in found["notes"][-1]


def test_queue_sets_the_fleet_beside_another_queue() -> None:
    """Both are measured with the same questions; the other one, in an environment of its own, says its versions."""
    arguments = ("--count", "300", "--batch", "64", "--rounds", "1", "--peers", "huey", "--peer-count", "60", "--json")

    done = bench("queue", *arguments, XDG_CACHE_HOME=str(shared_cache()))

    assert done.returncode == 0, done.stderr
    rates, versions = json.loads(done.stdout)["tables"].values()
    assert [row["queue"] for row in rates] == ["batchfleet, batches of 64", "huey"]
    assert all(row["questions/s"] > 0 and row["CPU s/1 000"] > 0 for row in rates)
    assert versions[0]["versions"].startswith("huey 3.")


def test_latency_shows_where_the_milliseconds_go() -> None:
    """Every stage of a question's way was seen; and without the hungry flush, questions wait for company."""
    found = measured("latency", "--count", "5", "--rounds", "1", "--traced", "5", "--loads", "2", "--seconds", "1")

    latency, stages, loaded = found["tables"].values()
    assert [row["hungry flush"] for row in loaded] == ["on", "off"]
    assert loaded[0]["p50"] < loaded[1]["p50"]
    assert [row["round"] for row in latency] == ["1", "all"]
    assert [row["stage"] for row in stages] == list(STAGES.values())
    assert all(row["p50"] > 0 for row in stages)
    assert len(found["measurements"][0]["ms"]) == 5


def test_profile_names_the_functions_of_each_program() -> None:
    """Producer, batcher and worker were sampled, and Redis' commands counted."""
    found = measured("profile", "--count", "3000", "--top", "5")

    tables = found["tables"]
    assert [row["program"] for row in tables["CPU microseconds per question"]] == [
        "producer",
        "batcher",
        "worker",
        "redis",
        "all",
    ]
    for program in ("producer", "batcher", "worker"):
        rows = tables[f"{program}, us per question"]
        assert 0 < len(rows) <= 5
        assert all(0 < row["own"] <= row["with callees"] for row in rows)
    assert any(row["command"] == "xadd" for row in next(reversed(tables.values())))


def test_a_benchmark_that_did_not_answer_everything_has_no_figure() -> None:
    """A rate of refusals would look like a good one."""
    done = bench("throughput", "--count", "50", "--batch", "16", "--rounds", "1", BATCHFLEET_STUB_REFUSE_ON="How")

    assert done.returncode == 3
    assert done.stdout == ""
    assert "of 50 questions were answered" in done.stderr


def test_text_is_markdown_with_the_machine_above_it() -> None:
    """What is printed can be pasted into docs/design/performance.md."""
    done = bench("throughput", "--count", "100", "--batch", "64", "--rounds", "1")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("bench throughput: workers 2")
    assert "Python" in lines[2]
    assert any(line.startswith("|-") for line in lines)


def test_generated_questions_are_as_long_as_those_of_gsm8k() -> None:
    """And the same for everybody: the seed alone decides."""
    texts = list(make_questions(2000, seed=1))

    lengths = [len(text) for text in texts]
    assert texts == list(make_questions(2000, seed=1))
    assert len(set(texts)) == len(texts)
    assert SHORTEST - 20 <= min(lengths) < 120
    assert 600 < max(lengths) < LONGEST + 40
    assert median(lengths) == pytest.approx(MEDIAN_CHARS, rel=0.05)


def test_a_percentile_is_one_of_the_values() -> None:
    """The smallest that the given share of all do not exceed."""
    values = [float(number) for number in range(1, 201)]

    assert [percentile(values, share) for share in (0.005, 0.5, 0.95, 0.99, 1.0)] == [1, 100, 190, 198, 200]


def test_columns_of_a_table_are_aligned() -> None:
    """Tables are read in terminals too."""
    table = Table("Rates", ("batch", "questions/s"), [(1, 12345), (256, 7.5)])

    assert table.as_markdown().splitlines() == [
        "Rates:",
        "",
        "| batch | questions/s |",
        "|-------|-------------|",
        "| 1     | 12 345      |",
        "| 256   | 7.5         |",
    ]
