"""vLLM in this process: one engine per worker, each question fed by itself as it arrives, finished outputs only."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
from typing import Any

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.engines.engine import READY, Outcome, Refusal, Vectors
from gpu_worker.engines.refusals import engine_failed, refusal_of
from gpu_worker.engines.sampling_params import DEFAULTS, NEUTRAL, configured_params, effective_params
from gpu_worker.engines.vllm import boot, library, tether
from gpu_worker.engines.vllm.arguments import Serving, VllmOptions, serving_of
from gpu_worker.engines.vllm.boot import Booted
from gpu_worker.engines.vllm.boot_failure import last_words, plain
from gpu_worker.engines.vllm.output_tee import OutputTee
from gpu_worker.engines.vllm.requests import Request, Requests, completion_of
from gpu_worker.engines.vllm.vectors import WANTS_TEXTS, WANTS_VECTORS, VectorRequest, VectorRequests, vectors_of
from wire.errors import EngineBootError, EngineDeadError
from wire.messages import JsonObject, Question

__all__ = ["VllmEngine", "VllmOptions"]

log = logging.getLogger(__name__)

SHUTDOWN_S = 10.0
"""How long vLLM may take to shut down before its processes are ended."""

_UNSTARTED_MAX_NUM_SEQS = 256


class VllmEngine:
    """Answers with an `AsyncLLM`. Its processes do not outlive this one: see `tethering`."""

    kind = "vllm"
    state = READY

    def __init__(self, options: VllmOptions) -> None:
        self.model = options.name
        self.max_num_seqs = _UNSTARTED_MAX_NUM_SEQS
        """The engine's own, known once it is started."""
        self._options = options
        self._tether = tether.Tether()
        self._booted: Booted | None = None
        self._vectors: VectorRequests | None = None
        self._boot_over = threading.Event()
        self._boot_over.set()
        self._output: OutputTee | None = None
        self._stopped = False
        self._reported = False
        self._steps = 0
        self._numbers = itertools.count()

    def prepare(self) -> None:
        if self._output is None:
            boot.prepare(self._bound_output())

    async def start(self) -> None:
        library.check_version(library.installed_version())
        serving = serving_of(self._options)
        defaults = configured_params(self._options.sampling_defaults)
        output = self._output or self._bound_output()
        try:
            self._booted = await boot.boot(self._options, serving, output, self._boot_over)
            await self._get_ready(self._booted.llm, serving, defaults)
        except BaseException:
            await self.stop()
            raise

    async def answer(self, question: Question) -> Outcome:
        llm = self._running().llm
        asked = await self._request_for(question)
        if isinstance(asked, Refusal):
            return asked
        try:
            return (
                await self._encode(llm, asked, question)
                if isinstance(asked, VectorRequest)
                else completion_of(await self._generate(llm, asked, question), asked)
            )
        except library.dead_errors() as error:
            raise self._dead_error() from error
        except library.busy_errors() as error:
            return engine_failed(str(error))
        except library.generate_errors() as error:
            reason = error.__cause__
            if isinstance(reason, library.request_errors()):
                return refusal_of(str(reason), asked.params, chat=question.messages is not None)
            return engine_failed(f"{type(reason or error).__name__}: {reason or error}")
        except library.request_errors() as error:
            return refusal_of(str(error), asked.params, chat=question.messages is not None)

    def progress(self) -> int:
        return self._steps

    def check(self) -> None:
        self._tether.check()
        self._running()

    async def stop(self) -> None:
        self._stopped = True
        booted, self._booted = self._booted, None
        if booted is not None:
            await _shut_down(booted)
            # AsyncLLM is part of a cycle, and complains if it is collected only when Python exits.
            del booted
            gc.collect()
        # A boot that still hangs in its thread might yet start a process; then the watchdog stays, and ends it when
        # this process ends.
        if self._boot_over.is_set():
            await asyncio.to_thread(self._tether.stop)

    def _bound_output(self) -> OutputTee:
        """Where all output of the engine goes, whose processes end with this one. Before vLLM is imported."""
        self._tether.start()
        library.set_environment(self._options.startup_timeout_s, self._tether.folder)
        self._output = OutputTee()
        return self._output

    async def _get_ready(self, llm: Any, serving: Serving, defaults: JsonObject) -> None:  # noqa: ANN401
        config = llm.vllm_config
        self.max_num_seqs = int(config.scheduler_config.max_num_seqs) * int(config.parallel_config.data_parallel_size)
        self._by_priority = config.scheduler_config.policy == "priority"
        adapters = await self._load_adapters(llm, serving)
        library.count_steps(llm, self._count_step)
        if self._options.task != "generate":
            self._vectors = VectorRequests(llm, adapters, await llm.get_supported_tasks())
            return
        generation_config = (
            dict(config.model_config.get_diff_sampling_param()) if serving.uses_generation_config else {}
        )
        complete = {**DEFAULTS, **NEUTRAL, **generation_config, **defaults}
        told = effective_params({}, complete, chat=True, own=generation_config)
        log.info("sampling where a question says nothing: %s", told)
        self._requests = Requests(llm, serving, complete, adapters, generation_config)

    async def _load_adapters(self, llm: Any, serving: Serving) -> dict[str, Any]:  # noqa: ANN401
        """Load each adapter now.

        One that cannot be loaded is for a person to mend, not a failure of every question that names it.
        """
        adapters = {
            name: library.lora_request(name, number, path)
            for number, (name, path) in enumerate(serving.adapters.items(), start=1)
        }
        for name, adapter in adapters.items():
            try:
                await llm.add_lora(adapter)
            except Exception as error:
                raise EngineBootError(
                    f"the LoRA adapter {name!r} (lora_modules in vllm_args) cannot be loaded from "
                    f"{serving.adapters[name]!r}: {error}"
                ) from error
        return adapters

    async def _request_for(self, question: Question) -> Request | VectorRequest | Refusal:
        if self._vectors is None:
            return WANTS_TEXTS if question.inputs is not None else await self._requests.request_for(question)
        return WANTS_VECTORS if question.inputs is None else await self._vectors.request_for(question)

    async def _generate(self, llm: Any, request: Request, question: Question) -> Any:  # noqa: ANN401
        output = None
        # vLLM's lower numbers go first.
        priority = -question.priority if self._by_priority else 0
        async for finished in llm.generate(
            request.prompt,
            request.sampling,
            str(next(self._numbers)),
            lora_request=request.lora,
            priority=priority,
            **request.more,
        ):
            output = finished
        # A cancelled call never comes here: vLLM takes the request out of the engine and passes the cancellation on.
        return output

    async def _encode(self, llm: Any, request: VectorRequest, question: Question) -> Vectors:  # noqa: ANN401
        """All inputs at once. Cancelled, or if one fails, none of them stays in the engine."""

        async def output_of(prompt: Any) -> Any:  # noqa: ANN401
            output = None
            priority = -question.priority if self._by_priority else 0
            async for finished in llm.encode(
                prompt, request.pooling, str(next(self._numbers)), lora_request=request.lora, priority=priority
            ):
                output = finished
            return output

        if len(request.prompts) == 1:
            return vectors_of([await output_of(request.prompts[0])], request)
        tasks = [asyncio.ensure_future(output_of(prompt)) for prompt in request.prompts]
        try:
            return vectors_of(await asyncio.gather(*tasks), request)
        finally:
            await cancel_and_wait(tasks)

    def _count_step(self) -> None:
        self._steps += 1

    def _running(self) -> Booted:
        if self._booted is None:
            raise EngineDeadError("the vLLM engine was stopped" if self._stopped else "the vLLM engine was not started")
        if self._booted.llm.errored:
            raise self._dead_error()
        return self._booted

    def _dead_error(self) -> EngineDeadError:
        lines = (
            last_words([line for line in map(plain, self._booted.output.lines()) if line])
            if self._booted is not None
            else []
        )
        if lines and not self._reported:
            self._reported = True
            log.error("the vLLM engine died; its last lines:\n%s", "\n".join(f"  | {line}" for line in lines))
        return EngineDeadError(
            f"the vLLM engine died; the last that was heard of it: {lines[-1] if lines else 'nothing'}"
        )


async def _shut_down(booted: Booted) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def shut_down() -> None:
        try:
            booted.llm.shutdown()
        except Exception as error:  # noqa: BLE001 - its processes are ended below in any case
            log.warning("vLLM did not shut down cleanly: %s", error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=shut_down, name="vllm-shutdown", daemon=True).start()
    try:
        async with asyncio.timeout(SHUTDOWN_S):
            await done.wait()
    except TimeoutError:
        log.warning("vLLM did not shut down within %g s; its processes are ended", SHUTDOWN_S)
    await asyncio.to_thread(tether.end, set(booted.processes))
