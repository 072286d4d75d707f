"""Trains the three routers of the paper and compares the one model they choose with baselines.

    python experiments/train_routers.py                        # the embedded simulated pool
    python experiments/train_routers.py --data FOLDER          # RouterDC's files

Every seed fits an encoder on the union of the training files and trains a k-NN router (KNNR), a
multilayer perceptron (MLPR) and a RouterDC head on its embeddings. Each router then sends every
test query to the model it scores highest; the table gives the share answered rightly. The exit
status is 1 where a router does not beat the best global single model, or on RouterDC's files misses
the accuracy that is expected of it.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from racer_jax import reporting
from racer_jax.data import RoutingTable
from racer_jax.encoders import Encoder, HashedNgrams, JoinedEncoder, ReducedEncoder
from racer_jax.encoders.base import check_texts
from racer_jax.plotting.layout import figure_style, panels, percent
from racer_jax.plotting.styles import style_of
from racer_jax.routers.fit import RouterConfig, fit
from racer_jax.routers.knn import KNNConfig
from racer_jax.routers.mlp import MLPConfig
from racer_jax.routers.report import routing_accuracy
from racer_jax.routers.routerdc import RouterDCConfig
from racer_jax.studies.corpora import read_source, two_parts
from racer_jax.studies.runner import Progress, Report, run_experiment

# Mean accuracy over RouterDC's four test files that is expected with the encoder "both".
EXPECTED = {"KNNR": 0.585, "MLPR": 0.585, "RouterDC": 0.580}
ROUTERS = tuple(EXPECTED)
BASELINES = (
    "random",
    "best global single",
    "best single in hindsight",
    "best single per benchmark",
    "oracle",
)


@dataclass(frozen=True)
class Config:
    """Options of the comparison."""

    data: Annotated[
        Path | None, "folder of RouterDC's JSON files; the simulated pool when not given"
    ] = None
    encoder: Annotated[
        Literal["hashed", "minilm", "both"],
        "hashed n-grams with SVD, all-MiniLM-L6-v2 (extra minilm), or both joined",
    ] = "both"
    dim: Annotated[int, "columns kept by the SVD of the hashed n-grams"] = 256
    neighbors: Annotated[int, "neighbours of KNNR"] = 100
    epochs: Annotated[int, "epochs of MLPR at most; it stops early"] = 40
    rounds: Annotated[int, "rounds of 100 steps of RouterDC"] = 10
    seeds: Annotated[int, "number of seeds"] = 3
    seed: Annotated[int, "the first seed"] = 0
    cache: Annotated[
        Path | None, "folder that keeps the embeddings of all-MiniLM-L6-v2 between runs"
    ] = None
    output: Annotated[Path, "folder of the results"] = Path("results/train_routers")

    def __post_init__(self) -> None:
        for name in ("dim", "neighbors", "epochs", "rounds", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Cell(NamedTuple):
    """One router and seed.

    Attributes:
      router: Its name.
      seed: The seed.
      accuracy: Benchmark -> share of the test queries whose chosen model is right.
      seconds: Time to fit it, embeddings aside, compilation included.
      num_steps: Training steps taken.
      problems: What the training report names as wrong.
    """

    router: str
    seed: int
    accuracy: dict[str, float]
    seconds: float
    num_steps: int
    problems: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean over the benchmarks."""
        return float(np.mean(list(self.accuracy.values())))


class Result(NamedTuple):
    """The whole comparison.

    Attributes:
      benchmarks: Their names.
      cells: One for each router and seed.
      baselines: Name -> benchmark -> accuracy.
      best_single: The model that is right most often in training.
      sizes: Number of training and of test queries.
      failures: What a router missed, one sentence each.
    """

    benchmarks: tuple[str, ...]
    cells: list[Cell]
    baselines: dict[str, dict[str, float]]
    best_single: str
    sizes: tuple[int, int]
    failures: tuple[str, ...]

    def of(self, router: str) -> list[Cell]:
        """The cells of one router."""
        return [cell for cell in self.cells if cell.router == router]


class Remembering:
    """An encoder that encodes every text once: the seeds share what does not depend on them."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._embeddings: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of the texts, float32 `[n, d]`."""
        texts = check_texts(texts)
        if new := [text for text in dict.fromkeys(texts) if text not in self._embeddings]:
            self._embeddings.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._embeddings[text] for text in texts])


