"""A real SLURM on this machine's loopback, for as long as tests need it: no systemd, nothing outside one folder.

Debian: ``apt-get install --no-install-recommends slurm-wlm munge``.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")

# Two partitions: jobs of `high` drive those of `main` back into the queue, with a grace time.
CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={port}
SlurmdPort={next}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,requeue_delay=1
KillWait=30
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF State=UP
"""

# submitit asks sacct, which needs accounting: this one answers from the controller.
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
scontrol -o show job 2>/dev/null | sed -nE \\
  -e 's/^JobId=([0-9]+) ArrayJobId=([0-9]+) ArrayTaskId=([0-9]+) .*JobState=([A-Z_]+) .*/\\2_\\3|\\4|here/p' \\
  -e '/ArrayJobId/!s/^JobId=([0-9]+) .*JobState=([A-Z_]+) .*/\\1|\\2|here/p'
"""


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]


class Slurm:
    """Starts in ``folder`` what a cluster of one node needs, and ends it.

    Attributes:
        environment: for whoever submits.
    """

    def __init__(self, folder: Path):
        self.folder, self.running = folder, list[subprocess.Popen[bytes]]()
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{folder}:{os.environ['PATH']}:/usr/sbin",
        }

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        (self.folder / "sacct").write_text(SACCT)
        (self.folder / "sacct").chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        host = socket.gethostname()
        conf = CONF.format(folder=self.folder, host=host, port=port, next=port + 1)
        (self.folder / "slurm.conf").write_text(conf)
        paths = {name: f"{self.folder}/munge.{name}" for name in ("socket", "pid", "log", "seed", "key")}
        options = [f"--{name}{'-file' if name != 'socket' else ''}={path}" for name, path in paths.items()]
        self._run("munged", "--foreground", "--force", *options)
        self._until(lambda: Path(paths["socket"]).exists(), "munged")
        self._run("slurmctld", "-D", "-c", "-f", str(self.folder / "slurm.conf"))
        self._run("slurmd", "-D", "-N", host, "-f", str(self.folder / "slurm.conf"))
        self._until(lambda: "idle" in self("sinfo", "-h", "-o", "%T", check=False), "slurmd")

    def __call__(self, *command: str, check: bool = True) -> str:
        """Returns the output of a command."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=1200, check=check
        )
        return done.stdout

    def _run(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as log:
            self.running.append(
                subprocess.Popen(command, env=os.environ | self.environment, stdout=log, stderr=subprocess.STDOUT)
            )

    def _until(self, ready: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 30
        while not ready():
            if time.monotonic() > end or any(process.poll() is not None for process in self.running):
                logs = "\n".join(path.read_text() for path in self.folder.glob("*.out"))
                raise RuntimeError(f"{what} did not come up:\n{logs}")
            time.sleep(0.2)

    def stop(self) -> None:
        self("scancel", "--user", "root", "--full", check=False)
        for process in reversed(self.running):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.running):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
