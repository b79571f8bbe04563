"""A million short texts to vectors, by a fleet on this machine with the stub: time, and each program's memory over it.

`nice python -m benchmarks.million_texts [--count N] [--dimensions D] [--batch B]`. Not among the other benchmarks: it
runs for minutes, and wants gigabytes of disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

PAGE_BYTES = 4096
EVERY_S = 5.0
NAMES = {"batcher": "batcher", "worker": "worker", "valkey": "redis", "redis-server": "redis"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batchfleet-million-") as name:
        folder = Path(name)
        questions = folder / "questions.jsonl"
        params = json.dumps({"dimensions": arguments.dimensions, "encoding_format": "base64"})
        with questions.open("w", encoding="utf-8") as file:
            for number in range(arguments.count):
                file.write(f'{{"id": "t{number}", "input": "Sentence {number} of a corpus.", "params": {params}}}\n')
        flags = [
            "--engine",
            "stub",
            "--workers",
            str(arguments.workers),
            "--set",
            f"batch_size={arguments.batch}",
            "--json",
        ]
        command = [
            sys.executable,
            "-m",
            "batchfleet",
            "run",
            str(questions),
            "-o",
            str(folder / "answers.jsonl"),
            *flags,
        ]
        began = time.monotonic()
        with subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE, text=True) as run:  # noqa: S603 (our own)
            samples = _watched(run, began)
            told = run.stdout.read() if run.stdout else ""
        size = (folder / "answers.jsonl").stat().st_size
    print(json.dumps({**json.loads(told), "answers_bytes": size, "exit_code": run.returncode}))
    for at_s, memory in samples:
        print(f"{at_s:6.0f} s  " + "  ".join(f"{name} {mib:.0f} MiB" for name, mib in sorted(memory.items())))
    return run.returncode


def _watched(run: subprocess.Popen[str], began: float) -> list[tuple[float, dict[str, float]]]:
    """Memory in MiB of the largest program of each kind, until the run has ended."""
    samples = []
    while True:
        try:
            run.wait(EVERY_S)
        except subprocess.TimeoutExpired:
            samples.append((time.monotonic() - began, _memory(run.pid)))
        else:
            return samples


def _memory(root: int) -> dict[str, float]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    found: dict[str, float] = defaultdict(float)
    for pid in family:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
        except (OSError, ValueError):
            continue
        kind = "producer" if pid == root else next((kind for word, kind in NAMES.items() if word in words), "other")
        found[kind] = max(found[kind], resident)
    return dict(found)


if __name__ == "__main__":
    sys.exit(main())
