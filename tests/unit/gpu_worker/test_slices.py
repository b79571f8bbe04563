"""Which GPUs make a slice, and where GPUs come from.

The pure parts of `gpu_worker.gpus.slices` and `gpu_worker.gpus.devices`.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfleet.settings.load import load_settings
from gpu_worker.gpus import devices
from gpu_worker.gpus.devices import NO_GPUS, ImaginaryGpus, Links, NvmlGpus, allowed, find_gpus, imagine
from gpu_worker.gpus.slice_claim import _gpus
from gpu_worker.gpus.slices import SliceOptions, choose
from wire.errors import UsageError

NAMES = tuple(f"GPU-{letter}" for letter in "abcdefgh")
PAIRS = [frozenset(pair) for pair in itertools.combinations(NAMES, 2)]
some_gpus = st.lists(st.sampled_from(NAMES), unique=True)
some_links = st.sets(st.sampled_from(PAIRS)).map(frozenset)


def links_among(devices: tuple[str, ...], links: Links) -> int:
    """How many NVLinks a slice has inside."""
    return sum(frozenset(pair) in links for pair in itertools.combinations(devices, 2))


@given(some_gpus, some_links, st.integers(1, 8))
def test_a_slice_is_as_many_free_gpus_as_asked_for_or_none(free: list[str], links: Links, count: int) -> None:
    """Never one too few, never one twice, never one that is taken."""
    chosen = choose(free, links, count)

    assert len(chosen) == (count if count <= len(free) else 0)
    assert list(chosen) == [gpu for gpu in free if gpu in chosen]


@given(some_gpus, some_links, st.integers(1, 8))
def test_no_other_slice_has_more_links_inside(free: list[str], links: Links, count: int) -> None:
    """Tensor parallelism is as fast as its slowest link."""
    chosen = choose(free, links, count)

    assert all(links_among(other, links) <= links_among(chosen, links) for other in itertools.combinations(free, count))


def test_pairs_that_nvlink_joins_are_not_torn_apart() -> None:
    """Four workers of two on a host with bridged pairs, in whatever order its slots are: each gets a bridge."""
    links = frozenset(
        {
            frozenset({"GPU-a", "GPU-e"}),
            frozenset({"GPU-b", "GPU-f"}),
            frozenset({"GPU-c", "GPU-g"}),
            frozenset({"GPU-d", "GPU-h"}),
        }
    )
    free = list(NAMES)

    for _ in range(4):
        chosen = choose(free, links, 2)
        assert frozenset(chosen) in links
        free = [gpu for gpu in free if gpu not in chosen]


def test_a_worker_that_needs_one_gpu_leaves_the_pair_whole() -> None:
    """Of equally good slices, the one that leaves the better rest."""
    links = frozenset({frozenset({"GPU-a", "GPU-b"})})

    assert choose(["GPU-a", "GPU-b", "GPU-c"], links, 1) == ("GPU-c",)


def test_where_all_are_joined_the_first_are_taken() -> None:
    """Behind an NVSwitch any slice is as good as any other; the order of the slots keeps slices whole."""
    assert choose(NAMES, frozenset(PAIRS), 2) == ("GPU-a", "GPU-b")


def test_imaginary_gpus_are_listed_with_their_links() -> None:
    """As BATCHFLEET_GPUS has them."""
    devices = imagine("GPU-0, GPU-1,GPU-2;GPU-0-GPU-2")

    assert devices == ImaginaryGpus(("GPU-0", "GPU-1", "GPU-2"), frozenset({frozenset({"GPU-0", "GPU-2"})}))
    assert devices.occupied() == frozenset()


@pytest.mark.parametrize("text", ["GPU-0,GPU-0", "GPU-0,", "GPU-0,GPU-1;GPU-0-GPU-7", "GPU-0;GPU-0-GPU-0"])
def test_a_list_that_cannot_be_meant_is_refused(text: str) -> None:
    """One line, with the variable's name."""
    with pytest.raises(UsageError, match="BATCHFLEET_GPUS"):
        imagine(text)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, NAMES),
        ("2,0", ("GPU-a", "GPU-c")),
        ("GPU-b, GPU-h", ("GPU-b", "GPU-h")),
        ("", ()),
        ("-1", ()),
        ("1,9,2", ("GPU-b",)),
        ("GPU-,1", ()),
    ],
)
def test_only_gpus_that_cuda_may_see_are_claimed(visible: str | None, expected: tuple[str, ...]) -> None:
    """A batch system gives its jobs GPUs by CUDA_VISIBLE_DEVICES; it ends where CUDA would stop reading.

    At what names no GPU, or several.
    """
    assert allowed(NAMES, visible) == expected


