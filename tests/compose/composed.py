"""A fleet as `docker compose` runs it, with the stub engine, to be scaled, killed and asked by tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "docker-compose.stub.yml")
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
    "wheel"
]["packages"]
LONGEST_S = 150.0


@dataclass(frozen=True)
class Ending:
    """How a container ended that was told to.

    Attributes:
        took_s: From the first signal to its end.
        signals: By number, in their order.
    """

    took_s: float
    exit_code: int
    signals: tuple[str, ...]


@dataclass
class Composed:
    """One Compose project. At the end of the `with` block it is gone, volumes and all.

    Attributes:
        folder: Mounted as /data; also holds the configuration and further Compose files.
        environ: What .env would hold.
        files: Compose files, in order.
    """

    project: str
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=lambda: [ROOT / name for name in FILES])

    def __post_init__(self) -> None:
        owner = {"DATA_UID": str(os.getuid()), "DATA_GID": str(os.getgid())}
        self.environ = {"REDIS_PASSWORD": "correct0horse", "DATA_DIR": str(self.folder), **owner, **self.environ}

    def __enter__(self) -> Self:
        self._down()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._down()

    def show_logs(self) -> None:
        """The last that each container said."""
        print(self.compose("logs", "--no-color", "--tail", "60", check=False).stdout)

    def configure(self, text: str) -> None:
        """Give the fleet this YAML configuration, from its next start on."""
        self.environ["FLEET_CONFIG"] = str(self.write("fleet.yaml", text))

    def write(self, name: str, text: str) -> Path:
        """A file that the user of the containers can read."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def extend(self, name: str, services: dict[str, Any]) -> None:
        """Add a Compose file that changes these services."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"services": services}))
        self.files = [*self.files, path]

    def config(self) -> dict[str, Any]:
        """All Compose files in one, with everything filled in."""
        found: dict[str, Any] = json.loads(self.compose("--profile", "*", "config", "--format", "json").stdout)
        return found

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `docker compose ARGUMENTS` to its end."""
        done = subprocess.run(  # noqa: S603 (ours)
            self._command(*arguments),
            env=self._env(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        if check and done.returncode != 0:
            print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
            raise AssertionError(
                f"docker compose {' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-600:]}"
            )
        return done

    def up(self, *arguments: str, workers: int | None = None) -> None:
        """`up --detach --wait`: returns when all that was started is healthy, and fails if something is not."""
        scale = [] if workers is None else ["--scale", f"gpu-worker={workers}"]
        self.compose("up", "--detach", "--wait", "--no-build", "--pull", "never", "--no-recreate", *scale, *arguments)

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `batchfleet` command as a user would."""
        return self.compose(*self._run(*arguments), check=False)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same, without waiting for its end."""
        command = self._command(*self._run(*arguments))
        return subprocess.Popen(  # noqa: S603 (ours)
            command, env=self._env(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def status(self) -> dict[str, Any]:
        """What `batchfleet status --json` says."""
        status: dict[str, Any] = json.loads(self.inside("batcher", "batchfleet", "status", "--json"))
        return status

    def inside(self, service: str, *command: str) -> str:
        """Run a command in a container that is there."""
        return self.compose("exec", "--no-TTY", service, *command).stdout

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers, in their order."""
        return self.compose("ps", "--quiet", service).stdout.split()

    def workers(self, state: str) -> list[dict[str, Any]]:
        """The workers that say that they are in this state."""
        return [worker for worker in self.status()["workers"] if worker["state"] == state]

    def kill(self, container: str, *, for_good: bool = False) -> None:
        """SIGKILL to all of a container, from outside.

        Docker takes it for a crash, and starts it again unless it is `for_good`.
        """
        if for_good:
            subprocess.run(["docker", "update", "--restart=no", container], check=True, capture_output=True)  # noqa: S603, S607 (ours)
        os.kill(int(self.inspect(container, "{{.State.Pid}}")), signal.SIGKILL)

    def stop_runs(self) -> None:
        """What Ctrl-C does to `docker compose run`."""
        ours = [f"label=com.docker.compose.{label}" for label in (f"project={self.project}", "oneoff=True")]
        found = subprocess.run(  # noqa: S603 (ours)
            ["docker", "ps", "--quiet", "--filter", ours[0], "--filter", ours[1]],  # noqa: S607 (ours)
            capture_output=True,
            text=True,
            check=True,
        )
        subprocess.run(["docker", "kill", "--signal", "INT", *found.stdout.split()], check=True, capture_output=True)  # noqa: S603, S607 (ours)

    def inspect(self, container: str, template: str) -> str:
        """What Docker knows of a container."""
        command = ["docker", "inspect", "--format", template, container]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 (ours)

    def is_unhealthy(self, container: str) -> bool:
        return self.inspect(container, "{{.State.Health.Status}}") == "unhealthy"

    def endings(self, since_s: float) -> dict[str, Ending]:
        """How containers of this project ended since that moment, by their ids, as Docker's own events tell."""
        label = f"label=com.docker.compose.project={self.project}"
        kinds = ["--filter", "event=kill", "--filter", "event=die"]
        command = [
            "docker",
            "events",
            "--since",
            f"{since_s:.9f}",
            "--until",
            f"{time.time():.9f}",
            "--filter",
            label,
            *kinds,
            "--format",
            "{{json .}}",
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 (ours)
        signals: dict[str, list[tuple[float, str]]] = defaultdict(list)
        ended = {}
        for event in map(json.loads, said.splitlines()):
            of, at_s, attributes = event["Actor"]["ID"], event["timeNano"] / 1e9, event["Actor"]["Attributes"]
            if event["Action"] == "kill":
                signals[of].append((at_s, attributes["signal"]))
            elif signals[of]:
                ended[of] = Ending(
                    at_s - signals[of][0][0], int(attributes["exitCode"]), tuple(name for _, name in signals[of])
                )
        return ended

    def logs(self, service: str) -> str:
        return self.compose("logs", "--no-color", "--no-log-prefix", service).stdout

    def _down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")

    def _run(self, *arguments: str) -> list[str]:
        return ["run", "--rm", "--no-TTY", "--no-deps", "producer", *arguments]

    def _command(self, *arguments: str) -> list[str]:
        files = [part for path in self.files for part in ("--file", str(path))]
        # Without the .env of whoever runs the tests.
        return [
            "docker",
            "compose",
            "--env-file",
            os.devnull,
            "--project-directory",
            str(ROOT),
            "--project-name",
            self.project,
            *files,
            *arguments,
        ]

    def _env(self) -> dict[str, str]:
        return {**os.environ, **self.environ}
