"""Mutation testing of the parts that guarantees rest on: changes one operator or number at a time.

A driver of our own, over `ast`, because a mutant must be tried against the tests of its module
alone: the whole suite would take hours for each, and a process that imports JAX seconds. cosmic-ray
and mutmut run one command for all mutants, and the trampolines of mutmut 3 break what `jax.jit`
traces.

    python benchmarks/mutation.py racer_jax/core/sort_keys.py tests/core/test_sort_keys.py
    python benchmarks/mutation.py --all --sample 20 --seed 1

Not a benchmark of time, and not run in CI. A mutant that runs out of time counts as killed.
"""

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Module -> the tests that must kill its mutants.
TARGETS = {
    "racer_jax/core/order_statistics.py": (
        "tests/core/test_order_statistics.py tests/core/test_order_statistics_ties.py"
    ),
    "racer_jax/core/calibration.py": (
        "tests/core/test_calibration.py tests/core/test_order_statistics_ties.py "
        "tests/core/test_in_other_code.py"
    ),
    "racer_jax/core/sort_keys.py": "tests/core/test_sort_keys.py",
    "racer_jax/core/float_keys.py": "tests/core/test_sort_keys.py tests/core/test_order_statistics_ties.py",
    "racer_jax/core/padding.py": "tests/core/test_in_other_code.py",
    "racer_jax/core/nonconformity.py": "tests/core/test_nonconformity.py tests/core/test_calibration.py",
    "racer_jax/core/prediction_sets.py": "tests/core/test_prediction_sets.py tests/core/test_sort_keys.py",
    "racer_jax/core/risk_levels.py": "tests/core/test_risk_levels.py tests/core/test_calibration.py",
    "racer_jax/core/scalar_checks.py": "tests/core/test_risk_levels.py",
    "racer_jax/core/proportions.py": "tests/core/test_proportions.py",
    "racer_jax/core/aggregation.py": "tests/core/test_aggregation.py",
    "racer_jax/risk_control/group_scores.py": "tests/risk_control",
    "racer_jax/risk_control/mondrian.py": "tests/risk_control",
    "racer_jax/risk_control/high_probability.py": "tests/risk_control",
    "racer_jax/risk_control/covariate_shift.py": "tests/risk_control",
    "racer_jax/risk_control/costs.py": "tests/risk_control",
    "racer_jax/risk_control/selective.py": "tests/risk_control",
    "racer_jax/risk_control/bounds.py": "tests/risk_control/test_bounds.py",
    "racer_jax/risk_control/alpha_choice.py": "tests/risk_control/test_alpha_choice.py",
    "racer_jax/montecarlo": "tests/montecarlo",
    "racer_jax/serving/monitor.py": "tests/serving",
    "racer_jax/racer/artefact.py": "tests/racer/test_artefact.py",
}
COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each way to change one node, and what it is called."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        other = copy.deepcopy(node)
        other.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield f"{ast.unparse(node)} -> {ast.unparse(other)}", other
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
        other = copy.deepcopy(node)
        other.op = OPERATORS[type(node.op)]()
        yield f"{ast.unparse(node)} -> {ast.unparse(other)}", other
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield f"{ast.unparse(node)} -> {ast.unparse(node.operand)}", node.operand
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} -> {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        for value in (node.value + 1, node.value - 1):
            yield f"{node.value} -> {value}", ast.Constant(value)
    if isinstance(node, ast.IfExp):
        yield f"{ast.unparse(node)} -> {ast.unparse(node.body)}", node.body
        yield f"{ast.unparse(node)} -> {ast.unparse(node.orelse)}", node.orelse


def _is_skipped(node: ast.AST) -> bool:
    """Annotations, errors and decorators' text change nothing that a result shows."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.AnnAssign | ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, description and new source of each mutant of a module."""
    tree = ast.parse(source)

    def visit(node: ast.AST) -> Iterator[tuple[int, str, str]]:
        for name, field in ast.iter_fields(node):
            if name in ("returns", "annotation", "decorator_list"):
                continue
            children = field if isinstance(field, list) else [field]
            for i, child in enumerate(children):
                if not isinstance(child, ast.AST) or _is_skipped(child):
                    continue
                for what, other in changes(child):
                    if isinstance(field, list):
                        field[i] = other
                    else:
                        setattr(node, name, other)
                    text = ast.unparse(ast.fix_missing_locations(tree))
                    if isinstance(field, list):
                        field[i] = child
                    else:
                        setattr(node, name, child)
                    yield getattr(child, "lineno", 0), what, text
                yield from visit(child)

    yield from visit(tree)


def _passes(folder: Path, tests: str, timeout: float) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def run(module: str, tests: str, sample: int | None, seed: int, timeout: float) -> tuple[int, int]:
    """Tries mutants of one module; prints the survivors and returns (killed, tried)."""
    source = (ROOT / module).read_text(encoding="utf-8")
    every = list(mutants(source))
    if sample is not None and sample < len(every):
        every = sorted(random.Random(seed).sample(every, sample), key=lambda mutant: mutant[0])
    with tempfile.TemporaryDirectory(prefix="racer-mutants-") as name:
        folder = Path(name)
        for part in ("racer_jax", "tests"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        if not _passes(folder, tests, timeout):
            raise SystemExit(f"{module}: the tests fail without a mutant: {tests}")
        killed = 0
        for line, what, text in every:
            (folder / module).write_text(text, encoding="utf-8")
            if _passes(folder, tests, timeout):
                print(f"  survived  {module}:{line}  {what}", flush=True)
            else:
                killed += 1
    print(f"{module}: {killed} of {len(every)} killed", flush=True)
    return killed, len(every)


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation testing, one module at a time.")
    parser.add_argument("module", nargs="?", help="file of the package; see --all")
    parser.add_argument("tests", nargs="?", help="tests to run, by default those of the table")
    parser.add_argument("--all", action="store_true", help="every module of the table")
    parser.add_argument("--sample", type=int, help="mutants of each module; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one mutant")
    options = parser.parse_args()
    if options.all == (options.module is not None):
        parser.error("name a module, or pass --all")
    targets = TARGETS if options.all else {options.module: options.tests}
    killed = tried = 0
    for module, tests in targets.items():
        tests = tests or TARGETS.get(module, "")
        if not tests:
            parser.error(f"no tests are known for {module}: name them")
        path = ROOT / module
        files = sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]
        for file in files:
            counts = run(
                str(file.relative_to(ROOT)), tests, options.sample, options.seed, options.timeout
            )
            killed, tried = killed + counts[0], tried + counts[1]
    print(f"{killed} of {tried} killed ({killed / max(tried, 1):.1%})")


if __name__ == "__main__":
    main()
