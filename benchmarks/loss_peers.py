"""Thresholds of a bounded loss: this package beside MAPIE's risk control and a plain grid.

    pip install -e '.[bench]' && python benchmarks/loss_peers.py

The loss is the share of the right models that a set leaves out (1 - recall), which MAPIE's
`MultiLabelClassificationController` bounds too, on a grid of thresholds. On a grid that holds every
step of the loss both must call the same models of every test query; on MAPIE's own grid of a
hundred thresholds its sets may only be larger. Every query has a right model: what the recall of
none is, nobody says alike. The grid of NumPy is the formula of Angelopoulos et al. (2024) in one
line.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, NamedTuple

import jax.numpy as jnp
import numpy as np
from harness import Counted, needs, report, turns

from racer_jax import reporting
from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import set_loss
from racer_jax.risk_control.loss_guarantees import calibrate_loss_with_probability

# Scores are multiples of this: both sides compare them without rounding.
STEPS = 256
OURS, FORMULA = "racer_jax", "NumPy, grid of all steps"
MAPIE_STEPS, MAPIE_OWN = "MAPIE, grid of all steps", "MAPIE, its own grid"


@dataclass(frozen=True)
class Config(Counted):
    """Options of the comparison."""

    queries: Annotated[int, "queries that calibrate, and as many that test"] = 400
    models: Annotated[int, "models"] = 7
    splits: Annotated[int, "pools drawn"] = 10
    seed: Annotated[int, "seed of the pools"] = 0


class Pool(NamedTuple):
    """Scores and labels of queries that calibrate and of as many that test, `[n, m]` each."""

    scores: np.ndarray
    correct: np.ndarray
    test_scores: np.ndarray
    test_correct: np.ndarray


def drawn(rng: np.random.Generator, config: Config) -> Pool:
    """A pool of calibrated scores; each query has a right model."""
    parts = []
    for _ in range(2):
        shape = (config.queries, config.models)
        scores = rng.integers(1, STEPS, shape) / STEPS
        correct = rng.random(shape) < scores
        correct[np.arange(len(correct)), scores.argmax(axis=1)] = True
        parts += [scores, correct]
    return Pool(*parts)


def left_out(correct: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """The share of the right models that are not in the sets `[..., n, m]`."""
    share: np.ndarray = (correct & ~sets).sum(axis=-1) / correct.sum(axis=-1)
    return share


def our_loss(pool: Pool):
    """The loss of the calibration queries; the null model is in no set."""
    entries = np.column_stack([1 - pool.scores, np.full(len(pool.scores), np.inf)])
    correct = jnp.asarray(pool.correct)
    share = lambda sets: (correct & ~sets[..., :-1]).sum(-1) / correct.sum(-1)  # noqa: E731
    return set_loss(share, entries.astype(np.float32))


def ours(pool: Pool, alphas: Sequence[str]) -> np.ndarray:
    """Sets of the test queries at each level `[a, n, m]`."""
    limit = np.asarray(calibrate_loss(our_loss(pool), list(alphas)), np.float64)
    return 1 - pool.test_scores <= limit[:, None, None]


def ours_surely(pool: Pool, alphas: Sequence[str], delta: float) -> np.ndarray:
    """The same with probability 1 - delta over the calibration queries."""
    loss = our_loss(pool)
    limit = calibrate_loss_with_probability(loss, list(alphas), delta, method="hoeffding_bentkus")
    return 1 - pool.test_scores <= np.asarray(limit, np.float64)[:, None, None]


def formula(pool: Pool, alphas: Sequence[str]) -> np.ndarray:
    """Conformal risk control on a grid: the first lambda with n / (n + 1) R + 1 / (n + 1) <= alpha."""
    grid = np.concatenate([[-np.inf], np.arange(STEPS + 1) / STEPS])
    n = len(pool.scores)
    risk = [left_out(pool.correct, 1 - pool.scores <= at).mean() for at in grid]
    bounds = n / (n + 1) * np.array(risk) + 1 / (n + 1)
    limits = [grid[np.argmax(bounds <= float(alpha))] for alpha in alphas]
    return 1 - pool.test_scores <= np.array(limits)[:, None, None]


def mapie(
    pool: Pool, alphas: Sequence[str], grid: np.ndarray | None, delta: float | None = None
) -> np.ndarray:
    """Sets of MAPIE's controller of the recall `[a, n, m]`; with delta by Hoeffding's bound."""
    from mapie.risk_control import MultiLabelClassificationController

    more = {} if grid is None else {"predict_params": grid}
    if delta is not None:
        more |= {"confidence_level": 1 - delta, "rcps_bound": "hoeffding"}
    controller = MultiLabelClassificationController(
        predict_function=lambda scores: np.stack([1 - scores, scores], axis=-1),
        risk="recall",
        method="crc" if delta is None else "rcps",
        target_level=[1 - float(alpha) for alpha in alphas],
        **more,
    )
    controller.calibrate(pool.scores, pool.correct.astype(int))
    return np.moveaxis(controller.predict(pool.test_scores), -1, 0).astype(bool)


def compared(config: Config, alphas: Sequence[str], delta: float) -> dict[str, np.ndarray]:
    """Way -> sets of every pool `[s, a, n, m]`, and the labels under `labels`."""
    rng, steps = np.random.default_rng(config.seed), (np.arange(STEPS + 1) - 0.5) / STEPS
    ways: dict[str, list[np.ndarray]] = {}
    for _ in turns(range(config.splits), "split"):
        pool = drawn(rng, config)
        for name, sets in (
            (OURS, ours(pool, alphas)),
            (FORMULA, formula(pool, alphas)),
            (MAPIE_STEPS, mapie(pool, alphas, steps)),
            (MAPIE_OWN, mapie(pool, alphas, None)),
            (f"{OURS}, delta = {delta:g}", ours_surely(pool, alphas, delta)),
            (f"{MAPIE_STEPS}, delta = {delta:g}", mapie(pool, alphas, steps, delta)),
            ("labels", pool.test_correct),
        ):
            ways.setdefault(name, []).append(sets)
    return {name: np.stack(sets) for name, sets in ways.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    config = reporting.parse_config(Config, "Thresholds of a bounded loss, compared.", arguments)
    needs("bench", "mapie")
    alphas, delta = ("0.0501", "0.1001", "0.2003"), 0.1
    ways = compared(config, alphas, delta)
    labels = ways.pop("labels")[:, None]
    surely = [name for name in ways if "delta" in name]
    failures = [
        f"{name} calls other models than {OURS}"
        for name in (FORMULA, MAPIE_STEPS)
        if not np.array_equal(ways[name], ways[OURS])
    ]
    if (ways[OURS] & ~ways[MAPIE_OWN]).any():
        failures.append(f"{MAPIE_OWN} leaves out a model that {OURS} calls")
    if (ways[surely[0]] & ~ways[surely[1]]).any():
        failures.append(f"{surely[1]} leaves out a model that {surely[0]} calls")
    rows = []
    for name, sets in ways.items():
        loss = left_out(labels, sets).mean(axis=(0, 2))
        size = sets.sum(axis=-1).mean(axis=(0, 2))
        base = ways[surely[0] if name in surely else OURS]
        same = (sets == base).all(axis=(0, 2, 3))
        cells = zip(loss, size, same, strict=True)
        rows.append([name, *(f"{a:.4f} / {s:.3f}{' =' if e else ''}" for a, s, e in cells)])
    title = (
        f"Mean test loss / models called at each alpha, {config.splits} pools of {config.queries} "
        f"+ {config.queries} queries and {config.models} models; '=': the same sets throughout. "
        f"mapie {version('mapie')}, numpy {np.__version__};"
    )
    report("loss_peers", title, ["way", *alphas], rows, {"rows": rows, "failures": failures})
    print("\n".join(failures) or "All as they should be.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
