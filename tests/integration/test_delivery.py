"""What a producer does between Redis and its disk.

A record is forgotten only when its line is safe, and its line is written once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
import redis

from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer.answers.answers_file import AnswersFile, OutputFullError
from producer.collector import Collector
from producer.file_run import Runner
from producer.file_source import FileSource
from producer.options import ProducerOptions, ReadingLimits
from producer.questions.question_file import check_questions, read_checked
from producer.questions.question_parser import Invalid, ParsedQuestion
from producer.questions.sources import Source
from producer.resume import FileRun, take_stock
from producer.run_tally import RunTally
from producer.sender import CHUNK_BYTES, CHUNK_QUESTIONS, Sender, Sent
from tests.builders import an_answer, epoch_of
from tests.processes import read_answers, write_questions
from wire.address import RedisAddress
from wire.codec import encode_record
from wire.errors import LeaseLostError, UsageError
from wire.keys import Keys
from wire.scripts import load_script

KEYS = Keys()
RUN = "run-1"


class FailingDisk(AnswersFile):
    """A disk that takes what is written, and fails when it is to be safe."""

    def sync(self) -> None:
        raise OutputFullError("the disk fails")


def a_file_run(folder: Path, count: int) -> FileRun:
    """Questions q0, q1, ... in a file."""
    write_questions(folder / "questions.jsonl", count)
    source = Source((folder / "questions.jsonl",))
    return FileRun(RUN, source, check_questions(source, ReadingLimits()), ReadingLimits(), "stub", {"questions": "x"})


def answer_all(client: redis.Redis, what: FileRun) -> None:
    """Have all its questions accepted, and write a record of each, as workers do."""
    keys = [KEYS.run(RUN), KEYS.done(RUN), KEYS.records(RUN), KEYS.pending, KEYS.runs]
    records: list[Any] = []
    epoch = epoch_of(client, RUN)
    for index in range(what.checked.count):
        records += [index, "answered", 1, encode_record(an_answer(f"q{index}", index=index, epoch=epoch))]
        client.setbit(KEYS.accepted(RUN), index, 1)
    client.hset(KEYS.run(RUN), mapping={"cursor": what.checked.count, "accepted": what.checked.count})
    client.register_script(load_script("wire", "publish"))(keys=keys, args=[RUN, 60, epoch, *records])


def a_runner(what: FileRun, answers: AnswersFile, server: EmbeddedServer) -> Runner:
    """A producer that continues with what is there."""
    return Runner(what, take_stock(what, answers), answers, RedisAddress(server.url), ProducerOptions())


def test_what_may_not_be_on_disk_stays_in_redis(
    tmp_path: Path, redis_server: EmbeddedServer, client: redis.Redis
) -> None:
    """Until the disk confirms a line nothing is acknowledged, and the next attempt writes no line twice."""
    what = a_file_run(tmp_path, 20)
    Sender(client, KEYS, RUN, what.fingerprint, 20, ProducerOptions()).open()
    client.delete(KEYS.producer(RUN))
    answer_all(client, what)

    with FailingDisk(tmp_path / "answers.jsonl") as answers, pytest.raises(OutputFullError):
        a_runner(what, answers, redis_server).run()
    assert client.xlen(KEYS.records(RUN)) == 20

    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        a_runner(what, answers, redis_server).run()
    assert [line["id"] for line in read_answers(tmp_path / "answers.jsonl")] == [f"q{number}" for number in range(20)]
    assert client.xlen(KEYS.records(RUN)) == 0


def test_a_record_that_comes_twice_is_one_line(tmp_path: Path) -> None:
    """Redis may return without its last second, and a worker then answers again what has its line already."""
    what = a_file_run(tmp_path, 2)
    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        source = FileSource(what, take_stock(what, answers), answers.path)
        source.move_to(2)

        taken = [source.end(an_answer(f"q{index}", index=index)) for index in (0, 1, 1)]

    assert taken == [True, True, False]
    assert source.open == 0


def test_a_record_of_another_question_is_none_of_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Place and id of a question belong together; an answer under another's id would be a lie."""
    what = a_file_run(tmp_path, 2)
    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        source = FileSource(what, take_stock(what, answers), answers.path)
        assert source.chunk(256, 1_000_000, 0.0) is not None
        source.move_to(2)

        assert not source.end(an_answer("q1", index=0))
        assert source.open == 2
        assert source.end(an_answer("q0", index=0))

    assert "skipped a record of question q1 in the place of q0" in caplog.text


