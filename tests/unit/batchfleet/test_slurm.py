"""A fleet on Slurm without Slurm: what its scripts say, and how many worker jobs there are to be.

`scripts/test-slurm` runs the rest on Slurm itself.
"""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from batchfleet.slurm import commands, scheduler
from batchfleet.slurm.job_changes import MOST_FAILURES, Changes, Failures, changes
from batchfleet.slurm.job_scripts import JobPlan, controller, worker, write_scripts
from batchfleet.slurm.queue_server import Certificate, ServerPlan, own_host
from batchfleet.slurm.run_folder import RunFolder
from batchfleet.slurm.scheduler import Job, SchedulerError
from wire.errors import UsageError
from wire.moving_address import read_address

PLAN = JobPlan(
    answers="/shared/my answers.jsonl",
    submit=("/shared/it's.jsonl", "-o", "/shared/my answers.jsonl"),
    config="/shared/fleet.yaml",
    program=("/venv/bin/python", "-P", "-m", "batchfleet"),
    drain_s=30.0,
    hf_model_id="Qwen/Qwen3-4B",
    partition="gpu",
    queue_partition="cpu",
    options=("--account=physics",),
)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """As `slurm submit` makes it."""
    made = RunFolder.of_answers(str(tmp_path / "my answers.jsonl"))
    made.create()
    return made


def running(*numbers: int) -> list[Job]:
    """Elements of an array, as Slurm lists them."""
    return [Job(f"7_{number}", "RUNNING", node="gpu1") for number in numbers]


def waiting(*numbers: int) -> list[Job]:
    """The same of another array."""
    return [Job(f"8_{number}", "PENDING", "Resources") for number in numbers]


@pytest.mark.parametrize(
    ("jobs", "asked", "wanted", "expected"),
    [
        ([], 8, 3, Changes(submit=3)),
        ([], 8, 20, Changes(submit=8)),
        (running(1, 2), 8, 3, Changes(submit=1)),
        (running(1, 2) + waiting(1, 2), 8, 3, Changes(cancel=("8_2",))),
        # Those that run leave by themselves where the backlog is worth fewer, and are drained where fewer are allowed.
        (running(1, 2, 3) + waiting(1), 8, 1, Changes(cancel=("8_1",))),
        (running(1, 2, 3) + waiting(1), 2, 9, Changes(cancel=("8_1",), drain=("7_3",))),
        # It may be about to be queued again.
        ([*running(1), Job("7_2", "COMPLETING")], 2, 2, Changes()),
        (running(1), 8, 0, Changes()),
        # Slurm would have it wait for two minutes.
        ([*running(1), Job("7_2", "PENDING", "BeginTime")], 2, 2, Changes(submit=1, cancel=("7_2",))),
        (waiting(1), 8, 0, Changes(cancel=("8_1",))),
    ],
)
def test_worker_jobs_follow_the_backlog_and_never_exceed_what_was_asked(
    jobs: list[Job], asked: int, wanted: int, expected: Changes
) -> None:
    """As many as are wanted, no more than were asked for, and only those go that hold no work, or are too many."""
    assert changes(jobs, asked=asked, wanted=wanted) == expected


def test_workers_that_fail_are_queued_again_ever_more_rarely() -> None:
    """Pauses double while nothing is answered, an answer ends them, and after enough rounds it is hopeless."""
    failures = Failures(frozenset({"1"})).after(frozenset({"1"}), 0, 0.0)
    assert failures.until_s == 0.0

    pauses = []
    for round_ in range(2, 2 + MOST_FAILURES):
        assert not failures.is_hopeless
        failures = failures.after(failures.seen | {str(round_)}, 0, 1000.0)
        pauses.append(failures.until_s - 1000.0)

    assert failures.is_hopeless
    assert pauses[:3] == [15, 30, 60]
    assert pauses[-1] == 900
    assert not failures.after(failures.seen, 1, 1000.0).is_hopeless


def test_scripts_can_be_read_and_say_what_was_chosen(folder: RunFolder) -> None:
    """Options stand in the head, names with blanks and quotes survive, and bash accepts both."""
    tls = replace(PLAN, certificate=Certificate("/c/cert.pem", "/c/key.pem", "/c/ca.pem"), image="/shared/fleet.sif")

    for plan in (PLAN, tls):
        for text in (controller(folder, plan), worker(folder, plan)):
            subprocess.run(["bash", "-n"], input=text, text=True, check=True)  # noqa: S607 (any)
            assert "#SBATCH --account=physics\n" in text
            assert "#SBATCH --requeue\n" in text
            assert "@" not in text.replace("[@]", "").replace("B:USR1@45", "").replace("B:TERM@60", "")
    assert """submit '/shared/it'"'"'s.jsonl' -o '/shared/my answers.jsonl'""" in controller(folder, PLAN)
    text = worker(folder, PLAN)
    assert "#SBATCH --partition=gpu\n" in text
    assert "#SBATCH --signal=B:USR1@45\n" in text
    assert "model=models--Qwen--Qwen3-4B\n" in text
    assert "=redis+file://" in text
    assert "--tls-cert /c/cert.pem" in controller(folder, tls)
    assert "=rediss+file://" in worker(folder, tls)
    assert "apptainer exec --nv" in worker(folder, tls)


