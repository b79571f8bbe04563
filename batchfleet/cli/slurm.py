"""`slurm`: a fleet on a Slurm cluster, for one file of questions."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from batchfleet.cli.flags import Commands, Shared, add_engine, add_json, not_negative, positive
from batchfleet.settings.schema import Settings
from wire.errors import UsageError

SUBMIT = "submit a controller job, which holds the queue and submits worker jobs as the backlog requires"


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    slurm = commands.add_parser("slurm", help="a fleet on a Slurm cluster, for one file of questions")
    actions = slurm.add_subparsers(required=True, metavar="ACTION")
    submit = actions.add_parser("submit", parents=[shared.common], help=SUBMIT)
    submit.add_argument(
        "questions", nargs="+", metavar="QUESTIONS", help="files of questions, as `batchfleet submit` has them"
    )
    submit.add_argument(
        "-o", "--output", required=True, metavar="ANSWERS", help="file of answers; the scripts go to ANSWERS.slurm"
    )
    submit.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="most worker jobs, each of one node (default: 1)"
    )
    submit.add_argument(
        "--submit-flags", default="", metavar="'FLAGS'", help="further flags of `batchfleet submit`, in one word"
    )
    submit.add_argument("--write-only", action="store_true", help="write the scripts, to be edited, and queue nothing")
    add_engine(submit)
    _add_job_flags(submit)
    submit.set_defaults(command=_submit)

    for name, command, words in (
        ("status", _status, "its jobs, and how far it is"),
        ("scale", _scale, "change how many worker jobs there may be"),
        ("stop", _stop, "end all its jobs; the same `slurm submit` continues"),
    ):
        action = actions.add_parser(name, parents=[shared.common], help=words)
        action.add_argument("output", metavar="ANSWERS", help="file of answers, as `slurm submit` has it")
        action.set_defaults(command=command)
        if name == "status":
            add_json(action)
        if name == "scale":
            action.add_argument("workers", type=not_negative, metavar="N", help="most worker jobs")
    _add_controller(actions, shared)


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("jobs", "What is not here can be edited in the scripts. See docs/slurm.md.")
    group.add_argument("--partition", metavar="NAME", help="of worker jobs")
    group.add_argument(
        "--time",
        default="04:00:00",
        metavar="TIME",
        help="limit of a worker job, as Slurm writes it (default: 04:00:00)",
    )
    group.add_argument("--gpus-per-node", type=not_negative, default=1, metavar="N", help="default: 1")
    group.add_argument("--workers-per-node", type=positive, default=1, metavar="N", help="default: 1")
    group.add_argument("--queue-partition", metavar="NAME", help="of the job that holds the queue, which needs no GPU")
    group.add_argument(
        "--queue-time",
        default="1-00:00:00",
        metavar="TIME",
        help="its limit, after which a successor continues (default: a day)",
    )
    group.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="further option of both jobs, such as --sbatch=--account=physics; may be repeated",
    )
    group.add_argument("--image", metavar="FILE", help="Apptainer image in which workers run (deploy/apptainer.def)")
    _add_tls(group)


def _add_tls(parser: argparse._ActionsContainer) -> None:
    for name, words in (("cert", "certificate of the queue's Redis"), ("key", "its key"), ("ca", "what signed it")):
        parser.add_argument(f"--tls-{name}", metavar="FILE", help=f"{words} (PEM)")


def _add_controller(actions: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    controller = actions.add_parser("controller", parents=[shared.common], help="what controller.sbatch runs")
    controller.add_argument("folder", metavar="FOLDER", help="ANSWERS.slurm")
    controller.add_argument("producer", nargs=argparse.REMAINDER, metavar="submit ...", help="the producer's command")
    controller.add_argument("--workers-per-node", type=positive, default=1, metavar="N", help="default: 1")
    controller.add_argument(
        "--host", default="", metavar="NAME", help="of this node, as others reach it (default: found out)"
    )
    controller.add_argument("--port", type=not_negative, default=0, metavar="N", help="of Redis (default: any)")
    controller.add_argument(
        "--look", type=positive, default=15, metavar="S", help="seconds between looks at the jobs (default: 15)"
    )
    add_engine(controller)
    _add_tls(controller)
    controller.set_defaults(command=_controller, usual_log_level="info")


def _submit(arguments: argparse.Namespace, settings: Settings) -> int:
    from batchfleet.slurm import commands  # noqa: PLC0415 (none of the other commands need it)
    from batchfleet.slurm.job_scripts import JobPlan  # noqa: PLC0415

    config = str(Path(arguments.config).absolute()) if arguments.config else None
    answers = str(Path(arguments.output).absolute())
    asking = [*(_absolute(name) for name in arguments.questions), "-o", answers]
    asking += [*(["--config", config] if config else []), *shlex.split(arguments.submit_flags)]
    _check_submit(asking)
    plan = JobPlan(
        answers=answers,
        submit=asking,
        config=config,
        program=[sys.executable, "-P", "-m", "batchfleet"],
        drain_s=settings.leases.drain_s,
        hf_model_id=settings.model.generator_settings.hf_model_id,
        engine=arguments.engine,
        image=arguments.image and str(Path(arguments.image).absolute()),
        workers_per_node=arguments.workers_per_node,
        gpus_per_node=arguments.gpus_per_node,
        time=arguments.time,
        queue_time=arguments.queue_time,
        partition=arguments.partition,
        queue_partition=arguments.queue_partition,
        options=arguments.sbatch,
        certificate=commands.certificate(arguments.tls_cert, arguments.tls_key, arguments.tls_ca),
    )
    return commands.submit(plan, settings, arguments.workers, write_only=arguments.write_only)


def _absolute(name: str) -> str:
    if "://" in name:
        return name
    if not (set(name) & set("*?[") or Path(name).exists()):
        raise UsageError(
            f"{name}: there is no such file of questions; the job reads it later, so it has to lie on a shared disk"
        )
    return str(Path(name).absolute())


def _check_submit(words: list[str]) -> None:
    """Exit with `submit`'s own complaint about its flags, before anything is queued."""
    from batchfleet.cli.main import command_parser  # noqa: PLC0415 (it imports this module)

    command_parser(["submit"]).parse_args(["submit", *words])


