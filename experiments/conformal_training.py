"""Does training for small sets make them smaller? A Flax router, trained with and without the size.

    python experiments/conformal_training.py

One router is trained by cross-entropy alone, the others also for the size of the sets that a soft
threshold makes of half a batch, calibrated on the other half (conformal training). All are then
calibrated as always: the mean risk is the same exact law for each, and the mean number of models
called over all splits, exactly, says what the training was worth.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from matplotlib.figure import Figure

from racer_jax import reporting
from racer_jax.core import critical_scores, inverse_probability, soft_set_size, soft_threshold
from racer_jax.core.nonconformity import tie_break
from racer_jax.data.synthetic import simulated_pool
from racer_jax.encoders.hashing import HashedNgrams
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.plotting.layout import figure_style, panels
from racer_jax.plotting.styles import style_of
from racer_jax.studies.runner import Progress, Report, run_experiment


@dataclass(frozen=True)
class Config:
    """Options of the experiment."""

    alpha: Annotated[float, "risk level that is trained for and compared at"] = 0.2
    weights: Annotated[str, "weights of the size in the loss, listed; 0 is cross-entropy alone"] = (
        "0,0.05,0.2"
    )
    temperature: Annotated[float, "temperature of the soft threshold and of the soft sets"] = 0.05
    hidden: Annotated[int, "units of the hidden layer"] = 64
    steps: Annotated[int, "steps of training"] = 400
    batch: Annotated[int, "queries of a batch, of which half calibrate"] = 256
    seeds: Annotated[int, "routers of each kind, from as many seeds"] = 3
    benchmark: Annotated[str, "benchmark of the simulated pool"] = "mmlu"
    seed: Annotated[int, "seed of the pool"] = 0
    output: Annotated[Path, "folder of the results"] = Path("results/conformal_training")

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), got {self.alpha}")
        for name, least in (("steps", 1), ("seeds", 1), ("hidden", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if any(weight < 0 for weight in self.weights_of_size):
            raise ValueError(f"weights must not be negative, got {self.weights!r}")

    @property
    def weights_of_size(self) -> tuple[float, ...]:
        """The weights as numbers."""
        return tuple(float(weight) for weight in self.weights.split(","))


class Data(NamedTuple):
    """Embeddings `[n, d]` and correctness `[n, m]` of training and of test queries."""

    train: jax.Array
    train_correct: jax.Array
    test: jax.Array
    test_correct: np.ndarray


class Router(nnx.Module):
    """One hidden layer; the chance that each model is right."""

    def __init__(self, dim: int, hidden: int, num_models: int, *, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(dim, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, num_models, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, m]`."""
        return self.out(nnx.relu(self.hidden(x)))


def load(config: Config) -> tuple[jax.Array, Data]:
    """The key of the run and the simulated benchmark."""
    pool_key, key = jax.random.split(jax.random.key(config.seed))
    pool = simulated_pool(pool_key)
    if config.benchmark not in pool:
        raise ValueError(f"benchmark must be among {tuple(pool)}, got {config.benchmark!r}")
    part = pool[config.benchmark]
    encoder = HashedNgrams(dim=256)
    return key, Data(
        jnp.asarray(encoder.encode(part.train.texts)),
        jnp.asarray(part.train.correct, jnp.float32),
        jnp.asarray(encoder.encode(part.test.texts)),
        part.test.correct,
    )


def trained(key: jax.Array, data: Data, weight: float, config: Config) -> nnx.Module:
    """A router trained by cross-entropy plus `weight` times the log of the mean size."""
    init_key, draw_key = jax.random.split(key)
    dim, num_models = data.train.shape[1], data.train_correct.shape[1]
    router = Router(dim, config.hidden, num_models, rngs=nnx.Rngs(init_key))
    optimizer = nnx.Optimizer(router, optax.adamw(3e-3, weight_decay=0.1), wrt=nnx.Param)
    half = config.batch // 2

    def loss(router: Router, x: jax.Array, correct: jax.Array) -> jax.Array:
        logits = router(x)
        entropy = optax.sigmoid_binary_cross_entropy(logits, correct).mean()
        entries = inverse_probability(jax.nn.sigmoid(logits))
        critical = critical_scores(entries[:half], correct[:half])
        threshold = soft_threshold(critical, config.alpha, config.temperature)
        size = soft_set_size(entries[half:], threshold, config.temperature).mean()
        return entropy + weight * jnp.log(size)

    @nnx.jit
    def step(router: Router, optimizer: nnx.Optimizer, rows: jax.Array) -> None:
        gradient = nnx.grad(loss)(router, data.train[rows], data.train_correct[rows])
        optimizer.update(router, gradient)

    num = len(data.train)
    for number in range(config.steps):
        rows = jax.random.choice(jax.random.fold_in(draw_key, number), num, (2 * half,))
        step(router, optimizer, rows)
    return router


