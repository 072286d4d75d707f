"""Mutation testing of the parts that guarantees rest on: changes one thing at a time.

    python benchmarks/mutation.py --processes 16 --minutes 4 --out mutation.json
    python benchmarks/mutation.py --only core/sort_keys --out mutation.json
    python benchmarks/mutation.py --again mutation.json --out mutation.json

A driver of our own. cosmic-ray and mutmut start a Python, which imports JAX for seconds, for each
mutant, and the trampolines of mutmut 3 break what `jax.jit` traces. Here one process imports the
libraries once, and none of this package. It forks a process for each mutant, before JAX starts its
threads. The mutant is what `import` then finds in place of the module.

A module must be caught by the tests of its own package (`PACKAGES`) and its own doctests. First
each file of tests runs once without a mutant, to learn which test executes which line and how long
it takes. Then mutants are drawn at random over all modules, so that whatever was tried when time is
up is a fair sample of all. A mutant whose tests fail, do not end, or cannot be collected is killed.
Results go to a file as they come, and a second run with the same file goes on. Mutants that nobody
could tell from the original are listed with the reason in `mutation_survivors.json` and not tried;
a name there that ends in * stands for all that begin like it.

Not a benchmark of time, and not run in CI. Needs `fork`.
"""

import argparse
import ast
import hashlib
import json
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants
from mutation_runs import ROOT, Children, covered, digests, prepare, tried
from tqdm import tqdm

from racer_jax._files import written_whole

EQUIVALENT = Path(__file__).with_name("mutation_survivors.json")
# Modules -> the files of tests that must kill their mutants.
PACKAGES = {
    "racer_jax/core/*.py": "tests/core/test_*.py",
    "racer_jax/risk_control/*.py": "tests/risk_control/test_*.py",
    "racer_jax/montecarlo/*.py": "tests/montecarlo/test_*.py",
    "racer_jax/serving/monitor.py": "tests/serving/test_monitor*.py",
    "racer_jax/serving/betting.py": "tests/serving/test_[bm]*.py",
    "racer_jax/racer/artefact.py": "tests/racer/test_[ac]*.py",
    "racer_jax/racer/serialization.py": "tests/racer/test_a*.py",
    "racer_jax/racer/state.py": "tests/racer/test_a*.py tests/racer/test_racer.py",
}


class Suite:
    """The tests, and which of them may kill a mutant."""

    def __init__(self, tests: Sequence[Mapping[str, Any]], homes: Mapping[str, list[str]]) -> None:
        self.homes = homes
        self.seconds = {test["name"]: test["seconds"] for test in tests}
        self.marks = {test["name"]: test["marks"] for test in tests}
        self.by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.by_file: dict[str, list[str]] = defaultdict(list)
        self.kills: Counter[tuple[str, str]] = Counter()
        for test in tests:
            self.by_file[test["name"].partition("::")[0]].append(test["name"])
            for module, lines in test["lines"].items():
                for line in lines:
                    self.by_line[module, line].add(test["name"])

    def of(self, mutant: Mutant, spans: Mapping[str, tuple[int, int]]) -> list[str]:
        """The tests of a mutant: those that run its statement, then its function, fast ones first.

        All tests of the package for what runs when the module is imported.
        """
        home = set(self.homes[mutant.module])
        every = {name for file in home for name in self.by_file.get(file, ())}
        first, last = mutant.lines
        near = self._on(mutant.module, first, last)
        far = self._on(mutant.module, *spans[mutant.function]) if mutant.function else every
        far = (near | far) & every or every
        return sorted(far, key=lambda name: (self._rank(mutant, name, near), self.seconds[name]))

    def _on(self, module: str, first: int, last: int) -> set[str]:
        return set().union(*(self.by_line[module, line] for line in range(first, last + 1)))

    def _rank(self, mutant: Mutant, name: str, near: set[str]) -> tuple[int, int, str]:
        """The default tests come first: of them what killed a neighbour, then quick ones.

        Those of one file together.
        """
        kills = self.kills[f"{mutant.module}::{mutant.function}", name]
        late = 10 * self.marks[name]
        if kills and self.seconds[name] < 2:
            return (late, -kills, "")
        late += 1 if name in near else 2
        if self.seconds[name] > 0.5:
            late += 2
        return (late, 0, name.partition("::")[0])


def spans_of(tree: ast.Module) -> dict[str, tuple[int, int]]:
    """First and last line of each function and class, by its dotted name."""
    spans: dict[str, tuple[int, int]] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{name}.{child.name}".lstrip(".")
                spans[inner] = (child.body[0].lineno, child.end_lineno or child.lineno)
            visit(child, inner)

    visit(tree, "")
    return spans


