"""Which GPUs a worker needs, and which of the free ones make the best slice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpu_worker.gpus.devices import IMAGINARY, NO_GPUS, Gpus, Links, find_gpus
from wire.errors import UsageError

PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """The GPUs that a worker needs, and those it may use.

    Attributes:
        count: GPUs that the engine needs; 0: it claims none.
        gpus: Those that this process may use. Without any, none are claimed either: what the engine does then is its
            own affair.
        why: How `count` came about, for messages.
    """

    count: int = 0
    gpus: Gpus = NO_GPUS
    why: str = ""

    @classmethod
    def of(cls, kind: str, vllm_args: Mapping[str, object], environ: Mapping[str, str]) -> SliceOptions:
        """What an engine of this kind needs: the product of vLLM's parallel sizes.

        The stub claims imaginary GPUs only, and only where there are some; an engine outside of this process has its
        own.

        Raises:
            UsageError: A size is no whole number above 0 or cannot be meant, or `BATCHFLEET_GPUS` cannot be read.
        """
        if kind == "openai" or (kind == "stub" and not environ.get(IMAGINARY)):
            return cls()
        given = {name.replace("-", "_"): size for name, size in vllm_args.items()}
        sizes: dict[str, int] = {}
        for name in PARALLEL_SIZES:
            size = given.get(name)
            if size is None:
                continue
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise UsageError(f"vllm_args: {name} is {size!r}; it must be a whole number, 1 or more")
            sizes[name] = size
        gpus = find_gpus(environ)
        _check_division(sizes.get("tensor_parallel_size", 1), len(gpus.uuids))
        return cls(math.prod(sizes.values()), gpus, " x ".join(f"{name} {size}" for name, size in sizes.items()))


def _check_division(tensor_parallel_size: int, present: int) -> None:
    """Sizes such as 3 divide the heads of hardly any model, which vLLM says only after minutes.

    Where they divide the GPUs, they may be meant. Powers of two always may: on a host with 8 GPUs of which one has
    failed, too.
    """
    size = tensor_parallel_size
    if size > present or size & (size - 1) == 0 or present % size == 0:
        return
    msg = f"vllm_args: tensor_parallel_size {size} does not divide the {present} GPUs of this host; take 1, 2, 4 or 8"
    raise UsageError(
        msg
        + (
            f", or, if {size} divides the model's attention heads, "
            f"let CUDA_VISIBLE_DEVICES name a multiple of {size} GPUs"
        )
    )


def choose(free: Sequence[str], links: Links, count: int) -> tuple[str, ...]:
    """Which `count` of the free GPUs make the best slice: those with the most NVLinks among themselves.

    Of several equally good ones, it is the one that leaves the most links among the rest, for the next worker; then the
    first in order.

    Returns:
        `count` GPUs in the order of `free`; none if there are not that many.
    """
    if count > len(free):
        return ()

    def links_among(gpus: Sequence[str]) -> int:
        return sum(frozenset(pair) in links for pair in itertools.combinations(gpus, 2))

    def merit(chosen: tuple[str, ...]) -> tuple[int, int]:
        return links_among(chosen), links_among([gpu for gpu in free if gpu not in chosen])

    # max takes the first of equals. A host has 16 GPUs at most: 12 870 ways to choose 8.
    return max(itertools.combinations(free, count), key=merit)
