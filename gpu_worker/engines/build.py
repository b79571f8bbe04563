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

EngineOptions = StubOptions | VllmOptions | OpenAIOptions


def build_engine(options: EngineOptions, images: ImageOptions | None = None) -> Engine:
    """The engine, which gets the images that its questions name."""
    return WithImages(_bare(options), images or ImageOptions())


def _bare(options: EngineOptions) -> Engine:
    """Import what it needs only here: vLLM is not installed everywhere, and an HTTP client takes half a second."""
    match options:
        case StubOptions():
            return StubEngine(options)
        case VllmOptions():
            from gpu_worker.engines.vllm.engine import VllmEngine  # noqa: PLC0415

            return VllmEngine(options)
        case OpenAIOptions():
            from gpu_worker.engines.openai.engine import OpenAIEngine  # noqa: PLC0415

            return OpenAIEngine(options)
