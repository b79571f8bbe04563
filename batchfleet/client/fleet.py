"""The client for programs that wait by blocking: scripts, notebooks, threads."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self, overload

from batchfleet.client.answers import Answer, Failure
from batchfleet.client.live_run import LiveRun, check_many, feed, generate_id
from batchfleet.client.local_fleet_thread import LocalFleetThread
from batchfleet.client.question_errors import Errors, check_errors, raise_if_failed
from batchfleet.client.questions import QuestionLike
from batchfleet.client.run_handle import Run
from batchfleet.client.session import ConfigLike, Session, checked_run_id, reaching_settings, read_settings
from batchfleet.client.single_questions import SingleQuestions
from batchfleet.status.model import FleetStatus

LocalEngine = Literal["stub", "vllm", "openai"]
_NONE: Mapping[str, Any] = {}


class Fleet:
    """A fleet that answers questions; used in a `with` statement, or closed by `close`. Threads may share one.

    Args:
        redis: Where the fleet's Redis is: `redis://`, `rediss://` or `unix://`. None for that of `config` or of
            BATCHFLEET_REDIS_URL, or else that of this user's `batchfleet up` on this host.
        model: The model for questions that name none. None for the configured one, or else the only one that workers
            serve.
        namespace: Of the fleet's keys, if it is not `batchfleet`.
        config: A YAML file, or settings by their dotted names: TLS, password, limits.

    Raises:
        UsageError: A setting is wrong, or no Redis is named and no `batchfleet up` is up. Whether there is one shows
            when something is asked.
    """

    def __init__(
        self,
        redis: str | None = None,
        *,
        model: str | None = None,
        namespace: str | None = None,
        config: ConfigLike = None,
    ) -> None:
        self._begin(Session(reaching_settings(redis, model, namespace, config)))

    def _begin(self, session: Session) -> None:
        self._session = session
        self._asks = SingleQuestions(session)

    @classmethod
    def local(
        cls,
        engine: LocalEngine = "stub",
        *,
        workers: int = 1,
        model: str | None = None,
        redis: str | None = None,
        config: ConfigLike = None,
    ) -> Self:
        """Start a whole fleet on this machine, and stop it at the end of the `with` statement.

        Returns when it takes work.

        Args:
            engine: What answers.
            workers: How many; each claims GPUs of its own.
            model: What vLLM loads, or what the server at the other end calls it; None for what `config` says.
            redis: None for a private Redis, which keeps nothing beyond the end.
            config: A YAML file, or settings by their dotted names, such as `{"stub.step_s": 0.01}`.

        Raises:
            UsageError: A setting is wrong.
            FleetError: Something does not start; with its last words.
        """
        fleet = cls.__new__(cls)
        fleet._begin(local_session(engine, workers, model, redis, config))  # noqa: SLF001 (it is ours)
        return fleet

    def __enter__(self) -> Self:
        try:
            self._session.check()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Submit and collect no more.

        Runs that are not finished continue in the fleet, and `run(id)` finds them again.
        """
        self._asks.close()
        self._session.close()

    @overload
    def ask(
        self,
        question: QuestionLike,
        *,
        params: Mapping[str, Any] = _NONE,
        errors: Literal["raise"] = "raise",
        timeout_s: float | None = None,
    ) -> Answer: ...
    @overload
    def ask(
        self,
        question: QuestionLike,
        *,
        params: Mapping[str, Any] = _NONE,
        errors: Errors,
        timeout_s: float | None = None,
    ) -> Answer | Failure: ...
    def ask(
        self,
        question: QuestionLike,
        *,
        params: Mapping[str, Any] = _NONE,
        errors: Errors = "raise",
        timeout_s: float | None = None,
    ) -> Answer | Failure:
        """Ask one question and wait for its answer. For many, `answer` is faster.

        Args:
            question: A prompt, the fields of a question line, or a `Question`.
            params: Sampling parameters, for what the question does not say itself.
            errors: Whether a failure is raised or returned.
            timeout_s: How long to wait; then the question is withdrawn.

        Raises:
            QuestionFailedError: With `errors="raise"`: it failed.
            TimeoutError: No answer came in time.
            FleetError: Redis cannot be reached, or refuses.
        """
        check_errors(errors)
        future = self._asks.ask(question, params)
        try:
            return raise_if_failed(future.result(timeout_s), errors)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"no answer within {timeout_s:g} s; the question is withdrawn") from None
        finally:
            # After a time-out, or Ctrl-C; of an answered one it changes nothing.
            future.cancel()

    @overload
    def answer(
        self, questions: Iterable[QuestionLike], *, run: str | None = None, params: Mapping[str, Any] = _NONE,
        errors: Literal["raise"] = "raise", timeout_s: float | None = None, window: int | None = None,
        samples: int = 0,
    ) -> Iterator[Answer]: ...  # fmt: skip
    @overload
    def answer(
        self, questions: Iterable[QuestionLike], *, run: str | None = None, params: Mapping[str, Any] = _NONE,
        errors: Errors, timeout_s: float | None = None, window: int | None = None,
        samples: int = 0,
    ) -> Iterator[Answer | Failure]: ...  # fmt: skip
    def answer(
        self, questions: Iterable[QuestionLike], *, run: str | None = None, params: Mapping[str, Any] = _NONE,
        errors: Errors = "raise", timeout_s: float | None = None, window: int | None = None,
        samples: int = 0,
    ) -> Iterator[Answer | Failure]:  # fmt: skip
        """Ask many questions; their answers come as they are finished, in no order.

        `submit` and `Run.results` in one: see there. Leaving the loop leaves the run, which continues with what was
        accepted.
        """
        check_errors(errors)
        submitted = self.submit(questions, run=run, params=params, window=window, samples=samples)
        return _until_closed(submitted, submitted.results(errors=errors, timeout_s=timeout_s))

    def submit(
        self,
        questions: Iterable[QuestionLike],
        *,
        run: str | None = None,
        params: Mapping[str, Any] = _NONE,
        window: int | None = None,
        samples: int = 0,
    ) -> Run:
        """Ask many questions, and get a handle to their run.

        Returns at once; they are sent in the background, as the fleet has room.

        Args:
            questions: Anything to go through, a generator of millions too. It is gone through in a thread of its own,
                never further than `window` and a few hundred questions ahead of the results that were taken.
            run: Name of the run. Where a run of that name was begun with the same questions in the same order, it is
                resumed: what was accepted is not asked again, and results that were taken do not come again. None for a
                new one.
            params: Sampling parameters, for what the questions do not say themselves.
            window: Most questions that are accepted and whose results were not taken; None for `limits.run_window`.
            samples: How often each question is asked, each time with another seed; 0 for once, as it is. The samples of
                `q1` have the ids `q1#1`, `q1#2` and so on.

        Raises:
            RunBusyError: Another living process has this run.
            UsageError: It is one of something else.
            FleetError: Redis cannot be reached, or refuses.
        """
        check_many(questions)
        live = LiveRun(self._session, generate_id(run))
        inbox, numbering = live.begin(params, window, samples)
        feed(questions, live, inbox, numbering)
        return Run(live)

    def run(self, run: str) -> Run:
        """A run that was submitted before, here or by another process.

        Its results that nobody has taken can be taken here.

        Raises:
            UsageError: There is no such run, or it expired.
        """
        live = LiveRun(self._session, checked_run_id(run))
        live.status()
        return Run(live)

    def status(self) -> FleetStatus:
        """What the fleet is doing; its `as_dict()` is what `batchfleet status --json` prints."""
        return self._session.status()


def local_session(engine: str, workers: int, model: str | None, redis: str | None, config: ConfigLike) -> Session:
    """Start a fleet on this machine, and a session with it."""
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")
    overrides = {"redis.url": redis, "model.generator_settings.model": model}
    if engine == "vllm":
        overrides["model.generator_settings.hf_model_id"] = model
    settings = read_settings(config, overrides)
    local = LocalFleetThread(settings, engine, workers)
    local.start()
    return Session(settings, local)


def _until_closed(run: Run, results: Iterator[Answer | Failure]) -> Iterator[Answer | Failure]:
    try:
        yield from results
    finally:
        run.close()
