"""What a fleet can be told: one frozen value, read once, passed down.

Nothing here reads a file or the environment (`batchfleet.settings.load` does). Units are in the names or the
descriptions: `_s` are seconds, `_bytes` bytes, `_tokens` tokens. The reference documentation and the environment's
variable names are made from these fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from wire.keys import DEFAULT_NAMESPACE
from wire.messages import MAX_MODEL_CHARS, JsonObject

KIB = 1024
MIB = 1024 * KIB
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S

SAMPLING_FIELDS = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "stop",
)
"""The generator settings that are sampling parameters, under the names that questions use for them too."""


def _safe_namespace(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        kind = "not_safe"
        message = (
            "cannot stand in a Redis key; "
            "use 1 to 64 letters, digits, dots, underscores and hyphens, a letter or digit first"
        )
        raise PydanticCustomError(kind, message)
    return value


def _redis_url(value: str) -> str:
    # Never the value itself in a message: it may hold a password.
    try:
        usable = _reaches_redis(value)
    except ValueError:  # A port that is no port, brackets that do not match.
        usable = False
    if "sentinel" in value.partition("://")[0].lower():
        kind = "not_a_redis_url"
        message = (
            "names Sentinel, which is not supported: "
            "give the address of the primary, or of a proxy or DNS name that follows it"
        )
        raise PydanticCustomError(kind, message)
    if not usable:
        kind = "not_a_redis_url"
        message = (
            "is not a Redis URL; write redis://HOST:PORT/0, rediss://HOST:PORT/0 (TLS) or unix:///PATH, and special "
            "characters of a password as %XX"
        )
        raise PydanticCustomError(kind, message)
    return value


def _reaches_redis(url: str) -> bool:
    parts = urlsplit(url)
    if parts.fragment or re.search(r"\s", url):
        return False
    if parts.scheme == "unix":
        return bool(parts.path)
    # In redis://me:12/34@host the password is "12/34", but every parser takes "me" for the host: an @ this late is a
    # mistake.
    misread = "@" in parts.path + parts.query
    return parts.scheme in {"redis", "rediss"} and bool(parts.hostname) and parts.port != 0 and not misread


Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=1 * MIB)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_MODEL_CHARS)]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=64 * KIB)]
Namespace = Annotated[str, AfterValidator(_safe_namespace)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
StopTexts = Annotated[list[Text], Field(min_length=1, max_length=64)]


def number_text(value: float) -> str:
    """A number as people write it: 3600 rather than 3600.0."""
    return str(int(value)) if value == int(value) else str(value)


class Contradiction(NamedTuple):
    """Settings that are right one by one and impossible together.

    Attributes:
        keys: Names of the settings, as seen from the section that found it.
        text: What is wrong; what to do. Reads well after any one of the keys.
    """

    keys: tuple[str, ...]
    text: str


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, no silent conversions, no values in error texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    def contradictions(self) -> Iterator[Contradiction]:
        """What is impossible together in this section."""
        return iter(())

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if found := tuple(self.contradictions()):
            kind = "contradiction"
            message = "{text}"
            raise PydanticCustomError(kind, message, {"text": "; ".join(c.text for c in found), "found": found})
        return self


class GeneratorSettings(Section):
    """Which model answers, where it runs, how it samples, and how questions are grouped for it."""

    hf_model_id: ModelName | None = Field(
        default=None, description="Model to load in this process: a Hugging Face id or a folder."
    )
    boot_local: bool = Field(
        default=True, description="true: load the model in this process; false: use the server below."
    )
    server_startup_timeout: float = Field(
        default=600.0, gt=0, le=DAY_S, description="Longest that the engine may take to boot, in seconds."
    )
    server: Text | None = Field(
        default=None, description="Host or base URL of an OpenAI-compatible server, for boot_local: false."
    )
    port: int | None = Field(default=None, ge=1, le=65535, description="Port of that server.")
    api_key: Secret | None = Field(default=None, description="Key that the server asks for.")
    model: ModelName | None = Field(
        default=None, description="Name of the model on that server, and in the fleet's queues."
    )
    chat_template: LongText | None = Field(
        default=None, description="Chat template (Jinja text or a file) instead of the model's own."
    )
    vllm_args: dict[str, JsonValue] = Field(
        default={}, description="Engine arguments of vLLM, any, under vLLM's names.", repr=False
    )

    temperature: float | None = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Randomness where a question says nothing; 0 is greedy; null: not sent, for models that take none.",
    )
    max_tokens: int | None = Field(
        default=1024,
        ge=1,
        le=10_000_000,
        description="Most tokens of an answer where a question says nothing; null: not sent.",
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Sample from the likeliest tokens up to this total probability."
    )
    top_k: int | None = Field(
        default=None, ge=-1, le=10_000_000, description="Sample from this many likeliest tokens; 0 or -1 for all."
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Least probability of a token, relative to the likeliest."
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens that occurred in the answer."
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens, times how often they occurred."
    )
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=10, description="Above 1 discourages repeating prompt and answer."
    )
    seed: int | None = Field(
        default=None, ge=-(2**63), le=2**63 - 1, description="Seed of the sampling, the same for every question."
    )
    stop: Text | StopTexts | None = Field(
        default=None, description="Text, or list of up to 64 texts, at which an answer ends."
    )

    enable_batching: bool = Field(default=True, description="false: every batch holds one question.")
    batch_size: int = Field(default=16, ge=1, le=65536, description="Most questions in a batch.")
    batch_timeout: float = Field(
        default=0.5,
        ge=0,
        le=HOUR_S,
        description="Longest that a question waits for company, in seconds; a hungry worker ends the wait at once.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        if not self.boot_local and self.server is None and self.port is None:
            yield Contradiction(
                ("boot_local", "server"),
                "boot_local is false but no server is given; set server (and port), or boot_local: true",
            )

    @property
    def sampling_defaults(self) -> JsonObject:
        """Sampling parameters for questions that bring none.

        Those that are not set are left out, so that the engine's own defaults hold. Null stays null where it is not the
        default: it says that nothing is sent.
        """
        fields = type(self).model_fields
        return {
            name: value
            for name in SAMPLING_FIELDS
            if (value := getattr(self, name)) is not None or fields[name].default is not None
        }

    @property
    def given_sampling(self) -> JsonObject:
        """Those of them that somebody has set.

        A producer sends these with its questions: the workers' configuration may say something else.
        """
        return {name: value for name, value in self.sampling_defaults.items() if name in self.model_fields_set}


class ModelSettings(Section):
    """The model."""

    generator_settings: GeneratorSettings = Field(default_factory=GeneratorSettings)


class InputSettings(Section):
    """What is asked if the command line does not say it."""

    questions_file: Text | None = Field(default=None, description="File of questions, or a pattern for several.")


class OutputSettings(Section):
    """Where the answers go if the command line does not say it."""

    output_directory: Text | None = Field(default=None, description="Folder for them; made if it is not there.")
    output_prefix: Text | None = Field(
        default=None, description="Begins the name of the file, which is PREFIX_MODEL.json."
    )


class ProcessingSettings(Section):
    """How much a worker works on at once."""

    parallel_workers: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description=(
            "A worker keeps up to parallel_workers x batch_size questions in its engine; null: 1.5 times the "
            "engine's max_num_seqs."
        ),
    )


class RedisSettings(Section):
    """How to reach Redis."""

    url: RedisUrl | None = Field(
        default=None, description="redis://, rediss:// (TLS) or unix:// URL; may hold a password.", repr=False
    )
    username: Text | None = Field(default=None, description="User name, where the server has users.")
    password: Secret | None = Field(default=None, description="Password, where the URL holds none.")
    namespace: Namespace = Field(
        default=DEFAULT_NAMESPACE,
        description=(
            "Begins the name of every key; fleets with different namespaces share a Redis without seeing each other."
        ),
    )
    socket_timeout_s: float = Field(
        default=5.0, gt=0, le=300, description="Longest wait for Redis to connect or to answer, in seconds."
    )
    patience_s: float = Field(
        default=600.0,
        ge=0,
        le=30 * DAY_S,
        description="Longest that a producer waits for a Redis that is away before it stops, in seconds.",
    )
    tls_ca_file: Text | None = Field(
        default=None, description="File with the authority that signed the server's certificate (PEM)."
    )
    tls_cert_file: Text | None = Field(
        default=None, description="File with our own certificate (PEM), where the server asks for one."
    )
    tls_key_file: Text | None = Field(default=None, description="File with the key of that certificate (PEM).")

    def contradictions(self) -> Iterator[Contradiction]:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            yield Contradiction(
                ("tls_cert_file", "tls_key_file"),
                "a certificate needs its key; set both tls_cert_file and tls_key_file, or neither",
            )
        tls = (self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
        if self.url is not None and any(tls) and urlsplit(self.url).scheme != "rediss":
            keys = ("tls_ca_file", "tls_cert_file", "tls_key_file", "url")
            yield Contradiction(
                keys,
                (
                    "TLS files are given but the url does not use TLS; "
                    "write the url with rediss://, or remove the tls_ settings"
                ),
            )
        if self.url is not None and self.password is not None and urlsplit(self.url).password:
            yield Contradiction(("password", "url"), "a password is given here and in the url; keep one of the two")


class LimitSettings(Section):
    """What bounds a fleet. Reaching a limit slows the producer down or gives a clear error."""

    max_pending_questions: int = Field(
        default=200_000,
        ge=1,
        le=100_000_000,
        description="Most questions in Redis that have no record yet, of all runs.",
    )
    max_pending_bytes: int = Field(
        default=256 * MIB, ge=KIB, le=1024 * 1024 * MIB, description="Most bytes of such questions."
    )
    run_window: int = Field(
        default=20_000,
        ge=1,
        le=100_000_000,
        description="Most questions of one run accepted and not yet acknowledged by its producer.",
    )
    max_question_bytes: int = Field(
        default=1 * MIB, ge=KIB, le=256 * MIB, description="Most bytes of one question, packed."
    )
    max_batch_bytes: int = Field(
        default=4 * MIB,
        ge=KIB,
        le=256 * MIB,
        description="Most bytes of a batch; a question above that gets a batch of its own.",
    )
    max_waiting_batches: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description=(
            "Most batches of one model that wait in its RQ queue; "
            "null: 64, or twice the number of workers if that is more."
        ),
    )
    max_models: int = Field(default=64, ge=1, le=10_000, description="Most models that questions may name.")
    max_attempts: int = Field(default=6, ge=1, le=1000, description="Most tries of a question whose failure may pass.")
    question_timeout_s: float = Field(
        default=HOUR_S, gt=0, le=30 * DAY_S, description="Longest that a worker may take over a question, in seconds."
    )
    run_ttl_s: float = Field(
        default=7 * DAY_S,
        ge=60,
        le=366 * DAY_S,
        description="How long a run and its records outlive their last activity, in seconds.",
    )
    max_stdin_bytes: int = Field(
        default=16 * 1024 * MIB,
        ge=KIB,
        le=1024 * 1024 * MIB,
        description="Most bytes of questions from standard input.",
    )
    max_dead_letter_bytes: int = Field(
        default=64 * MIB,
        ge=0,
        le=1024 * 1024 * MIB,
        description="Most bytes of dead letters that are kept whole; beyond, each is cut at 64 KiB.",
    )
    max_dead_letters: int = Field(
        default=10_000, ge=1, le=10_000_000, description="Most dead letters that are kept; the oldest go first."
    )

    def contradictions(self) -> Iterator[Contradiction]:
        for small, large in (
            ("run_window", "max_pending_questions"),
            ("max_question_bytes", "max_pending_bytes"),
            ("max_batch_bytes", "max_pending_bytes"),
            ("question_timeout_s", "run_ttl_s"),
        ):
            yield from _above(self, small, large)


class LeaseSettings(Section):
    """How soon somebody who no longer works is found out."""

    batch_s: float = Field(
        default=6.0, gt=0, le=HOUR_S, description="A worker that is silent for this many seconds loses its batches."
    )
    leader_s: float = Field(
        default=4.0, gt=0, le=HOUR_S, description="A leading batcher that is silent for this many seconds is replaced."
    )
    heartbeat_s: float = Field(default=1.0, gt=0, le=HOUR_S, description="Seconds between renewals of a lease.")
    stall_s: float = Field(
        default=120.0,
        gt=0,
        le=DAY_S,
        description="Seconds without progress of the engine until a worker gives up its work.",
    )
    drain_s: float = Field(
        default=30.0, ge=0, le=DAY_S, description="Seconds that a worker has to finish its work after SIGTERM."
    )
    linger_s: float = Field(
        default=0.002,
        ge=0,
        le=10,
        description="Seconds that the batcher still waits for company once a worker is hungry.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        for lease in ("batch_s", "leader_s"):
            length = getattr(self, lease)
            # Two renewals may fail and the third still comes in time.
            if self.heartbeat_s > length / 3:
                text = (
                    f"{lease} ({number_text(length)}) is less than three times heartbeat_s "
                    f"({number_text(self.heartbeat_s)}); "
                    f"set {lease} to at least {number_text(3 * self.heartbeat_s)} or lower heartbeat_s"
                )
                yield Contradiction((lease, "heartbeat_s"), text)
        yield from _above(self, "batch_s", "stall_s")


class MetricsSettings(Section):
    """Where Prometheus can scrape batchers and workers; docs/metrics.md lists what it finds."""

    port: int | None = Field(
        default=None, ge=0, le=65535, description="First port to try; 0: any free one; null: no metrics."
    )
    ports: int = Field(
        default=32, ge=1, le=4096, description="How many ports from there on, one for each process of the host."
    )
    host: Text = Field(default="127.0.0.1", description="Address to listen at; 0.0.0.0 or :: for all of this host's.")


class StubSettings(Section):
    """Shape and faults of the stub engine, which stands in for vLLM where there is none."""

    max_num_seqs: int = Field(default=64, ge=1, le=65536, description="Most questions that it answers at once.")
    step_s: float = Field(default=0.0, ge=0, le=60, description="Seconds that one decode step takes.")
    min_tokens: int = Field(
        default=8, ge=1, le=1_000_000, description="Tokens of its shortest answers; lengths vary by question."
    )
    max_tokens: int = Field(default=128, ge=1, le=1_000_000, description="Tokens of its longest answers.")
    refuse_on: Text | None = Field(default=None, description="It refuses prompts that hold this text.")
    crash_on: Text | None = Field(default=None, description="Its process dies of prompts that hold this text.")
    hang_on: Text | None = Field(default=None, description="It never finishes prompts that hold this text.")

    def contradictions(self) -> Iterator[Contradiction]:
        yield from _above(self, "min_tokens", "max_tokens")


class SweepSettings(Section):
    """Runs of `batchfleet sweep`: every entry of `runs` with every combination of the values of `grid`.

    Other commands pass over it.
    """

    grid: dict[str, JsonValue] = Field(
        default={}, description="Settings, each with a list of the values to try: `temperature: [0.0, 0.7]`."
    )
    runs: list[dict[str, JsonValue]] = Field(
        default=[],
        max_length=1000,
        description="Settings that belong together, one mapping a run, each with a `name` if you like.",
    )


class Settings(Section):
    """Everything that a fleet can be told."""

    model: ModelSettings = Field(default_factory=ModelSettings)
    input: InputSettings = Field(default_factory=InputSettings)
    output: OutputSettings = Field(default_factory=OutputSettings)
    processing: ProcessingSettings = Field(default_factory=ProcessingSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    leases: LeaseSettings = Field(default_factory=LeaseSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    stub: StubSettings = Field(default_factory=StubSettings)
    sweep: SweepSettings = Field(default_factory=SweepSettings)

    @property
    def questions_per_batch(self) -> int:
        """Most questions in a batch, with `enable_batching` taken into account."""
        generator = self.model.generator_settings
        return generator.batch_size if generator.enable_batching else 1

    @property
    def capacity(self) -> int | None:
        """Most questions that a worker keeps in its engine.

        None for what the worker makes of the engine's own max_num_seqs.
        """
        workers = self.processing.parallel_workers
        return None if workers is None else workers * self.questions_per_batch

    @property
    def model_name(self) -> str | None:
        """The model's name in queues and answers, where a question names none; None if these settings name no model."""
        generator = self.model.generator_settings
        arguments = {name.replace("-", "_"): value for name, value in generator.vllm_args.items()}
        served = arguments.get("served_model_name")
        # vLLM takes a list of names here and answers to each; the first is the one that it reports.
        first = served[0] if isinstance(served, list) and served else served
        names = (generator.model, first, generator.hf_model_id, arguments.get("model"))
        return next((name for name in names if name and isinstance(name, str)), None)


def _above(section: Section, small: str, large: str) -> Iterator[Contradiction]:
    """A contradiction if the setting `small` exceeds the setting `large`."""
    low, high = getattr(section, small), getattr(section, large)
    if low > high:
        text = f"{small} ({number_text(low)}) is above {large} ({number_text(high)}); lower {small} or raise {large}"
        yield Contradiction((small, large), text)
