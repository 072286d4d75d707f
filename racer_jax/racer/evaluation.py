"""What a calibrated racer does on labelled queries, for its own alpha and for many.

Every metric of a query is a step function of the threshold: it changes where a model enters its
set. The steps of all queries of a group are sorted once; a threshold then reads each metric off a
prefix sum. The thresholds are those of the calibration, one for each group and alpha: nothing is
chosen on the queries evaluated here.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.aggregation import answer_codes, prefix_answers, voted_right
from racer_jax.core.risk_levels import Level, exact_alpha, level_name, parse_alphas
from racer_jax.core.sort_keys import critical_keys, entry_keys
from racer_jax.data.summary import summarize
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo.tuning import MAJORITY, vote_tables
from racer_jax.racer.calibration import Calibration
from racer_jax.racer.evaluation_text import JUDGE
from racer_jax.racer.fingerprints import question_fingerprints
from racer_jax.racer.fitting import label_rule
from racer_jax.racer.limits import limited
from racer_jax.racer.processes import check_process
from racer_jax.racer.promises import is_unbounded
from racer_jax.racer.results import Baseline, Evaluation, GroupEvaluation
from racer_jax.racer.scoring import ModelScores
from racer_jax.racer.state import RacerState
from racer_jax.racer.usage import optimistic_notes
from racer_jax.routers.scores import Scores

__all__ = ["Baseline", "Evaluation", "GroupEvaluation", "evaluate", "evaluate_racer"]

ALL = "all"
# The levels evaluated beside the racer's own.
ALPHAS = "0.01:0.5:0.01"
# The temperatures at which weighted votes are reported: close to the heaviest voter, and close to a
# majority.
TEMPERATURES = (0.1, 1.0)


# --- step functions -------------------------------------------------------------------------------


def step_totals(keys: np.ndarray, table: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Total over queries of a metric that changes at each of a query's keys.

    Use this when a metric is a function of the set and many thresholds are tried.

    Args:
      keys: Where each step of each query acts, ascending, uint64 `[n, s]`.
      table: The metric before and after each step, float64 `[n, s + 1]`.
      thresholds: uint64 `[a]`.

    Returns:
      float64 `[a]`.
    """
    flat = keys.ravel()
    order = np.argsort(flat, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(np.diff(table, axis=1).ravel()[order])])
    return np.asarray(
        table[:, 0].sum() + sums[np.searchsorted(flat[order], thresholds, side="right")]
    )


