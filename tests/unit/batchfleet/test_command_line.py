"""What the first word of a command line may be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchfleet.cli.main import COMMANDS, command_parser, main
from batchfleet.humanize import MASK


def test_a_mistyped_command_is_told_from_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and no list of twenty."""
    for word, told in (
        ("runn", "there is no command 'runn'; did you mean 'run'?"),
        ("frobnicate", "there is no command 'frobnicate'; --help lists them"),
    ):
        with pytest.raises(SystemExit) as ended:
            main([word, "questions.jsonl"])

        assert ended.value.code == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("run a.jsonl -o b.jsonl --wokers 2", "batchfleet run: there is no flag --wokers; did you mean --workers?"),
        ("run a.jsonl -o b.jsonl --engin=stub", "batchfleet run: there is no flag --engin; did you mean --engine?"),
        ("submit a.jsonl -o b.jsonl --frobnicate", "batchfleet submit: there is no flag --frobnicate"),
        (
            "run a.jsonl -o b.jsonl c.jsonl",
            "batchfleet run: unexpected 'c.jsonl': put file names together, before or after the flags",
        ),
        (
            "run a.jsonl -o b.jsonl --engine stubb",
            "batchfleet run: argument --engine: invalid choice: 'stubb' (choose from",
        ),
        (
            "bench queue",
            "batchfleet: the benchmarks are not installed; from a checkout of batchfleet: python -m benchmarks",
        ),
        (
            "--config fleet.yaml run a.jsonl",
            "batchfleet: flags come after the command: batchfleet COMMAND --config ...",
        ),
    ],
)
def test_a_mistake_is_one_line(typed: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the command and what is near, and where the flags are listed; it does not list them."""
    with pytest.raises(SystemExit) as ended:
        main(typed.split())

    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(told)
    assert said.endswith(f"see {told.partition(':')[0]} --help\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "told"), [("--version", "batchfleet "), ("help", "usage: batchfleet"), ("--help", "usage: batchfleet")]
)
def test_version_and_help_are_told(asked: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout, since they were asked for."""
    with pytest.raises(SystemExit) as ended:
        main([asked])

    assert ended.value.code in {0, None}
    assert capsys.readouterr().out.startswith(told)


def break_settings(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The next command meets what nobody foresaw."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("odd\nthings at redis://me:hidden-word@host")

    monkeypatch.setattr("batchfleet.cli.execute._settings", fail)
    monkeypatch.setattr("tempfile.tempdir", str(folder))


def test_a_bug_is_one_line_and_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own, 1, would say that some questions failed.

    The traceback is in a file of this user's, without passwords.
    """
    break_settings(monkeypatch, tmp_path)

    assert main(["config"]) == 70

    (traceback,) = tmp_path.iterdir()
    said = capsys.readouterr().err
    where = f"(a bug of batchfleet; its traceback is in {traceback})"
    assert said == f"batchfleet: unexpected ZeroDivisionError: odd things at redis://me:{MASK}@host {where}\n"
    text = traceback.read_text()
    assert "in fail" in text
    assert "hidden-word" not in text + said
    assert traceback.stat().st_mode & 0o777 == 0o600


def test_a_bug_of_a_service_is_in_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folder of temporary files may end with its container."""
    break_settings(monkeypatch, tmp_path)

    assert main(["batcher"]) == 70

    said = capsys.readouterr().err
    assert "CRITICAL" in said
    assert "in fail" in said
    assert said.splitlines()[-1].endswith("(a bug of batchfleet; its traceback is above)")
    assert "hidden-word" not in said
    assert not list(tmp_path.iterdir())


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, as stdout is for data."""
    with pytest.raises(SystemExit):
        main([])

    said = capsys.readouterr()
    assert "answer a file with a fleet of its own on this machine" in said.err
    assert said.out == ""


def test_every_command_is_found_alone_as_among_all() -> None:
    """A command line gets only the parser that it needs, and that is the same one."""
    everything = command_parser().format_help()
    for names in COMMANDS.values():
        for name in names:
            assert f"    {name} " in everything or f"    {name}\n" in everything
            assert name in command_parser([name]).format_usage() + command_parser([name]).format_help()


def test_the_help_of_all_commands_imports_none_of_them() -> None:
    """What it says of each is what the command's own parser says, so it need not be asked."""
    subparsers = command_parser()._subparsers
    assert subparsers is not None

    said = {action.dest: action.help for action in subparsers._group_actions[0]._choices_actions}  # type: ignore[attr-defined]
    assert said == {name: words for names in COMMANDS.values() for name, words in names.items()}


@pytest.mark.parametrize(
    ("command", "needless"),
    [
        ("health", {"producer", "batcher", "rich", "rq", "openai", "jinja2", "vllm"}),
        ("run", {"batcher.batcher", "gpu_worker.worker", "rq", "prometheus_client", "jinja2", "httpx2", "vllm"}),
    ],
)
def test_a_command_imports_no_part_of_the_fleet_that_it_does_not_need(command: str, needless: set[str]) -> None:
    """A health check comes every few seconds, in every container; a `run` leaves batchers and workers to processes."""
    code = (
        "import sys; from batchfleet.cli.main import command_parser; command_parser(sys.argv[1:]); print(*sys.modules)"
    )
    loaded = set(
        subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=True).stdout.split()  # noqa: S603 (ours)
    )

    assert not {name for name in loaded if name in needless or name.partition(".")[0] in needless}
