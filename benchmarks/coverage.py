"""How long does RACER-J take, and how much memory?

    python benchmarks/coverage.py

100,000 queries against 5,820 training rows and 7 models: nearest neighbours and coverage gains
together, and the tilt and the factor of a black-box score matrix; then 200 models on 10,000
training rows. Each case runs in a process of its own, so that its peak memory is its own. Before
anything is timed, each must be a greedy order with the right levels on some queries, which NumPy
counts in double precision along that order.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, NamedTuple, get_args

import jax
import numpy as np
from harness import Counted, turns

from racer_jax import reporting
from racer_jax.orders.coverage_gain import coverage_gain
from racer_jax.orders.joint_laws import factor, pattern_law, tilt, tilted
from racer_jax.orders.racer_j import RacerJ

Case = Literal["blend", "tilt", "factor", "many models"]
CASES: tuple[Case, ...] = get_args(Case)
NUM_NODES = 21


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    queries: Annotated[int, "number of queries"] = 100_000
    rows: Annotated[int, "number of training rows"] = 5_820
    models: Annotated[int, "number of models"] = 7
    dim: Annotated[int, "length of an embedding"] = 256
    many_models: Annotated[int, "number of models of the large case"] = 200
    many_rows: Annotated[int, "its training rows"] = 10_000
    many_queries: Annotated[int, "its queries, each with weights of its own"] = 256
    checked: Annotated[int, "queries compared with NumPy, and those NumPy is timed on"] = 256
    rounds: Annotated[int, "rounds after the first; the median counts"] = 3
    case: Annotated[
        Literal["blend", "tilt", "factor", "many models"] | None, "one case alone, as JSON"
    ] = None
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/coverage")


class Timing(NamedTuple):
    """One case.

    Attributes:
      case: Its name.
      shape: What was computed.
      wall: Median seconds of a warm call.
      cpu: CPU seconds of it.
      first: Seconds the first call took above a warm one.
      memory: Peak resident memory of the process, MB.
      before: Of which it had before the first call, inputs and imports, MB.
      numpy: Seconds NumPy's greedy takes, extrapolated from the checked queries.
      difference: Largest distance from a greedy order and its levels.
    """

    case: str
    shape: str
    wall: float
    cpu: float
    first: float
    memory: float
    before: float
    numpy: float
    difference: float


class Problem(NamedTuple):
    """One case, ready to run.

    Attributes:
      shape: What is computed, in words.
      run: The call that is timed.
      laws: Weights `[q, r]` of training rows and who is right on them, `[r, m]`, of the first
        `checked` queries, in one or several parts, as NumPy finds them.
      few: Ours for the same.
      num: Number of queries of `run`.
    """

    shape: str
    run: Callable[[], jax.Array]
    laws: Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
    few: Callable[[], jax.Array]
    num: int


def plain_greedy(weights: np.ndarray, support: np.ndarray) -> np.ndarray:
    """RACER-J in NumPy, all queries side by side.

    Nonconformity of the real models, float32 `[n, m]`.
    """
    uncovered, num_models = weights.astype(np.float32), support.shape[1]
    support = support.astype(np.float32)
    used = np.zeros((len(weights), num_models), bool)
    level, result, rows = (
        np.zeros(len(weights), np.float32),
        np.zeros(used.shape, np.float32),
        np.arange(len(weights)),
    )
    for _ in range(num_models):
        gain = np.where(used, -np.inf, uncovered @ support)
        best = gain.argmax(axis=1)
        level = np.maximum(level, 1 - gain[rows, best])
        result[rows, best], used[rows, best] = level, True
        uncovered *= 1 - support.T[best]
    return result


def distance(result: np.ndarray, weights: np.ndarray, support: np.ndarray) -> float:
    """How far a result is from a greedy order and its levels.

    Where two models add the same, either may come first, and rounding decides: what the others add
    then depends on it, so two right results may differ. So the order of the result is followed, in
    double precision: each model must add as much as any that is left, and its level must be what
    that leaves uncovered.

    Args:
      result: Nonconformity of the real models `[n, m]`, small for the first.
      weights: Weights of the training rows `[n, r]`.
      support: Which model is right, or how probably, `[r, m]`.

    Returns:
      The largest difference of a gain from the largest one left, and of a level.
    """
    uncovered, support = weights.astype(np.float64), support.astype(np.float64)
    used, rows, farthest = np.zeros(result.shape, bool), np.arange(len(result)), 0.0
    level = np.zeros(len(result))
    for model in np.argsort(result, axis=1, kind="stable").T:
        gain = np.where(used, -np.inf, uncovered @ support)
        level = np.maximum(level, 1 - gain[rows, model])
        behind = gain.max(axis=1) - gain[rows, model]
        farthest = max(farthest, behind.max(), np.abs(result[rows, model] - level).max())
        used[rows, model] = True
        uncovered *= 1 - support.T[model]
    return farthest


def problem(config: Config, case: str) -> Problem:
    """Training rows whose models share an easiness, as those of a real pool do."""
    rng = np.random.default_rng(0)
    many = case == "many models"
    num_rows, num_models = (
        (config.many_rows, config.many_models) if many else (config.rows, config.models)
    )
    easiness = rng.normal(size=(num_rows, 1))
    correct = easiness + rng.normal(size=(num_rows, num_models)) > rng.normal(0, 0.5, num_models)
    few = config.checked
    if many:
        weights = rng.gamma(0.3, size=(config.many_queries, num_rows)).astype(np.float32)
        weights /= weights.sum(axis=1, keepdims=True)
        return Problem(
            f"{config.many_queries:,} queries x {num_rows:,} rows x {num_models} models, weights "
            "of their own",
            lambda: coverage_gain(weights, correct),
            lambda: iter([(weights[:few], correct)]),
            lambda: coverage_gain(weights[:few], correct),
            config.many_queries,
        )
    if case == "blend":
        x, z = (
            rng.normal(size=(n, config.dim)).astype(np.float32) for n in (num_rows, config.queries)
        )
        model = RacerJ.fit(x, correct, k=200, w=0.3)

        def near_rows() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            unit = x / np.linalg.norm(x, axis=1, keepdims=True)
            near = np.argpartition(-(z[:few] @ unit.T), 199, axis=1)[:, :200]
            weights = np.full((few, num_rows), 0.7 / num_rows, np.float32)
            np.put_along_axis(weights, near, np.float32(0.7 / num_rows + 0.3 / 200), axis=1)
            yield weights, correct

        shape = (
            f"{config.queries:,} queries x {num_rows:,} rows x {num_models} models, embeddings of "
            f"{config.dim}"
        )
        return Problem(shape, lambda: model(z), near_rows, lambda: model(z[:few]), config.queries)
    scores = rng.beta(2, 2, size=(config.queries, num_models)).astype(np.float32)
    shape = f"{config.queries:,} queries x {num_models} models"
    if case == "tilt":
        law = pattern_law(correct)
        patterns = np.asarray(law.patterns)
        return Problem(
            shape,
            lambda: tilt(scores, law),
            lambda: iter([(np.asarray(tilted(scores[:few], law)), patterns)]),
            lambda: tilt(scores[:few], law),
            config.queries,
        )
    loadings = np.linspace(0.5, 2.0, num_models).astype(np.float32)

    def nodes_of_each() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
        slope, weights = nodes[:, None] * loadings, (weights / weights.sum())
        for s in scores[:few]:
            low, high = np.full(num_models, -64.0), np.full(num_models, 64.0)
            for _ in range(40):
                middle = (low + high) / 2
                below = weights @ (1 / (1 + np.exp(-(middle + slope)))) < np.clip(s, 0.005, 0.995)
                low, high = np.where(below, middle, low), np.where(below, high, middle)
            yield weights[None], 1 / (1 + np.exp(-(low + slope)))

    return Problem(
        shape,
        lambda: factor(scores, loadings),
        nodes_of_each,
        lambda: factor(scores[:few], loadings),
        config.queries,
    )


def peak() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e6 if sys.platform == "darwin" else 1e3
    )


def measure(config: Config, case: str) -> Timing:
    """Checks a case against NumPy, then times it."""
    p = problem(config, case)
    start = time.perf_counter()
    laws = []
    for law in p.laws():
        plain_greedy(*law)
        laws.append(law)
    checked = sum(len(weights) for weights, _ in laws)
    numpy = (time.perf_counter() - start) * p.num / checked
    ends = np.cumsum([len(weights) for weights, _ in laws])[:-1]
    parts = np.split(np.asarray(p.few())[:, :-1], ends)
    difference = max(distance(part, *law) for part, law in zip(parts, laws, strict=True))
    if not difference < 1e-4:
        raise SystemExit(f"{case}: {difference:g} away from a greedy order and its levels")
    laws.clear()  # what is timed has the memory to itself
    before, walls, cpus = peak(), [], []
    for _ in range(config.rounds + 1):
        start, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(p.run())
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu)
    wall = median(walls[1:])
    first = max(0.0, walls[0] - wall)
    return Timing(case, p.shape, wall, median(cpus[1:]), first, peak(), before, numpy, difference)


def alone(config: Config, case: str, arguments: list[str]) -> Timing:
    """A case in a process of its own."""
    command = [sys.executable, __file__, *arguments, "--case", case]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
    return Timing(**json.loads(done.stdout.strip().splitlines()[-1]))


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    config = reporting.parse_config(Config, "Times RACER-J and measures its memory.", arguments)
    if config.case is not None:
        print(json.dumps(measure(config, config.case)._asdict()))
        return
    timings = [alone(config, case, arguments) for case in turns(CASES, "case")]
    header = [
        "case",
        "what",
        "wall",
        "CPU",
        "first call, above a warm one",
        "peak memory",
        "NumPy",
        "difference",
    ]
    rows = [
        [
            t.case,
            t.shape,
            f"{t.wall:.2f} s",
            f"{t.cpu:.2f} s",
            f"{t.first:.2f} s",
            f"{t.memory:,.0f} MB ({t.before:,.0f} before)",
            f"{t.numpy:.1f} s",
            f"{t.difference:.1e}",
        ]
        for t in timings
    ]
    table = reporting.text_table(header, rows)
    environment = reporting.environment()
    title = (
        f"Median of {config.rounds} warm calls; {environment['machine']}, jax "
        f"{environment['jax']}. NumPy: the greedy "
        f"alone, neighbours included, extrapolated from {config.checked} queries."
    )
    print(table, title, sep="\n")

    def write(folder: Path) -> None:
        results = {"config": config, "environment": environment, "timings": timings}
        reporting.write_json(folder / "results.json", results)
        (folder / "table.txt").write_text(f"{table}\n{title}\n", encoding="utf-8")

    folder = reporting.finish(write, config.output)
    print(f"Written: {', '.join(str(path) for path in sorted(folder.iterdir()))}")


if __name__ == "__main__":
    main()
