"""vLLM that cannot start: the worker says why and what to change, and leaves no process behind.

And vLLM that dies later.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gpu_worker.engines.engine import Completion
from gpu_worker.engines.vllm import library, watchdog
from gpu_worker.engines.vllm.engine import VllmEngine, VllmOptions
from gpu_worker.engines.vllm.tether import processes_below_me
from tests.builders import a_question
from tests.eventually import until
from tests.integration import tiny_model
from tests.processes import wait_until
from wire.errors import EngineBootError, EngineDeadError
from wire.messages import JsonObject

NODES = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))

pytestmark = pytest.mark.vllm


def an_engine(model: Path | str | None = None, *, startup_timeout_s: float = 300.0, **changes: Any) -> VllmEngine:  # noqa: ANN401 (any argument of vLLM)
    """Of the tiny model; `changes`: any arguments of vLLM."""
    arguments: JsonObject = {**tiny_model.ENGINE_ARGUMENTS, **changes}
    return VllmEngine(
        VllmOptions(
            str(model or tiny_model.cached()), "tiny", arguments, {"max_tokens": 8}, startup_timeout_s=startup_timeout_s
        )
    )


async def boot_error(engine: VllmEngine) -> str:
    """Its message; nothing of the engine is left."""
    before = processes_below_me()
    with pytest.raises(EngineBootError) as raised:
        await engine.start()
    print(raised.value)
    left = {process for process in processes_below_me() - before if not watchdog.is_resource_tracker(process)}
    assert not left
    return str(raised.value)


@pytest.fixture(autouse=True)
def _little_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


async def test_an_unknown_argument_is_named_before_anything_starts() -> None:
    """With the nearest that there is."""
    message = await boot_error(an_engine(tensor_paralel_size=2))

    assert (
        message == "vllm_args: vLLM has no engine argument 'tensor_paralel_size'; did you mean 'tensor_parallel_size'?"
    )


async def test_a_model_without_weights(tmp_path: Path) -> None:
    """The cause from the engine's own process, its last lines, and what to do."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.cached(), folder, ignore=shutil.ignore_patterns("*.safetensors"))

    message = await boot_error(an_engine(folder))

    first, advice, *lines = message.splitlines()
    assert (
        first
        == f"vLLM did not start with model {str(folder)!r}: RuntimeError: Cannot find any model weights with `{folder}`"
    )
    assert advice.startswith(f"What to change: {str(folder)!r} has no weights")
    assert lines[0] == "The engine's last lines:"
    assert any("Cannot find any model weights" in line for line in lines)


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        ("/no/such/folder", "check model.generator_settings.hf_model_id (now '/no/such/folder')"),
        (
            "no-such-org/no-such-model",
            "the Hugging Face hub cannot be reached, and 'no-such-org/no-such-model' is not in this machine's cache",
        ),
    ],
)
async def test_a_model_that_is_not_there(model: str, advice: str) -> None:
    """A folder, or a name on the hub where there is no network."""
    assert f"What to change: {advice}" in await boot_error(an_engine(model))


async def test_an_architecture_that_vllm_does_not_know(tmp_path: Path) -> None:
    """It is not for the worker to guess."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.cached(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchForCausalLM"]}))

    assert "does not know this model's architecture" in await boot_error(an_engine(folder))


async def test_gpus_that_do_not_divide_the_model() -> None:
    """With the sizes that would; on a host that has fewer GPUs, vLLM looks at these first."""
    message = await boot_error(an_engine(tensor_parallel_size=3))

    gpus = 3 if library.is_for_cpu() else library.gpu_count()
    what_fits = "to a divisor of the model's 4 attention heads: 1, 2, 4"
    too_few = f"x pipeline_parallel_size (now 1) is the number of GPUs that one worker needs; this one sees {gpus}"
    assert f"tensor_parallel_size (now 3) {what_fits if gpus is None or gpus >= 3 else too_few}" in message


async def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sizes to lower, and how many there are; on CPUs, vLLM counts NUMA nodes instead."""
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)  # Unbound, it counts none.
    there = NODES if library.is_for_cpu() else library.gpu_count() or 0
    if there >= 4:
        pytest.skip(f"this machine has {there}")

    message = await boot_error(an_engine(tensor_parallel_size=4))

    assert "tensor_parallel_size (now 4) x pipeline_parallel_size (now 1) " in message.splitlines()[1]
    assert "lower them" in message.splitlines()[1]


