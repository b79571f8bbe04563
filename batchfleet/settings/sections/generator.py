"""Which model answers, where it runs, how it samples, and how questions are grouped for it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, JsonValue

from batchfleet.settings.sections.section import (
    DAY_S,
    HOUR_S,
    Contradiction,
    LongText,
    ModelName,
    Secret,
    Section,
    StopTexts,
    Text,
)
from wire.messages import JsonObject, Task

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


VECTOR_BATCH_TOKENS = 16_384


class GeneratorSettings(Section):
    """Which model answers, where it runs, how it samples, and how questions are grouped for it."""

    hf_model_id: ModelName | None = Field(
        default=None, description="Model to load with vLLM: a Hugging Face id or a folder."
    )
    boot_local: bool = Field(default=True, description="true: load the model with vLLM; false: use `server`.")
    server_startup_timeout: float = Field(
        default=600.0, gt=0, le=DAY_S, description="Longest boot of the engine, in seconds."
    )
    server: Text | None = Field(default=None, description="Host or base URL of an OpenAI-compatible server.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Its port.")
    api_key: Secret | None = Field(default=None, description="Its API key.")
    model: ModelName | None = Field(
        default=None, description="Name of the model on the server, and in the fleet's queues."
    )
    chat_template: LongText | None = Field(
        default=None, description="Chat template (Jinja text or a file) in place of the model's own."
    )
    task: Task = Field(
        default="generate", description="What the model makes of a text: an answer (generate) or vectors (the others)."
    )
    vllm_args: dict[str, JsonValue] = Field(
        default={}, description="Any engine arguments of vLLM, under vLLM's names.", repr=False
    )

    temperature: float | None = Field(
        default=0.0,
        ge=0,
        le=2,
        description="Default temperature; 0 is greedy; null: not sent, for models that take none.",
    )
    max_tokens: int | None = Field(
        default=1024, ge=1, le=10_000_000, description="Default maximum of tokens in an answer; null: not sent."
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Sample from the most likely tokens, up to this total probability."
    )
    top_k: int | None = Field(
        default=None, ge=-1, le=10_000_000, description="Sample from this many most likely tokens; 0 or -1 for all."
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Minimum probability of a token, relative to the most likely."
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Penalty on tokens that are in the answer already."
    )
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="The same, times their number.")
    repetition_penalty: float | None = Field(
        default=None, gt=0, le=10, description="Above 1 discourages repetition of prompt and answer."
    )
    seed: int | None = Field(
        default=None, ge=-(2**63), le=2**63 - 1, description="Sampling seed, the same for every question."
    )
    stop: Text | StopTexts | None = Field(default=None, description="Text, or up to 64 texts, at which an answer ends.")

    enable_batching: bool = Field(default=True, description="false: every batch holds one question.")
    batch_size: int = Field(default=16, ge=1, le=65536, description="Maximum questions in a batch.")
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description=(
            "Maximum tokens in a batch, guessed at 4 bytes each, instead of batch_size. Default: none for "
            "`task: generate`, else 16384 unless batch_size is set."
        ),
    )
    batch_timeout: float = Field(
        default=0.5,
        ge=0,
        le=HOUR_S,
        description="Longest wait of a question for others, in seconds; an idle worker ends it at once.",
    )
    group_prefixes: bool = Field(
        default=True,
        description="Questions that begin alike ride together, for the engine's prefix cache; false: as they come.",
    )

    def contradictions(self) -> Iterator[Contradiction]:
        if not self.boot_local and self.server is None and self.port is None:
            yield Contradiction(
                ("boot_local", "server"),
                "boot_local is false but no server is given; set server (and port), or boot_local: true",
            )

    @property
    def tokens_of_batch(self) -> int | None:
        """Most tokens in a batch; None if its questions are counted.

        Texts to embed are as short as titles or as long as pages, and an engine works on so many tokens at once.
        """
        is_counted = self.task == "generate" or "batch_size" in self.model_fields_set
        return self.batch_tokens or (None if is_counted or not self.enable_batching else VECTOR_BATCH_TOKENS)

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
