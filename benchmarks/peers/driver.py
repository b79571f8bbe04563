"""`python -m benchmarks.peers.driver PEER QUESTIONS WORKERS`.

A peer's workers and producer, with `benchmarks.rig.Helper` at the other end. Starts the workers, has each of them
answer something, says that it is ready, waits for the word, then asks every question as a job of its own and fetches
every result. Each peer is a module beside this one with:

    PACKAGES                    whose versions are shown
    CONFIGURED                  how, in words
    worker_commands(workers)    command lines, without the Python
    ask(questions)              sends all, returns all answers, in order
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.consumer import answer

WARM_UP = 200
"""Jobs before the clock starts: every worker is up, every connection made."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("questions", type=Path)
    parser.add_argument("workers", type=int)
    arguments = parser.parse_args()
    questions = [json.loads(line)["question"] for line in arguments.questions.read_bytes().splitlines()]
    name = arguments.peer.replace("-", "_")
    peer = importlib.import_module(f"benchmarks.peers.{name}")  # noqa: TID251 (only one of the peers can be imported here)
    with contextlib.ExitStack() as stack:
        for command in peer.worker_commands(arguments.workers):
            stack.enter_context(_worker(command))
        peer.ask([f"warm up {number}" for number in range(WARM_UP)])
        print(
            json.dumps(
                {
                    "ready": True,
                    "versions": {name: version(name) for name in peer.PACKAGES},
                    "configured": peer.CONFIGURED,
                }
            ),
            flush=True,
        )
        if not sys.stdin.readline():
            return 3
        began = time.monotonic()
        answers = peer.ask(questions)
        elapsed_s = time.monotonic() - began
        print(json.dumps({"elapsed_s": elapsed_s}), flush=True)
        # Until that was heard, nothing is done that would count: the CPU time of all of us is being read.
        sys.stdin.readline()
        right = sum(given == answer(question) for given, question in zip(answers, questions, strict=True))
        print(json.dumps({"answered": right}), flush=True)
    return 0


@contextlib.contextmanager
def _worker(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, *command], stdin=subprocess.DEVNULL, stdout=sys.stderr)  # noqa: S603 (our own command)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
