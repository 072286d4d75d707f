"""What engines send to their workers."""

import pickle
import subprocess
import sys
from pathlib import Path

from racer_jax.batch import RouteBatch


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