def test_a_producer_that_lost_its_run_drops_nothing(tmp_path: Path, client: redis.Redis) -> None:
    """Another has taken it over and may not have the records yet."""
    what = a_file_run(tmp_path, 3)
    sender = Sender(client, KEYS, RUN, what.fingerprint, 3, ProducerOptions())
    sender.open()
    answer_all(client, what)
    collector = Collector(client, KEYS, RUN, sender, ProducerOptions())
    assert len(collector.receive(0.0)) == 3
    collector.written()
    client.set(KEYS.producer(RUN), "somebody:1:else")

    with pytest.raises(LeaseLostError):
        collector.acknowledge()

    assert client.xlen(KEYS.records(RUN)) == 3


def test_a_run_lives_as_long_as_its_producer_waits(tmp_path: Path, client: redis.Redis) -> None:
    """All of it: a record for which the bit of its question has expired would be taken for a stranger's and dropped."""
    what = a_file_run(tmp_path, 3)
    sender = Sender(client, KEYS, RUN, what.fingerprint, 3, ProducerOptions())
    sender.open()
    answer_all(client, what)
    parts = [KEYS.run(RUN), KEYS.accepted(RUN), KEYS.done(RUN), KEYS.records(RUN)]
    for part in parts:
        client.expire(part, 60)

    Collector(client, KEYS, RUN, sender, ProducerOptions(run_ttl_s=1000)).acknowledge()

    assert all(client.ttl(part) > 900 for part in parts)


def test_a_file_is_submitted_in_pieces_that_are_bounded_in_bytes(tmp_path: Path) -> None:
    """Chat messages weigh as much as prompts do."""
    messages = [{"role": "user", "content": "x" * 300_000}]
    (tmp_path / "questions.jsonl").write_bytes(
        b"".join(orjson.dumps({"messages": messages}) + b"\n" for _ in range(10))
    )
    source = Source((tmp_path / "questions.jsonl",))
    what = FileRun(RUN, source, check_questions(source, ReadingLimits()), ReadingLimits(), "stub", {"questions": "x"})

    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        file, sizes = FileSource(what, take_stock(what, answers), answers.path), []
        while (chunk := file.chunk(CHUNK_QUESTIONS, CHUNK_BYTES, 0.0)) is not None:
            sizes.append(len(chunk.questions))
            file.move_to(chunk.until)

    assert sum(sizes) == 10
    assert max(sizes) <= 4


def test_large_records_are_fetched_a_few_at_a_time(client: redis.Redis) -> None:
    """Memory is bounded in bytes, whatever the answers hold."""
    for number in range(300):
        client.xadd(
            KEYS.records(RUN),
            {"a": encode_record(an_answer(f"q{number}", index=number, run=RUN, text="x" * 1_000_000))},
        )
    collector = Collector(client, KEYS, RUN, Sender(client, KEYS, RUN, {}, 1, ProducerOptions()), ProducerOptions())

    sizes = []
    while records := collector.receive(0.0):
        sizes.append(len(records))

    assert sum(sizes) == 300
    assert max(sizes) <= 64


