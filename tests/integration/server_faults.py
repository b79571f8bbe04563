"""Every fault that a server can have, what becomes of the questions, and the table of it in docs/engines.md.

`python -m tests.integration.server_faults` tries them all and writes the table.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import selectors
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpu_worker.engines.engine import Outcome, Refusal
from gpu_worker.engines.openai.engine import OpenAIEngine
from gpu_worker.engines.openai.options import OpenAIOptions
from tests.builders import a_question
from tests.unit.scripted_server import MODEL, Asked, Reply, ScriptedServer, a_text, an_error
from wire.errors import EngineUnusableError

PAGE = Path(__file__).parents[2] / "docs" / "engines.md"
HEADINGS = (
    "| what the server does | to one question: once, or for a while | for ever | to all: once, or for a while | for "
    "ever |\n|---|---|---|---|---|\n"
)

HTML = {"content-type": "text/html"}
OTHERS: Mapping[str, Reply] = {
    "the connection ends before an answer": Reply(0),
    "the connection is reset before an answer": Reply(0, then="reset"),
    "no answer within the time for a request": Reply(0, then="stall"),
    "nothing more comes in the middle of the headers": Reply(0, "HTTP/1.1 200 OK\r\ncontent-", then="stall"),
    "the connection is reset in the middle of the headers": Reply(0, "HTTP/1.1 200 OK\r\ncontent-", then="reset"),
    "nothing more comes after the headers": Reply(200, "", then="stall"),
    "nothing more comes in the middle of the answer": Reply(200, '{"id":', then="stall"),
    "the connection is reset after the headers": Reply(200, "", then="reset"),
    "the connection is reset in the middle of the answer": Reply(200, '{"id":', then="reset"),
    "200 with half of a JSON": Reply(200, '{"id": "x", "choices": [{"ind', {"content-type": "application/json"}),
    "200 with an error in place of an answer": Reply(200, {"error": {"message": "overloaded"}}),
    "200 with JSON of another form": Reply(200, {"answer": 42}),
    "200 with a web page": Reply(200, "<html><title>Log in</title></html>", HTML),
    "503 with a web page": Reply(503, "<html><title>503 Service Unavailable</title></html>", HTML),
    "429 with Retry-After": an_error(429, headers={"retry-after-ms": "50"}),
    "503 with Retry-After": an_error(503, headers={"retry-after-ms": "50"}),
    "429, code insufficient_quota": an_error(429, code="insufficient_quota"),
    "404, model not found": an_error(404, "The model does not exist", code="model_not_found"),
}
FAULTS: Mapping[str, Reply] = {**{str(status): an_error(status, "ill") for status in range(300, 600)}, **OTHERS}

Scope = Literal["one", "all"]
Duration = Literal["once", "while", "ever"]
CASES: tuple[tuple[Scope, Duration], ...] = tuple(itertools.product(("one", "all"), ("once", "while", "ever")))
AT_ONCE = 16
QUICK = {"busy_s": 0.0, "first_pause_s": 0.01, "longest_pause_s": 0.03}
IMPATIENT = {"request_timeout_s": 60.0, "reply_stall_s": 40.0, "probe_timeout_s": 60.0}
"""Only where silence is the fault, and on a clock of our own: a busy machine is silent too."""
IDLE_PER_S = 0.02
"""How long nothing at all may happen in this process for a second of that clock to pass, in seconds."""


class SilenceLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while there is nothing to do: to a process that gets no turn, none does."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_Listening(self))

    def time(self) -> float:
        return self.now_s


class _Listening(selectors.DefaultSelector):
    def __init__(self, loop: SilenceLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        step_s = 1.0 if timeout is None else min(max(0.0, timeout), 1.0)
        events = super().select(step_s * IDLE_PER_S)
        if not events:
            self._loop.now_s += step_s
        return events


@dataclass
class IllServer:
    """As a script: it answers with the fault those questions that it concerns, as long as it lasts."""

    fault: Reply
    scope: Scope
    duration: Duration
    lifted: bool = False
    failed: dict[str, int] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Reply:
        prompt = asked.body["prompt"]
        if self.lifted or (self.scope == "one" and prompt != "bad"):
            return a_text()
        self.failed[prompt] = self.failed.get(prompt, 0) + 1
        if self.duration == "once" and self.failed[prompt] > 1:
            return a_text()
        return self.fault


async def outcome(fault: Reply, scope: Scope, duration: Duration) -> str:
    """What becomes of the questions that the fault concerns. Raises AssertionError if others suffer."""
    script = IllServer(fault, scope, duration)
    async with ScriptedServer(script) as server:
        times: dict[str, Any] = {**QUICK, **(IMPATIENT if fault.then == "stall" else {})}
        engine = OpenAIEngine(OpenAIOptions("127.0.0.1", MODEL, server.port, tries=3, **times))
        await engine.start()
        answers = [
            asyncio.create_task(engine.answer(a_question(prompt=prompt))) for prompt in ("bad", "good", "better")
        ]
        try:
            return await _outcome(engine, script, answers)
        finally:
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)
            await engine.stop()


async def _outcome(engine: OpenAIEngine, script: IllServer, answers: list[asyncio.Task[Outcome]]) -> str:
    waited = 0
    while not all(answer.done() for answer in answers):
        await asyncio.sleep(0.5 if script.fault.then == "stall" else 0.01)
        waited += engine.state.kind == "waiting"
        if script.duration == "while" and (waited > 5 or script.failed.get("bad", 0) > 1):
            script.lifted = True
        if script.duration == "ever" and waited > 20:
            assert not any(answer.done() for answer in answers)
            return "waits"
    assert script.scope == "all" or all(_told(answer) == "answered" for answer in answers[1:])
    found = {_told(answer) for answer in (answers if script.scope == "all" else answers[:1])}
    assert len(found) == 1, found
    return found.pop()


def _told(answer: asyncio.Task[Outcome]) -> str:
    if isinstance(answer.exception(), EngineUnusableError):
        return "unusable"
    result = answer.result()
    if not isinstance(result, Refusal):
        return "answered"
    return f"`{result.kind}`" + ("" if result.retryable else ", refused")


def outcomes(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By fault, those of all CASES."""
    names = list(names)
    silent = [name for name in names if FAULTS[name].then == "stall"]
    found = asyncio.run(_outcomes([name for name in names if name not in silent]))
    with asyncio.Runner(loop_factory=SilenceLoop) as runner:
        found |= runner.run(_outcomes(silent))
    return {name: found[name] for name in names}


