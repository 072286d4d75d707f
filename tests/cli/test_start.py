"""What a command imports: nothing heavy for a help, and for a question only what answers it."""

import subprocess
import sys

import pytest

from racer_jax.cli import names
from racer_jax.cli.main import main
from racer_jax.core.nonconformity import NONCONFORMITIES, NULL_MODES
from racer_jax.data.download import BASE_URL, CORPORA
from racer_jax.data.loading import READERS
from racer_jax.encoders.registry import ENCODERS
from racer_jax.orders.model_orders import ORDERS
from racer_jax.routers import registry

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
    "words, status", [("--help", 0), ("--version", 0), ("train --help", 0), ("route --bad", 2)]
)
def test_a_help_and_a_usage_error_wait_for_no_library(words, status):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *words.split()], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == f"lazy_loader racer_jax {status}"


def test_the_names_that_can_be_typed_are_those_of_the_registries(monkeypatch):
    assert tuple(READERS) == names.FORMATS
    assert (tuple(CORPORA), BASE_URL) == (names.CORPORA, names.BASE_URL)
    assert names.NULL_MODES == NULL_MODES
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
