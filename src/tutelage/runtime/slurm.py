"""Support for SLURM: its notice before the time limit, requeueing, ranks. Without SLURM nothing happens."""

import logging
import os
import subprocess

from tutelage.errors import TutelageError

log = logging.getLogger(__name__)


def queue_again(noticed: bool) -> None:
    """Requeues this job after its state is saved: after a notice, or when preempted.

    SLURM itself requeues only jobs that it had to kill; a job that ends within the grace time counts as finished.

    Args:
        noticed: a SIGUSR1 came.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    answer = _scontrol("-o", "show", "job", name)
    facts = dict(word.split("=", 1) for word in answer.split() if "=" in word)
    preempted = facts.get("PreemptTime", "None") not in ("None", "Unknown")
    if facts.get("Requeue") == "1" and facts.get("JobState") == "RUNNING" and (noticed or preempted):
        log.info("requeued: SLURM job %s", name)
        _scontrol("requeue", name)


def _scontrol(*arguments: str) -> str:
    try:
        done = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("scontrol %s: %s", " ".join(arguments), error)
        return ""
    return done.stdout


def take_rank() -> None:
    """Takes this process's rank from SLURM's variables if SLURM started several tasks."""
    if int(os.environ.get("SLURM_NTASKS", "1")) == 1 or "SLURM_PROCID" not in os.environ or "RANK" in os.environ:
        return
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_JOB_NODELIST"]
    os.environ |= {
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "NODE_RANK": os.environ["SLURM_NODEID"],
        "WORLD_SIZE": os.environ["SLURM_NTASKS"],
        "MASTER_ADDR": _first(nodes),
        "MASTER_PORT": str(20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000),
    }


def _first(nodes: str) -> str:
    """Returns the first node of a list such as ``node[3-4],other``."""
    if os.environ.get("SLURM_NNODES") == "1":
        return "127.0.0.1"
    if found := _scontrol("show", "hostnames", nodes).split():
        return found[0]
    if "[" not in nodes.partition(",")[0]:
        return nodes.partition(",")[0]
    raise TutelageError(f"SLURM's nodes {nodes}: scontrol failed to name the first of them (see above)")
