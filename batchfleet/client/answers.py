"""What comes back for a question: an `Answer` or a `Failure`, never one that looks like the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from producer.answers.vector_answers import vector_fields
from wire import messages
from wire.messages import Task


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one answer; of all its texts together where there are several."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The model answered.

    Attributes:
        id: The question's.
        run: The run that it was asked in.
        text: The answer; the first one if several were asked for (`n` above 1).
        texts: All of them, if several were asked for.
        reasoning: What the model thought before `text`, if the engine tells it apart.
        tool_calls: The calls of tools, in OpenAI's form.
        task: `generate`, or what was asked for in place of text: `embed`, `classify` or `score`. Then `text` is empty.
        vectors: For `embed` an embedding of each text, for `classify` the probabilities of its classes, for `score` one
            vector with a score for each document; as float32 (see `array` and `arrays`).
        finish_reason: As the engine names it: `stop`, `length`, ...
        usage: Token counts.
        model: The model that answered.
        params: The sampling parameters that were really used, defaults included.
        details: What else the engine returned because the question asked for it, logprobs for one.
        worker: Name of the worker.
        attempts: How many workers were given the question, this one included.
        latency_s: From submission to record, in seconds.
        metadata: The question's, untouched.
    """

    id: str
    run: str
    text: str
    finish_reason: str
    usage: Usage
    model: str
    params: dict[str, Any]
    texts: list[str] | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    task: Task = "generate"
    vectors: list[bytes] | None = field(default=None, repr=False)
    details: dict[str, Any] | None = None
    worker: str | None = None
    attempts: int = 1
    latency_s: float | None = None
    metadata: dict[str, Any] | None = None
    status: Literal["answered"] = "answered"

    @property
    def array(self) -> Any:  # noqa: ANN401 (NumPy's, which is not needed for anything else)
        """The vector of the first text, or the scores, as a NumPy array of float32.

        Raises:
            ValueError: A text was asked for.
            ImportError: NumPy is not installed.
        """
        return self.arrays[0]

    @property
    def arrays(self) -> Any:  # noqa: ANN401
        """All vectors, as a NumPy array of two dimensions: texts, numbers. Raises as `array`."""
        if self.vectors is None:
            raise ValueError(
                "this answer is a text; vectors come from questions with an `input`, or `query` and `documents`"
            )
        import numpy  # noqa: ICN001, PLC0415 (for those who have it)

        return numpy.stack([numpy.frombuffer(vector, "<f4") for vector in self.vectors])

    def as_dict(self) -> dict[str, Any]:
        """As a line of an answers file has it: what is None is left out."""
        of_vectors = vector_fields(self) if self.vectors is not None else {}
        left_out = {"run", "status", "vectors", *({"text", "finish_reason"} if of_vectors else {"task"})}
        fields = {name: value for name, value in asdict(self).items() if value is not None and name not in left_out}
        fields |= of_vectors
        return {"id": fields.pop("id"), "status": self.status, **fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The question has no answer and will not get one.

    Attributes:
        id, run, worker, attempts, latency_s, metadata: As in `Answer`.
        kind: One word for programs, such as `prompt_too_long`; docs/records.md lists them.
        message: A sentence for people.
        retryable: Whether asking the same again could help.
        evidence: What was seen, where that helps to believe it.
    """

    id: str
    run: str
    kind: str
    message: str
    retryable: bool = False
    evidence: dict[str, Any] | None = None
    worker: str | None = None
    attempts: int = 0
    latency_s: float | None = None
    metadata: dict[str, Any] | None = None
    status: Literal["failed"] = "failed"

    def as_dict(self) -> dict[str, Any]:
        """As a line of an answers file has it: what is None is left out."""
        error = {"kind": self.kind, "message": self.message, "retryable": self.retryable, "evidence": self.evidence}
        rest = {
            "worker": self.worker,
            "attempts": self.attempts,
            "latency_s": self.latency_s,
            "metadata": self.metadata,
        }
        given = {name: value for name, value in rest.items() if value is not None}
        return {
            "id": self.id,
            "status": self.status,
            "error": {name: value for name, value in error.items() if value is not None},
            **given,
        }


def from_record(record: messages.Answer | messages.Failure) -> Answer | Failure:
    """What a caller gets for a record of the fleet."""
    if isinstance(record, messages.Failure):
        error = record.error
        return Failure(
            id=record.request_id,
            run=record.run,
            kind=error.kind,
            message=error.message,
            retryable=error.retryable,
            evidence=error.evidence,
            worker=record.worker,
            attempts=record.attempts,
            latency_s=record.latency_s,
            metadata=record.metadata,
        )
    return Answer(
        id=record.request_id,
        run=record.run,
        text=record.text,
        texts=record.texts,
        reasoning=record.reasoning,
        tool_calls=record.tool_calls,
        task=record.task,
        vectors=record.vectors,
        finish_reason=record.finish_reason,
        usage=Usage(record.usage.prompt_tokens, record.usage.completion_tokens),
        model=record.model,
        params=dict(record.params),
        details=record.details,
        worker=record.worker,
        attempts=record.attempts,
        latency_s=record.latency_s,
        metadata=record.metadata,
    )
