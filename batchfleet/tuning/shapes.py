"""The shapes that a fleet can have on a host: how many workers, each with how many GPUs.

Which of them a model fits is told before anything is booted, from what its folder says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchfleet.tuning.model_facts import ModelFacts
from gpu_worker.gpus.devices import DRIVER, IMAGINARY, NO_GPUS, NONE, VISIBLE, Gpus, find_gpus
from gpu_worker.gpus.slices import choose
from wire.errors import UsageError

USUAL_MEMORY_SHARE = 0.9
"""Of a GPU's memory that vLLM takes, unless `gpu_memory_utilization` says otherwise."""
GIB = 1 << 30
_WRITTEN = re.compile(r"([1-9]\d{0,2})x(?:TP)?([1-9]\d{0,2})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shape:
    """`workers` engines of `tensor_parallel` GPUs each; written `4xTP2`."""

    workers: int = 1
    tensor_parallel: int = 1

    def __str__(self) -> str:
        return f"{self.workers}xTP{self.tensor_parallel}"

    @property
    def gpus(self) -> int:
        return self.workers * self.tensor_parallel

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read `4xTP2` or `4x2`.

        Raises:
            UsageError: It is neither.
        """
        found = _WRITTEN.fullmatch(text)
        if found is None:
            raise UsageError(f"{text!r} is no shape: write 4xTP2 for four workers of two GPUs each")
        return cls(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Host:
    """What engines can be put on.

    Attributes:
        slots: GPUs, or where there are none 1, for the CPU.
        gpus: UUIDs; empty if which engine sees which GPU cannot be said here.
        memory_bytes: Of the smallest GPU; None if unknown.
    """

    gpus: Gpus
    memory_bytes: int | None = None

    @property
    def slots(self) -> int:
        return len(self.gpus.uuids) or 1

    def environs(self, shape: Shape) -> list[dict[str, str]]:
        """Which GPUs each worker sees, those joined by NVLink together; nothing where there are none to choose from.

        Nothing is leased then: which are whose is settled.
        """
        free, found = list(self.gpus.uuids), list[dict[str, str]]()
        for _ in range(shape.workers):
            chosen = choose(free, self.gpus.links, shape.tensor_parallel) if free else ()
            free = [gpu for gpu in free if gpu not in chosen]
            found.append({VISIBLE: ",".join(chosen), IMAGINARY: NONE} if chosen else {})
        return found

    def check(self, shape: Shape) -> None:
        """Refuse a shape that this host has not the GPUs for. Where it has none, workers may be many, on the CPU.

        Raises:
            UsageError: In one line.
        """
        present, on_cpu = len(self.gpus.uuids), not DRIVER.exists()
        if present and shape.gpus > present:
            msg = f"{shape} needs {shape.gpus} GPUs, and this host lets it have {present}"
        elif not present and shape.tensor_parallel > 1 and on_cpu:
            msg = f"{shape} needs {shape.gpus} GPUs, and this host has none; workers on CPUs are TP1"
        elif not present and shape.workers > 1 and not on_cpu:
            msg = f"{shape}: which GPU is whose cannot be said here; install nvidia-ml-py, and unset BATCHFLEET_GPUS"
        else:
            return
        raise UsageError(msg)


def this_host(engine: str, environ: Mapping[str, str] = os.environ) -> Host:
    """As workers with that engine see it; one that computes nothing here has GPUs only in imagination."""
    if engine != "vllm" and (engine != "stub" or not environ.get(IMAGINARY)):
        return Host(NO_GPUS)
    gpus = find_gpus(environ)
    memory = [use.memory_bytes for use in gpus.use(gpus.uuids)]
    return Host(gpus, min(memory, default=None))


def candidates(gpus: int) -> list[Shape]:
    """Every size of slice that leaves no GPU idle, or is a power of two; as many workers as there is room for."""
    sizes = [size for size in range(1, gpus + 1) if gpus % size == 0 or size & (size - 1) == 0]
    return [Shape(gpus // size, size) for size in sizes]


def misfit(shape: Shape, model: ModelFacts, memory_bytes: int | None, memory_share: float) -> str:
    """Why a model cannot run in a shape, as far as its folder tells; empty if nothing speaks against it.

    The rules for heads are those of vLLM's Llama (`vllm/model_executor/models/llama.py`).
    """
    size = shape.tensor_parallel
    if model.heads and model.heads % size:
        return f"its {model.heads} attention heads are not divisible by {size}"
    if model.kv_heads and max(model.kv_heads, size) % min(model.kv_heads, size):
        return f"its {model.kv_heads} key-value heads can be neither divided among {size} GPUs nor repeated on them"
    if model.weights_bytes and memory_bytes and model.weights_bytes / size > memory_share * memory_bytes:
        return (
            f"its weights take {model.weights_bytes / size / GIB:.0f} GiB of each GPU, "
            f"and {memory_share:g} of one is {memory_share * memory_bytes / GIB:.0f} GiB"
        )
    return ""


def sort_out(
    shapes: Sequence[Shape], model: ModelFacts, memory_bytes: int | None, memory_share: float
) -> tuple[list[Shape], dict[Shape, str]]:
    """Those that may fit, and the others with the reason."""
    reasons = {shape: why for shape in shapes if (why := misfit(shape, model, memory_bytes, memory_share))}
    return [shape for shape in shapes if shape not in reasons], reasons
