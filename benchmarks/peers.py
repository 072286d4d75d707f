"""W1 in TorchCP, MAPIE and crepes, as far as they can do it, against this package.

    pip install -e '.[bench]' && python benchmarks/peers.py

They know one right label a query and no abstention, so they get an easier task that has the same
thresholds and misses: the label of a query is its critical model, the one right model (or the null
model) that enters the set first. Each is used in the best way its public functions allow, on splits
drawn by NumPy and timed with them, and extrapolated from one split. Their miss rate and set size
are checked against this package on the same splits before anything is timed.
"""

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

import jax
import numpy as np
from baselines import SPLITS, BestNumpy, Problem, workload
from harness import Counted, needs, report, seconds
from timing import interleaved

from racer_jax import miss_budget, reporting
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
from racer_jax.studies import runtime

# calibration and test rows -> miss rate and set size [2, a]
Split = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    rounds: Annotated[int, "interleaved rounds"] = 3


def torchcp(probability: np.ndarray, label: np.ndarray, alphas: list[float]) -> Split:
    """Scores once, then for each alpha a threshold and the sets."""
    # The package imports everything it has, training losses that compile C++ among it: here only
    # what splits need.
    root = importlib.util.find_spec("torchcp").submodule_search_locations[0]
    for name in ("torchcp", "torchcp.classification"):
        module = types.ModuleType(name)
        module.__path__ = [root + name.removeprefix("torchcp").replace(".", "/")]
        sys.modules[name] = module
    import torch
    from torchcp.classification.predictor.split import SplitPredictor
    from torchcp.classification.score.lac import LAC

    predictor = SplitPredictor(LAC(score_type="identity"))
    all_scores, labels = torch.from_numpy(probability), torch.from_numpy(label)

    def split(calibration: np.ndarray, test: np.ndarray) -> np.ndarray:
        to_calibrate, to_test, right = all_scores[calibration], all_scores[test], labels[test]
        out = np.empty((2, len(alphas)))
        for a, alpha in enumerate(alphas):
            predictor.calculate_threshold(to_calibrate, labels[calibration], alpha)
            sets = predictor.predict_with_logits(to_test)
            inside = sets[torch.arange(len(right)), right]
            out[:, a] = 1 - inside.double().mean().item(), sets.sum(dim=1).double().mean().item()
        return out

    return split


def mapie(probability: np.ndarray, label: np.ndarray, alphas: list[float]) -> Split:
    """One call for all alphas."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Probabilities by row number."""

        def fit(self, rows: np.ndarray, labels: np.ndarray) -> "Given":
            self.classes_, self.is_fitted_ = np.arange(probability.shape[1]), True
            self.n_features_in_ = 1
            return self

        def predict_proba(self, rows: np.ndarray) -> np.ndarray:
            return probability[rows[:, 0].astype(int)]

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return self.predict_proba(rows).argmax(axis=1)

    # It wants rows that sum to 1: the order is kept, and a ninth label, in every set and never
    # right, takes the rest.
    probability = np.column_stack([probability / 16, 1 - probability.sum(axis=1) / 16])
    estimator = Given().fit(np.zeros((1, 1)), np.zeros(1))
    levels = [1 - alpha for alpha in alphas]

    def split(calibration: np.ndarray, test: np.ndarray) -> np.ndarray:
        conformal = SplitConformalClassifier(estimator, confidence_level=levels, prefit=True)
        conformal.conformalize(calibration[:, None], label[calibration])
        _, sets = conformal.predict_set(test[:, None])
        inside = sets[np.arange(len(test)), label[test]]
        return np.stack([1 - inside.mean(axis=0), sets[:, :-1].sum(axis=1).mean(axis=0)])

    return split