def baselines(train: RoutingTable, test: RoutingTable) -> tuple[dict[str, dict[str, float]], str]:
    """Accuracy of the baselines by benchmark, and the best global single model.

    Single models are chosen on the training queries, but for the one in hindsight: of all models,
    it has the highest mean over the test benchmarks.
    """
    best = int(train.correct.mean(axis=0).argmax())
    means = np.mean(
        [test.select(group=group).correct.mean(axis=0) for group in test.groups], axis=0
    )
    rows: dict[str, dict[str, float]] = {name: {} for name in BASELINES}
    for group in test.groups:
        correct = test.select(group=group).correct
        best_of_group = int(train.select(group=group).correct.mean(axis=0).argmax())
        single = (correct[:, model].mean() for model in (best, int(means.argmax()), best_of_group))
        for name, share in zip(
            BASELINES, (correct.mean(), *single, correct.any(axis=1).mean()), strict=True
        ):
            rows[name][group] = float(share)
    return rows, train.models[best]


class Data(NamedTuple):
    """What routers are trained and measured on.

    Attributes:
      train: Training queries.
      test: Test queries, with groups.
      minilm: The encoder all-MiniLM-L6-v2, where the options ask for it.
    """

    train: RoutingTable
    test: RoutingTable
    minilm: Encoder | None = None


def run(key: jax.Array, data: Data, config: Config, progress: Progress = lambda _: None) -> Result:
    """Fits every router under every seed and measures it; reads and writes nothing.

    Args:
      key: Not used: each fit has the key of its seed, so that a seed can be repeated alone.
      data: The queries.
      config: The options.
      progress: Called with the number of fits done since the last call.

    Returns:
      The `Result`.
    """
    train, test, minilm = data
    ngrams = Remembering(HashedNgrams())
    sentence = Remembering(minilm) if minilm is not None else None
    configs: dict[str, RouterConfig] = {
        "KNNR": KNNConfig(config.neighbors),
        "MLPR": MLPConfig(max_epochs=config.epochs),
        "RouterDC": RouterDCConfig(num_rounds=config.rounds),
    }
    groups = {group: test.select(group=group) for group in test.groups}
    cells = []
    for seed in range(config.seed, config.seed + config.seeds):
        encoder_key, *keys = jax.random.split(jax.random.key(seed), 1 + len(configs))
        parts = (
            []
            if config.encoder == "minilm"
            else [ReducedEncoder.fit(encoder_key, train.texts, config.dim, ngrams)]
        )
        encoder = Remembering(
            JoinedEncoder((*parts, *([sentence] if sentence is not None else [])))
        )
        encoder.encode(train.texts)
        for key, (name, settings) in zip(keys, configs.items(), strict=True):
            start = time.perf_counter()
            router, report = fit(key, train, settings, encoder)
            seconds = time.perf_counter() - start
            accuracy = {
                group: routing_accuracy(router(part.texts), part.correct)
                for group, part in groups.items()
            }
            num_steps, problems = (0, ()) if report is None else (report.num_steps, report.problems)
            cells.append(Cell(name, seed, accuracy, seconds, num_steps, problems))
            progress(1)
    rows, best_single = baselines(train, test)
    result = Result(test.groups, cells, rows, best_single, (len(train), len(test)), ())
    return result._replace(failures=tuple(failures(config, result)))


def failures(config: Config, result: Result) -> list[str]:
    """What each router missed.

    The best global single model, even in hindsight, and what RouterDC's files allow.
    """
    sentences = []
    bar = float(np.mean(list(result.baselines["best single in hindsight"].values())))
    expected = config.data is not None and config.encoder == "both"
    for router in ROUTERS:
        mean = float(np.mean([cell.mean for cell in result.of(router)]))
        if mean <= bar:
            sentences.append(
                f"{router} {mean:.1%} does not beat the best global single model in hindsight, "
                f"{bar:.1%}"
            )
        if expected and mean < EXPECTED[router]:
            sentences.append(
                f"{router} {mean:.1%} is below the {EXPECTED[router]:.1%} expected of it"
            )
    return sentences


# --- tables and figures ---------------------------------------------------------------------------


def table(result: Result) -> str:
    """Accuracy in percent.

    Routers as mean ± standard deviation over the seeds, baselines below them.
    """
    rows = []
    for router in ROUTERS:
        cells = result.of(router)
        values = np.array([[*cell.accuracy.values(), cell.mean] for cell in cells]) * 100
        seconds = float(np.median([cell.seconds for cell in cells]))
        spread = values.std(axis=0, ddof=1) if len(cells) > 1 else np.zeros(values.shape[1])
        rows.append(
            [
                router,
                *(f"{m:.1f} ± {s:.1f}" for m, s in zip(values.mean(axis=0), spread, strict=True)),
                f"{seconds:.1f}",
            ]
        )
    for name, by_group in result.baselines.items():
        values = np.array([*by_group.values(), np.mean(list(by_group.values()))]) * 100
        rows.append([name, *(f"{value:.1f}" for value in values), ""])
    return reporting.text_table(["", *result.benchmarks, "mean", "fit (s)"], rows)


