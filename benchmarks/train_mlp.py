"""How fast is MLPR trained, against PyTorch and scikit-learn on the same epochs?

    python benchmarks/train_mlp.py

The size of RouterDC's training files with the encoder "both". PyTorch runs the same network, batch
size, dropout, optimizer and evaluation of the held-out rows after every epoch, once with the AdamW
that it takes by default and once with its fused one; the held-out losses agree before anything is
timed. scikit-learn's MLPClassifier has no dropout, so it is compared with ours without: first with
its early stopping, which evaluates an eighth of the rows after every epoch as ours does, then
without any evaluation. Several seeds: one on each core here, one after another on all cores there.
The last lines state what one seed's matrix products alone take in each library: no trainer can be
faster. Needs the extra `parity`.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import lazy_loader
import numpy as np
from harness import Counted, needs, turns
from jax import lax
from timing import interleaved

from racer_jax import reporting
from racer_jax.encoders.layers import compiler_options
from racer_jax.routers.mlp import MLPConfig, fit_mlps
from racer_jax.studies import runtime

# Imported when they are used, so that `--help` and the name of the extra come without them.
sklearn, torch = lazy_loader.load("sklearn"), lazy_loader.load("torch")


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rows: Annotated[int, "training queries, an eighth of which is held out"] = 5820
    dim: Annotated[int, "columns of the embeddings"] = 640
    models: Annotated[int, "number of models"] = 7
    hidden: Annotated[int, "width of the hidden layer"] = 256
    epochs: Annotated[int, "epochs"] = 10
    seeds: Annotated[int, "seeds of the lines with several"] = 4
    rounds: Annotated[int, "interleaved rounds"] = 5
    output: Annotated[Path, "folder of the results"] = Path("results/benchmarks/train_mlp")


def problem(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and correctness that depends on them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(config.rows, config.dim)).astype(np.float32)
    logits = x @ rng.normal(size=(config.dim, config.models)) / config.dim**0.5
    return x, rng.random((config.rows, config.models)) < 1 / (1 + np.exp(-2 * logits))


def fit_torch(
    x: np.ndarray,
    y: np.ndarray,
    config: Config,
    ours: MLPConfig,
    seed: int,
    fused: bool | None = None,
) -> float:
    """The same training in PyTorch, with its fused AdamW or the one it takes.

    The held-out loss of the best epoch.
    """
    torch.manual_seed(seed)
    held = len(x) // 8
    mean, scale = x[held:].mean(0), ours.input_scale / x[held:].std(0)
    x_all, y_all = torch.from_numpy((x - mean) * scale), torch.from_numpy(y.astype(np.float32))
    train_x, train_y, held_x, held_y = x_all[held:], y_all[held:], x_all[:held], y_all[:held]
    network = torch.nn.Sequential(
        torch.nn.Linear(config.dim, config.hidden),
        torch.nn.ReLU(),
        torch.nn.Dropout(ours.dropout),
        torch.nn.Linear(config.hidden, config.models),
    )
    optimizer = torch.optim.AdamW(
        network.parameters(),
        ours.optimizer.learning_rate,
        weight_decay=ours.optimizer.weight_decay,
        fused=fused,
    )
    loss = torch.nn.BCEWithLogitsLoss()
    best = float("inf")
    for _ in range(config.epochs):
        network.train()
        for rows in torch.randperm(len(train_x)).split(ours.batch_size):
            optimizer.zero_grad()
            loss(network(train_x[rows]), train_y[rows]).backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            best = min(best, float(loss(network(held_x), held_y)))
    return best


def fit_sklearn(
    x: np.ndarray, y: np.ndarray, config: Config, ours: MLPConfig, evaluate: bool
) -> None:
    """The same network and epochs in scikit-learn.

    With a held-out eighth evaluated after each, or left out.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    held = len(x) // 8
    model = MLPClassifier(
        (config.hidden,),
        alpha=0.1,
        batch_size=ours.batch_size,
        learning_rate_init=ours.optimizer.learning_rate,
        max_iter=config.epochs,
        n_iter_no_change=config.epochs,
        random_state=0,
        early_stopping=evaluate,
        validation_fraction=held / len(x),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # With early stopping it holds out rows of its own.
        model.fit(*((x, y) if evaluate else (x[held:], y[held:])))


def products(config: Config, ours: MLPConfig) -> dict[str, Callable[[], object]]:
    """The two large products of a step, as often as one seed takes them."""
    batch, steps = (
        ours.batch_size,
        config.epochs * -(-(config.rows - config.rows // 8) // ours.batch_size),
    )
    rng = np.random.default_rng(0)
    shapes = ((batch, config.dim), (config.dim, config.hidden), (batch, config.hidden))
    x, kernel, cotangent = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

    @partial(jax.jit, compiler_options=compiler_options())
    def in_jax(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
        # The barrier ties the products to the loop, or they would be taken once.
        def step(_: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            x, kernel, cotangent = operands = lax.optimization_barrier(carry[0])
            return operands, (x @ kernel, x.T @ cotangent)

        answers = (x, kernel, cotangent)
        return lax.fori_loop(0, steps, step, (answers, (cotangent, kernel)))[1]

    def in_torch() -> None:
        a, b, c = (torch.from_numpy(array) for array in (x, kernel, cotangent))
        for _ in range(steps):
            a.T @ c, a @ b

    return {"ours": lambda: in_jax(x, kernel, cotangent), "PyTorch": in_torch}


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark, prints the table and writes the results."""
    runtime.use_all_cores()
    config = reporting.parse_config(
        Config, "MLP training against PyTorch and scikit-learn.", arguments
    )
    needs("parity", "torch", "sklearn")
    x, y = problem(config)
    ours = MLPConfig(hidden=(config.hidden,), max_epochs=config.epochs, patience=config.epochs)
    without_dropout = replace(ours, dropout=0.0)

    def fit_ours(num: int, mlp: MLPConfig = ours) -> list[float]:
        _, reports = fit_mlps(jax.random.split(jax.random.key(0), num), x, y, mlp)
        return [float(report.evaluations.min()) for report in reports]

    losses = {"ours": fit_ours(1)[0], "PyTorch": fit_torch(x, y, config, ours, 0)}
    if abs(losses["ours"] - losses["PyTorch"]) > 0.02:
        raise ValueError(f"the held-out losses differ: {losses}")
    one: dict[str, Callable[[], object]] = {
        "ours": lambda: fit_ours(1),
        "PyTorch": lambda: fit_torch(x, y, config, ours, 0),
        "PyTorch, fused AdamW": lambda: fit_torch(x, y, config, ours, 0, fused=True),
    }
    plain: dict[str, Callable[[], object]] = {
        "ours": lambda: fit_ours(1, without_dropout),
        "scikit-learn": lambda: fit_sklearn(x, y, config, ours, evaluate=True),
        "scikit-learn, no evaluation": lambda: fit_sklearn(x, y, config, ours, evaluate=False),
    }
    seeds = range(config.seeds)
    several: dict[str, Callable[[], object]] = {
        "ours": lambda: fit_ours(config.seeds),
        "PyTorch": lambda: [fit_torch(x, y, config, ours, seed) for seed in seeds],
        "PyTorch, fused AdamW": lambda: [
            fit_torch(x, y, config, ours, seed, fused=True) for seed in seeds
        ],
    }
    several_plain: dict[str, Callable[[], object]] = {
        "ours": lambda: fit_ours(config.seeds, without_dropout),
        "scikit-learn": lambda: [fit_sklearn(x, y, config, ours, evaluate=True) for _ in seeds],
    }
    groups: dict[str, dict[str, Callable[[], object]]] = {
        "1 seed": one,
        "1 seed, no dropout": plain,
        f"{config.seeds} seeds": several,
        f"{config.seeds} seeds, no dropout": several_plain,
        "products of 1 seed": products(config, ours),
    }
    times = {
        label: interleaved(variants, config.rounds)
        for label, variants in turns(groups.items(), "group")
    }
    print(f"{config.epochs} epochs of {config.rows * 7 // 8} rows; held-out loss {losses}")
    print(
        reporting.text_table(
            ["", "trainer", "seconds", "first call (s)", "ours is faster by"],
            [
                [
                    label,
                    name,
                    f"{timing.wall:.3f}",
                    f"{timing.first:.1f}",
                    f"{timing.wall / group['ours'].wall:.2f}x",
                ]
                for label, group in times.items()
                for name, timing in group.items()
            ],
        )
    )
    versions = {
        "torch": torch.__version__,
        "sklearn": sklearn.__version__,
        "threads": torch.get_num_threads(),
    }
    details = {
        "config": config,
        "environment": reporting.environment() | versions,
        "losses": losses,
        "times": times,
    }
    reporting.finish(
        lambda folder: reporting.write_json(folder / "results.json", details), config.output
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