def _tables(
    correct: np.ndarray, order: np.ndarray, cost: np.ndarray | None, right: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Each metric of a query by the number of models called, float64 `[n, m + 1]`."""
    num, num_models = correct.shape
    in_order = np.take_along_axis(correct, order, axis=1)
    start = np.zeros((num, 1))
    has_answer = np.concatenate([start, np.maximum.accumulate(in_order, axis=1)], axis=1)
    counts = np.broadcast_to(np.arange(num_models + 1.0), (num, num_models + 1))
    tables = {
        "size": counts,
        "abstention": (counts == 0).astype(np.float64),
        "avoidable_miss": correct.any(axis=1, keepdims=True) - has_answer,
        JUDGE: has_answer,
        **{f"accuracy {name}": table.astype(np.float64) for name, table in right.items()},
    }
    if cost is not None:
        tables["cost"] = np.concatenate(
            [start, np.cumsum(np.take_along_axis(cost, order, axis=1), axis=1)], axis=1
        )
    return tables


def _filled_cost(table: RoutingTable, mean: np.ndarray | None) -> np.ndarray | None:
    """Dollars of each answer, the model's mean where it is not known; None without a mean."""
    if table.cost is None and mean is None:
        return None
    cost = np.full(table.correct.shape, np.nan) if table.cost is None else table.cost
    if table.cost is not None and np.isfinite(cost).any(axis=0).all():
        mean = np.nanmean(cost, axis=0)
    if mean is None or not np.isfinite(mean).all():
        return None
    return np.where(np.isfinite(cost), cost, mean[None])


def votes(
    table: RoutingTable,
    model_scores: ModelScores,
    ties: np.ndarray | None,
    temperatures: Sequence[float],
) -> dict[str, np.ndarray]:
    """Whether each aggregation is right by the number of models called, bool `[n, m + 1]`.

    There is none where the table has no answers.

    Use this when sets are evaluated by the accuracy of their vote.
    """
    if table.answers is None:
        return {}
    whole = {name: value for name, value in table.confidence.items() if np.isfinite(value).all()}
    answers = vote_tables(
        model_scores.nonconformity,
        answer_codes(table.answers),
        model_scores.scores,
        table.correct,
        ties,  # type: ignore[arg-type]
        confidence={name: value.astype(np.float32) for name, value in whole.items()},
        temperatures=tuple(temperatures),
    )
    names = [
        weighting if weighting == MAJORITY else f"{weighting}, T = {temperature:g}"
        for weighting, temperature in zip(answers.weighting, answers.temperature, strict=True)
    ]
    return dict(zip(names, answers.right, strict=True))


def fixed_votes(table: RoutingTable, order: Sequence[int], scores: np.ndarray) -> np.ndarray | None:
    """Whether the majority of the first k models of one fixed order is right, bool `[n, m + 1]`.

    None where the table has no answers.

    Use this when a vote of a fixed order is compared with RACER's.
    """
    if table.answers is None:
        return None
    codes = answer_codes(table.answers)
    answers = prefix_answers(np.broadcast_to(np.array(order), codes.shape), codes, scores)
    return np.asarray(voted_right(answers, codes[:, None], table.correct[:, None]))


# --- the laws -------------------------------------------------------------------------------------


class _Law(NamedTuple):
    """What is promised to each group at each alpha, `[g, a]`; NaN where it is not."""

    upper: np.ndarray
    lower: np.ndarray
    expected: np.ndarray
    variance: np.ndarray


def _law(
    calibration: Calibration, alphas: Sequence[str], counts: np.ndarray, is_never: bool
) -> _Law:
    """The laws of the risk of each group, on so many queries of it.

    Given the calibration set the risk is Beta(b + 1, n - b), so misses are beta-binomial.
    """
    budgets, n = calibration.budgets(alphas), calibration.num_queries[:, None].astype(np.float64)
    value = calibration.thresholds(alphas)[0]
    a, b, num = budgets + 1.0, n - budgets, np.maximum(counts, 1)[:, None]
    mean = a / (n + 1)
    variance = a * b * (n + 1 + num) / ((n + 1) ** 2 * (n + 2)) / num
    # A calibration for a loss promises nothing of misses.
    no_guarantee = is_unbounded(value, budgets, calibration.max_models is not None, is_never)
    no_guarantee = no_guarantee | (calibration.loss is not None)
    # The exact law needs ties that are broken and a threshold that is a number.
    loose = no_guarantee | (value == -np.inf) | (calibration.tie is None)
    upper = np.broadcast_to(np.array([float(exact_alpha(alpha)) for alpha in alphas]), mean.shape)
    return _Law(
        np.where(no_guarantee, np.nan, upper),
        np.where(loose, np.nan, mean - 1 / (n + 1)),
        np.where(loose, np.nan, mean),
        np.where(loose, np.nan, variance),
    )


# --- all together ---------------------------------------------------------------------------------


class _Study(NamedTuple):
    """All that one group's figures are read from; rows are those of the table."""

    table: RoutingTable
    calibration: Calibration
    law: _Law
    code: np.ndarray
    tables: Mapping[str, np.ndarray]
    cost: np.ndarray | None
    static_votes: np.ndarray | None
    static_order: Sequence[int]


def evaluate(
    table: RoutingTable,
    model_scores: ModelScores,
    ties: np.ndarray | None,
    calibration: Calibration,
    alphas: Sequence[str],
    *,
    static_order: Sequence[int],
    mean_cost: np.ndarray | None,
    temperatures: Sequence[float] = TEMPERATURES,
) -> tuple[GroupEvaluation, ...]:
    """All queries first, then each group of the table; see `Evaluation`.

    Use this when scores are measured already; `Racer.evaluate` measures them.

    Args:
      table: Labelled queries of the calibration's pool, complete.
      model_scores: Their scores and nonconformity.
      ties: Their second keys, uint32 `[n, m + 1]`, where the calibration has them.
      calibration: Whose thresholds are evaluated.
      alphas: Risk levels.
      static_order: The models in the order of the baseline.
      mean_cost: Mean dollars of each model, float64 `[m]`, in the place of costs the table lacks.
      temperatures: Temperatures of the weighted votes.
    """
    num = len(table)
    keys = entry_keys(model_scores.nonconformity, ties)
    order = np.argsort(keys[:, :-1], axis=1, kind="stable")
    entries = np.take_along_axis(keys[:, :-1], order, axis=1)
    critical = critical_keys(keys, table.correct)
    cost = _filled_cost(table, mean_cost)
    tables = _tables(table.correct, order, cost, votes(table, model_scores, ties, temperatures))
    code, thresholds = calibration.codes(table.group, num), calibration.threshold_keys(alphas)
    counts = np.bincount(code, minlength=len(thresholds))[:-1]
    # The null mode `never` is the one in which the null model is in no set.
    is_never = bool((model_scores.nonconformity[:, -1] == np.inf).all())
    study = _Study(
        table,
        calibration,
        _law(calibration, alphas, counts, is_never),
        code,
        tables,
        cost,
        fixed_votes(table, static_order, model_scores.scores),
        static_order,
    )
    inside = np.broadcast_to(np.array([0.0, 1.0]), (num, 2))
    totals, rows_of = [], []
    for name in table.groups or (ALL,):
        rows = (
            np.flatnonzero([group == name for group in table.group])
            if table.group
            else np.arange(num)
        )
        at = thresholds[code[rows[0]]]  # a group has one threshold
        total = {
            metric: step_totals(entries[rows], values[rows], at)
            for metric, values in tables.items()
        }
        total["risk"] = step_totals(critical[rows, None], 1 - inside[rows], at)
        for j, model in enumerate(table.models):
            total[f"called {model}"] = step_totals(keys[rows, j : j + 1], inside[rows], at)
        totals.append(total)
        rows_of.append(rows)
    whole = {metric: np.sum([total[metric] for total in totals], axis=0) for metric in totals[0]}
    result = [_group(study, ALL, np.arange(num), whole)]
    if table.group is not None:
        result += [_group(study, *part) for part in zip(table.groups, rows_of, totals, strict=True)]
    return tuple(result)


def _group(
    study: _Study, name: str, rows: np.ndarray, totals: Mapping[str, np.ndarray]
) -> GroupEvaluation:
    """The figures of some rows."""
    table, calibration, count = study.table, study.calibration, len(rows)
    mean = {metric: total / count for metric, total in totals.items()}
    num = calibration.num_queries
    share = np.bincount(study.code[rows], minlength=len(num) + 1) / count
    there = share[:-1] > 0
    # One threshold for all guarantees nothing for a group alone, and nothing holds for a group that
    # is unknown.
    has_law = calibration.groups is not None or name == ALL
    within_law = bool(has_law and share[-1] == 0 and not calibration.num_overlap)
    weight = share[:-1][there][:, None] if within_law else np.full((1, 1), np.nan)
    law = _Law(
        *(field[there] if within_law else np.ones((1, field.shape[1])) for field in study.law)
    )
    figures = summarize(table.select(rows)).groups[-1]
    right = table.correct[rows]
    num_where = np.where(there, num, 0) if there.any() else num
    best = int(np.argmax(num_where @ calibration.accuracy))
    cost = None if study.cost is None else study.cost[rows]
    full_cost = None if cost is None else float(cost.sum(axis=1).mean())
    return GroupEvaluation(
        group=name,
        num_queries=count,
        num_calibration=int(num[there].sum()),
        promised=within_law,
        beta=figures.all_wrong,
        beta_low=figures.all_wrong_low,
        beta_high=figures.all_wrong_high,
        risk=mean["risk"],
        lower=(weight * law.lower).sum(axis=0),
        upper=(weight * law.upper).sum(axis=0),
        expected=(weight * law.expected).sum(axis=0),
        std=np.sqrt((weight**2 * law.variance).sum(axis=0)),
        size=mean["size"],
        calls_saved=1 - mean["size"] / len(table.models),
        cost=mean.get("cost"),
        cost_saved=None if not full_cost else 1 - mean["cost"] / full_cost,
        abstention=mean["abstention"],
        avoidable_miss=mean["avoidable_miss"],
        accuracy={
            **{
                metric.removeprefix("accuracy "): v
                for metric, v in mean.items()
                if metric.startswith("accuracy ")
            },
            JUDGE: mean[JUDGE],
        },
        called={model: mean[f"called {model}"] for model in table.models},
        baselines=_baselines(study, rows, best),
        oracle=float(right.any(axis=1).mean()),
        random=float(right.mean()),
    )


def _baselines(study: _Study, rows: np.ndarray, best: int) -> tuple[Baseline, ...]:
    """The fixed choices on some rows.

    They are the best single model of calibration, prefixes of the static order, and all models.
    """
    table, order, static_votes = study.table, list(study.static_order), study.static_votes
    right = table.correct[rows]
    some = right.any(axis=1)

    def line(name: str, columns: Sequence[int], accuracy: Mapping[str, float]) -> Baseline:
        any_right = right[:, list(columns)].any(axis=1)
        return Baseline(
            name=name,
            models=tuple(table.models[j] for j in columns),
            size=len(columns),
            avoidable_miss=float((some & ~any_right).mean()),
            accuracy={**accuracy, JUDGE: float(any_right.mean())},
            cost=None
            if study.cost is None
            else float(study.cost[rows][:, list(columns)].sum(axis=1).mean()),
        )

    lines = [
        line(
            "best single",
            [best],
            {} if static_votes is None else {MAJORITY: float(right[:, best].mean())},
        )
    ]
    for k in range(1, len(order)):
        majority = {} if static_votes is None else {MAJORITY: float(static_votes[rows, k].mean())}
        lines.append(line(f"static order, {k} model{'s' * (k > 1)}", order[:k], majority))
    full = {
        metric.removeprefix("accuracy "): float(values[rows, -1].mean())
        for metric, values in study.tables.items()
        if metric.startswith("accuracy ")
    }
    return (*lines, line("full ensemble", range(len(order)), full))


def _levels(alphas: Sequence[Level] | str | None, racer_alpha: str) -> tuple[str, ...]:
    """The levels to evaluate, ascending, a racer's own among them as it is written there."""
    beside: Sequence[Level] | str = ALPHAS if alphas is None else alphas
    if isinstance(beside, str):
        beside = parse_alphas(beside)
    # Two ways to write one number are one level.
    by_value = {exact_alpha(alpha): level_name(alpha) for alpha in (*beside, racer_alpha)}
    return tuple(by_value[value] for value in sorted(by_value))


def evaluate_racer(
    racer: RacerState,
    table: RoutingTable,
    alphas: Sequence[Level] | str | None,
    scores: Scores | ArrayLike | None,
    temperatures: Sequence[float],
) -> Evaluation:
    """What a racer does on labelled queries; see `Racer.evaluate`.

    Use this when you have a racer in a module below it; `Racer.evaluate` does the same.
    """
    calibration = racer._calibrated("evaluate")
    check_process()
    table = racer._matched(table, scores)
    levels = _levels(alphas, calibration.alpha)
    model_scores = racer._measured(table, scores)
    questions, rule = question_fingerprints(table), label_rule(table)
    ties = racer._ties(questions, model_scores)
    calibration.handle_unknown(calibration.codes(table.group, len(table)), table.group)
    nonconformity = limited(
        model_scores.nonconformity, ties, calibration.max_models, calibration.min_models
    )
    model_scores = model_scores._replace(nonconformity=nonconformity)
    in_training = np.isin(questions, racer.trained_on) | np.isin(questions, calibration.questions)
    notes = [
        *optimistic_notes(in_training, "Racer"),
        *racer.warnings(),
        *racer.notes,
        *table.notes,
    ]
    if rule != calibration.label_rule:
        notes.append(
            f"calibrated with the label rule {calibration.label_rule!r}, evaluated with {rule!r}"
        )
    groups = evaluate(
        table,
        model_scores,
        ties,
        calibration,
        levels,
        static_order=racer.static_order or tuple(range(len(racer.models))),
        mean_cost=racer.cost,
        temperatures=temperatures,
    )
    return Evaluation(
        alpha=calibration.alpha,
        alphas=levels,
        models=racer.models,
        nonconformity=racer.nonconformity,
        null=racer.null,
        label_rule=rule,
        guarantee=racer.guarantee(),
        num_seen=int(in_training.sum()),
        groups=groups,
        notes=tuple(notes),
        has_chosen_levels=alphas is not None,
    )
