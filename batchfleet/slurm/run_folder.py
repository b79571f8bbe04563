"""The folder beside the answers in which the jobs of a run find each other. All nodes see it, and only its user."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from producer.atomic_file import replacing
from wire.errors import UsageError

MOST_JOBS = 10_000
"""Worker jobs that one run may ask for."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths in it. `path` is absolute.

    Attributes:
        queue: Redis' append-only file.
        address: Holds HOST:PORT of Redis, wherever it runs now.
        controllers: A file for each time that a controller took over, numbered, with its job's id in it.
        failures: A file for each worker job that failed, named after it, with its exit code.
    """

    path: Path

    @classmethod
    def of_answers(cls, answers: str) -> RunFolder:
        """`ANSWERS.slurm`."""
        return cls(Path(f"{answers}.slurm").absolute())

    @property
    def name(self) -> str:
        """What its jobs' names begin with; differs from that of any other folder."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", self.path.name.removesuffix(".slurm"))[:40]
        return f"{stem}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:6]}"

    @property
    def controller_name(self) -> str:
        return f"{self.name}-queue"

    @property
    def worker_name(self) -> str:
        return f"{self.name}-worker"

    @property
    def controller_script(self) -> Path:
        return self.path / "controller.sbatch"

    @property
    def worker_script(self) -> Path:
        return self.path / "worker.sbatch"

    @property
    def queue(self) -> Path:
        return self.path / "queue"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def address(self) -> Path:
        return self.path / "queue-address"

    @property
    def controllers(self) -> Path:
        return self.path / "controllers"

    @property
    def failures(self) -> Path:
        return self.path / "failed-workers"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def _asked(self) -> Path:
        return self.path / "workers"

    @property
    def _stopping(self) -> Path:
        return self.path / "stop"

    @property
    def _password(self) -> Path:
        return self.path / "password"

    def create(self) -> None:
        """Make it, and what is in it from the beginning, as far as it is not there yet.

        Raises:
            UsageError: It cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            for folder in (self.queue, self.logs, self.failures, self.controllers):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not self._password.exists():
                write(self._password, secrets.token_hex(24))
        except OSError as error:
            raise UsageError(f"{self.path} cannot be made: {error.strerror or error}") from None

    @property
    def password(self) -> str:
        """Of Redis.

        Raises:
            UsageError: It is not there: `batchfleet slurm submit` makes it.
        """
        try:
            return self._password.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(
                f"{self._password} cannot be read ({error.strerror or error}): `batchfleet slurm submit` makes it"
            ) from None

    @property
    def asked_workers(self) -> int:
        """How many worker jobs there may be; 0 if that cannot be read."""
        try:
            text = self._asked.read_text(encoding="utf-8").strip()
        except OSError:
            return 0
        return min(int(text), MOST_JOBS) if text.isascii() and text.isdigit() and len(text) < 10 else 0  # noqa: PLR2004 (more digits than any number here)

    def ask_for(self, workers: int) -> None:
        write(self._asked, str(workers))

    @property
    def is_stopping(self) -> bool:
        return self._stopping.exists()

    def ask_to_stop(self) -> None:
        write(self._stopping, "")

    def forget_stop(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._stopping.unlink()

    def last_controller(self) -> tuple[int, str]:
        """How often a controller took over so far, and the id of the last one's job."""
        number = max((int(path.name) for path in self.controllers.iterdir() if path.name.isdigit()), default=0)
        if not number:
            return 0, ""
        return number, (self.controllers / str(number)).read_text(encoding="utf-8").strip()

    def take_over(self, number: int, job: str) -> bool:
        """Be the controller of that number; False if another one was faster."""
        try:
            # Exclusive also over NFS.
            with (self.controllers / str(number)).open("x", encoding="utf-8") as file:
                file.write(f"{job}\n")
        except FileExistsError:
            return False
        return True

    def failed_workers(self) -> frozenset[str]:
        """Ids of the worker jobs that failed."""
        with contextlib.suppress(OSError):
            return frozenset(path.name for path in self.failures.iterdir())
        return frozenset()


def write(path: Path, text: str) -> None:
    """Replace a file as a whole, readable only by this user."""
    with replacing(path, 0o600) as file:
        file.write(f"{text}\n".encode())
