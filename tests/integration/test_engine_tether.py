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


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a busy engine, and its temporary directory."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    # Short, for sockets.
    temporary = Path(tempfile.mkdtemp(prefix="bf-test-"))
    environment = {**os.environ, "PYTHONPATH": TREES, "VLLM_CPU_KVCACHE_SPACE": "1", "TMPDIR": str(temporary)}
    command = [sys.executable, str(script), str(tiny_model.cached())]
    log = tmp_path / "owner.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)  # noqa: S603 - our own script
    yield process, temporary
    print(log.read_text(errors="replace")[-4000:])
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    shutil.rmtree(temporary)


# Slow: the watchdog sees the same of both; tests/unit/gpu_worker/test_tether.py has both for processes without vLLM.
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_engine_does_not_outlive_its_owner(
    owner: tuple[subprocess.Popen[str], Path], number: signal.Signals
) -> None:
    """Killed, or ended by a signal that nobody handles, in the middle of its work."""
    process, temporary = owner
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    family = watchdog.descendants({process.pid})
    titles = {Path(f"/proc/{one.pid}/cmdline").read_bytes().partition(b"\0")[0] for one in family}
    assert b"VLLM::EngineCore" in titles
    assert any(path.is_socket() for path in temporary.glob("batchfleet-engine-*/*"))

    process.send_signal(number)

    process.wait(PATIENCE_S)
    took_s = wait_until(lambda: not watchdog.living(family), "the end of the engine's processes")
    wait_until(lambda: not list(temporary.glob("batchfleet-engine-*")), "the end of the engine's folder")
    assert not [path for path in temporary.iterdir() if path.is_socket()]
    print(f"{number.name}: {len(family)} processes were gone {took_s:.1f} s later")