def _status(arguments: argparse.Namespace, _settings: Settings) -> int:
    from batchfleet.slurm import commands  # noqa: PLC0415 (as above)

    return commands.status(arguments.output, as_json=arguments.json)


def _scale(arguments: argparse.Namespace, _settings: Settings) -> int:
    from batchfleet.slurm import commands  # noqa: PLC0415 (as above)

    return commands.scale(arguments.output, arguments.workers)


def _stop(arguments: argparse.Namespace, settings: Settings) -> int:
    from batchfleet.slurm import commands  # noqa: PLC0415 (as above)

    return commands.stop(arguments.output, settings)


def _controller(arguments: argparse.Namespace, settings: Settings) -> int:
    from batchfleet.slurm.commands import certificate  # noqa: PLC0415 (as above)
    from batchfleet.slurm.controller import Controller, ControllerPlan  # noqa: PLC0415
    from batchfleet.slurm.run_folder import RunFolder  # noqa: PLC0415

    folder = RunFolder(Path(arguments.folder).absolute())
    folder.create()
    memory = os.environ.get("SLURM_MEM_PER_NODE", "")
    plan = ControllerPlan(
        job=os.environ.get("SLURM_JOB_ID", ""),
        restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        producer=tuple(arguments.producer[1:]),
        workers_per_job=arguments.workers_per_node,
        engine=arguments.engine,
        host=arguments.host,
        port=arguments.port,
        # Half of the job's: Redis takes more while it rewrites its file, and the producer is there as well.
        max_bytes=int(memory) * 1024 * 1024 // 2 if memory.isdigit() else 0,
        certificate=certificate(arguments.tls_cert, arguments.tls_key, arguments.tls_ca),
        look_s=arguments.look,
    )
    return Controller(plan, folder, settings, os.environ).run()
