"""An existing server that speaks OpenAI's API: vLLM's own, or any other.

The same requests and records as vLLM in process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from dataclasses import replace

from gpu_worker.cancellation import cancel_and_wait
from gpu_worker.engines.engine import Completion, EngineState, Outcome, Refusal, Vectors
from gpu_worker.engines.openai.admission import Admission, Verdict
from gpu_worker.engines.openai.attempts import Attempts
from gpu_worker.engines.openai.client import FaultError, Server, base_url_of
from gpu_worker.engines.openai.crash_ledger import CrashLedger
from gpu_worker.engines.openai.crashes import CRASHES_ALONE, Company, Crashes
from gpu_worker.engines.openai.faults import Blame, Fault, crashed, given_up, refused, unstable, unsupported
from gpu_worker.engines.openai.options import OpenAIOptions
from gpu_worker.engines.openai.places import Ticket
from gpu_worker.engines.openai.request_body import Form, Request, Served, complete_defaults, request_for
from gpu_worker.engines.openai.responses import completion_of
from gpu_worker.engines.openai.server_start import served_by
from gpu_worker.engines.openai.vectors import probe, vector_request, vectors_of
from gpu_worker.engines.openai.window import START, RequestWindow
from gpu_worker.engines.refusals import prompt_too_long, unknown_adapter
from gpu_worker.engines.sampling_params import configured_params
from wire.backoff import Backoff
from wire.errors import EngineDeadError, EngineUnusableError
from wire.messages import JsonObject, Question, Task

log = logging.getLogger(__name__)

UNSTARTED = EngineState("waiting")
PULSES_TO_REFRESH = 2
"""How often a worker hears of the crashes that others have seen."""


class OpenAIEngine:
    """Asks over HTTP, as many questions at once as the server takes.

    Whatever the server does, the engine does not die: see its `state`.
    """

    kind = "openai"

    def __init__(self, options: OpenAIOptions, ledger: CrashLedger | None = None) -> None:
        self.model = options.model
        self.max_num_seqs = options.max_in_flight
        self._options = options
        self._server: Server | None = None
        self._served = Served(options.model)
        self._defaults: JsonObject = {}
        self._admission: Admission | None = None
        self._ledger = ledger
        self._crashes = Crashes(
            options.max_in_flight,
            ledger,
            most_alone=min(CRASHES_ALONE, options.tries),
            settle_s=2 * PULSES_TO_REFRESH * options.pulse_s,
        )
        self._boot_state = UNSTARTED
        self._pulse: asyncio.Task[None] | None = None
        self._progress = 0
        self._forms_answered: set[Form] = set()
        self._task: Task = "generate"
        """That of the latest question: a server that makes vectors is probed with one."""

    @property
    def state(self) -> EngineState:
        return self._boot_state if self._admission is None else self._admission.state

    def prepare(self) -> None:
        """There is nothing that takes long."""

    async def start(self) -> None:
        options = self._options
        defaults = configured_params(options.sampling_defaults)
        server = self._server = Server(
            base_url_of(options.server, options.port),
            options.api_key,
            most_open=options.max_in_flight,
            request_timeout_s=options.request_timeout_s,
            stall_s=options.reply_stall_s,
        )
        try:
            self._served = await served_by(server, options.model, options.startup_timeout_s, self._show_boot)
        except BaseException:
            await self.stop()
            raise
        self._defaults = complete_defaults(defaults, self._served)
        # vLLM's own server takes whatever comes, and puts it in order itself.
        start = options.max_in_flight if self._served.is_vllm else START
        self._admission = Admission(
            RequestWindow(options.max_in_flight, start, now=time.monotonic()),
            server.shown_url,
            self._probe,
            backoff=Backoff(options.first_pause_s, options.longest_pause_s),
            hold_s=options.hold_s,
        )
        self._pulse = asyncio.create_task(self._poll_progress(server, self._admission))
        log.info("model %s at %s%s", options.model, server.shown_url, ", a vLLM server" if self._served.is_vllm else "")

    async def answer(self, question: Question) -> Outcome:
        server, admission = self._started()
        if question.inputs is None:
            request = request_for(question, self._defaults, self._served)
        else:
            request = vector_request(question, self._served)
        if isinstance(request, Refusal):
            return request
        outcome = await self._ask(server, admission, question, request)
        await self._crashes.forget(question)
        if isinstance(outcome, Refusal) and outcome.kind == "unknown_adapter":
            return unknown_adapter(
                str(request.params.get("lora")), [name for name in self._served.ids if name != self.model]
            )
        return outcome

    def progress(self) -> int:
        # A server that does nothing is a state, not a death: looking is all the progress that this process can make.
        self._progress += 1
        return self._progress

    def check(self) -> None:
        _, admission = self._started()
        admission.check()

    async def stop(self) -> None:
        if self._admission is not None:
            await self._admission.stop()
        if self._pulse is not None:
            await cancel_and_wait([self._pulse])
        server, self._server = self._server, None
        if server is not None:
            await server.close()
        if self._ledger is not None:
            await self._ledger.close()

    def _show_boot(self, state: EngineState) -> None:
        self._boot_state = state

    async def _ask(self, server: Server, admission: Admission, question: Question, request: Request) -> Outcome:
        """Ask until there is an answer, a refusal, or proof that the question alone keeps failing."""
        attempts = Attempts(self._options.tries, self._options.busy_s)
        pauses = Backoff(self._options.first_pause_s, self._options.longest_pause_s)
        crash = Fault("it was at another worker's")
        while True:
            if self._crashes.may_convict(question):
                return await self._convicted(admission, question, crash)
            async with self._crashes.company(question) as company:
                outcome, ticket = await self._attempt(server, admission, request, company)
            if not isinstance(outcome, Fault):
                return outcome
            if outcome.is_about_form and self._forms_answered and request.form not in self._forms_answered:
                return unsupported(request.form)
            refusal = refused(outcome, request)
            if refusal is not None:
                admission.answered(ticket)
                shorter = await self._measured(server, request, refusal)
                if isinstance(shorter, Refusal):
                    return shorter
                request = shorter
                continue
            log.debug("an attempt failed: %s", outcome.told)
            attempts.add(outcome, time.monotonic())
            verdict = await self._judge(admission, outcome, ticket, attempts, chat=request.chat)
            is_alone_with_it = verdict is Verdict.QUESTION and outcome.is_lost
            if verdict is Verdict.CRASH or (is_alone_with_it and (attempts.lost > 1 or company.most_open == 1)):
                # Back at once, a server that went away seems to be well.
                crash = outcome
                await self._hear_of_crashes(admission)
                await self._crashes.add(
                    question, company, alone=ticket.is_alone, others_answered=verdict is Verdict.QUESTION
                )
            elif verdict is Verdict.QUESTION and not outcome.is_lost and attempts.are_enough(outcome):
                return given_up(outcome, max(attempts.failed, attempts.refusals), attempts.tried_s)
            if outcome.blame is Blame.TOO_MANY or admission.state.kind == "ready":
                await asyncio.sleep(pauses.next_s())
            # Else there will be no place before the server is well.

    async def _judge(
        self, admission: Admission, fault: Fault, ticket: Ticket, attempts: Attempts, *, chat: bool
    ) -> Verdict:
        verdict = await admission.judge(fault, ticket, chat=chat)
        if verdict is Verdict.SERVER and attempts.want_comparison(fault) and await self._probe(chat) is None:
            return Verdict.QUESTION
        return verdict

    async def _hear_of_crashes(self, admission: Admission) -> None:
        await self._crashes.refresh(admission.answers)
        admission.keep_quiet(self._crashes.is_quiet)

    async def _convicted(self, admission: Admission, question: Question, crash: Fault) -> Refusal:
        def may_be_answered() -> bool:
            admission.check()
            return admission.state.kind == "ready"

        alone = self._crashes.known(question).alone
        if await self._crashes.convicts(question, may_be_answered, lambda: admission.has_company):
            return crashed(crash, alone)
        admission.end(unstable(crash, admission.url))
        await self._crashes.forget_all()
        raise EngineUnusableError(admission.state.reason)

    async def _attempt(
        self, server: Server, admission: Admission, request: Request, company: Company
    ) -> tuple[Completion | Vectors | Fault, Ticket]:
        self._task = request.task
        async with admission.place(company.most_open, has_turn=company.is_certain) as ticket:
            completion: Completion | Vectors | None
            try:
                response = await server.ask(request)
                if request.task == "generate":
                    completion = completion_of(response, request, self._served)
                else:
                    completion = vectors_of(response, request)
                fault = Fault("its answer has not the form of OpenAI's", 200)
            except FaultError as error:
                completion, fault = None, error.fault
            if completion is None:
                admission.failed(fault, ticket, chat=request.chat)
                return fault, ticket
            self._forms_answered.add(request.form)
            admission.answered(ticket)
            return completion, ticket

    async def _probe(self, chat: bool) -> Fault | None:  # noqa: FBT001 (called by position only where it is declared)
        """What is wrong with the server, by a question for one token."""
        server, _ = self._started()
        body: JsonObject = {"model": self._served.model, "max_tokens": 1}
        if self._task != "generate":
            request = probe(self._task, self._served.model)
        elif chat:
            request = Request(
                "/chat/completions", {**body, "messages": [{"role": "user", "content": "Hello"}]}, {}, chat=True
            )
        else:
            request = Request("/completions", {**body, "prompt": "Hello"}, {}, chat=False)
        try:
            response = await server.ask(request, self._options.probe_timeout_s)
        except FaultError as error:
            return replace(error.fault, is_of_vectors=request.form == "vectors")
        return (
            None
            if isinstance(response, dict) and any(response.get(name) for name in ("choices", "data", "results"))
            else Fault("its answer has not the form of OpenAI's", 200)
        )

    async def _measured(self, server: Server, request: Request, refusal: Refusal) -> Request | Refusal:
        """A refusal for length, with the prompt's true length.

        Or, from servers that count the answer too, a request for what still fits.
        """
        if refusal.kind != "prompt_too_long" or not self._served.is_vllm:
            return refusal
        try:
            tokens, limit = await server.count_tokens(request)
        except FaultError:
            return refusal
        asked, room = request.params.get("max_tokens"), limit - tokens
        if room < 1:
            return prompt_too_long(tokens, limit)
        return request.capped(room) if isinstance(asked, int) and asked > room else refusal

    async def _poll_progress(self, server: Server, admission: Admission) -> None:
        """Notice a server that has questions and answers none.

        By vLLM's token counters where they were seen to move, else by a probe.
        """
        tokens: float | None = None
        counter_moves = False
        moved_at = time.monotonic()
        for pulse in itertools.count():
            await asyncio.sleep(self._options.pulse_s)
            admission.tick()
            if pulse % PULSES_TO_REFRESH == 0:
                await self._hear_of_crashes(admission)
            now = time.monotonic()
            moved_at = now if not admission.open else max(moved_at, admission.answered_at)
            if now - moved_at < min(self._options.stall_s / 2, self._options.pulse_s):
                continue
            if self._served.is_vllm:
                before, tokens = tokens, await server.tokens_so_far()
                if tokens is not None and before is not None and tokens != before:
                    counter_moves, moved_at = True, now
            if now - moved_at >= self._options.stall_s:
                admission.suspect(chat="chat" in self._forms_answered, is_hung=counter_moves)
                moved_at = now

    def _started(self) -> tuple[Server, Admission]:
        if self._server is None or self._admission is None:
            raise EngineDeadError("the server cannot be asked: the engine was not started, or was stopped")
        return self._server, self._admission
