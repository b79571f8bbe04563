"""The two scripts of a run, in the folder beside its answers, for users to read and to change."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from batchfleet.slurm.queue_server import Certificate
from batchfleet.slurm.run_folder import RunFolder
from wire.errors import UsageError

TEMPLATES = Path(__file__).parent
FINISH_S = 15
"""Beyond what workers may take to finish what they hold: to end the engine, and the job."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What users choose about the jobs of a run.

    Attributes:
        answers: File of answers.
        submit: Words after `batchfleet submit`.
        config: Settings file; None for none.
        engine: As flags have it.
        program: Words that start batchfleet on a node.
        image: Apptainer image in which workers run; None for none.
        time, partition: Of worker jobs, in Slurm's words.
        queue_time, queue_partition: Of the controller job.
        options: Further options of `sbatch` for both jobs, such as `--account=physics`.
        drain_s: Seconds that workers may take to finish what they hold.
        hf_model_id: Model that workers load; None for none of Hugging Face's.
    """

    answers: str
    submit: Sequence[str]
    config: str | None
    program: Sequence[str]
    drain_s: float
    hf_model_id: str | None = None
    engine: str | None = None
    image: str | None = None
    workers_per_node: int = 1
    gpus_per_node: int = 1
    time: str = "04:00:00"
    queue_time: str = "1-00:00:00"
    partition: str | None = None
    queue_partition: str | None = None
    options: Sequence[str] = ()
    certificate: Certificate | None = None


def write_scripts(folder: RunFolder, plan: JobPlan) -> list[Path]:
    """Write both; returns those that were left as they are, as somebody edited them or other options made them.

    Raises:
        UsageError: The folder cannot be written to.
    """
    kept = []
    for path, text in (
        (folder.controller_script, controller(folder, plan)),
        (folder.worker_script, worker(folder, plan)),
    ):
        try:
            if not path.exists():
                path.write_text(text, encoding="utf-8")
                path.chmod(0o700)
            elif path.read_text(encoding="utf-8") != text:
                kept.append(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    return kept


def controller(folder: RunFolder, plan: JobPlan) -> str:
    """Text of `controller.sbatch`."""
    options = [
        *_option("--partition", plan.queue_partition), "--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem=4G",
        f"--time={plan.queue_time}", "--requeue", "--open-mode=append",
        f"--output={_in_pattern(folder.logs)}/controller-%j.log", *plan.options,
    ]  # fmt: skip
    tls = plan.certificate
    flags = [
        *(["--config", plan.config] if plan.config else []), *(["--engine", plan.engine] if plan.engine else []),
        *(["--tls-cert", tls.cert_file, "--tls-key", tls.key_file, "--tls-ca", tls.ca_file] if tls else []),
        "--workers-per-node", str(plan.workers_per_node),
    ]  # fmt: skip
    return _filled(
        "controller.sbatch",
        OPTIONS=_lines(options),
        ANSWERS=_in_comment(plan.answers),
        PROGRAM=shlex.join(plan.program),
        FOLDER=shlex.quote(str(folder.path)),
        FLAGS=shlex.join(flags),
        SUBMIT=shlex.join(plan.submit),
    )


def worker(folder: RunFolder, plan: JobPlan) -> str:
    """Text of `worker.sbatch`."""
    options = [
        *_option("--partition", plan.partition), "--nodes=1", "--ntasks=1",
        *([f"--gpus-per-node={plan.gpus_per_node}"] if plan.gpus_per_node else []),
        f"--time={plan.time}", "--requeue", "--open-mode=append",
        f"--output={_in_pattern(folder.logs)}/worker-%A-%a.log", *plan.options,
    ]  # fmt: skip
    up = [
        "--workers", f"0:{plan.workers_per_node}", "--leave-idle",
        *(["--config", plan.config] if plan.config else []),
        *(["--engine", plan.engine] if plan.engine else []),
    ]  # fmt: skip
    program = shlex.join(plan.program)
    if plan.image:
        places = [str(folder.path), *([str(Path(plan.config).parent)] if plan.config else [])]
        binds = " ".join(f"--bind {shlex.quote(place)}" for place in dict.fromkeys(places))
        program = f'apptainer exec --nv --bind "${{NODE_CACHE:-/tmp}}" {binds} {shlex.quote(plan.image)} batchfleet'
    model = plan.hf_model_id or ""
    tls = plan.certificate
    if tls:
        up += ["--set", f"redis.tls_ca_file={tls.ca_file}"]
    return _filled(
        "worker.sbatch",
        OPTIONS=_lines(options),
        MARGIN=str(int(plan.drain_s) + FINISH_S),
        ANSWERS=_in_comment(plan.answers),
        PROGRAM=program,
        FOLDER=shlex.quote(str(folder.path)),
        MODEL=shlex.quote("models--" + model.replace("/", "--") if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else ""),
        SCHEME="rediss+file" if tls else "redis+file",
        UP=shlex.join(up),
    )


def _option(flag: str, value: str | None) -> list[str]:
    return [f"{flag}={value}"] if value else []


def _lines(options: Sequence[str]) -> str:
    """Of `#SBATCH`, whose words Slurm parts at blanks as a shell does.

    Raises:
        UsageError: One is no option, or more than a line.
    """
    for option in options:
        if not option.startswith("-") or not option.isprintable():
            raise UsageError(
                f"{option!r} is no option of sbatch; write it as it stands in a script, such as --account=physics"
            )
    return "\n".join(f"#SBATCH {option}" for option in options)


def _in_pattern(path: Path) -> str:
    """A path as Slurm reads it in `--output`, where % begins a pattern."""
    return shlex.quote(str(path).replace("%", "%%"))


def _in_comment(text: str) -> str:
    return " ".join(text.split())


def _filled(template: str, **values: str) -> str:
    text = (TEMPLATES / template).read_text(encoding="utf-8")

    def value(found: re.Match[str]) -> str:
        return values[found[1]]

    # In one pass: a value may look like a placeholder.
    return re.sub(r"@([A-Z]+)@", value, text)
