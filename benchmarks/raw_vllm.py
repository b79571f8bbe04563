"""vLLM's AsyncLLM by itself, fed by a few lines of asyncio: what a fleet's worker is measured against.

Nothing of the fleet but its way to boot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import threading
import time
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from batchfleet.settings import to_options
from batchfleet.tuning import helper
from gpu_worker.engines.vllm import library
from gpu_worker.engines.vllm.arguments import serving_of
from gpu_worker.engines.vllm.boot import boot
from gpu_worker.engines.vllm.output_tee import OutputTee
from gpu_worker.engines.vllm.tether import Tether

Prompt = tuple[str, int | None]
"""A text, and how many tokens its answer has; None for a vector."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("questions")
    parser.add_argument("--config", required=True)
    arguments = parser.parse_args()
    settings = helper.load(arguments.config)
    options = to_options.vllm_options(settings, to_options.model_name(settings, "vllm"))
    prompts = [_prompt(line) for line in Path(arguments.questions).read_bytes().splitlines()]
    tether = Tether()
    tether.start()
    library.set_environment(options.startup_timeout_s, tether.folder)
    asyncio.run(_serve(options, prompts))
    tether.stop()
    return 0


async def _serve(options: Any, prompts: list[Prompt]) -> None:  # noqa: ANN401 (VllmOptions)
    booted = await boot(options, serving_of(options), OutputTee(), threading.Event())
    print(
        json.dumps({"ready": True, "max_num_seqs": int(booted.llm.vllm_config.scheduler_config.max_num_seqs)}),
        flush=True,
    )
    # One line for each measurement: how many prompts; how many in flight, or in a batch; how many batches at a time, 0
    # for no batches; after how many seconds no other batch is begun, null for never.
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, size, at_once, most_s = json.loads(line)
        began = time.monotonic()
        if at_once:
            answers = await _in_batches(booted.llm, prompts[:count], size, at_once, most_s)
        else:
            answers = await _continuously(booted.llm, prompts[:count], size)
        result = {"elapsed_s": time.monotonic() - began, "answered": len(answers), "tokens": sum(answers)}
        print(json.dumps(result), flush=True)
    booted.llm.shutdown()


async def _continuously(llm: Any, prompts: list[Prompt], in_flight: int) -> list[int]:  # noqa: ANN401 (AsyncLLM)
    """Returns the tokens of each answer."""
    places = asyncio.Semaphore(in_flight)

    async def one(number: int) -> int:
        async with places:
            return await _answer(llm, prompts[number], f"{time.monotonic_ns()}-{number}")

    return await asyncio.gather(*map(one, range(len(prompts))))


async def _in_batches(
    llm: Any,  # noqa: ANN401 (AsyncLLM)
    prompts: list[Prompt],
    size: int,
    at_once: int,
    most_s: float | None,
) -> list[int]:
    """`at_once` batches at a time, each awaited whole before another takes its place."""
    places = asyncio.Semaphore(at_once)
    deadline = math.inf if most_s is None else time.monotonic() + most_s

    async def one(start: int) -> list[int]:
        async with places:
            if time.monotonic() > deadline:
                return []
            return await _continuously(llm, prompts[start : start + size], size)

    return list(chain.from_iterable(await asyncio.gather(*map(one, range(0, len(prompts), size)))))


async def _answer(llm: Any, prompt: Prompt, request_id: str) -> int:  # noqa: ANN401 (AsyncLLM)
    text, length = prompt
    if length is None:
        async for _ in llm.encode(text, library.pooling_params(task="embed"), request_id):
            pass
        return 0
    sampling = library.sampling_params(temperature=0.0, max_tokens=length, min_tokens=length, ignore_eos=True)
    tokens = 0
    async for output in llm.generate(text, sampling, request_id):
        tokens = len(output.outputs[0].token_ids)
    return tokens


def _prompt(line: bytes) -> Prompt:
    question = orjson.loads(line)
    if "input" in question:
        return question["input"], None
    return question["question"], question["params"]["max_tokens"]


if __name__ == "__main__":
    sys.exit(main())