async def _outcomes(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, scope: Scope, duration: Duration) -> str:
        async with limit:
            try:
                return await outcome(FAULTS[name], scope, duration)
            except BaseException as error:
                error.add_note(f"{name}, for {scope}, {duration}")
                raise

    found = await asyncio.gather(*(one(name, *case) for name in names for case in CASES))
    return {
        name: tuple(row)
        for name, row in zip(
            names, (found[start : start + len(CASES)] for start in range(0, len(found), len(CASES))), strict=True
        )
    }


def table(found: Mapping[str, tuple[str, ...]]) -> str:
    """In Markdown; faults of equal outcomes in one row, statuses as ranges."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, row in found.items():
        one, one_while, one_ever, every, every_while, every_ever = row
        short = (*_both(one, one_while), one_ever, *_both(every, every_while), every_ever)
        rows.setdefault(short, []).append(name)
    return HEADINGS + "".join(f"| {_names(names)} | {' | '.join(row)} |\n" for row, names in rows.items())


def _both(once: str, a_while: str) -> tuple[str]:
    return (once if once == a_while else f"{once}, or {a_while}",)


def _names(names: list[str]) -> str:
    numbers = [int(name) for name in names if name.isdigit()]
    ranges = []
    for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in group]
        ranges.append(str(members[0]) if len(members) == 1 else f"{members[0]} to {members[-1]}")
    return "; ".join([*([", ".join(ranges)] if ranges else []), *(name for name in names if not name.isdigit())])


if __name__ == "__main__":
    made = table(outcomes(FAULTS))
    PAGE.write_text(
        re.sub(re.escape(HEADINGS) + r"(\|.*\n)*", lambda _: made, PAGE.read_text(encoding="utf-8")), encoding="utf-8"
    )
    print(made)
