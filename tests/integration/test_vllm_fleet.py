"""Whole fleets on the real vLLM, with a tiny model."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from batchfleet import AsyncFleet, Fleet, QuestionFailedError
from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import spawn
from tests.integration.tiny_model import ENGINE_ARGUMENTS, ON_A_GPU, cached
from tests.long_running import Home
from tests.processes import (
    PATIENCE_S,
    ROOT,
    TREES,
    Processes,
    batchfleet,
    lines_in,
    read_answers,
    wait_until,
    write_questions,
)

pytestmark = pytest.mark.vllm

BOOT_S = 600.0


def write_config(folder: Path) -> Path:
    """A configuration for the tiny model, whose answers have up to 48 tokens."""
    path = folder / "fleet.yaml"
    generator = {"hf_model_id": str(cached()), "max_tokens": 48, "vllm_args": dict(ENGINE_ARGUMENTS)}
    # JSON is YAML.
    path.write_text(json.dumps({"model": {"generator_settings": generator}}))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """That configuration, for a fleet of one test."""
    return write_config(tmp_path)


def processes() -> Iterator[tuple[int, int, str]]:
    """Pid, parent's pid and name of every process here."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(") ")
            except OSError:
                continue
            if rest.split()[0] not in {"Z", "X"}:
                yield int(folder.name), int(rest.split()[1]), name


def below(pid: int) -> dict[int, str]:
    """Every process below one, with its name."""
    everyone = list(processes())
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {child: name for child, parent, name in everyone if parent in parents and child not in found}
        found |= children
        parents = set(children)
    return found


def engine_core(pid: int) -> int | None:
    """The process in which the engine of a worker runs, once it is there."""
    return next((child for child, name in below(pid).items() if name.startswith("VLLM::EngineCor")), None)


def alive(pids: dict[int, str]) -> dict[int, str]:
    """Those of these processes that still run under their name."""
    return {pid: name for pid, _, name in processes() if pids.get(pid) == name}


class SharedFleet:
    """A long-running fleet of one worker, started with `up` when a test asks for it: a boot takes half a minute.

    One that a test has killed is started anew for the next.
    """

    def __init__(self, config: Path, home: Home, processes: Processes) -> None:
        self.config = str(config)
        self.url = home.url
        self.processes = processes
        self._home = home

    def running(self) -> subprocess.Popen[bytes]:
        """Its head; Redis answers, and whoever asks now waits for the worker."""
        head = self.processes.started.get("up")
        if head is None or head.poll() is not None:
            arguments = ["up", "--state", str(self._home.folder), "--config", self.config]
            head = self.processes.start("up", *arguments, REDIS_URL="")
        wait_until(lambda: head.poll() is not None or self._answers(), "its Redis answers")
        assert head.poll() is None, self.processes.log("up")
        return head

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=PATIENCE_S) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def submission(self, questions: Path, answers: Path) -> list[str]:
        """The arguments of a `submit` to it."""
        return ["submit", str(questions), "-o", str(answers), "--config", self.config, "--redis", self.url]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedFleet]:
    """For all tests of this module, in whatever order."""
    folder = tmp_path_factory.mktemp("shared")
    # Not there: the path of a socket has to be short.
    state = Path(tempfile.mkdtemp(prefix="bf-up-"))
    with Processes("", folder) as processes:
        yield SharedFleet(write_config(folder), Home(state), processes)
    shutil.rmtree(state)


def test_a_file_is_answered_by_vllm(tmp_path: Path, shared: SharedFleet) -> None:
    """Every question is answered by the model or fails for a stated reason; its neighbours are not concerned."""
    ids = write_questions(tmp_path / "questions.jsonl", 100)
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "question": "word " * 2000}) + "\n")
        file.write(json.dumps({"id": "no token", "question": "Why?", "params": {"stop_token_ids": [99999]}}) + "\n")
        file.write(
            json.dumps({"id": "chat", "messages": [{"role": "user", "content": "Why?"}], "params": {"max_tokens": 5}})
            + "\n"
        )
    answers = tmp_path / "answers.jsonl"
    shared.running()

    done = batchfleet(*shared.submission(tmp_path / "questions.jsonl", answers))

    assert done.returncode == 1, done.stderr
    by_id = {line["id"]: line for line in read_answers(answers)}
    assert len(by_id) == len(ids) + 3
    failed = {name: line["error"]["kind"] for name, line in by_id.items() if line["status"] == "failed"}
    assert failed == {"long": "prompt_too_long", "no token": "bad_parameter"}
    assert by_id["chat"]["usage"]["completion_tokens"] <= 5
    assert by_id["q1"]["params"]["temperature"] == 0.0


