"""However a worker that owns a real vLLM engine ends, nothing of the engine outlives it for long.

No process of the engine does so by more than five seconds, and no file of theirs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_worker.engines.vllm import watchdog
from tests.integration import tiny_model
from tests.processes import PATIENCE_S, TREES, wait_until

pytestmark = pytest.mark.vllm

OWNER = """
import asyncio, sys
from gpu_worker.engines.vllm.engine import VllmEngine, VllmOptions
from tests.builders import a_question
from tests.integration import tiny_model
from tests.eventually import until

async def main():
    engine = VllmEngine(VllmOptions(sys.argv[1], "tiny", tiny_model.ENGINE_ARGUMENTS))
    await engine.start()
    answers = [
        asyncio.create_task(engine.answer(a_question(params={"max_tokens": 500, "ignore_eos": True})))
        for _ in range(1000)
    ]
    await until(engine.progress, *answers)
    print("busy", flush=True)
    await asyncio.gather(*answers)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[subprocess.Popen[str], Path]]]:
    """Two processes with a busy engine each, and their temporary directories.

    They are started together, as booting takes long.
    """
    folder = tmp_path_factory.mktemp("owners")
    script = folder / "owner.py"
    script.write_text(OWNER)
    started: list[tuple[subprocess.Popen[str], Path]] = []
    for number in range(2):
        # Short, for sockets.
        temporary = Path(tempfile.mkdtemp(prefix="bf-test-"))
        environment = {**os.environ, "PYTHONPATH": TREES, "VLLM_CPU_KVCACHE_SPACE": "1", "TMPDIR": str(temporary)}
        with (folder / f"owner-{number}.log").open("wb") as log:
            command = [sys.executable, str(script), str(tiny_model.cached())]
            owner = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)  # noqa: S603 - our own script
        started.append((owner, temporary))
    everything = [*started]
    yield started
    for path in sorted(folder.glob("*.log")):
        print(f"----- {path.name}\n{path.read_text(errors='replace')[-4000:]}")
    for owner, temporary in everything:
        owner.kill()
        owner.wait()
        assert owner.stdout is not None
        owner.stdout.close()
        shutil.rmtree(temporary)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_engine_does_not_outlive_its_owner(
    owners: list[tuple[subprocess.Popen[str], Path]], number: signal.Signals
) -> None:
    """Killed, or ended by a signal that nobody handles, in the middle of its work."""
    owner, temporary = owners.pop()
    assert owner.stdout is not None
    assert owner.stdout.readline() == "busy\n"
    family = watchdog.descendants({owner.pid})
    titles = {Path(f"/proc/{process.pid}/cmdline").read_bytes().partition(b"\0")[0] for process in family}
    assert b"VLLM::EngineCore" in titles
    assert any(path.is_socket() for path in temporary.glob("batchfleet-engine-*/*"))

    owner.send_signal(number)

    owner.wait(PATIENCE_S)
    owner.stdout.close()
    took_s = wait_until(lambda: not watchdog.living(family), "the end of the engine's processes")
    wait_until(lambda: not list(temporary.glob("batchfleet-engine-*")), "the end of the engine's folder")
    assert not [path for path in temporary.iterdir() if path.is_socket()]
    print(f"{number.name}: {len(family)} processes were gone {took_s:.1f} s later")
