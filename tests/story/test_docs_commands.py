"""What README.md and docs/*.md tell people to type is typed: every command, in the order of its page, on real Redis.

The services that a page starts are those that its other commands then use; their engine is the stub, or a server that
stands in for a real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis

from batchfleet.status.model import FleetStatus
from batchfleet.status.read import read_status
from batchfleet.supervisor.embedded_server import SERVER_VARIABLE, EmbeddedServer
from batchfleet.supervisor.processes import spawn, stop_all
from batchfleet.supervisor.state_folder import default_folder, redis_url
from tests.documented import PAGES, ROOT, Shown, commands_of
from tests.processes import PATIENCE_S, wait_until, write_questions
from tests.unit.scripted_server import ScriptedServer, a_text
from wire.keys import Keys, queue_member

NOT_RUN = {
    ("README.md ## With Docker", ""): "needs Docker: tests/compose/test_readme.py runs it in a fresh clone",
    ("docs/docker.md", ""): "needs Docker: tests/compose",
    ("README.md ## OpenAI's API", ""): "listens on a port that may be taken: tests/story/test_gateway_online.py",
    ("docs/gateway.md", ""): (
        "listens on a port that may be taken: tests/story/test_gateway_online.py and test_gateway_batches.py ask what "
        "it asks, tests/gateway_tools runs its tools"
    ),
    (
        "docs/kubernetes.md",
        "",
    ): "needs a cluster: tests/unit/test_kubernetes.py and scripts/test-kubernetes look at its manifests",
    ("docs/slurm.md", ""): "needs Slurm: scripts/test-slurm has one",
    ("docs/operations.md ## Several hosts", ""): "needs several hosts: tests/compose/test_two_hosts.py",
    ("docs/operations.md ### When one Redis is not enough", ""): "needs two Redis: tests/story/test_two_queues.py",
    (
        "docs/tuning.md",
        "batchfleet tune",
    ): "takes up to ten minutes: tests/integration/test_tune.py runs it with less time",
    ("README.md", "scripts/install --vllm"): "installs vLLM: 3.5 GB or 10 GB",
    ("README.md", ".venv-vllm/bin/batchfleet"): "loads a model from the internet",
    ("docs/engines.md", "scripts/install --vllm"): "installs vLLM: 3.5 GB or 10 GB",
    ("docs/engines.md", ".venv-vllm/bin/batchfleet"): "loads a model from the internet",
    (
        "docs/design/chaos.md",
        "scripts/chaos",
    ): "takes from minutes to an hour: CI runs `scripts/chaos --fixed --seeds 2`",
    ("docs/guarantees.md", "batchfleet forget"): "docs/operations.md has the same, with a fleet",
    (
        "docs/design/performance.md",
        "",
    ): (
        "measures for minutes, on an idle machine, some with vLLM or a GPU: tests/integration/test_bench.py has each "
        "in "
        "small"
    ),
    ("docs/python.md", ""): "tests/story/test_python_docs.py runs its programs",
}
"""(page, or page and section, with which a command begins) -> why it is not run here."""

EXIT_CODES = {
    "batchfleet dead retry": 2,  # The letter that the test puts there cannot be read, and it says so.
    "batchfleet status --redis redis://HOST:6379/0 --watch": 130,  # Until Ctrl-C.
    "batchfleet status --watch": 130,
}
"""What commands begin with whose exit code is not 0."""

FLEET_OF_ITS_OWN = {"docs/records.md"}
"""Pages that speak of a fleet and do not start one."""

SMALLER = {"--workers 4": "--workers 2", "scale 6": "scale 3"}
"""CI has two cores."""

SERVICE = re.compile(r"batchfleet (batcher|worker|up)\b")


def reason(shown: Shown) -> str | None:
    """Why a command is not run; None if it is."""
    places = (shown.page, f"{shown.page} {shown.section}")
    return next(
        (why for (place, start), why in NOT_RUN.items() if place in places and shown.text.startswith(start)), None
    )


def first_word(line: str) -> str:
    """Of letters: figures differ each time."""
    found = re.search(r"[A-Za-z]+", line)
    return found[0] if found else ""


def paragraph_file(page: str, name: str) -> str:
    """The block that the page introduces as the content of a file.

    Its text, after a line that ends in the name and a colon.
    """
    found = re.search(rf"`{re.escape(name)}`:\n\n((?:    .*\n)+)", (ROOT / page).read_text(encoding="utf-8"))
    assert found is not None, f"{page} does not say what is in {name}"
    return textwrap.dedent(found[1])


class Reader:
    """Somebody who has a page before them, and a folder with the files that it speaks of.

    Args:
        folder: Its path is short, because a socket will be in it.
        url: A Redis, for `redis://HOST:6379/0`.
        port: Where a server answers, for `localhost:8000`.
    """

    def __init__(self, folder: Path, url: str, port: int) -> None:
        self.folder = folder
        self.port = port
        self.services: list[tuple[Shown, subprocess.Popen[bytes]]] = []
        self._run = ""
        self._made: dict[str, str] = {}
        self._own_url = self._url = url
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BATCHFLEET_")}
        kept |= {SERVER_VARIABLE: os.environ[SERVER_VARIABLE]} if SERVER_VARIABLE in os.environ else {}
        path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environ = {
            **kept,
            "PATH": path,
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder),
            "TMPDIR": str(folder),
            "PYTHONPATH": str(ROOT),
        }

    def read(self, shown: Shown) -> None:
        """Do what it says, and compare what comes of it with what it says."""
        if (output := re.search(r"batchfleet (?:run|submit) .*-o (\S+)", shown.text)) and self._made.get(
            output[1]
        ) != shown.section:
            # Whoever reads a section need not have done what stands before it: answers of before would be taken for its
            # own.
            self._made[output[1]] = shown.section
            for path in self.folder.glob(f"{output[1]}*"):
                path.unlink()
        text = self._resolved(shown)
        if service := SERVICE.match(shown.text):
            self._start(shown, text, service[1])
            return
        code, said = self._watch(text) if "--watch" in text else self._typed(shown, text)
        for path in sorted(self.folder.glob("*.run"), key=lambda path: path.stat().st_mtime):
            self._run = json.loads(path.read_text())["run"]
        expected = next((code for start, code in EXIT_CODES.items() if shown.text.startswith(start)), 0)
        assert code == expected, f"{shown}\n{said[-3000:]}"
        for line in shown.printed:
            assert first_word(line) in said, f"{shown}: it prints nothing like {line!r}\n{said[-3000:]}"

    def end(self) -> None:
        """Stop what the page started and did not stop; everything ends in order."""
        for _, process in self.services:
            if process.poll() is None:
                process.terminate()
        for number, (shown, process) in enumerate(self.services):
            assert process.wait(PATIENCE_S) == 0, f"{shown}\n{self._log(number).read_text()[-3000:]}"

    def _typed(self, shown: Shown, text: str) -> tuple[int, str]:
        command = [sys.executable, "-c", text] if shown.is_program else ["bash", "-euo", "pipefail", "-c", text]
        done = subprocess.run(  # noqa: S603 (ours)
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def _watch(self, text: str) -> tuple[int, str]:
        """Look at it, and press Ctrl-C."""
        log = self.folder / "watched.log"
        watching = spawn(["bash", "-c", f"cd {self.folder}; exec {text}"], self.environ, log)
        wait_until(lambda: "workers:" in log.read_text(), "it shows something")
        watching.send_signal(signal.SIGINT)
        return watching.wait(PATIENCE_S), log.read_text()

    def _start(self, shown: Shown, text: str, what: str) -> None:
        process = spawn(["bash", "-c", f"cd {self.folder}; exec {text}"], self.environ, self._log(len(self.services)))
        self.services.append((shown, process))
        if what == "up":
            self._url = redis_url(default_folder(self.environ))
        wanted = int(text.partition("--workers ")[2] or 1)

        def serves() -> bool:
            assert process.poll() is None, f"{shown} ended:\n{self._log(len(self.services) - 1).read_text()[-3000:]}"
            status = self._status()
            running = sum(worker.state == "running" for worker in status.workers)
            return status.leader != "" if what == "batcher" else running == wanted

        wait_until(serves, f"{shown} serves", PATIENCE_S)
        if what == "worker":
            self._put_aside()

    def _log(self, number: int) -> Path:
        return self.folder / f"service-{number}.log"

    def _status(self) -> FleetStatus:
        try:
            with redis.Redis.from_url(self._url, protocol=2) as client:
                return read_status(client, Keys())
        except redis.ConnectionError:
            return FleetStatus()

    def _resolved(self, shown: Shown) -> str:
        """With what the page leaves to the reader: host, run, worker, letter."""
        if "redis://HOST" in shown.text:
            self._url = self._own_url
        text = re.sub(r"(?<!\S)scripts/", f"{ROOT}/scripts/", shown.text).replace(
            ".venv/bin/", f"{Path(sys.executable).parent}/"
        )
        text = text.replace("redis://HOST:6379/0", self._url).replace("redis://localhost", self._url)
        text = text.replace("http://localhost:8000", f"http://localhost:{self.port}")
        if re.search(r"\bRUN\b", text):
            text = text.replace("RUN", self._run)
        if "drain WORKER" in text:
            text = text.replace("WORKER", self._status().workers[0].name)
        for large, small in SMALLER.items():
            text = text.replace(large, small)
        if " ID " in text:
            text = text.replace(" ID ", f" {self._letter()} ")
        return text

    def _put_aside(self) -> None:
        """What cannot be read is put into the queue, and the page's worker puts it aside: a dead letter to look at."""
        with redis.Redis.from_url(self._url, protocol=2) as client:
            model = self._status().workers[0].model
            client.sadd(Keys().queues, queue_member(model, 0))
            client.xadd(Keys().questions(model, 0), {"q": b"no question", "r": "nobody"})
            wait_until(lambda: client.exists(Keys().dead), "the worker puts it aside", PATIENCE_S)

    def _letter(self) -> str:
        """The id of that letter."""
        with redis.Redis.from_url(self._url, protocol=2) as client:
            entries: Any = client.xrange(Keys().dead)
            return str(entries[0][0].decode())


