"""The layers of the package: lower never imports higher, and importing the core costs little more than `import jax`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import racer_jax

PACKAGE = Path(racer_jax.__file__).parent
CORE_LIBRARIES = {"jax", "numpy", "scipy", "chex", "racer_jax"} | sys.stdlib_module_names
# What a module of each layer may import of the package: its own layer and those before it.
LAYERS = [
    {"data", "routers", "encoders"},
    {"racer", "artefact", "orders", "calibrated", "decision", "evaluation", "parts", "questions", "scoring"}
    | {"monitor", "preparation", "confidence", "pools", "checking", "plotting", "report", "reporting", "runtime"}
    | {"studies", "voting", "ways", "study_plots", "vote_plots", "experiment"},
    {"streaming", "watching", "commands", "cli", "__main__"},
]


def imports(path: Path) -> set[str]:
    """Full names of all that a file imports, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(room: str) -> int:
    return next((i + 1 for i, rooms in enumerate(LAYERS) if room in rooms), 0)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path):
    own = layer(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "racer_jax" and len(parts) > 1:
            assert layer(parts[1]) <= own, f"{path} imports {name} from a higher layer"
        if own == 0:
            assert parts[0] in CORE_LIBRARIES, f"the core module {path} imports {name}"


def test_importing_the_core_stays_light():
    heavy = {"flax", "optax", "transformers", "matplotlib", "scipy.stats", "pandas", "torch", "tqdm", "chex"}
    code = f"import sys, racer_jax; racer_jax.calibrate; print(*({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_the_package_waits_to_be_asked():
    """The command is ready for Ctrl-C before JAX is imported; what is public is there all the same."""
    code = (
        "import sys, racer_jax.__main__; print('jax' in sys.modules, 'numpy' in sys.modules); import racer_jax as r; "
        "print(set(r.__all__) <= set(dir(r)), r.calibration.calibrate is r.calibrate)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False False\nTrue True\n"
    with pytest.raises(AttributeError, match="has no attribute 'calibrat'"):
        racer_jax.calibrat  # noqa: B018


def test_importing_leaves_the_devices_alone():
    # jax.distributed and the number of devices are set up after the import, and before the first computation.
    code = "import racer_jax.studies.runtime, racer_jax.montecarlo.bound_check; from jax._src import xla_bridge; print(xla_bridge._backends)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{}"


def test_public_names_are_documented():
    for name in racer_jax.__all__:
        doc = getattr(racer_jax, name).__doc__
        assert doc, f"{name} has no docstring"
        assert "Args:" in doc, f"{name} does not describe its arguments"
