"""What an evaluation measured, as numbers and in print."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer_jax.racer.evaluation_text import evaluation_text
from racer_jax.reporting.files import as_plain


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fixed choice of models, the same for every query.

    Use this when you read `GroupEvaluation.baselines`.

    Attributes:
      name: `best single`, `full ensemble`, or `static order, k models`.
      models: The models called.
      size: How many.
      avoidable_miss: Share of the queries some model answers and none of these does.
      accuracy: Aggregation -> share answered rightly; `a judge picks` counts a query as right when
        one of them is.
      cost: Mean dollars a query, None where costs are not known.
    """

    name: str
    models: tuple[str, ...]
    size: int
    avoidable_miss: float
    accuracy: Mapping[str, float]
    cost: float | None


@dataclass(frozen=True, eq=False)
class GroupEvaluation:
    """One group, or all queries together.

    Arrays are float64 `[a]`, one entry for each alpha of the `Evaluation`.

    Use this when you read `Evaluation.groups`.

    Attributes:
      group: Its name; `all` for the whole table.
      num_queries: Queries evaluated.
      num_calibration: Queries its thresholds were calibrated on.
      promised: Whether the calibration promises a risk of at most alpha for just these queries.
      beta: Share of the queries that no model answers.
      beta_low: Lower end of its 95% Clopper-Pearson interval.
      beta_high: Upper end.
      risk: Share of the queries that are misrouted.
      lower: What the expected risk is above, by the exact law; NaN where ties are not broken or
        nothing is promised.
      upper: What it is at most: alpha; NaN where nothing is promised.
      expected: The expected risk by the exact law; NaN likewise.
      std: Standard deviation of `risk` around it, over calibration and evaluated queries alike.
      size: Mean number of models called.
      calls_saved: 1 - size / m, against the full ensemble.
      cost: Mean dollars a query, None where costs are not known.
      cost_saved: Share of the full ensemble's dollars saved, None likewise.
      abstention: Share of the queries for which no model is called.
      avoidable_miss: Share that some model answers while none that does is called.
      accuracy: Aggregation -> share of the queries answered rightly, by the called models' vote;
        `a judge picks` counts a query as right when one of the called models is.
      called: Model -> share of the queries it is called for.
      baselines: The fixed choices to compare with; the last is the full ensemble.
      oracle: 1 - beta, what a perfect choice of one model reaches.
      random: Mean accuracy of the models, what a random choice of one reaches.
    """

    group: str
    num_queries: int
    num_calibration: int
    promised: bool
    beta: float
    beta_low: float
    beta_high: float
    risk: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    expected: np.ndarray
    std: np.ndarray
    size: np.ndarray
    calls_saved: np.ndarray
    cost: np.ndarray | None
    cost_saved: np.ndarray | None
    abstention: np.ndarray
    avoidable_miss: np.ndarray
    accuracy: Mapping[str, np.ndarray]
    called: Mapping[str, np.ndarray]
    baselines: tuple[Baseline, ...]
    oracle: float
    random: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a racer does on a table.

    Use this when you read what `Racer.evaluate` returns.

    Attributes:
      alpha: The racer's own risk level.
      alphas: All levels evaluated, ascending, its own among them.
      models: The pool.
      nonconformity: Name of the nonconformity score.
      null: The null mode.
      label_rule: The rule that said which answers of the table were right.
      guarantee: What is promised, in words, with its assumption.
      num_seen: Number of rows whose question the racer was trained or calibrated on; their figures
        look better than new queries will.
      groups: All queries first, then each group of the table.
      notes: What one must know to read the figures, one sentence each.
      has_chosen_levels: Whether the caller chose the levels, which `str` then shows one by one;
        else `alphas` are those measured by default.
    """

    alpha: str
    alphas: tuple[str, ...]
    models: tuple[str, ...]
    nonconformity: str
    null: str
    label_rule: str
    guarantee: str
    num_seen: int
    groups: tuple[GroupEvaluation, ...]
    notes: tuple[str, ...]
    has_chosen_levels: bool = False

    @property
    def row(self) -> int:
        """The place of the racer's own alpha among `alphas`."""
        return self.alphas.index(self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain lists, dictionaries, numbers and strings.

        NaN and infinities are strings.

        Use this when the figures go into a file or another program.
        """
        plain: dict[str, Any] = as_plain(self)
        return plain

    def __str__(self) -> str:
        return evaluation_text(self)