def write_data_set(folder: Path) -> None:
    """As `save_to_disk` of Hugging Face's datasets writes one."""
    folder.mkdir()
    table = pa.table({"question": ["Is 7 prime?", "Is 8 prime?"], "answer": ["yes", "no"]})
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as stream,
    ):
        stream.write_table(table)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": "test"})
    )


def make_zstd(folder: Path) -> None:
    """A `zstd` that compresses from standard input: not every machine has the program, and it is not what is tested."""
    folder.mkdir()
    program = folder / "zstd"
    code = "import pathlib, sys\nfrom producer.questions.compression import zstd_for\n"
    code += "sys.stdout.buffer.write(zstd_for(pathlib.Path()).compress(sys.stdin.buffer.read()))\n"
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(0o755)


@pytest.fixture
def served() -> Iterator[int]:
    """The port of a server that answers as an OpenAI-compatible one."""
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def serve() -> None:
        async with ScriptedServer(lambda _: a_text("blue"), models=[{"id": "my-model"}]) as server:
            ports.append(server.port)
            ready.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(PATIENCE_S)
    yield ports[0]
    loop.call_soon_threadsafe(stopping.set)
    thread.join(PATIENCE_S)
    loop.close()


@pytest.fixture
def reader(redis_server: EmbeddedServer, served: int) -> Iterator[Reader]:
    """With the files that the pages speak of; everything is stopped afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bf-docs-"))
    (folder / "examples").symlink_to(ROOT / "examples")
    server_block = re.search(
        r"^    model:\n(?:     .*\n)*     .*server:(?:.*\n     )+.*\n", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert server_block is not None
    # README's own words, with the port of the stand-in.
    (folder / "fleet.yaml").write_text(re.sub(r"port: \d+", f"port: {served}", textwrap.dedent(server_block[0])))
    (folder / "sweep.yaml").write_text(paragraph_file("docs/sweeps.md", "sweep.yaml"))
    ids = write_questions(folder / "questions.jsonl", 20)
    failed = {
        "id": ids[0],
        "status": "failed",
        "error": {"kind": "timed_out", "message": "too late", "retryable": True},
        "attempts": 1,
    }
    (folder / "answers.jsonl").write_text(json.dumps(failed) + "\n")
    write_data_set(folder / "questions-on-disk")
    make_zstd(folder / "bin")
    made = Reader(folder, redis_server.url, served)
    yield made
    stop_all([process for _, process in made.services], grace_s=10)
    shutil.rmtree(folder)


@pytest.mark.parametrize("page", [page for page in PAGES if any(reason(shown) is None for shown in commands_of(page))])
def test_every_command_of_a_page_works(page: str, reader: Reader) -> None:
    """In their order, with the exit code that is promised; where the page shows what is printed, that is printed."""
    if page in FLEET_OF_ITS_OWN:
        for command in (
            "batchfleet batcher --redis redis://HOST:6379/0",
            "batchfleet worker --redis redis://HOST:6379/0 --engine stub",
        ):
            reader.read(Shown(page, "", 0, command))
    for shown in commands_of(page):
        if reason(shown) is None:
            reader.read(shown)
    reader.end()


def test_what_is_not_run_is_still_on_its_page() -> None:
    """Each entry of the list stands for at least one command."""
    shown = [shown for page in PAGES for shown in commands_of(page)]

    for place, start in NOT_RUN:
        assert any(one.text.startswith(start) and place in (one.page, f"{one.page} {one.section}") for one in shown), (
            place,
            start,
        )
    assert all(any(one.text.startswith(start) for one in shown) for start in EXIT_CODES)