def learn(
    children: Children, files: list[str], modules: list[str], marks: Sequence[str], end: float
) -> tuple[list[dict[str, Any]], set[str]]:
    """Runs every file of tests once, without a mutant, in parts; what is known is kept.

    Returns:
      Records of the tests that ran before the end, and the files of which some did not.
    """
    num_parts = max(1, children.most // 4)
    waiting: list[tuple[str, str, tuple[int, int], Path]] = []
    records: dict[Path, tuple[int, str]] = {}
    for place, of_marks in enumerate(marks):
        for file in sorted(files, key=lambda file: -(ROOT / file).stat().st_size):
            if place and not file.startswith("tests/"):
                continue  # doctests have no marks
            own = hashlib.sha256(repr((of_marks, file)).encode() + (ROOT / file).read_bytes())
            whole = num_parts if file.startswith("tests/") else 1
            for number in range(whole):
                name = f"learned-{own.hexdigest()[:20]}-{number}-of-{whole}.jsonl"
                record = children.folder / name
                records[record] = (place, file)
                if not (record.exists() and _is_current(record)):
                    record.unlink(missing_ok=True)
                    waiting.append((file, of_marks, (number, whole), record))

    def done(result: Any, seconds: float) -> None:
        if result is None or result:
            print("note: a file of tests is left out, it fails without a mutant:")
            print("  " + (result or {"failed": "?"})["failed"].strip().replace("\n", "\n  "))

    while (waiting or children.running) and time.monotonic() < end:
        while waiting and children.free:
            file, of_marks, part, record = waiting.pop(0)
            work = partial(covered, file, part, modules, of_marks, record)
            children.start(work, done, 1800)
        children.wait()
    children.stop()
    tests, incomplete = [], set()
    for record, (place, file) in records.items():
        path = record
        if not record.exists():
            incomplete.add(file)
            path = record.with_suffix(".partial")
        if path.exists():
            lines = path.read_text().split("\n")[:-1]
            tests += [{**json.loads(line), "marks": place} for line in lines]
    return tests, incomplete


def _is_current(record: Path) -> bool:
    """Whether the modules that a record has lines of are as they were when it was made."""
    made_of = json.loads(record.with_suffix(".modules").read_text())
    return all(digests([module]) == {module: digest} for module, digest in made_of.items())


def is_known(key: str, known: Mapping[str, str]) -> bool:
    """Whether a mutant is listed as equal to the original, by its key or the start of it."""
    return key in known or any(
        name.endswith("*") and key.startswith(name.removesuffix("*")) for name in known
    )


def write(path: Path, results: Mapping[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(list(results.values()), indent=1) + "\n", encoding="utf-8")


def report(results: Mapping[str, Any], num_left: int) -> None:
    """Survivors and counts."""
    by_module: dict[str, list[bool]] = defaultdict(list)
    for result in results.values():
        by_module[result["module"]].append(result["outcome"] != "survived")
        if result["outcome"] == "survived":
            print(f"survived {result['module']}:{result['line']} {result['key']}")
    for module, killed in sorted(by_module.items()):
        print(f"{module}: {sum(killed)} of {len(killed)} killed")
    killed = sum(map(sum, by_module.values()))
    share = killed / max(len(results), 1)
    print(f"{killed} of {len(results)} killed ({share:.1%}), {num_left} not tried")
    first = sum(
        result["outcome"] != "survived" and not result["marks"] for result in results.values()
    )
    print(f"{first} of them by tests with the first marks ({first / max(len(results), 1):.1%})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation testing of what guarantees rest on.")
    parser.add_argument("--only", default="", help="part of the paths of modules to try")
    parser.add_argument("--sample", type=int, help="mutants of each module; all by default")
    parser.add_argument("--num", type=int, help="mutants in all; all by default")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the mutants")
    parser.add_argument("--processes", type=int, default=1, help="mutants at a time")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    parser.add_argument("--out", type=Path, help="JSON of the results; goes on where it exists")
    parser.add_argument("--again", type=Path, help="try only the survivors of these results")
    parser.add_argument(
        "--files", nargs="+", help="tests to run for each mutant, all of them, nothing is learned"
    )
    parser.add_argument(
        "--marks",
        nargs="+",
        default=["not slow and not long", "long and not slow"],
        help="tests, as pytest -m; those of later marks are tried where none of the first fails",
    )
    parser.add_argument("--list", action="store_true", help="print the mutants and end")
    parser.add_argument("--folder", type=Path, help="of compiled code, to be kept for a next run")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    os.chdir(ROOT)
    homes = {}
    for modules, tests in PACKAGES.items():
        for module in sorted(ROOT.glob(modules)):
            name = str(module.relative_to(ROOT))
            test_files = [path for pattern in tests.split() for path in sorted(ROOT.glob(pattern))]
            own = [str(path.relative_to(ROOT)) for path in test_files]
            if options.only in name and module.name != "__init__.py":
                homes[name] = [name, *own]  # its doctests too
    trees = {module: ast.parse(Path(module).read_text(encoding="utf-8")) for module in homes}
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else {}
    queue = []
    for module, tree in trees.items():
        own = [mutant for mutant in mutants(module, tree) if not is_known(mutant.key, known)]
        random.Random(options.seed).shuffle(own)
        queue += own[: options.sample]
    random.Random(options.seed).shuffle(queue)
    if options.list:
        print("\n".join(f"{mutant.lines[0]} {mutant.key}" for mutant in queue))
        return
    results: dict[str, Any] = {}
    if options.out and options.out.exists():
        results = {item["key"]: item for item in json.loads(options.out.read_text())}
    if options.again:
        old = {item["key"]: item for item in json.loads(options.again.read_text())}
        queue = [m for m in queue if old.get(m.key, {}).get("outcome") == "survived"]
        results = {k: v for k, v in results.items() if v["outcome"] != "survived"}
    queue = [mutant for mutant in queue if mutant.key not in results][: options.num]
    with tempfile.TemporaryDirectory(prefix="racer-mutants-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try_all(queue, trees, homes, results, options, end, folder.resolve())
    report(results, len(queue) - sum(mutant.key in results for mutant in queue))


def try_all(
    queue: list[Mutant],
    trees: Mapping[str, ast.Module],
    homes: Mapping[str, list[str]],
    results: dict[str, Any],
    options: argparse.Namespace,
    end: float,
    folder: Path,
) -> None:
    """Learns which tests run what, then tries mutants until the time is up."""
    prepare(folder)
    needed = {mutant.module for mutant in queue}
    files = sorted({file for module in needed for file in homes[module]})
    children = Children(options.processes, folder)
    try:
        modules = sorted(str(path) for pattern in PACKAGES for path in Path().glob(pattern))
        now = time.monotonic()
        last = now + 0.4 * (end - now)
        learned, incomplete = [], set()
        if not options.files:
            learned, incomplete = learn(children, files, modules, options.marks, last)
        suite = Suite(learned, homes)
        print(f"{len(suite.seconds)} tests, {len(queue)} mutants", flush=True)
        if incomplete:
            print(f"note: not all tests could be run before: {', '.join(sorted(incomplete))}")
        # Where a test is not known, a survivor says little: those come last.
        queue = sorted(queue, key=lambda mutant: not incomplete.isdisjoint(homes[mutant.module]))
        spans = {module: spans_of(tree) for module, tree in trees.items()}
        waiting, saved, before = list(reversed(queue)), time.monotonic(), len(results)
        # A bar where a terminal shows it: nothing else is printed before all have been tried.
        with tqdm(total=len(queue), unit="mutant", disable=None, leave=False) as bar:
            while (waiting or children.running) and time.monotonic() < end:
                while waiting and children.free:
                    start_one(waiting.pop(), trees, suite, spans, results, children, options)
                children.wait()
                bar.update(len(results) - before - bar.n)
                if options.out and time.monotonic() > saved + 5:
                    write(options.out, results)
                    saved = time.monotonic()
    finally:
        children.stop()
        if options.out:
            write(options.out, results)


def start_one(
    mutant: Mutant,
    trees: Mapping[str, ast.Module],
    suite: Suite,
    spans: Mapping[str, Mapping[str, tuple[int, int]]],
    results: dict[str, Any],
    children: Children,
    options: argparse.Namespace,
) -> None:
    """Starts the tests of one mutant."""
    tests = suite.of(mutant, spans[mutant.module])
    files = options.files or []
    seconds = 300 if files else 15 + 4 * sum(suite.seconds[name] for name in tests)

    def done(result: Any, took: float) -> None:
        outcome, killer = "killed", None if result is None else result["killer"]
        if result is None:
            outcome = "did not end"
        elif result["status"] == 0 or not (tests or files):
            outcome = "survived"
        if killer in suite.seconds:
            suite.kills[f"{mutant.module}::{mutant.function}", killer] += 1
        results[mutant.key] = {
            "key": mutant.key,
            "module": mutant.module,
            "line": mutant.lines[0],
            "outcome": outcome,
            "killer": killer,
            "marks": suite.marks.get(killer or "", 0),
            "tests": len(tests),
            "seconds": round(took, 2),
        }

    marks = " or ".join(f"({marks})" for marks in options.marks)
    work = partial(tried, mutant, trees[mutant.module], tests, files, marks)
    children.start(work, done, seconds)


if __name__ == "__main__":
    main()
