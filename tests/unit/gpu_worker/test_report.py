"""What workers and batchers say of themselves."""

from __future__ import annotations

import json

from batcher.options import BatchLimits
from batcher.packing import Waiting
from batcher.stats import HandoverStats
from gpu_worker.reports.counters import MOST_KINDS, Counts
from gpu_worker.reports.worker_report import Report
from tests.builders import an_answer
from wire.histogram import Histogram
from wire.messages import WIRE_VERSION, ErrorDetail, Failure


def a_failure(kind: str) -> Failure:
    """A failure of that kind."""
    return Failure(run="run-1", index=0, request_id="q1", error=ErrorDetail(kind=kind, message="no"))


def test_a_worker_says_which_wire_version_it_reads() -> None:
    """So that `status` can tell whether what waits for a newer one waits in vain."""
    assert Report("stub", "stub", 64).fields()["wire_version"] == str(WIRE_VERSION)


def test_a_worker_that_answers_between_two_reports_is_not_idle() -> None:
    """Idleness begins with the first report that finds neither work nor anything done since the last."""
    clock = [0.0]
    report = Report("stub", "stub", 64, state="running", now=lambda: clock[0])
    for clock[0] in (0.0, 1.0, 2.0):
        report.counts.add(an_answer())
        assert report.fields()["idle_s"] == "0.0"
    for clock[0] in (3.0, 4.0, 8.0):
        idle_s = report.fields()["idle_s"]
    assert idle_s == "5.0"
    report.in_flight = 1
    assert report.fields()["idle_s"] == "0.0"


def test_what_was_cancelled_is_no_answer_in_the_rate() -> None:
    """Ten thousand questions of a cancelled run end at once; nobody's engine became faster by it."""
    clock = [0.0]
    report = Report("stub", "stub", 64, state="running", in_flight=64, now=lambda: clock[0])
    for clock[0] in map(float, range(20)):
        report.counts.add(an_answer())
        for _ in range(500):
            report.counts.add(a_failure("cancelled"))
        fields = report.fields()

    assert float(fields["answers_per_s"]) < 2
    assert fields["failed"] == "10000"


def test_kinds_of_failure_do_not_grow_without_end() -> None:
    """Beyond the most, further ones count as `other`."""
    counts = Counts()
    for number in range(MOST_KINDS + 5):
        counts.add(a_failure(f"kind-{number}"))
    counts.add(a_failure("kind-0"))

    assert counts.failed == MOST_KINDS + 6
    assert len(counts.failures) == MOST_KINDS + 1
    assert (counts.failures["kind-0"], counts.failures["other"]) == (2, 5)


def test_a_histogram_counts_a_bound_as_within() -> None:
    """As Prometheus has it: `le` is less or equal."""
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.observe(value)

    assert histogram.counts == [2, 2, 1]
    assert (histogram.count, histogram.total) == (5, 8.0)


def test_a_batcher_tells_what_it_handed_over_lately() -> None:
    """By model, with how many batches were full; after half a minute, what came before is no longer lately."""
    clock = [0.0]
    tally = HandoverStats(BatchLimits(max_questions=2), now=lambda: clock[0])
    question = Waiting(b"1-0", b"x", 0.0)
    tally.add("stub", [[question, question], [question]])
    first = tally.as_dict()
    for clock[0] in range(1, 40):
        later = tally.as_dict()

    assert first["by_reason"] == {"full": 1, "time": 1}
    assert first["models"] == {
        "stub": {"batches": 2, "questions": 3, "full": 1, "lately": {"batches": 2, "questions": 3, "full": 1}}
    }
    assert json.loads(json.dumps(later))["models"]["stub"] == {
        "batches": 2, "questions": 3, "full": 1, "lately": {"batches": 0, "questions": 0, "full": 0},
    }  # fmt: skip
