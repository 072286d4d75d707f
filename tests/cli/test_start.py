"""What a command imports: nothing heavy for a help, and for a question only what answers it."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from racer_jax.cli import names, score_checks
from racer_jax.cli.main import main
from racer_jax.core.nonconformity import NONCONFORMITIES, NULL_MODES
from racer_jax.data import load, save
from racer_jax.data.download import BASE_URL, CORPORA
from racer_jax.data.loading import READERS
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.encoders.registry import ENCODERS
from racer_jax.orders.model_orders import ORDERS, PRICED
from racer_jax.racer.racer import Racer
from racer_jax.routers import ServedMLP, registry
from racer_jax.studies.checked_pools import STOP_LOSSES
from tests.racer.test_racer import MODELS, table_of

LIGHT = """
import sys
before = set(sys.modules)
from racer_jax.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - set(sys.stdlib_module_names)), status, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "status"), [("--help", 0), ("--version", 0), ("train --help", 0), ("route --bad", 2)]
)
def test_a_help_and_a_usage_error_wait_for_no_library(words, status):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *words.split()], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == f"lazy_loader racer_jax {status}"


@pytest.mark.parametrize("words", ["summary t.csv", "convert t.csv t.npz", "convert t.npz u.csv"])
def test_tables_are_read_and_written_without_jax(words, tmp_path):
    rows = "query,model,correct\nx,a,1\nx,b,0\n"
    (tmp_path / "t.csv").write_text(rows)
    save(load(tmp_path / "t.csv"), tmp_path / "t.npz")
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, "data", *words.split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    *libraries, status = done.stderr.splitlines()[-1].split()
    assert status == "0"
    assert "numpy" in libraries
    assert not {"jax", "jaxlib"} & set(libraries)


def test_the_names_that_can_be_typed_are_those_of_the_registries(monkeypatch):
    assert tuple(READERS) == names.FORMATS
    assert (tuple(CORPORA), BASE_URL) == (names.CORPORA, names.BASE_URL)
    assert (names.NULL_MODES, names.PRICED) == (NULL_MODES, PRICED)
    assert score_checks.STOP_LOSSES == STOP_LOSSES
    registries = {
        "racer_jax.routers.registry": (registry.ROUTERS, names.routers),
        "racer_jax.encoders.registry": (ENCODERS, names.encoders),
        "racer_jax.core.nonconformity": (NONCONFORMITIES, names.nonconformities),
        "racer_jax.orders.model_orders": (ORDERS, names.orders),
    }
    for module, (names_of, listed) in registries.items():
        assert tuple(names_of) == listed()
        with monkeypatch.context() as without:
            without.delitem(sys.modules, module)
            assert tuple(names_of) == listed(), (
                "what is built in, as it is known without the module"
            )


def test_a_router_that_a_program_registers_can_be_typed(monkeypatch, capsys):
    monkeypatch.setitem(registry.ROUTERS, "my_own", lambda num_rows: None)
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "my_own" in capsys.readouterr().out


HEAVY = ("scipy", "flax", "optax", "transformers", "matplotlib", "IPython", "pyarrow")


@pytest.mark.long
def test_routing_loads_nothing_it_does_not_use(tmp_path):
    """A question to an MLPR on hashed n-grams: the artefact that `train` writes by default."""
    code = (
        "import sys; from racer_jax.cli.main import main; import racer_jax; racer_jax.Racer\n"
        "imported = set(sys.modules); status = main(['route', sys.argv[1], 'What is 2 + 2?'])\n"
        f"print(*({HEAVY!r} & imported), *({HEAVY!r} & set(sys.modules)), status, file=sys.stderr)"
    ).replace(repr(HEAVY), repr(set(HEAVY)))
    done = subprocess.run(
        [sys.executable, "-c", code, str(artefact(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "0"
    assert done.stdout.startswith("What is 2 + 2?\n")


def artefact(folder):
    """An artefact with an MLPR that is not trained, and a threshold."""
    rng = np.random.default_rng(0)
    table = table_of(rng, 80).table
    encoder = ReducedEncoder.fit(jax.random.key(0), table.texts, 8, HashedNgrams(dim=64))
    widths = {"kind": "mlp", "dim": 8, "num_models": len(MODELS), "hidden": [4], "dropout": 0.5}
    arrays = {"r.mean": np.zeros(8, np.float32), "r.scale": np.ones(8, np.float32)}
    for i, shape in enumerate([(8, 4), (4, len(MODELS))]):
        arrays[f"r.layers.{i}.kernel"] = rng.standard_normal(shape).astype(np.float32)
        arrays[f"r.layers.{i}.bias"] = np.zeros(shape[1], np.float32)
    router = ServedMLP.from_parts(widths, arrays, "r", None)
    racer = Racer.from_router(encoder, router, MODELS).calibrate(table, 0.3, by_group=False)
    racer.save(folder / "my.racer")
    return folder / "my.racer"
