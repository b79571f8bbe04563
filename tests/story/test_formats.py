"""A run in whatever formats people have: the fleet is the same, and so are its promises."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet

from batchfleet.supervisor.embedded_server import EmbeddedServer
from producer.options import ReadingLimits
from producer.questions.column_mapping import Shape
from producer.questions.question_file import Source, check_questions, read_questions
from tests.processes import PATIENCE_S, ROOT, Processes, batchfleet, lines_in, read_answers, wait_until

SLOW = {"STUB_STEP_S": "0.05", "STUB_MIN_TOKENS": "5", "STUB_MAX_TOKENS": "25", "STUB_MAX_NUM_SEQS": "16"}


def test_a_table_becomes_a_table(tmp_path: Path) -> None:
    """CSV in, Parquet out, in order, with a prompt made by a template; the same command again asks nothing."""
    with (tmp_path / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text", "gold"])
        writer.writerows([str(number), f'Is "{number}" even,\nor odd?', "even"] for number in range(300))
    command = [
        "run",
        str(tmp_path / "*.csv"),
        "-o",
        str(tmp_path / "answers.parquet"),
        "--ordered",
        "--engine",
        "stub",
        "--json",
    ]
    command += [
        "--id-column",
        "number",
        "--answer-column",
        "gold",
        "--template",
        "Q: {{ text }} A:",
        "--metadata-columns",
        "",
    ]

    done, again = batchfleet(*command), batchfleet(*command)

    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    rows = pyarrow.parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["id"] for row in rows] == [str(number) for number in range(300)]
    assert {row["metadata"] for row in rows} == {'{"answer":"even"}'}
    assert json.loads(again.stdout)["questions_per_s"] == 0.0
    changed = batchfleet(*command[:-4], "--template", "{{ text }}")
    assert changed.returncode == 2
    assert "asked as (" in changed.stderr


def test_answers_go_to_standard_output(tmp_path: Path) -> None:
    """As a filter, in whatever format: questions from a pipe, answers to one, and nothing stays on the disk."""
    command = [
        sys.executable,
        "-m",
        "batchfleet",
        "run",
        "-",
        "-o",
        "-",
        "--ordered",
        "--engine",
        "stub",
        "--format",
        "csv",
    ]
    questions = "".join(json.dumps({"id": f"q{number}", "question": "Why?"}) + "\n" for number in range(20))

    done = subprocess.run(  # noqa: S603 (our own command)
        command,
        input=questions,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in csv.DictReader(done.stdout.splitlines())] == [f"q{number}" for number in range(20)]
    assert "answers   standard output" in done.stderr
    assert not list(tmp_path.glob("batchfleet-*"))


def test_a_filter_that_is_stopped_says_how_to_go_on(tmp_path: Path) -> None:
    """Its answers stay where the command that it names continues with them."""
    (tmp_path / "questions.jsonl").write_text("".join(f'{{"question": "{number}?"}}\n' for number in range(2000)))
    command = [
        sys.executable,
        "-m",
        "batchfleet",
        "run",
        str(tmp_path / "questions.jsonl"),
        "-o",
        "-",
        "--engine",
        "stub",
    ]
    environ = os.environ | {"TMPDIR": str(tmp_path)} | {f"BATCHFLEET_{name}": value for name, value in SLOW.items()}
    with subprocess.Popen(  # noqa: S603 (our own command)
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environ
    ) as running:
        wait_until(
            lambda: any(path.stat().st_size for path in tmp_path.glob("batchfleet-*/answers.jsonl")),
            "answers are written",
            60,
        )
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE_S)

    (kept,) = tmp_path.glob("batchfleet-*/answers.jsonl")
    assert running.returncode == 130
    assert out == ""
    assert f"-o {kept} --engine stub --run run-" in " ".join(err.replace("\\", "").split())


def test_standard_input_survives_a_kill(tmp_path: Path, redis_server: EmbeddedServer) -> None:
    """A producer that is killed continues from the questions that it kept.

    Nothing is asked twice, and nothing is left beside the answers.
    """
    questions = "".join(
        json.dumps({"id": f"q{number}", "question": f"What is {number}?"}) + "\n" for number in range(400)
    )
    answers = tmp_path / "answers.json"
    journal, kept = tmp_path / "answers.json.journal", tmp_path / "answers.json.journal.questions"
    with Processes(redis_server.url, tmp_path) as processes:
        processes.start("batcher", "batcher")
        processes.start("worker", "worker", "--engine", "stub", **SLOW)
        command = ["submit", "-", "-o", str(answers), "--redis", redis_server.url, "--model", "stub"]
        whole = [sys.executable, "-m", "batchfleet", *command]
        with subprocess.Popen(whole, stdin=subprocess.PIPE, cwd=ROOT, stderr=subprocess.DEVNULL) as first:  # noqa: S603 (ours)
            assert first.stdin
            first.stdin.write(questions.encode())
            first.stdin.close()
            wait_until(lambda: journal.exists() and lines_in(journal) > 20, "answers come")
            first.send_signal(signal.SIGKILL)
        assert kept.exists()
        assert not answers.exists()
        other = batchfleet(*command, stdin="{}")
        done = batchfleet(*command, stdin=questions)

    assert other.returncode == 2
    assert "differs from" in other.stderr
    assert done.returncode == 0, done.stderr
    results = json.loads(answers.read_text())["results"]
    assert [one["id"] for one in results] == [f"q{number}" for number in range(400)]
    assert [one["question"] for one in results] == [f"What is {number}?" for number in range(400)]
    assert all(one["attempts"] == 1 for one in read_answers(journal))
    assert not kept.exists()


def test_convert_writes_answers_once_more(tmp_path: Path) -> None:
    """From the answers of a run, without asking anything; clear errors for what it cannot do."""
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "1?"}\n{"id": "b", "question": "2?"}\n')
    line = '{"id":"%s","status":"failed","error":{"kind":"x","message":"m","retryable":false},"attempts":1}\n'
    (tmp_path / "answers.jsonl").write_text(line % "b" + line % "a")
    convert = ["convert", str(tmp_path / "answers.jsonl"), "-o"]

    done = batchfleet(
        *convert, str(tmp_path / "out.csv"), "--ordered", "--questions", str(tmp_path / "questions.jsonl")
    )
    unordered = batchfleet(*convert, str(tmp_path / "out.csv"), "--ordered")
    itself = batchfleet(*convert, str(tmp_path / "answers.jsonl"))
    (tmp_path / "other.csv").touch()
    (tmp_path / "other.csv.journal.run").touch()
    others = batchfleet(*convert, str(tmp_path / "other.csv"))
    questions = batchfleet(
        *convert, str(tmp_path / "questions.jsonl"), "--questions", str(tmp_path / "questions.jsonl")
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{tmp_path}/out.csv: 2 answers, 2 of them failures\n"
    assert [row["id"] for row in csv.DictReader((tmp_path / "out.csv").read_text().splitlines())] == ["a", "b"]
    assert (unordered.returncode, unordered.stderr) == (
        2,
        "batchfleet: --ordered needs the order: give --questions as well\n",
    )
    assert (itself.returncode, itself.stderr) == (
        2,
        f"batchfleet: {tmp_path}/answers.jsonl holds the answers; choose another -o\n",
    )
    assert (others.returncode, others.stderr.partition(" (")[0]) == (2, f"batchfleet: {tmp_path}/other.csv is of a run")
    assert (questions.returncode, questions.stderr) == (
        2,
        f"batchfleet: {tmp_path}/questions.jsonl holds the questions; choose another -o\n",
    )


def test_a_configuration_of_distllm_is_a_whole_command(tmp_path: Path) -> None:
    """The configuration says where the questions are and where the output goes.

    The result is where its readers look, and the same command again finds everything answered.
    """
    (tmp_path / "mc.json").write_text(
        json.dumps([{"question": f"{number}?", "answer": "B", "question_hash": f"h{number}"} for number in range(20)])
    )
    output = f"output: {{output_directory: {tmp_path}/out, output_prefix: first, save_incorrect: true}}"
    config = f"questions_file: {tmp_path}/mc.json\n{output}\nrag: {{enabled: true}}\n"
    (tmp_path / "fleet.yaml").write_text(config)
    command = ["run", "--config", str(tmp_path / "fleet.yaml"), "--engine", "stub", "--model", "org/small", "--json"]

    done, again = batchfleet(*command), batchfleet(*command)

    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert "these have no meaning here and are ignored: output.save_incorrect (answers are scored apart" in done.stderr
    results = json.loads((tmp_path / "out" / "first_org_small.json").read_text())["results"]
    assert [one["metadata"] for one in results] == [
        {"answer": "B", "question_hash": f"h{number}"} for number in range(20)
    ]
    assert json.loads(again.stdout)["questions_per_s"] == 0.0
    nothing = batchfleet("run", "--engine", "stub")
    assert (nothing.returncode, nothing.stderr.count("\n")) == (2, 1)
    assert "what should be asked? Name a file of questions" in nothing.stderr


def test_a_data_set_without_ids_is_scored_whatever_form_was_asked(tmp_path: Path) -> None:
    """`run --chat`, then `score` with nothing but the names of the two files; the same command again asks nothing."""
    rows = [{"question": f"He has {number} and finds 2.", "answer": f"#### {number + 2}"} for number in range(20)]
    questions, answers = tmp_path / "sums.jsonl", tmp_path / "answers.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["run", str(questions), "-o", str(answers), "--engine", "stub", "--chat", "--json"]

    done, again = batchfleet(*command), batchfleet(*command)
    score = batchfleet("score", str(answers), "--questions", str(questions), "--json")

    assert (done.returncode, again.returncode, score.returncode) == (0, 0, 0), done.stderr + score.stderr
    assert json.loads(again.stdout)["questions_per_s"] == 0.0
    counts = json.loads(score.stdout)["scores"][0]
    assert (counts["questions"], counts["unanswered"]) == (20, 0)


def test_answers_that_an_earlier_version_began_go_on(tmp_path: Path) -> None:
    """It derived ids from what was asked; these are kept to the end, so that no question is asked twice."""
    questions, answers = tmp_path / "sums.jsonl", tmp_path / "answers.jsonl"
    questions.write_text('{"question": "1 + 1?"}\n{"question": "2 + 2?"}\n{"question": "3 + 3?"}\n')
    command = ["run", str(questions), "-o", str(answers), "--engine", "stub", "--chat", "--json"]
    source = Source((questions,), Shape(chat=True, ids_as_asked=True))
    former = [question.request_id for question in read_questions(source, ReadingLimits())]
    assert batchfleet(*command).returncode == 0
    written = read_answers(answers)
    begun = json.loads((tmp_path / "answers.jsonl.run").read_bytes())
    checked = check_questions(source, ReadingLimits())
    begun["fingerprint"]["questions"] = checked.fingerprint
    digest = hashlib.blake2b(json.dumps(begun["fingerprint"], sort_keys=True).encode(), digest_size=6).hexdigest()
    (tmp_path / "answers.jsonl.run").write_text(
        json.dumps({"run": f"run-{digest}", "fingerprint": begun["fingerprint"]}) + "\n"
    )
    answers.write_text(json.dumps({**written[0], "id": former[0]}) + "\n")

    resumed = batchfleet(*command)

    assert resumed.returncode == 0, resumed.stderr
    assert sorted(line["id"] for line in read_answers(answers)) == former