def test_without_a_driver_there_are_no_gpus() -> None:
    """Here there is none, whether or not nvidia-ml-py is installed: nothing is claimed, and nothing fails."""
    if find_gpus({}).uuids:
        pytest.skip("this machine has GPUs")
    assert find_gpus({}) == NO_GPUS


class NotSupportedError(Exception):
    """As NVML raises it for what a card does not have."""


@dataclass
class Nvml:
    """A host with GPUs, as pynvml would show it. `linked`: pairs of indices."""

    processes: dict[int, list[int]] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    linked: frozenset[tuple[int, int]] = frozenset()
    open: int = 0
    NVMLError = NotSupportedError
    NVML_P2P_CAPS_INDEX_NVLINK = 2
    NVML_P2P_STATUS_OK = 0

    def nvmlInit(self) -> None:  # noqa: N802 (NVML's names)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        assert self.open
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return NAMES[handle]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        assert self.open
        return NAMES.index(uuid)

    def nvmlDeviceGetP2PStatus(self, one: int, other: int, index: int) -> int:  # noqa: N802
        assert index == self.NVML_P2P_CAPS_INDEX_NVLINK
        if 3 in {one, other}:
            raise NotSupportedError
        return 0 if (one, other) in self.linked else 5

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[int]:  # noqa: N802
        return self.processes.get(handle, [])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=self.used.get(handle, 1), total=100)


def test_nvml_tells_the_gpus_and_what_joins_them() -> None:
    """UUIDs in order; a card that knows nothing of NVLink has no links."""
    nvml = Nvml(linked=frozenset({(0, 2)}))

    devices = NvmlGpus(nvml, None)

    assert devices.uuids == NAMES[:4]
    assert devices.links == {frozenset({"GPU-a", "GPU-c"})}
    assert nvml.open == 0


def test_gpus_that_cannot_be_shared_out_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two workers would be on the same GPUs. Where there is no driver, nothing is said."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "nvidiactl")
    assert find_gpus({}) is NO_GPUS
    assert not caplog.records

    devices.DRIVER.touch()

    assert find_gpus({}) is NO_GPUS
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "scripts/install --vllm" in caplog.text


def test_a_gpu_is_occupied_by_processes_or_by_memory_in_use() -> None:
    """NVML does not show a container the processes of others, but shows that their memory is gone.

    A tenth may be in use.
    """
    devices = NvmlGpus(Nvml(processes={1: [4711]}, used={0: 10, 2: 11, 3: 90}), "0,1,2")

    assert devices.occupied() == {"GPU-b", "GPU-c"}


@pytest.mark.parametrize(("size", "present"), [(1, 8), (2, 7), (3, 6), (8, 8), (9, 8)])
def test_a_size_that_may_be_meant_is_taken(size: int, present: int) -> None:
    """Powers of two always may, on a host of which one GPU has failed too.

    More than there are is for the claim to refuse.
    """
    assert slices_of(size, present).count == size


@pytest.mark.parametrize("size", [3, 5, 6])
def test_a_size_that_divides_neither_heads_nor_gpus_is_a_mistake(size: int) -> None:
    """Said at once, and not by vLLM after minutes."""
    with pytest.raises(UsageError, match=f"tensor_parallel_size {size} does not divide the 8 GPUs"):
        slices_of(size, 8)


def slices_of(size: int, present: int) -> SliceOptions:
    """What a worker with that tensor_parallel_size claims on a host with so many GPUs."""
    environ = {"BATCHFLEET_GPUS": ",".join(f"GPU-{number}" for number in range(present))}
    settings = load_settings(None, {"BATCHFLEET_VLLM_ARGS": f"{{tensor_parallel_size: {size}}}"}, {}).settings
    return SliceOptions.of("stub", settings.model.generator_settings.vllm_args, environ)


def test_one_gpu_is_not_several() -> None:
    """A worker in standby says what it needs as people do."""
    assert (_gpus(1), _gpus(2)) == ("1 GPU", "2 GPUs")
