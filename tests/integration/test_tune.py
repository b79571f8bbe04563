"""`batchfleet tune`, with the stub as the engine."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from batchfleet.cli.tune import file_text
from batchfleet.settings.load import load_settings
from batchfleet.settings.schema import Settings
from batchfleet.tuning.search import Setting
from batchfleet.tuning.shapes import Shape
from batchfleet.tuning.table_report import Report
from batchfleet.tuning.tune import Tuned, with_setting
from tests.long_running import Home, up
from tests.processes import PATIENCE_S, ROOT, Processes, wait_until


def tune(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, as a user would."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "BATCHFLEET_STUB_STEP_S": "0.002", **environ}
    command = [sys.executable, "-m", "batchfleet", "tune", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)  # noqa: S603 (ours)


def test_the_file_it_writes_is_faster_and_can_be_used(tmp_path: Path) -> None:
    """An engine of 4 sequences is enlarged, and the settings say so.

    The budget is for a busy machine: the search ends when nothing gets better.
    """
    written = tmp_path / "tuned.yaml"

    done = tune(
        "--engine",
        "stub",
        "-o",
        str(written),
        "--seconds",
        "0.15",
        "--budget",
        "60",
        "--json",
        BATCHFLEET_STUB_MAX_NUM_SEQS="4",
    )

    assert done.returncode == 0, done.stderr
    settings = load_settings(written, {}, {}).settings
    assert settings.stub.max_num_seqs > 4
    assert settings.capacity is not None
    found = json.loads(done.stdout)
    (rows,) = found["tables"].values()
    assert rows[0]["max_num_seqs"] == 4
    assert rows[0]["of the best"] < 0.9


def test_what_was_found_is_set_against_every_combination() -> None:
    """Both are measured again, and so is every combination near what was there."""
    done = tune(
        "--engine",
        "stub",
        "--seconds",
        "0.5",
        "--budget",
        "60",
        "--json",
        "--exhaustive",
        BATCHFLEET_STUB_MAX_NUM_SEQS="4",
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tried, whole = found["tables"].values()
    assert {row["max_num_seqs"] for row in whole} >= {
        4,
        8,
        16,
        max(row["max_num_seqs"] for row in tried if row[""] == "chosen"),
    }
    assert "Measured 3 times more" in found["notes"][-1]


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """Found out before the engine boots, not after ten minutes."""
    written = tmp_path / "tuned.yaml"
    written.write_text("mine\n", encoding="utf-8")

    done = tune("--engine", "stub", "-o", str(written))

    assert done.returncode == 2
    assert "exists" in done.stderr
    assert written.read_text(encoding="utf-8") == "mine\n"


def test_an_engine_that_refuses_everything_has_no_best_settings() -> None:
    """One clear error, with the engine's own words."""
    done = tune("--engine", "stub", "--seconds", "0.2", BATCHFLEET_STUB_REFUSE_ON=" ")

    assert done.returncode == 2
    assert "refuses the questions" in done.stderr


def test_the_command_in_the_file_starts_that_shape() -> None:
    """Two workers of two GPUs each, on a host that has four; no third would find any."""
    with tempfile.TemporaryDirectory(prefix="bf-tune-") as folder:
        home, file = Home(Path(folder)), Path(folder) / "tuned.yaml"
        found = Setting(8, 12, 4, Shape(2, 2))
        tuned = Tuned(Report("tune", {}, []), with_setting(Settings(), "stub", found, 80.0), found.shape.workers)
        file.write_text(file_text(tuned, "stub", file), encoding="utf-8")
        command = file.read_text(encoding="utf-8").splitlines()[1].partition("batchfleet up ")[2]

        with Processes(home.url, home.folder, {"BATCHFLEET_GPUS": "GPU-0,GPU-1,GPU-2,GPU-3"}) as machine:
            up(machine, home, *shlex.split(command))
            wait_until(lambda: home.running() == 2, "two workers run")
            gpus = [worker["gpus"] for worker in home.status()["workers"]]

        assert sorted(len(one) for one in gpus) == [2, 2]


def test_a_boot_that_takes_longer_than_the_budget_is_ended() -> None:
    """In one line, with what to change."""
    done = tune("--engine", "stub", "--budget", "0.5", BATCHFLEET_STUB_BOOT_S="3000")

    assert done.returncode == 2
    assert done.stderr == "batchfleet: the engine did not boot within 0.5 s; give it a longer --budget\n"