def csv_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each router, seed and benchmark, and for each baseline and benchmark."""
    rows: list[dict[str, Any]] = [
        {"name": cell.router, "seed": cell.seed, "benchmark": group, "accuracy": value}
        for cell in result.cells
        for group, value in cell.accuracy.items()
    ]
    rows += [
        {"name": name, "seed": "", "benchmark": group, "accuracy": value}
        for name, by_group in result.baselines.items()
        for group, value in by_group.items()
    ]
    return rows


def figure(result: Result, *, width: float | None = None) -> Figure:
    """A panel for each benchmark and one for their mean.

    A mark for each seed, a line for each baseline.
    """
    grays = (("0.6", "-."), ("0.2", "-"), ("0.5", "-"), ("0.2", "--"))
    lines = dict(zip(BASELINES[:-1], grays, strict=True))
    lines["oracle"] = style_of("oracle").color, style_of("oracle").dash
    names = [*result.benchmarks, "mean"]
    with figure_style(width, **{"axes.grid": False}):
        grid = panels(len(names), (2.7,), width=width, panel_width=2.2, least_panel=1.6)
        for number, name in enumerate(names):
            panel = grid.axes[0, number]
            for x, router in enumerate(ROUTERS):
                values = [
                    cell.mean if name == "mean" else cell.accuracy[name]
                    for cell in result.of(router)
                ]
                style = style_of(router)
                panel.plot([x] * len(values), values, **style.points(ms=5, alpha=0.7))
                panel.plot([x - 0.3, x + 0.3], [np.mean(values)] * 2, color=style.color, lw=2)
            for baseline, (gray, dash) in lines.items():
                by_group = result.baselines[baseline]
                value = (
                    float(np.mean(list(by_group.values()))) if name == "mean" else by_group[name]
                )
                panel.axhline(value, color=gray, ls=dash, lw=1, label=baseline)
            grid.title(number, name)
            panel.set_xlim(-0.6, len(ROUTERS) - 0.4)
            panel.set_xticks(
                range(len(ROUTERS)), ROUTERS, rotation=30, ha="right", rotation_mode="anchor"
            )
            percent(panel, "y", 0)
        grid.label_left(0, "test queries answered rightly")
        title = (
            "Accuracy of the one model that each router chooses: a mark for each seed, a bar for "
            "their mean"
        )
        return grid.finish(title, *grid.axes[0])


def report(config: Config, result: Result) -> Report:
    """The table, what the routers' own reports name as wrong, and whether they are good enough."""
    num_train, num_test = result.sizes
    problems = [f"{c.router}, seed {c.seed}: {p}" for c in result.cells for p in c.problems]
    verdict = [f"FAIL: {failure}" for failure in result.failures] or [
        "PASS: every router beats the best global single model and is as good as expected of it."
    ]
    text = "\n".join(
        [
            f"Accuracy in percent of the chosen model; encoder '{config.encoder}', {num_train} "
            f"training and {num_test} test queries, {config.seeds} seeds (mean ± standard "
            "deviation)",
            "",
            table(result),
            "",
            f"The best global single model is {result.best_single}; single models are chosen on "
            "the training queries, but for the one in hindsight.",
            *problems,
            *verdict,
        ]
    )
    figures = {"accuracy": partial(figure, result)}
    return Report(text, csv_rows(result), figures, not result.failures)


def load(config: Config) -> tuple[jax.Array, Data]:
    """The training and the test queries that the options ask for, and the pretrained encoder."""
    key = jax.random.key(config.seed)
    minilm = None
    if config.encoder != "hashed":
        from racer_jax.encoders.text import minilm as load_minilm

        minilm = load_minilm(cache=config.cache)
    train, test = two_parts(key, read_source(key, config.data), 0.5)
    if test.group is None:
        train, test = (replace(part, group=["all"] * len(part)) for part in (train, test))
    return key, Data(train, test, minilm)


def main(arguments: list[str] | None = None) -> int:
    """Trains, prints and writes; returns the exit status."""
    return run_experiment(
        Config,
        "Trains the base routers and compares them with the baselines.",
        run,
        report,
        lambda config, _: config.seeds * len(ROUTERS),
        arguments,
        load=load,
    )


if __name__ == "__main__":
    sys.exit(main())
