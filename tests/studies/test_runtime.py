"""Processes that join each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_process_that_no_cluster_started_is_told_so():
    """A fresh process: JAX joins a cluster before its first computation, or never."""
    marks = ("SLURM_", "OMPI_", "PMI", "TPU_", "MEGASCALE_", "KUBERNETES_", "JAX_COORDINATOR")
    names = {name: value for name, value in os.environ.items() if not name.startswith(marks)}
    names["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "experiments/bound_check.py", "--processes", "0"],
        cwd=ROOT,
        env=names,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no cluster started this process")
    assert "srun" in done.stderr
    assert "--processes N" in done.stderr
    assert "Traceback" not in done.stderr
