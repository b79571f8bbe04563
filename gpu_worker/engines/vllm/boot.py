"""Start vLLM, within a time, telling how it goes; on failure, say why and leave no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from gpu_worker.engines.vllm import fork_server, library, tether
from gpu_worker.engines.vllm.arguments import Serving, VllmOptions, argument_problems, engine_arguments
from gpu_worker.engines.vllm.boot_advice import BootContext
from gpu_worker.engines.vllm.boot_failure import explain, last_words, plain
from gpu_worker.engines.vllm.output_tee import OutputTee
from gpu_worker.engines.vllm.watchdog import Process
from wire.errors import EngineBootError

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 10.0
SETTLE_S = 2.0
"""How long a failed engine's last lines are waited for."""

_OURS = re.compile(r""" [A-Z]+ gpu_worker[.\w]*: |"logger": ?"gpu_worker""")
"""Our own log in what was heard: it tells nothing of the engine."""
_SECRET_WORDS = ("token", "key", "secret", "password")


class _TooLongError(Exception):
    """Starting took longer than allowed."""


@dataclass(frozen=True, slots=True)
class Booted:
    """A running engine.

    `llm`: the AsyncLLM; `output`: what its processes write; `processes`: those it consists of, beside this one.
    """

    llm: Any
    output: OutputTee
    processes: frozenset[Process]


def prepare(output: OutputTee) -> None:
    """Begin to import vLLM, here and where the engine is forked from: 20 s of a boot for which there need be no GPU."""

    def preload() -> None:
        # Whatever is wrong with it is for the boot to say.
        with contextlib.suppress(Exception):
            library.preload()

    with output:
        fork_server.start()
    threading.Thread(target=preload, name="vllm-import", daemon=True).start()


async def boot(options: VllmOptions, serving: Serving, output: OutputTee, over: threading.Event) -> Booted:
    """Start an engine. If it fails, takes too long or is cancelled, its processes are gone afterwards.

    `over` is set once no thread is at it any more. Where vLLM hangs before it has started a process, that may be never.

    Raises:
        EngineBootError: It did not start; the message has the engine's last lines and what to change.
    """
    older = tether.processes_below_me()
    try:
        with output:
            llm = await _built(options, serving, output, over)
    except BaseException as error:
        heard = _lines(output)
        await _clean_up(older, output, over)
        if isinstance(error, EngineBootError) or not isinstance(error, Exception):
            raise
        message = _too_long(options, heard) if isinstance(error, _TooLongError) else await _why(error, options, output)
        raise EngineBootError(_without_secrets(message, options.vllm_args)) from error
    return Booted(llm, output, frozenset(tether.processes_below_me() - older))


def _prepare(options: VllmOptions, serving: Serving, is_abandoned: Callable[[], bool]) -> Any:  # noqa: ANN401 - an AsyncLLM
    fork_server.start()
    library.preload()
    problems = argument_problems(options.vllm_args, library.engine_argument_names())
    if problems:
        raise EngineBootError("vllm_args: " + "; ".join(problems))
    free_share = library.free_memory_share() if library.is_for_cpu() else None
    # Importing vLLM has taken seconds, in which we may have been told to stop.
    if is_abandoned():
        raise EngineBootError("nobody waits for this engine any more")
    fork_server.use()
    return library.build(engine_arguments(options, serving, free_share=free_share))


async def _built(options: VllmOptions, serving: Serving, output: OutputTee, over: threading.Event) -> Any:  # noqa: ANN401
    started = time.monotonic()
    log.info("starting vLLM %s with model %s", library.installed_version(), options.model)
    building = _in_thread(lambda is_abandoned: _prepare(options, serving, is_abandoned), over)
    try:
        while not building.done():
            left_s = started + options.startup_timeout_s - time.monotonic()
            if left_s <= 0:
                raise _TooLongError
            await asyncio.wait({building}, timeout=min(PROGRESS_EVERY_S, left_s))
            if not building.done():
                lines = last_words(_lines(output))
                log.info(
                    "vLLM still starting, %.0f of at most %g s: %s",
                    time.monotonic() - started,
                    options.startup_timeout_s,
                    lines[-1][:200] if lines else "nothing heard yet",
                )
    finally:
        building.cancel()
    llm = building.result().pop()
    log.info("vLLM is ready after %.0f s", time.monotonic() - started)
    return llm


def _in_thread(work: Callable[[Callable[[], bool]], Any], over: threading.Event) -> asyncio.Future[list[Any]]:
    """Like asyncio.to_thread, but in a thread that nobody waits for when the process exits.

    VLLM may hang in there for good. `work` is given what tells whether anybody still waits for it.

    The result comes in a list, to be emptied: vLLM keeps exceptions, they keep this frame, and it must not keep the
    engine.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[list[Any]] = loop.create_future()

    def settle(outcome: list[Any], error: Exception | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(outcome)
        else:
            result.set_exception(error)

    def run() -> None:
        outcome: list[Any] = []
        failure: Exception | None = None
        try:
            outcome.append(work(result.cancelled))
        except Exception as error:  # noqa: BLE001 - handed to whoever awaits the result
            failure = error
        except SystemExit as error:
            failure = RuntimeError(f"vLLM wanted to exit with status {error.code}")
        over.set()
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, outcome, failure)

    over.clear()
    threading.Thread(target=run, name="vllm-boot", daemon=True).start()
    return result


async def _clean_up(older: set[Process], output: OutputTee, over: threading.Event) -> None:
    def end() -> None:
        tether.end(tether.processes_below_me() - older)

    await asyncio.to_thread(end)
    await asyncio.to_thread(over.wait, SETTLE_S)
    # Once more: it may just have been about to start one.
    await asyncio.to_thread(end)
    await asyncio.to_thread(output.settle, SETTLE_S)


def _too_long(options: VllmOptions, heard: list[str]) -> str:
    allowed_s = f"{options.startup_timeout_s:g}"
    advice = (
        f"raise model.generator_settings.server_startup_timeout (now {allowed_s}), if it was still getting on: large "
        "models take minutes to load, "
        "and a first start also downloads and compiles"
    )
    first = f"vLLM did not start with model {options.model!r} within {allowed_s} s; it was ended."
    quoted = [f"  | {line}" for line in last_words(heard)] or ["  | (it wrote nothing)"]
    return "\n".join([first, f"What to change: {advice}", "The engine's last lines:", *quoted])


async def _why(error: Exception, options: VllmOptions, output: OutputTee) -> str:
    gpus = await asyncio.to_thread(library.gpu_count)
    context = BootContext(options.model, options.vllm_args, gpus, library.installed_version() or "?")
    return explain(str(error) or type(error).__name__, _lines(output), context)


def _lines(output: OutputTee) -> list[str]:
    return [line for line in map(plain, output.lines()) if line and not _OURS.search(line)]


def _without_secrets(text: str, vllm_args: Mapping[str, JsonValue]) -> str:
    for name, value in vllm_args.items():
        if isinstance(value, str) and value and any(word in name.lower() for word in _SECRET_WORDS):
            text = text.replace(value, "***")
    return text
