"""What a command sets up before its first computation.

Devices and processes; and `use_compilation_cache`, which keeps compiled code from run to run.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence

import jax

from racer_jax.studies.compilation_cache import use_compilation_cache as use_compilation_cache

_RANK, _COUNT, _ADDRESS = "RACER_JAX_PROCESS", "RACER_JAX_PROCESSES", "RACER_JAX_COORDINATOR"


def use_all_cores() -> None:
    """Makes every core a device, so that trials spread over them.

    Without effect once JAX has found its devices.

    Use this when trials run on a CPU.
    """
    try:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    except RuntimeError:
        return


def launch(script: str, arguments: Sequence[str], num_processes: int) -> int:
    """Runs a script in several processes on this machine, as one JAX program.

    Use this when an experiment is to run in several processes.

    Args:
      script: The script, which calls `join` before its first computation.
      arguments: Its command line.
      num_processes: How many.

    Returns:
      The first exit status that is not 0, else 0; when a process fails, the others are ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    children = []
    for rank in range(num_processes):
        environment = os.environ | {_RANK: str(rank), _COUNT: str(num_processes), _ADDRESS: address}
        quiet = None if rank == 0 else subprocess.DEVNULL
        command = [sys.executable, script, *arguments]
        children.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet))
    try:
        statuses = [child.wait() for child in children]
    finally:
        for child in children:
            child.kill()
    return next((status for status in statuses if status), 0)


def launched() -> bool:
    """Whether `launch` started this process.

    Use this when a script behaves otherwise when it was launched.
    """
    return _RANK in os.environ


def join(cluster: bool = False) -> None:
    """Joins the other processes of a `launch`, or of a cluster that JAX detects (Slurm, Cloud TPU).

    Use this when several machines or processes share an experiment.

    Args:
      cluster: Whether to ask the cluster's environment.

    Raises:
      ValueError: Nothing in the environment says that a cluster started this process.
    """
    if launched():
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            os.environ[_ADDRESS], int(os.environ[_COUNT]), int(os.environ[_RANK])
        )
    elif cluster:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ValueError(
                "no cluster started this process: JAX finds neither Slurm nor Open MPI nor a Cloud "
                f"TPU in its environment ({error}); start it with srun or mpirun, or, on one "
                "machine, pass --processes N (in Python: runtime.launch)"
            ) from error


def speaks() -> bool:
    """Whether this process prints and writes for all.

    Use this when an experiment prints in several processes.
    """
    return jax.process_index() == 0
