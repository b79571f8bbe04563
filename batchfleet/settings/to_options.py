"""Settings -> what each program is told. The only place that knows both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from batcher.options import BatcherOptions, BatchLimits
from batchfleet.settings.redis_address import redis_address as redis_address  # noqa: PLC0414 (callers find all of this here)
from batchfleet.settings.schema import Settings
from gpu_worker.engines.build import EngineOptions
from gpu_worker.engines.openai.options import OpenAIOptions
from gpu_worker.engines.stub import StubOptions
from gpu_worker.engines.vllm.arguments import VllmOptions
from gpu_worker.images.options import ImageOptions
from gpu_worker.options import WorkerOptions
from producer.options import ProducerOptions, ReadingLimits
from wire.codec import MAX_BATCH_QUESTIONS
from wire.errors import UsageError

TOKEN_BYTES = 4
"""Of a token, by guess, as the batcher does not look into questions; what travels with a text counts as well."""
STUB_MODEL = "stub"


def batcher_options(settings: Settings) -> BatcherOptions:
    generator, limits, leases = settings.model.generator_settings, settings.limits, settings.leases
    return BatcherOptions(
        limits=_batch_limits(settings),
        timeout_s=generator.batch_timeout,
        linger_s=leases.linger_s,
        group_prefixes=generator.group_prefixes,
        max_waiting_batches=limits.max_waiting_batches,
        max_models=limits.max_models,
        run_ttl_s=limits.run_ttl_s,
        leader_s=leases.leader_s,
        lease_s=leases.batch_s,
        heartbeat_s=leases.heartbeat_s,
        max_dead_letters=limits.max_dead_letters,
        max_question_bytes=most_question_bytes(settings),
        scaled_models=tuple(settings.processing.scaled_models),
    )


def _batch_limits(settings: Settings) -> BatchLimits:
    generator, most_bytes = settings.model.generator_settings, settings.limits.max_batch_bytes
    tokens = generator.tokens_of_batch
    if tokens is None:
        return BatchLimits(generator.batch_size if generator.enable_batching else 1, most_bytes)
    return BatchLimits(MAX_BATCH_QUESTIONS, min(TOKEN_BYTES * tokens, most_bytes))


def most_in_a_batch(settings: Settings) -> int:
    """Questions."""
    return _batch_limits(settings).max_questions


def most_question_bytes(settings: Settings) -> int:
    """Above this, something is no question.

    Generous: its run, model and times come on top of what the limit counts, and a short number such as 0.5 takes 9
    bytes in place of 4.
    """
    return 3 * settings.limits.max_question_bytes + 64 * 1024


def worker_options(settings: Settings) -> WorkerOptions:
    limits, leases = settings.limits, settings.leases
    return WorkerOptions(
        capacity=settings.capacity,
        lease_s=leases.batch_s,
        heartbeat_s=leases.heartbeat_s,
        stall_s=leases.stall_s,
        drain_s=leases.drain_s,
        question_timeout_s=limits.question_timeout_s,
        max_attempts=limits.max_attempts,
        run_ttl_s=limits.run_ttl_s,
        max_dead_letters=limits.max_dead_letters,
        max_dead_letter_bytes=limits.max_dead_letter_bytes,
        max_batch_bytes=2 * limits.max_batch_bytes + most_question_bytes(settings),
    )


def producer_options(
    settings: Settings, *, wait_for_room: bool = True, stop_when_alike: int = 0, priority: int = 0
) -> ProducerOptions:
    limits = settings.limits
    return ProducerOptions(
        max_pending_questions=limits.max_pending_questions,
        max_pending_bytes=limits.max_pending_bytes,
        run_window=limits.run_window,
        max_models=limits.max_models,
        max_packed_bytes=most_question_bytes(settings),
        run_ttl_s=limits.run_ttl_s,
        patience_s=settings.redis.patience_s,
        wait_for_room=wait_for_room,
        stop_when_alike=stop_when_alike,
        sampling=settings.model.generator_settings.given_sampling,
        priority=priority,
    )


def reading_limits(settings: Settings) -> ReadingLimits:
    return ReadingLimits(max_question_bytes=settings.limits.max_question_bytes)


def engine_kind(settings: Settings, asked: str | None) -> str:
    """Which engine answers: the one asked for, else the one that the configuration describes. Never the stub unasked.

    Raises:
        UsageError: Nothing says which.
    """
    if asked is not None:
        return asked
    generator = settings.model.generator_settings
    if not generator.boot_local:
        return "openai"
    if settings.model_name is not None:
        return "vllm"
    msg = (
        "which model should answer? Give --model NAME (vLLM loads it), or --server URL, or a "
        "--config FILE that names them; "
    )
    raise UsageError(msg + "or try it with --engine stub")


def model_name(settings: Settings, engine: str) -> str:
    """The name under which questions are addressed to the model.

    Raises:
        UsageError: Nothing says which.
    """
    name = settings.model_name
    if name is None and engine == "stub":
        return STUB_MODEL
    if name is None:
        raise UsageError(
            f"engine {engine} needs a model: give --model NAME, or set "
            f"model.generator_settings.{'model' if engine == 'openai' else 'hf_model_id'}"
        )
    return name


def engine_options(settings: Settings, kind: str) -> EngineOptions:
    """What the engine is told.

    Raises:
        UsageError: Nothing says which model, or which server.
    """
    model = model_name(settings, kind)
    if kind == "vllm":
        return vllm_options(settings, model)
    generator = settings.model.generator_settings
    if kind == "stub":
        return StubOptions(model=model, sampling_defaults=generator.sampling_defaults, **settings.stub.model_dump())
    if generator.server is None and generator.port is None:
        raise UsageError(
            "engine openai needs to know its server: give --server URL, or set model.generator_settings.server"
        )
    return OpenAIOptions(
        server=generator.server or "127.0.0.1",
        port=generator.port,
        api_key=generator.api_key.get_secret_value() if generator.api_key else None,
        model=model,
        sampling_defaults=generator.sampling_defaults,
        max_in_flight=settings.capacity or 64,
        request_timeout_s=settings.limits.question_timeout_s,
        tries=settings.limits.max_attempts,
        stall_s=settings.leases.stall_s,
        startup_timeout_s=generator.server_startup_timeout,
    )


def image_options(settings: Settings) -> ImageOptions:
    return ImageOptions(**{**settings.images.model_dump(), "folders": tuple(settings.images.folders)})


def vllm_options(settings: Settings, model: str) -> VllmOptions:
    """How to start vLLM.

    Raises:
        UsageError: Nothing says what to load.
    """
    generator = settings.model.generator_settings
    if generator.hf_model_id is None and "model" not in generator.vllm_args:
        raise UsageError(
            "engine vllm needs to know what to load: give --model NAME, or set model.generator_settings.hf_model_id"
        )
    return VllmOptions(
        model=generator.hf_model_id or str(generator.vllm_args["model"]),
        served_name=model,
        vllm_args=generator.vllm_args,
        sampling_defaults=generator.sampling_defaults,
        chat_template=generator.chat_template,
        startup_timeout_s=generator.server_startup_timeout,
        task=generator.task,
    )


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """The loop of a worker: uvloop where it is installed, asyncio's own where not.

    A tree on PYTHONPATH may lack uvloop.
    """
    try:
        import uvloop  # noqa: PLC0415 (only workers need it)
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