def crepes(probability: np.ndarray, label: np.ndarray, alphas: list[float]) -> Split:
    """p-values once, compared with every alpha."""
    from crepes import ConformalClassifier

    nonconformity = 1 - probability

    def split(calibration: np.ndarray, test: np.ndarray) -> np.ndarray:
        conformal = ConformalClassifier().fit(nonconformity[calibration, label[calibration]])
        p = conformal.predict_p(nonconformity[test], smoothing=False)
        # A p-value is a multiple of 1 / (n + 1): it is above alpha from the next one on, whatever
        # alpha's rounding.
        num = len(calibration)
        levels = (miss_budget(alphas, num) + 1.5) / (num + 1)
        sets = p[..., None] > levels
        inside = sets[np.arange(len(test)), label[test]]
        return np.stack([1 - inside.mean(axis=0), sets.sum(axis=1).mean(axis=0)])

    return split


def draw(rng: np.random.Generator, task: Problem) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(len(task.correct))
    return order[: task.num_calibration], order[task.num_calibration :]


def main() -> None:
    config = reporting.parse_config(Config, "Times W1's analog in TorchCP, MAPIE and crepes.")
    needs("bench", "torch", "mapie", "crepes")
    if importlib.util.find_spec("torchcp") is None:
        raise SystemExit("error: torchcp not installed: pip install --no-deps torchcp")
    runtime.use_all_cores()
    warnings.simplefilter("ignore")
    task = workload("W1")
    size = task.nonconformity.size
    truth = np.concatenate([task.correct, ~task.correct.any(axis=1, keepdims=True)], axis=1)
    label = np.where(truth, task.nonconformity, np.inf).argmin(axis=1)
    # Float64 keeps the order of the ranks; 1 - (1 - x) of eighths of 2**16 is exact.
    probability = 1 - task.nonconformity.astype(np.float64) / 2.0 ** np.ceil(np.log2(size))
    alphas = [float(alpha) for alpha in task.alphas]
    peers = {"TorchCP": torchcp, "MAPIE": mapie, "crepes": crepes}
    splits = {name: make(probability, label, alphas) for name, make in peers.items()}

    calibration, test = draw(np.random.default_rng(1), task)
    ours = pool_steps(task.nonconformity, task.correct).only("risk", "size", "abstention")
    mask = np.zeros(len(label), bool)
    mask[calibration] = True
    _, misses, _, _ = BestNumpy(task, ours).counts(mask[ours.order])
    threshold = np.sort(task.nonconformity[calibration, label[calibration]])[task.ranks - 1]
    sizes = [(task.nonconformity[test] <= at).sum(axis=1).mean() for at in threshold]
    agree = {}
    for name, split in splits.items():
        missed, called = split(calibration, test)
        same = np.isclose(missed, misses / len(test)) & np.isclose(called, sizes)
        agree[name] = int(same.sum())
        if not same.any() or np.abs(missed - misses / len(test)).max() > 2 / len(test) + 1e-3:
            raise ValueError(
                f"{name} measures something else: miss rates {missed[:5]}, expected "
                f"{misses[:5] / len(test)}"
            )

    rng = np.random.default_rng(0)
    runs: dict[str, Callable[[], object]] = {
        name: lambda split=split: split(*draw(rng, task)) for name, split in splits.items()
    }
    runs["racer_jax"] = lambda: split_trials(
        jax.random.key(0),
        ours,
        num_calibration=task.num_calibration,
        alpha=task.alphas,
        num_trials=SPLITS["W1"],
    )
    timings = interleaved(runs, config.rounds)
    timings |= {name: timings[name].times(SPLITS["W1"]) for name in splits}
    wall = timings["racer_jax"].wall
    names = {"racer_jax": "`racer_jax.montecarlo.trials.split_trials`"}
    rows = [
        [
            f"{name} {version(name.lower())}" if name in splits else names[name],
            seconds(t.wall) + (" *" if name in splits else ""),
            seconds(t.cpu),
            f"{t.wall / wall:,.0f}",
            f"{agree[name]} of {len(alphas)}" if name in splits else "",
        ]
        for name, t in timings.items()
    ]
    header = ["package", "wall", "CPU", "times ours", "alphas with equal counts"]
    rounds = "1 round" if config.rounds == 1 else f"{config.rounds} rounds"
    title = (
        f"W1, its split-conformal analog for peers; median of {rounds} (* "
        "extrapolated from 1 split);"
    )
    report("peers", title, header, rows, {"timings": timings, "agree": agree})


if __name__ == "__main__":
    main()