async def test_the_python_client_asks_vllm(shared: SharedFleet) -> None:
    """Blocking and under asyncio, many at once; a bad question is a failure, and one that is given up does no harm."""
    # A random model that may end when it likes has said nothing yet at times, which is no answer.
    eight: Any = {"max_tokens": 8, "min_tokens": 8}
    await asyncio.to_thread(shared.running)
    with Fleet(shared.url, model=str(cached())) as client:
        run = await asyncio.to_thread(
            client.submit,
            [f"Count to {number}:" for number in range(40)],
            params=eight,
        )
        status = await asyncio.to_thread(run.wait, BOOT_S)
        answers = await asyncio.to_thread(list, run.results())
    async with AsyncFleet(shared.url, model=str(cached())) as asynchronous:
        asked = await asyncio.gather(*(asynchronous.ask(f"Count to {number}:", params=eight) for number in range(40)))
        chat = await asynchronous.ask({"messages": [{"role": "user", "content": "Why?"}]}, params={"min_tokens": 8})
        with pytest.raises(QuestionFailedError, match="prompt_too_long"):
            await asynchronous.ask("word " * 2000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                asynchronous.ask("Go on:", params={"max_tokens": 48, "ignore_eos": True, "n": 4}), 0.001
            )

    assert (status.answered, status.failed) == (40, 0)
    assert {answer.usage.completion_tokens <= 8 for answer in [*answers, *asked]} == {True}
    # The same engine, greedily: most of them are the same text, whichever way they were asked.
    assert len({answer.text for answer in answers} & {answer.text for answer in asked}) >= 10
    assert chat.finish_reason in {"stop", "length"}


def test_a_killed_engine_costs_no_question_and_a_killed_fleet_leaves_no_process(
    tmp_path: Path, shared: SharedFleet
) -> None:
    """EngineCore is killed with SIGKILL in the middle of a file, and the file completes.

    The worker gives its work up and ends, and its supervisor starts it again. Nothing is left of the engine that was
    killed; and of the whole fleet neither, when its head is killed while the engine that replaced it works.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 1500)
    answers = tmp_path / "answers.jsonl"
    head = shared.running()
    with Processes(shared.url, tmp_path) as producers:
        producers.start("submit", *shared.submission(tmp_path / "questions.jsonl", answers))
        wait_until(lambda: lines_in(answers) > 20, "the first answers")
        core = engine_core(head.pid)
        assert core is not None
        assert lines_in(answers) < len(ids)
        engine = {pid: name for pid, name in below(head.pid).items() if name.startswith("VLLM::")}
        os.kill(core, signal.SIGKILL)
        assert producers.finish("submit", BOOT_S + PATIENCE_S) == 0, producers.log("submit")
        assert "restarting it" in shared.processes.log("up")
        assert {line["id"] for line in read_answers(answers)} == set(ids)
        assert lines_in(answers) == len(ids)
        wait_until(lambda: not alive(engine), "nothing of the killed engine is left")

        more = tmp_path / "more.jsonl"
        write_questions(tmp_path / "others.jsonl", 1500, "other")
        producers.start("others", *shared.submission(tmp_path / "others.jsonl", more))
        wait_until(lambda: lines_in(more) > 20, "answers of the engine that replaced it")
        everything = below(head.pid)
        assert any(name.startswith("VLLM::") for name in everything.values())
        shared.processes.kill("up")
        wait_until(lambda: not alive(everything), "no process is left")


LITTLE: dict[str, Any] = {
    "enforce_eager": True,
    "max_model_len": 128,
    **({"gpu_memory_utilization": 0.25} if ON_A_GPU else {}),
}
"""No word of memory where there is no GPU: half of what is free is enough."""


def test_a_model_on_the_command_line_is_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file of settings."""
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    write_questions(tmp_path / "questions.jsonl", 3)
    answers = tmp_path / "answers.jsonl"
    command = ["run", str(tmp_path / "questions.jsonl"), "-o", str(answers)]
    model = ["--engine", "vllm", "--model", str(cached()), "--max-tokens", "4"]

    done = batchfleet(*command, *model, "--set", f"vllm_args={json.dumps(LITTLE)}", timeout_s=2 * BOOT_S)

    assert done.returncode == 0, done.stderr
    assert {line["model"] for line in read_answers(answers)} == {str(cached())}
    assert all(line["usage"]["completion_tokens"] <= 4 for line in read_answers(answers))


