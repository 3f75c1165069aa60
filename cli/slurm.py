"""Runs that SLURM ends before they are done: requeued, and resumed when SLURM starts them again."""

import os
import re
import signal
import subprocess
from dataclasses import replace

from cli.command import Command


def asks(number: int) -> bool:
    """Whether a signal is SLURM's request to save and make room (``#SBATCH --signal=USR1@90``)."""
    return number == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ


def requeue() -> str:
    """Put this job back into the queue; the end of a sentence that says so, or why not."""
    job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return f"; SLURM_JOB_ID is {job!r}, no job that could be requeued"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=20)
    except subprocess.CalledProcessError as error:
        return f"; job {job} could not be requeued: {' '.join(error.stderr.split()) or error}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"; job {job} could not be requeued: {error}"
    return f"; job {job} is back in the queue"


def resumed(command: Command) -> Command:
    """In a job that SLURM has restarted, resume a fit whose folder holds checkpoints."""
    again = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    if not again or command.subcommand != "fit" or command.resume is not None or command.output is None:
        return command
    if not any((command.output / "checkpoints").glob("*.ckpt")):
        return command
    return replace(command, resume=command.output)
