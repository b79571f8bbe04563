"""What travels between the programs: questions on the way in, records on the way out.

All times are Unix times in seconds on the clock of the Redis server (see `wire.clock`), so that one machine whose clock
is wrong harms nobody.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct, field

if TYPE_CHECKING:
    from pydantic import JsonValue
else:
    # What is in there is checked by the codec: recursive types are not for msgspec.
    JsonValue = Any

WIRE_VERSION = 3
"""Goes up when a message changes so that an older program would misread it.

Older versions are understood; newer ones are left, untouched, to programs that speak them. During an upgrade both are
there: a record is written in the version of its question, which its producer understands.

2: questions and records have the epoch of their run. 3: questions may want vectors, and what a model thought and which
tools it called have fields of their own."""

MAX_REQUEST_ID_CHARS = 512
MAX_MODEL_CHARS = 256
MAX_PRIORITY = 9
MAX_INDEX = 2**32 - 1
"""Redis addresses no bit beyond."""
FLOAT_BYTES = 4
"""Of a number in a vector: float32, little-endian."""

Task = Literal["generate", "embed", "classify", "score"]
"""What is wanted of a model: text, or numbers that its pooling layer makes of texts."""

JsonObject = dict[str, JsonValue]

RunId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")]
EPOCH = r"^([a-z][a-z0-9]{0,31})?\Z"
Epoch = Annotated[str, Meta(pattern=EPOCH)]
Count = Annotated[int, Meta(ge=0)]
Index = Annotated[int, Meta(ge=0, le=MAX_INDEX)]
Version = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]
TokenIds = list[Count]
Inputs = Annotated[list[str | TokenIds], Meta(min_length=1)]


def _current_version() -> int:
    return WIRE_VERSION


# gc: none can be part of a cycle, and thousands are held at once.
class Message(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A value that travels: frozen, no unknown fields, no silent conversions.

    Types and bounds are checked where it is read, by `wire.codec`.
    """


class Question(Message, frozen=True, kw_only=True):
    """One request to be answered.

    Attributes:
        run: The run that the question belongs to.
        epoch: Tells this run from an earlier one of the same id that was forgotten or lost; empty for runs that wire
            version 1 opened.
        index: Position in the run, from 0. It addresses the question's bit in the run's ledger; people never see it.
        request_id: Chosen by the producer, unique in the run; the only identity a question has, from file to answer.
        model: The model that is to answer, as its workers name it.
        prompt: Text for plain completion.
        messages: Chat messages in OpenAI's form; the worker applies the model's chat template.
        task: What is wanted. Only `generate` has a prompt or messages.
        inputs: For any other task, the texts or token ids that each give a vector; for `score`, the documents.
        query: For `score`, what each document is compared with.
        params: Parameters of the task, OpenAI's names and vLLM's. What is not here comes from the worker's
            configuration.
        priority: 0 to 9; higher goes first.
        deadline: Unix time in seconds after which nobody wants the answer; None for never.
        metadata: The producer's own; returned untouched.
        submitted_at: Unix time in seconds at which the producer sent it.
        v: Wire version of the producer that asked.
    """

    run: RunId
    epoch: Epoch = ""
    index: Index
    request_id: Annotated[str, Meta(min_length=1, max_length=MAX_REQUEST_ID_CHARS)]
    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_CHARS)]
    prompt: str | None = None
    messages: list[JsonObject] | None = None
    task: Task = "generate"
    inputs: Inputs | None = None
    query: str | None = None
    params: JsonObject = field(default_factory=dict)
    priority: Annotated[int, Meta(ge=0, le=MAX_PRIORITY)] = 0
    deadline: float | None = None
    metadata: JsonObject | None = None
    submitted_at: float
    # From a factory, because what equals a default is not sent, and this always is.
    v: Version = field(default_factory=_current_version)

    def __post_init__(self) -> None:
        is_chat, is_text = self.messages is not None, self.inputs is None
        if (self.prompt is not None) + is_chat + (not is_text) != 1:
            raise ValueError("a question has either a prompt or messages, or inputs")
        if is_text != (self.task == "generate") or (self.query is None) != (self.task != "score"):
            raise ValueError(f"the task {self.task} does not go with what is asked")
        # Timers cannot be set to what is no time.
        if not isfinite(self.submitted_at):
            raise ValueError(f"submitted_at is {self.submitted_at}")
        if self.deadline is not None and not isfinite(self.deadline):
            raise ValueError(f"deadline is {self.deadline}")

    @property
    def text(self) -> str:
        """The words of the question, whichever form they came in. For the stub and for logs, not for a model."""
        if self.prompt is not None:
            return self.prompt
        if self.inputs is not None:
            return "\n".join(map(str, self.inputs if self.query is None else [self.query, *self.inputs]))
        return "\n".join(str(message.get("content", "")) for message in self.messages or [])