# One more boot, of what a command starts, too; tests/story/test_python_client.py has it with the stub.
@pytest.mark.slow
def test_a_model_in_a_program_is_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file of settings."""
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)

    with Fleet.local("vllm", model=str(cached()), config={"vllm_args": LITTLE}) as fleet:
        asked = fleet.ask("Why?", params={"max_tokens": 4})

    assert asked.model == str(cached())


def test_a_worker_that_cannot_boot_says_why_and_takes_nothing(tmp_path: Path, config: Path) -> None:
    """The run ends with the engine's reason and what to change, and nothing before them; nothing was submitted."""
    write_questions(tmp_path / "questions.jsonl", 5)
    shutil.copytree(cached(), tmp_path / "model")
    model = json.loads((cached() / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**model, "architectures": ["NoSuchForCausalLM"]}))
    settings = json.loads(config.read_text())
    settings["model"]["generator_settings"]["hf_model_id"] = str(tmp_path / "model")
    config.write_text(json.dumps(settings))

    done = batchfleet(
        "run",
        str(tmp_path / "questions.jsonl"),
        "-o",
        str(tmp_path / "a.jsonl"),
        "--config",
        str(config),
        timeout_s=BOOT_S,
    )

    assert done.returncode == 2
    told = [line.strip() for line in done.stderr.splitlines() if " engine boots (" not in line]
    assert told[0] == "batchfleet: worker-1 ended with exit code 2:"
    assert told[1].startswith("batchfleet: vLLM did not start with model ")
    assert told[2].startswith("What to change: ")
    assert told[3] == "The engine's last lines:"
    assert lines_in(tmp_path / "a.jsonl") == 0


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_a_question_that_kills_its_engine_is_found(tmp_path: Path, config: Path, redis_server: EmbeddedServer) -> None:
    """EngineCore dies whenever it is given the marker.

    The question ends as `engine_killed`, and its neighbours are answered.
    """
    ids = write_questions(tmp_path / "questions.jsonl", 8)
    text = (tmp_path / "questions.jsonl").read_text()
    (tmp_path / "questions.jsonl").write_text(text.replace("Question q3.", "Question q3. KILLER"))
    answers = tmp_path / "answers.jsonl"
    starts = 0
    with Processes(redis_server.url, tmp_path) as fleet:
        fleet.batcher()
        producer = fleet.start(
            "producer", "submit", str(tmp_path / "questions.jsonl"), "-o", str(answers), "--config", str(config)
        )
        deadline = time.monotonic() + 10 * BOOT_S
        while producer.poll() is None and time.monotonic() < deadline:
            worker = fleet.started.get("worker")
            if worker is None or worker.poll() is not None:
                starts += 1
                fleet.started["worker"] = a_killing_worker(fleet, tmp_path / "worker.log", config)
            time.sleep(0.1)
        assert producer.returncode == 1, fleet.log("producer")
    failed = {line["id"]: line["error"] for line in read_answers(answers) if line["status"] == "failed"}
    assert set(failed) == {"q3"}
    assert failed["q3"]["kind"] == "engine_killed"
    assert failed["q3"]["evidence"]["deaths"] == math.log2(len(ids)) + 2
    # Whether a worker is started once more depends on whether the producer has everything by then.
    assert starts - 1 <= failed["q3"]["evidence"]["deaths"] <= starts
    assert sorted(line["id"] for line in read_answers(answers)) == ids


def a_killing_worker(fleet: Processes, log: Path, config: Path) -> subprocess.Popen[bytes]:
    """A worker whose engine dies of the marker."""
    environ = {**os.environ, "PYTHONPATH": TREES, "BATCHFLEET_REDIS_URL": fleet.url}
    return spawn(
        [sys.executable, str(ROOT / "tests/integration/killing_worker.py"), "worker", "--config", str(config)],
        environ,
        log,
    )