def test_an_option_that_is_none_is_refused(folder: RunFolder) -> None:
    """It would end up in the script as a command of its own."""
    for option in ("account=physics", "--comment=a\nrm -rf /"):
        with pytest.raises(UsageError, match="is no option of sbatch"):
            worker(folder, replace(PLAN, options=(option,)))


def test_an_edited_script_is_left_as_it_is(folder: RunFolder) -> None:
    """It is named, and the other one is as it was."""
    assert write_scripts(folder, PLAN) == []
    folder.worker_script.write_text("#!/bin/sh\n")

    assert write_scripts(folder, PLAN) == [folder.worker_script]

    assert folder.worker_script.read_text() == "#!/bin/sh\n"


def test_only_one_controller_has_the_folder(folder: RunFolder) -> None:
    """Of two that want to be the next, one is; and everybody sees which."""
    assert folder.last_controller() == (0, "")

    assert folder.take_over(1, "12")
    assert not folder.take_over(1, "13")

    assert folder.last_controller() == (1, "12")


def test_the_server_wants_a_password_and_speaks_tls_where_a_certificate_is_given(tmp_path: Path) -> None:
    """Its configuration says so, and keeps an append-only file in the folder."""
    plan = ServerPlan(tmp_path, "127.0.0.1", 7000, "secret", 1024)

    plain = plan.configuration().splitlines()
    tls = replace(plan, certificate=Certificate("c", "k", "a")).configuration().splitlines()

    assert {'requirepass "secret"', "appendonly yes", "port 7000", f'dir "{tmp_path}"'} <= set(plain)
    assert {'requirepass "secret"', "port 0", "tls-port 7000", "tls-cert-file c", "tls-ca-cert-file a"} <= set(tls)


@pytest.mark.parametrize(
    ("known", "found"), [(["127.0.1.1", "10.1.2.3"], "10.1.2.3"), (["127.0.1.1"], "127.0.0.1")], ids=["one", "none"]
)
def test_a_node_without_a_way_outside_is_found_by_its_name(
    known: list[str], found: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By what its name stands for; where that is the loopback only, it says what to do."""

    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "gethostbyname_ex", lambda name: (name, [], known))

    assert own_host(by_name=False) == found
    assert ("--host" in caplog.text) == (found == "127.0.0.1")


def test_the_address_in_a_file_is_read_as_far_as_it_is_one(tmp_path: Path) -> None:
    """What is no HOST:PORT is a server that is away: it may be there the next time."""
    file = tmp_path / "queue-address"
    for text in ("", "host", "host:", "host:99999", ":6379", "x" * 5000):
        file.write_text(text)
        with pytest.raises(redis.ConnectionError):
            read_address(file)

    file.write_text("[::1]:6379\n")

    assert read_address(file) == ("::1", 6379)


SQUEUE = """#!/bin/sh
case "$*" in *-queue*) cat "$JOBS/queue";; *) cat "$JOBS/worker";; esac
"""


@pytest.fixture
def commands_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for Slurm's commands; they list what the files `queue` and `worker` in the folder say."""
    made = tmp_path / "bin"
    made.mkdir()
    for name, text in (("squeue", SQUEUE), ("sbatch", '#!/bin/sh\necho "$*" >>"$JOBS/submitted"\necho 42\n')):
        (made / name).write_text(text)
        (made / name).chmod(0o755)
    for name in ("queue", "worker"):
        (made / name).touch()
    monkeypatch.setenv("PATH", f"{made}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(made))
    return made


def test_a_queue_is_kept_by_one_job(commands_of_slurm: Path, tmp_path: Path) -> None:
    """Submitted again while its job waits or runs, it is refused and nothing is queued."""
    from batchfleet.settings.schema import Settings  # noqa: PLC0415 (only here)

    plan = replace(PLAN, answers=str(tmp_path / "a.jsonl"), engine="stub")
    commands.submit(plan, Settings(), 8, write_only=True)
    assert not (commands_of_slurm / "submitted").exists()
    commands.submit(plan, Settings(), 8, write_only=False)
    (commands_of_slurm / "queue").write_text("42|PENDING|Priority|\n")

    with pytest.raises(UsageError, match="job 42 already holds this queue"):
        commands.submit(plan, Settings(), 8, write_only=False)

    submitted = (commands_of_slurm / "submitted").read_text().splitlines()
    assert len(submitted) == 1
    assert submitted[0].endswith("a.jsonl.slurm/controller.sbatch")


def test_slurms_answers_are_read_and_its_errors_handed_on(commands_of_slurm: Path) -> None:
    """What is no line of a job is passed over; a command that fails says why in one line."""
    (commands_of_slurm / "worker").write_text("7_1|RUNNING|None|gpu1\n7_2|PENDING|(Priority)|\nslurm_load: hm\n")
    (commands_of_slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")

    assert scheduler.jobs("x-worker") == [
        Job("7_1", "RUNNING", "None", "gpu1"),
        Job("7_2", "PENDING", "(Priority)", ""),
    ]
    with pytest.raises(SchedulerError, match=r"^sbatch failed: sbatch: error: invalid partition$"):
        scheduler.submit(Path("worker.sbatch"), "x")