class Usage(Message, frozen=True, kw_only=True):
    """Token counts of one answer; of all its texts together where there are several.

    Attributes:
        cached_tokens: How many of the prompt's came from a cache.
        reasoning_tokens: How many of the completion's are reasoning. Both: None if nobody says so. Not in wire version
            1.
    """

    prompt_tokens: Count
    completion_tokens: Count
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None

    def plain(self) -> Usage:
        """The counts that wire version 1 knows."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)


class ErrorDetail(Message, frozen=True, kw_only=True):
    """Why a question has no answer.

    Attributes:
        kind: One word for programs, such as `prompt_too_long`; docs/records.md lists them.
        message: A sentence for people, with the numbers that matter.
        retryable: Whether asking the same again could help.
        evidence: What was seen, where that helps to believe it; for instance which workers died of the question.
    """

    kind: Name
    message: str
    retryable: bool = False
    evidence: JsonObject | None = None


class Record(Message, frozen=True, kw_only=True, tag_field="status"):
    """What every terminal record has. A question gets exactly one.

    Attributes:
        run, epoch, index, request_id, metadata: As in the question.
        worker: Name of the worker that made the record; None if no worker did.
        attempts: How many workers were given the question, this one included.
        latency_s: From submission to record, in seconds, on the Redis server's clock.
        v: Wire version, that of the question.
    """

    run: RunId
    epoch: Epoch = ""
    index: Index
    request_id: str
    worker: str | None = None
    attempts: Count = 1
    latency_s: float | None = None
    metadata: JsonObject | None = None
    # From a factory, because what equals a default is not sent, and this always is.
    v: Version = field(default_factory=_current_version)


class Answer(Record, frozen=True, kw_only=True, tag="answered"):
    """The model answered.

    Attributes:
        text: The answer; the first one if several were asked for; empty if vectors were.
        texts: All answers if several were asked for (`n` above 1), else None.
        reasoning: What the model thought before the first text, where that is told apart; None if nothing.
        tool_calls: The calls of tools in the first answer, in OpenAI's form; None if none.
        task: That of the question.
        vectors: For any other task than `generate`: of each input, its embedding or the probabilities of its classes,
            as float32; for `score` one vector, with a score for each document.
        finish_reason: As the engine names it: `stop`, `length`, ...
        usage: Token counts.
        model: The model that answered.
        params: The sampling parameters that were really used, defaults included.
        details: What else the engine returned because the question asked for it: logprobs and the like.
    """

    status: ClassVar[Literal["answered"]] = "answered"
    text: str
    texts: list[str] | None = None
    reasoning: str | None = None
    tool_calls: list[JsonObject] | None = None
    task: Task = "generate"
    vectors: list[bytes] | None = None
    finish_reason: str
    usage: Usage
    model: str
    params: JsonObject
    details: JsonObject | None = None

    def __post_init__(self) -> None:
        vectors = self.vectors
        if (vectors is None) != (self.task == "generate"):
            raise ValueError(f"the task {self.task} does not go with what was answered")
        # Every answer passes here several times: a text pays nothing for what only vectors need.
        if vectors is not None and any(len(vector) % FLOAT_BYTES for vector in vectors):
            raise ValueError("a vector ends within a number")


FIELDS_SINCE = 3
"""Wire version that has `reasoning`, `tool_calls` and vectors; before, the first two stood in `details`."""


class Failure(Record, frozen=True, kw_only=True, tag="failed"):
    """The question has no answer and will not get one."""

    status: ClassVar[Literal["failed"]] = "failed"
    error: ErrorDetail
