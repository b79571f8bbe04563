"""What a fleet can be told: one frozen value, read once, passed down.

Nothing here reads a file or the environment (`batchfleet.settings.load` does). Units are in the names or the
descriptions: `_s` are seconds, `_bytes` bytes, `_tokens` tokens. The reference documentation and the environment's
variable names are made from these fields.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, JsonValue

from batchfleet.settings.sections.generator import GeneratorSettings
from batchfleet.settings.sections.images import ImageSettings
from batchfleet.settings.sections.limits import LeaseSettings, LimitSettings
from batchfleet.settings.sections.redis_server import RedisSettings
from batchfleet.settings.sections.section import Contradiction, ModelName, Section, Text, at_most


class ModelSettings(Section):
    """The model."""

    generator_settings: GeneratorSettings = Field(default_factory=GeneratorSettings)


class InputSettings(Section):
    """What is asked if the command line does not say."""

    questions_file: Text | None = Field(default=None, description="File of questions, or a pattern for several.")


class OutputSettings(Section):
    """Where answers go if the command line does not say."""

    output_directory: Text | None = Field(default=None, description="Folder; made if it does not exist.")
    output_prefix: Text | None = Field(default=None, description="The file is PREFIX_MODEL.json.")


class ProcessingSettings(Section):
    """How much a worker works on at once."""

    parallel_workers: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description=(
            "A worker keeps up to parallel_workers x batch_size questions in its engine; null: 1.5 times max_num_seqs."
        ),
    )
    tuned_answers_per_s: float | None = Field(
        default=None, gt=0, le=1e9, description="Answers/s of one worker as `tune` measured them; for `--dry-run`."
    )
    scale_down_s: float = Field(
        default=60.0,
        ge=0,
        le=30 * 86_400,
        description=("`up --workers MIN:MAX` stops idle workers when fewer have been enough for this many seconds."),
    )
    scaled_models: list[ModelName] = Field(
        default=[],
        max_length=1000,
        description=(
            "Models for which something other than `up`, such as KEDA, starts workers once there is work: gateway and "
            "`submit` take their questions while no worker serves them. Batchers tell it to all."
        ),
    )


class MetricsSettings(Section):
    """Where Prometheus can scrape batchers and workers ([metrics.md](metrics.md))."""

    port: int | None = Field(
        default=None, ge=0, le=65535, description="First port to try; 0: any free one; null: no metrics."
    )
    ports: int = Field(
        default=32, ge=1, le=4096, description="How many ports from there on, one per process of the host."
    )
    host: Text = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 or :: for all.")


class StubSettings(Section):
    """Shape and faults of the stub engine."""

    max_num_seqs: int = Field(default=64, ge=1, le=65536, description="Maximum questions that it answers at once.")
    step_s: float = Field(default=0.0, ge=0, le=60, description="Seconds of one decode step.")
    boot_s: float = Field(default=0.0, ge=0, le=3600, description="Seconds that it takes to boot.")
    min_tokens: int = Field(
        default=8, ge=1, le=1_000_000, description="Tokens of its shortest answers; lengths vary by question."
    )
    max_tokens: int = Field(default=128, ge=1, le=1_000_000, description="Tokens of its longest answers.")
    refuse_on: Text | None = Field(default=None, description="It refuses prompts that contain this text.")
    crash_on: Text | None = Field(default=None, description="Its process crashes on prompts that contain this text.")
    hang_on: Text | None = Field(default=None, description="It never finishes prompts that contain this text.")

    def contradictions(self) -> Iterator[Contradiction]:
        yield from at_most(self, "min_tokens", "max_tokens")


class SweepSettings(Section):
    """Runs of `batchfleet sweep`: every entry of `runs` with every combination of the values of `grid`.

    Other commands ignore it.
    """

    grid: dict[str, JsonValue] = Field(
        default={}, description="Settings with lists of values: `temperature: [0.0, 0.7]`."
    )
    runs: list[dict[str, JsonValue]] = Field(
        default=[],
        max_length=1000,
        description="Settings that belong together, one mapping per run, each with an optional `name`.",
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
    images: ImageSettings = Field(default_factory=ImageSettings)
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
