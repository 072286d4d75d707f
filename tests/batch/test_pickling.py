"""What engines send to their workers."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from racer_jax.batch import RouteBatch
from racer_jax.racer.errors import (
    ArtefactError,
    ForkedError,
    NotCalibratedError,
    UnknownGroupError,
)
from racer_jax.routers.report import TrainingDivergedError


def test_it_pickles_small_and_imports_jax_where_it_is_called():
    route = RouteBatch(Path("my.racer"), group="group", keep=["id"])
    sent = pickle.dumps(route)
    assert len(sent) < 500
    assert pickle.loads(sent) == route
    code = (
        "import pickle, sys; f = pickle.loads(bytes.fromhex(sys.argv[1])); "
        "print(type(f).__name__, {'jax', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sent.hex()], capture_output=True, text=True, check=True
    )
    assert done.stdout == "RouteBatch set()\n"


@pytest.mark.parametrize(
    "error",
    [
        ForkedError(),
        NotCalibratedError("route"),
        TrainingDivergedError(3, "step.ckpt"),
        UnknownGroupError("no calibration query is of group 'z'"),
        ArtefactError("folder not found", path="my.racer", field="router"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_worker_is_read_where_it_is_waited_for(error):
    """A pool whose worker sends what cannot be read waits for ever."""
    read = pickle.loads(pickle.dumps(error))
    assert type(read) is type(error)
    assert str(read) == str(error)
    assert vars(read) == vars(error)