def run(key: jax.Array, data: Data, config: Config, progress: Progress) -> list[dict[str, Any]]:
    """Trains every router and measures its sets over all splits of the test queries, exactly."""
    rows = []
    num_calibration = len(data.test) // 2
    for seed in range(config.seeds):
        for weight in config.weights_of_size:
            # The same draws for every weight, so that they differ in nothing else.
            train_key, tie_key = jax.random.split(jax.random.fold_in(key, seed))
            router = trained(train_key, data, weight, config)
            logits = router(data.test)
            entries = inverse_probability(jax.nn.sigmoid(logits))
            pool = pool_steps(entries, data.test_correct, tie_break(tie_key, entries.shape))
            law = pool_law(pool, num_calibration=num_calibration, alpha=config.alpha)
            best = data.test_correct[np.arange(len(logits)), np.asarray(logits).argmax(axis=1)]
            rows.append(
                {
                    "seed": seed,
                    "weight": weight,
                    "risk": float(law.risk_mean[0]),
                    "size": float(law.size_mean[0]),
                    "accuracy": float(best.mean()),
                }
            )
            progress(1)
    return rows


def figure(rows: list[dict[str, Any]], alpha: float, *, width: float | None = None) -> Figure:
    """Models called by the weight of the size: a mark for each seed, joined."""
    with figure_style(width):
        grid = panels(1, (2.6,), width=width, panel_width=4.2)
        panel = grid.axes[0, 0]
        for seed in dict.fromkeys(row["seed"] for row in rows):
            one = [row for row in rows if row["seed"] == seed]
            sizes = [row["size"] for row in one]
            panel.plot(range(len(one)), sizes, color="0.7", marker="o", ms=3, label="one seed")
        weights = list(dict.fromkeys(row["weight"] for row in rows))
        means = [np.mean([row["size"] for row in rows if row["weight"] == w]) for w in weights]
        panel.plot(range(len(weights)), means, **style_of("RACER-P").marked(ms=4, label="mean"))
        panel.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        grid.label_left(0, "models called per query")
        grid.label_below(0, "weight of the size in the training loss")
        return grid.finish(
            f"Does training for small sets make them smaller? alpha = {alpha:g}", panel
        )


def report(config: Config, rows: list[dict[str, Any]]) -> Report:
    """The mean over seeds, and the difference to cross-entropy alone, seed by seed."""
    weights = config.weights_of_size
    sizes = {w: np.array([r["size"] for r in rows if r["weight"] == w]) for w in weights}
    lines = []
    for weight in weights:
        one = [row for row in rows if row["weight"] == weight]
        change = sizes[weight] - sizes[weights[0]]
        error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
        lines.append(
            [
                f"{weight:g}",
                f"{np.mean([row['risk'] for row in one]):.4f}",
                f"{sizes[weight].mean():.3f}",
                f"{change.mean():+z.3f}",
                "-" if np.isnan(error) else f"{error:.3f}",
                f"{np.mean([row['accuracy'] for row in one]):.3f}",
            ]
        )
    head = ["weight of size", "risk", "size", "change", "± s.e.", "top-1 accuracy"]
    title = (
        f"{config.benchmark}, alpha = {config.alpha:g}, mean of {config.seeds} seeds; the change "
        f"is to a weight of {weights[0]:g}, seed by seed"
    )
    return Report(
        f"{title}\n{reporting.text_table(head, lines)}",
        rows,
        {"size": partial(figure, rows, config.alpha)},
    )


def main(arguments: list[str] | None = None) -> int:
    """Reads the options, runs the experiment, prints and writes what it found."""
    return run_experiment(
        Config,
        "Trains a Flax router for small sets.",
        run,
        report,
        lambda config, data: config.seeds * len(config.weights_of_size),
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
