"""A Slurm cluster on this machine: Debian's slurmctld, and a slurmd for each of its nodes.

`scripts/test-slurm` gives it namespaces of its own, with which everything ends that it started.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from batchfleet.supervisor.processes import spawn, stop_all
from tests.processes import wait_until

CONTROLLER_PORT = 6817
FIRST_NODE_PORT = 6900
SILENT_NODE_S = 10
"""After so long a node that does not answer is down."""

CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
# What is written here counts, not what there is.
SlurmdParameters=config_overrides
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# Without control groups, which are the host's.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=15
SlurmctldTimeout=30
SlurmdTimeout={silent_node_s}
MinJobAge=300
MaxArraySize=1001
SchedulerParameters=batch_sched_delay=1,bf_interval=3,sched_min_interval=0
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/spool/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs
NodeName=cpu1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={cpu_port} CPUs=64 RealMemory=100000
{nodes}
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=gpu[1-{count}] MaxTime=INFINITE PriorityTier=1 GraceTime={grace_s}
PartitionName=urgent Nodes=gpu[1-{count}] MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


@dataclass(frozen=True)
class Grant:
    """Time for which a job had a node: one for each time that it was started. Unix times, in whole seconds."""

    job: str
    name: str
    state: str
    start: float
    end: float


@dataclass
class Cluster:
    """`cpu1` for the queue, and nodes `gpu1` to `gpuN` of one imaginary GPU each; two partitions share these.

    Attributes:
        folder: Of its files and logs.
        daemons: By name; a node's may be killed, and started again.
    """

    folder: Path
    count: int
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def nodes(self) -> list[str]:
        return [f"gpu{number}" for number in range(1, self.count + 1)]

    def start(self, name: str, *command: str) -> None:
        if name in self.daemons:
            self.daemons[name].wait()
        self.daemons[name] = spawn(command, dict(os.environ), self.folder / f"{name}.out")

    def start_node(self, node: str) -> None:
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        self.start(node, "slurmd", "-D", "-N", node)

    def on(self, *command: str) -> str:
        """One of Slurm's commands; returns what it prints."""
        return command_output(*command)

    def states(self) -> dict[str, str]:
        """Of all nodes."""
        return dict(line.split() for line in self.on("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines())

    def grants(self, name: str) -> list[Grant]:
        """Those of jobs of that name that are over, as Slurm accounts for them."""
        found = []
        for line in (self.folder / "jobs").read_text().splitlines():
            words = dict(word.partition("=")[::2] for word in line.split())
            # What was cancelled while it waited never had a node.
            if words["Name"] != name or words["StartTime"] == "Unknown" or words["NodeList"] == "(null)":
                continue
            start, end = (datetime.fromisoformat(words[name]).timestamp() for name in ("StartTime", "EndTime"))
            found.append(Grant(words["JobId"], words["Name"], words["JobState"], start, end))
        return found


def command_output(*command: str) -> str:
    """Run a command that has to succeed; returns what it prints."""
    done = subprocess.run(  # noqa: S603 (ours)
        command, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    return done.stdout


def configuration(folder: Path, count: int, grace_s: int) -> str:
    """Text of slurm.conf."""
    nodes = "\n".join(
        f"NodeName=gpu{number} NodeHostname=localhost NodeAddr=127.0.0.1 Port={FIRST_NODE_PORT + number} CPUs=8 "
        "RealMemory=10000 Gres=gpu:1"
        for number in range(1, count + 1)
    )
    return CONFIGURATION.format(
        folder=folder, count=count, nodes=nodes, controller_port=CONTROLLER_PORT, cpu_port=FIRST_NODE_PORT,
        grace_s=grace_s, silent_node_s=SILENT_NODE_S,
    )  # fmt: skip


@contextmanager
def cluster(folder: Path, count: int, grace_s: int = 0) -> Iterator[Cluster]:
    """Up, and idle."""
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(configuration(folder, count, grace_s))
    (folder / "gpu").touch()
    (folder / "gres.conf").write_text(f"NodeName=gpu[1-{count}] Name=gpu File={folder}/gpu\n")
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    found = Cluster(folder, count)
    files = {"key-file": key, "socket": folder / "munge/socket", "pid-file": folder / "munge/pid",
             "log-file": folder / "munge/log", "seed-file": folder / "munge/seed"}  # fmt: skip
    try:
        found.start(
            "munged", "munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())
        )
        wait_until((folder / "munge/socket").exists, "munged listens")
        found.start("slurmctld", "slurmctld", "-D", "-c")
        for node in ("cpu1", *found.nodes):
            found.start_node(node)
        wait_until(lambda: _idle(found), "all nodes are idle", 120)
        yield found
    finally:
        stop_all(list(found.daemons.values()), grace_s=10)
        del os.environ["SLURM_CONF"]


def _idle(of: Cluster) -> bool:
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (ours)
    return done.returncode == 0 and set(done.stdout.split()) == {"idle"} and of.count > 0


def over(names: Sequence[str]) -> bool:
    """Whether Slurm lists no job of these names any more."""
    return not command_output("squeue", "--noheader", f"--name={','.join(names)}").strip()