@pytest.mark.parametrize("replaced", [False, True])
def test_answers_whose_file_was_removed_are_kept(
    tmp_path: Path,
    replaced: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """The file was removed by hand, or by an editor that saved it.

    What is written after that would vanish with the producer, and the run would end well.
    """
    what = a_file_run(tmp_path, 20)
    path = tmp_path / "answers.jsonl"
    with AnswersFile(path) as answers:
        take_stock(what, answers)
        answers.write([an_answer(f"q{index}", index=index) for index in range(10)])
        path.unlink()
        if replaced:
            path.write_text("another\n")

        with pytest.raises(OutputFullError, match="put that in its place"):
            answers.sync()

    (rescued,) = tmp_path.glob("answers.jsonl.*.rescued")
    rescued.replace(path)
    with AnswersFile(path) as answers:
        assert take_stock(what, answers).tally.on_disk == 10


class Recording(Sender):
    """Notes what became of each submission.

    Some replies are lost: before the submission has reached Redis, or after.
    """

    outcomes: ClassVar[list[str]] = []
    lost_before: ClassVar[set[int]] = set()
    lost_after: ClassVar[set[int]] = set()

    def send(self, *arguments: Any, **options: Any) -> Sent:  # noqa: ANN401 (passed on)
        number = len(self.outcomes)
        if number in self.lost_before:
            self.outcomes.append("lost before")
            raise redis.ConnectionError
        sent = super().send(*arguments, **options)
        self.outcomes.append("lost after" if number in self.lost_after else sent.outcome)
        if number in self.lost_after:
            raise redis.TimeoutError
        return sent


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the submissions of the test's producer."""
    monkeypatch.setattr(Recording, "outcomes", [])
    monkeypatch.setattr("producer.run_loop.Sender", Recording)
    return Recording.outcomes


def run_with_workers(
    what: FileRun, server: EmbeddedServer, client: redis.Redis, options: ProducerOptions, at_once: int
) -> list[str]:
    """Run it beside workers that answer so many questions while the producer turns once.

    Returns the ids in the answers file.
    """
    publish = client.register_script(load_script("wire", "publish"))
    keys = [KEYS.run(RUN), KEYS.done(RUN), KEYS.records(RUN), KEYS.pending, KEYS.runs]
    answered = 0

    def work(_: RunTally) -> None:
        nonlocal answered
        accepted = int(client.hget(KEYS.run(RUN), "accepted") or 0)
        for index in range(answered, min(accepted, answered + at_once)):
            epoch = epoch_of(client, RUN)
            publish(
                keys=keys,
                args=[
                    RUN,
                    60,
                    epoch,
                    index,
                    "answered",
                    1,
                    encode_record(an_answer(f"q{index}", index=index, epoch=epoch)),
                ],
            )
            answered += 1

    path = what.questions.files[0].with_name("answers.jsonl")
    with AnswersFile(path) as answers:
        Runner(what, take_stock(what, answers), answers, RedisAddress(server.url), options, observe=work).run()
    return [line["id"] for line in read_answers(path)]


def test_a_lost_reply_does_not_have_the_file_read_again(
    tmp_path: Path,
    redis_server: EmbeddedServer,
    client: redis.Redis,
    outcomes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To get back to where it was in a file of millions takes minutes, in which nothing is collected.

    The cursor says what was accepted.
    """
    read: list[int] = []

    def counted(*arguments: Any) -> Iterator[ParsedQuestion | Invalid]:  # noqa: ANN401 (passed on)
        for question in read_checked(*arguments):
            read.append(question.index)
            yield question

    monkeypatch.setattr("producer.file_source.read_checked", counted)
    monkeypatch.setattr(Recording, "lost_before", {2})
    monkeypatch.setattr(Recording, "lost_after", {5, 9})
    what = a_file_run(tmp_path, 80)

    found = run_with_workers(what, redis_server, client, ProducerOptions(run_window=8), 8)

    assert {"lost before", "lost after"} <= set(outcomes)
    assert sorted(found) == sorted(f"q{number}" for number in range(80))
    assert client.hget(KEYS.run(RUN), "accepted") == b"80"
    assert read == list(range(80))


def test_a_full_window_is_not_knocked_at_with_every_record(
    tmp_path: Path,
    redis_server: EmbeddedServer,
    client: redis.Redis,
    outcomes: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only an acknowledgement makes room.

    A megabyte of questions, packed and sent to be refused whenever a record comes, would help nobody.
    """
    acknowledged = []
    acknowledge = Collector.acknowledge

    def counted(collector: Collector) -> None:
        acknowledged.append(len(outcomes))
        acknowledge(collector)

    monkeypatch.setattr(Collector, "acknowledge", counted)
    what = a_file_run(tmp_path, 300)

    found = run_with_workers(what, redis_server, client, ProducerOptions(run_window=100), 1)

    assert len(found) == 300
    assert outcomes.count("window") <= len(acknowledged)


def test_a_disk_that_is_full_from_the_start_is_told_so_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a note of whose answers they are would leave them to nobody; with room again, the same command begins."""
    what = a_file_run(tmp_path, 3)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched, AnswersFile(tmp_path / "answers.jsonl") as answers:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputFullError, match="No space left"):
            take_stock(what, answers)

    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        assert not take_stock(what, answers).tally.on_disk
    assert orjson.loads((tmp_path / "answers.jsonl.run").read_bytes())["run"] == RUN


def test_a_line_whose_id_is_no_text_is_named(tmp_path: Path) -> None:
    """Somebody has edited the answers."""
    what, path = a_file_run(tmp_path, 3), tmp_path / "answers.jsonl"
    with AnswersFile(path) as answers:
        take_stock(what, answers)
    path.write_text('{"id": "q0", "status": "answered"}\n{"id": 1, "status": "answered"}\n')

    with AnswersFile(path) as answers, pytest.raises(UsageError, match=r"answers\.jsonl:2: not an answer line"):
        take_stock(what, answers)


def test_what_editors_leave_in_the_answers_is_mended(tmp_path: Path) -> None:
    """A byte order mark, a blank line, and a last line that is whole but for its end.

    Each answer counts, and the next begins a line.
    """
    path = tmp_path / "answers.jsonl"
    what = a_file_run(tmp_path, 3)
    with AnswersFile(path) as answers:
        take_stock(what, answers)
        answers.write([an_answer("q0"), an_answer("q1")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\n\n", 1).rstrip())

    with AnswersFile(path) as answers:
        on_disk = take_stock(what, answers).tally.on_disk
        answers.write([an_answer("q2")])

    with AnswersFile(path) as answers:
        assert (on_disk, take_stock(what, answers).is_complete) == (2, True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("q1", r"answers\.jsonl:3: its id 'q1' is that of line 2 already; remove one of them"),
        ("q9", r"answers\.jsonl:3: its id 'q9' belongs to no question; remove the line"),
    ],
)
def test_a_line_too_many_is_named(tmp_path: Path, more: str, words: str) -> None:
    """With what to do about it."""
    path = tmp_path / "answers.jsonl"
    what = a_file_run(tmp_path, 3)
    with AnswersFile(path) as answers:
        take_stock(what, answers)
        answers.write([an_answer("q0"), an_answer("q1"), an_answer(more)])

    with AnswersFile(path) as answers, pytest.raises(UsageError, match=words):
        take_stock(what, answers)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda lines: [*lines[:6], lines[6].replace("?", "!"), *lines[7:]],
            r"question 7 \(.*questions\.jsonl, line 7, id 'q6'\)",
        ),
        (lambda lines: [*lines[:6], *lines[7:]], r"question 7 .* is not what it was \(9 questions then, 8 now\)"),
        (
            lambda lines: [*lines, lines[0].replace("q0", "q9")],
            r"the first 9 questions are the same, the others were added since",
        ),
        (
            lambda lines: lines[:4],
            r"the first 4 questions are the same, the others were taken out since \(9 questions then, 4",
        ),
    ],
    ids=["changed", "taken out", "added", "cut off"],
)
def test_the_first_row_that_differs_is_named(
    tmp_path: Path, change: Callable[[list[str]], list[str]], words: str
) -> None:
    """Not two hashes: whoever edited the questions learns where."""
    what = a_file_run(tmp_path, 9)
    with AnswersFile(tmp_path / "answers.jsonl") as answers:
        take_stock(what, answers)
        answers.write([an_answer("q0")])
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(change(questions.read_text().splitlines())))
    checked = check_questions(what.questions, ReadingLimits())
    edited = replace(what, checked=checked, fingerprint={"questions": "y"})

    with AnswersFile(tmp_path / "answers.jsonl") as answers, pytest.raises(UsageError, match=words):
        take_stock(edited, answers)
