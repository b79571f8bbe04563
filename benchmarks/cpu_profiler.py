"""Which functions the CPU time of a process goes to.

A sample is taken for every millisecond of CPU time (every four where the kernel's clock ticks 250 times a second), so
that waiting costs nothing and small functions are not made to look large, as they are by cProfile. Time in C belongs to
the Python function that called it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

EVERY_S = 0.001


@contextlib.contextmanager
def sampling(path: Path) -> Iterator[None]:
    """Sample the main thread inside the block, then write the samples to `path`.

    They are {"cpu_s": ..., "own": {function: samples}, "total": {function: samples}}.
    """
    own: Counter[CodeType] = Counter()
    total: Counter[CodeType] = Counter()

    def sample(_number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        own[frame.f_code] += 1
        seen = set()
        while frame is not None:
            seen.add(frame.f_code)
            frame = frame.f_back
        total.update(seen)

    signal.signal(signal.SIGPROF, sample)
    began_s = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = {"own": _by_name(own), "total": _by_name(total), "cpu_s": time.process_time() - began_s}
        path.write_text(json.dumps(found), encoding="utf-8")


def _by_name(samples: Counter[CodeType]) -> dict[str, int]:
    named: Counter[str] = Counter()
    for code, count in samples.items():
        named[f"{_module(code.co_filename)}:{code.co_qualname}"] += count
    return dict(named)


def _module(file: str) -> str:
    """`redis/asyncio/client` for /anywhere/site-packages/redis/asyncio/client.py.

    The last three names of a path are enough to find it.
    """
    _, _, inside = file.rpartition("site-packages/")
    return "/".join(Path(inside or file).with_suffix("").parts[-3 if inside else -2 :])
