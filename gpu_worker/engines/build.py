"""From options to an engine, not yet started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_worker.engines.openai.options import OpenAIOptions
from gpu_worker.engines.stub import StubEngine, StubOptions
from gpu_worker.engines.vllm.arguments import VllmOptions
from gpu_worker.engines.with_images import WithImages
from gpu_worker.images.options import ImageOptions

if TYPE_CHECKING:
    from gpu_worker.engines.engine import Engine
    from wire.address import RedisAddress

EngineOptions = StubOptions | VllmOptions | OpenAIOptions


def build_engine(
    options: EngineOptions, images: ImageOptions | None = None, address: RedisAddress | None = None
) -> Engine:
    """The engine, which gets the images that its questions name.

    `address`: where those at the same server tell each other of its crashes; None for one that is there alone.
    """
    return WithImages(_bare(options, address), images or ImageOptions())


def _bare(options: EngineOptions, address: RedisAddress | None) -> Engine:
    """Import what it needs only here: vLLM is not installed everywhere, and an HTTP client takes half a second."""
    match options:
        case StubOptions():
            return StubEngine(options)
        case VllmOptions():
            from gpu_worker.engines.vllm.engine import VllmEngine  # noqa: PLC0415

            return VllmEngine(options)
        case OpenAIOptions():
            from gpu_worker.engines.openai.crash_ledger import CrashLedger  # noqa: PLC0415
            from gpu_worker.engines.openai.engine import OpenAIEngine  # noqa: PLC0415

            server = f"{options.server}:{options.port}"
            return OpenAIEngine(options, None if address is None else CrashLedger(address, options.model, server))