async def test_too_little_memory() -> None:
    """The settings to lower, with their present values."""
    message = await boot_error(an_engine(num_gpu_blocks_override=1, block_size=16))

    assert "What to change: out of memory" in message
    for setting in ("max_model_len (now 512)", "max_num_seqs (now 64)", "gpu_memory_utilization (now 0.25)"):
        assert setting in message


async def test_an_adapter_that_is_not_there(tmp_path: Path) -> None:
    """Said before the first question, not by every question that names it."""
    message = await boot_error(an_engine(lora_modules={"poet": str(tmp_path / "nowhere")}))

    assert message.startswith("the LoRA adapter 'poet' (lora_modules in vllm_args) cannot be loaded from ")


async def test_starting_takes_no_longer_than_allowed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes are ended, and what it was at is told; meanwhile the log shows that it is still starting."""
    monkeypatch.setattr("gpu_worker.engines.vllm.boot.PROGRESS_EVERY_S", 0.5)
    caplog.set_level(logging.INFO, "gpu_worker")
    # Imported, vLLM starts its process at once; and no machine is ready in four seconds then.
    library.engine_argument_names()
    began = time.monotonic()

    message = await boot_error(an_engine(startup_timeout_s=4.0))

    assert time.monotonic() - began < 120
    first, advice, *lines = message.splitlines()
    assert first == f"vLLM did not start with model {str(tiny_model.cached())!r} within 4 s; it was ended."
    assert advice.startswith("What to change: raise model.generator_settings.server_startup_timeout (now 4)")
    assert lines[0] == "The engine's last lines:"
    assert len(lines) > 1
    assert re.search(r"vLLM still starting, \d of at most 4 s: ", caplog.text)


async def test_starting_can_be_cancelled() -> None:
    """A worker that is told to stop does not wait for its engine."""
    engine = an_engine()
    before = processes_below_me()
    starting = asyncio.create_task(engine.start())
    await until(lambda: any(not watchdog.is_resource_tracker(process) for process in _beyond(before, engine)), starting)

    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not {process for process in _beyond(before, engine) if not watchdog.is_resource_tracker(process)}


async def test_a_killed_engine_is_noticed_by_everyone_and_stops_cleanly() -> None:
    """Every question that was in it says so within seconds, and so does the next heartbeat.

    The answers before are good.
    """
    engine = an_engine()
    before = processes_below_me()
    await engine.start()
    assert isinstance(await engine.answer(a_question()), Completion)
    answers = [
        asyncio.create_task(engine.answer(a_question(params={"max_tokens": 400, "ignore_eos": True})))
        for _ in range(100)
    ]
    steps = engine.progress()
    await until(lambda: engine.progress() != steps, *answers)

    for process in processes_below_me():
        if _title(process).startswith("VLLM::EngineCore"):
            os.kill(process.pid, signal.SIGKILL)
    began = time.monotonic()

    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    # Half a second on an idle machine.
    assert time.monotonic() - began < 60
    assert {type(outcome) for outcome in outcomes} == {EngineDeadError}
    assert str(outcomes[0]).startswith("the vLLM engine died; the last that was heard of it: ")
    with pytest.raises(EngineDeadError):
        engine.check()
    with pytest.raises(EngineDeadError):
        await engine.answer(a_question())
    await engine.stop()
    wait_until(
        lambda: not {process for process in processes_below_me() - before if not watchdog.is_resource_tracker(process)},
        "the engine's end",
        5,
    )


def _title(process: watchdog.Process) -> str:
    return Path(f"/proc/{process.pid}/cmdline").read_text()


def _beyond(before: set[watchdog.Process], engine: VllmEngine) -> set[watchdog.Process]:
    """What was started since, but for the watchdog."""
    return {process for process in processes_below_me() - before if process.pid != engine._tether.pid}
