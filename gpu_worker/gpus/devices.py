"""Which GPUs this host has, what joins them, and what runs on them: asked of NVML, or imagined for tests."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from wire.errors import UsageError

log = logging.getLogger(__name__)

Links = frozenset[frozenset[str]]
"""Pairs of UUIDs."""

IMAGINARY = "BATCHFLEET_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"
DRIVER = Path("/dev/nvidiactl")
"""There wherever NVIDIA's driver is."""
USED_SHARE = 0.1
"""vLLM takes 90 % of a GPU's memory by default: whatever leaves less than that is in its way.

A bare CUDA context is not.
"""


@dataclass(frozen=True, slots=True)
class GpuUse:
    """How full and how busy a GPU is.

    `busy_percent`: share of the time in which some kernel ran; says nothing of how well it was used.
    """

    uuid: str
    memory_used_bytes: int
    memory_bytes: int
    busy_percent: int

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)


class Gpus(Protocol):
    """The GPUs that this process may use."""

    @property
    def uuids(self) -> tuple[str, ...]:
        """In the order of the host's slots."""

    @property
    def links(self) -> Links:
        """The pairs that NVLink joins."""

    def occupied(self) -> frozenset[str]:
        """The GPUs on which some process of the host still is. May take some milliseconds for each GPU."""

    def use(self, uuids: Sequence[str]) -> tuple[GpuUse, ...]:
        """How full and busy these are; those that cannot be asked are left out.

        May take some milliseconds for each GPU.
        """


@dataclass(frozen=True, slots=True)
class ImaginaryGpus:
    """GPUs that exist only by name. No process ever is on them."""

    uuids: tuple[str, ...]
    links: Links = frozenset()

    def occupied(self) -> frozenset[str]:
        return frozenset()

    def use(self, uuids: Sequence[str]) -> tuple[GpuUse, ...]:  # noqa: ARG002 (they are all alike)
        return ()


NO_GPUS = ImaginaryGpus(())
NONE = "none"


def imagine(text: str) -> ImaginaryGpus:
    """Read `GPU-0,GPU-1,GPU-2;GPU-0-GPU-1`: names and, after a semicolon, the pairs that NVLink is to join.

    The pairs may be left out.

    Raises:
        UsageError: A name occurs twice or is missing, or a pair is not two of the names.
    """
    names, _, pairs = text.partition(";")
    uuids = tuple(name.strip() for name in names.split(","))
    if "" in uuids or len(set(uuids)) < len(uuids):
        raise UsageError(f"{IMAGINARY}={text!r}: names of GPUs are separated by commas, and each occurs once")
    known = {f"{one}-{other}": frozenset((one, other)) for one, other in itertools.permutations(uuids, 2)}
    wanted = [pair.strip() for pair in pairs.split(",") if pair.strip()]
    for pair in wanted:
        if pair not in known:
            raise UsageError(
                f"{IMAGINARY}={text!r}: {pair!r} is not a pair of the GPUs before the semicolon, written like "
                f"{uuids[0]}-{uuids[-1]}"
            )
    return ImaginaryGpus(uuids, frozenset(known[pair] for pair in wanted))


def find_gpus(environ: Mapping[str, str]) -> Gpus:
    """The imaginary GPUs of `BATCHFLEET_GPUS`, else those of NVML that `CUDA_VISIBLE_DEVICES` allows.

    None where there is no NVML. `BATCHFLEET_GPUS=none` stands for none, whatever there is: then nothing is claimed, and
    the engine sees all.

    Raises:
        UsageError: `BATCHFLEET_GPUS` cannot be read.
    """
    if text := environ.get(IMAGINARY):
        return NO_GPUS if text == NONE else imagine(text)
    if importlib.util.find_spec("pynvml") is None:
        if DRIVER.exists():
            log.warning(
                "no GPUs are claimed, so the engine of every worker here sees all of them: install nvidia-ml-py "
                "(scripts/install --vllm does), or run one worker a host"
            )
        return NO_GPUS
    # Only here: it is optional, and a worker without GPUs has no use for it.
    import pynvml  # noqa: PLC0415

    try:
        return NvmlGpus(pynvml, environ.get(VISIBLE))
    except pynvml.NVMLError as error:
        log.info("NVML finds no GPUs (%s): none are claimed", error)
        return NO_GPUS


def allowed(uuids: Sequence[str], visible: str | None) -> tuple[str, ...]:
    """Those of `uuids` that `CUDA_VISIBLE_DEVICES` names, by index or by UUID or its beginning, in their own order.

    None allows all. As CUDA reads it, nothing counts from the first entry on that names no GPU.
    """
    if visible is None:
        return tuple(uuids)
    found = set()
    for entry in (part.strip() for part in visible.split(",")):
        matches = [
            uuid
            for index, uuid in enumerate(uuids)
            if (entry == str(index)) or (entry.startswith("GPU-") and uuid.startswith(entry))
        ]
        if len(matches) != 1:
            break
        found.add(matches[0])
    return tuple(uuid for uuid in uuids if uuid in found)


class NvmlGpus:
    """The GPUs of this host, as NVML shows them to this container or process.

    Raises:
        NVMLError: There is no driver here.
    """

    def __init__(self, nvml: Any, visible: str | None) -> None:  # noqa: ANN401 (a module without types)
        self._nvml = nvml
        with self._session():
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
            every = {str(nvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}
            self.uuids = allowed(tuple(every), visible)
            pairs = itertools.combinations(self.uuids, 2)
            self.links: Links = frozenset(
                frozenset(pair) for pair in pairs if self._are_linked(every[pair[0]], every[pair[1]])
            )

    def occupied(self) -> frozenset[str]:
        with self._session():
            return frozenset(uuid for uuid in self.uuids if self._is_occupied(uuid))

    def use(self, uuids: Sequence[str]) -> tuple[GpuUse, ...]:
        try:
            with self._session():
                return tuple(use for uuid in uuids if (use := self._use(uuid)) is not None)
        except self._nvml.NVMLError as error:
            log.debug("NVML does not answer: %s", error)
            return ()

    def _use(self, uuid: str) -> GpuUse | None:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
            rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
        except self._nvml.NVMLError as error:
            # A slice of a MIG card has memory, but no utilisation of its own.
            log.debug("NVML does not say how busy %s is: %s", uuid, error)
            return None
        return GpuUse(uuid, int(memory.used), int(memory.total), int(rates.gpu))

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        # NVML counts how often it was initialised; a handle does not outlive the last shutdown.
        self._nvml.nvmlInit()
        try:
            yield
        finally:
            self._nvml.nvmlShutdown()

    def _are_linked(self, one: Any, other: Any) -> bool:  # noqa: ANN401 (handles without types)
        try:
            return bool(
                self._nvml.nvmlDeviceGetP2PStatus(one, other, self._nvml.NVML_P2P_CAPS_INDEX_NVLINK)
                == self._nvml.NVML_P2P_STATUS_OK
            )
        except self._nvml.NVMLError:
            # Cards without NVLink may answer "not supported".
            return False

    def _is_occupied(self, uuid: str) -> bool:
        handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        try:
            if self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                return True
            # In a container, NVML leaves out the processes of others, but not their memory.
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        except self._nvml.NVMLError as error:
            log.warning("NVML does not say what runs on %s (%s): it is taken to be free", uuid, error)
            return False
        return bool(memory.used > USED_SHARE * memory.total)
