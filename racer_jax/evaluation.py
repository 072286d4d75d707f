"""What a calibrated racer does on labelled queries, for its own alpha and for many, from the same step functions.

Every metric of a query is a step function of the threshold: it changes where a model enters its set. The steps of all
queries of a group are sorted once; a threshold then reads each metric off a prefix sum. The thresholds are those of the
calibration, one for each group and alpha: nothing is chosen on the queries evaluated here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer_jax.aggregation import answer_codes, prefix_answers, voted_right
from racer_jax.calibrated import NEVER, Calibration, entry_keys
from racer_jax.calibration import exact_alpha
from racer_jax.data.summary import summarize
from racer_jax.data.table import RoutingTable
from racer_jax.reporting import as_plain, text_table
from racer_jax.scoring import Measured
from racer_jax.selection import MAJORITY, vote_tables

ALL = "all"
# The temperatures at which weighted votes are reported: close to the heaviest voter, and close to a majority.
TEMPERATURES = (0.1, 1.0)


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fixed choice of models, the same for every query.

    Attributes:
      name: `best single`, `full ensemble`, or `static order, k models`.
      models: The models called.
      size: How many.
      avoidable_miss: Share of the queries some model answers and none of these does.
      accuracy: Aggregation -> share answered rightly; `a judge picks` counts a query as right when one of them is.
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
    """One group, or all queries together; arrays are float64 `[a]`, one entry for each alpha of the `Evaluation`.

    Attributes:
      group: Its name; `all` for the whole table.
      num_queries: Queries evaluated.
      num_calibration: Queries its thresholds were calibrated on.
      promised: Whether the calibration promises a risk of at most alpha for just these queries.
      beta: Share of the queries that no model answers.
      beta_low: Lower end of its 95% Clopper-Pearson interval.
      beta_high: Upper end.
      risk: Share of the queries that are misrouted.
      lower: What the expected risk is above (Theorem 4.5 as far as each group has a threshold of its own); NaN where
        nothing is promised.
      upper: What it is at most: alpha.
      expected: The exact law's expected risk, without ties; NaN where nothing is promised.
      std: Standard deviation of `risk` around it, over calibration and evaluated queries alike.
      size: Mean number of models called.
      calls_saved: 1 - size / m, against the full ensemble.
      cost: Mean dollars a query, None where costs are not known.
      cost_saved: Share of the full ensemble's dollars saved, None likewise.
      abstention: Share of the queries for which no model is called.
      avoidable_miss: Share that some model answers while none that does is called.
      accuracy: Aggregation -> share of the queries answered rightly, by the called models' vote; `a judge picks` counts
        a query as right when one of the called models is.
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

    Attributes:
      alpha: The racer's own risk level.
      alphas: All levels evaluated, ascending, its own among them.
      models: The pool.
      nonconformity: Name of the nonconformity score.
      null: The null mode.
      label_rule: How right and wrong were told apart in the table.
      guarantee: What is promised, in words, with its assumption.
      num_seen: Rows whose question the racer was trained or calibrated on: what they show is too good.
      groups: All queries first, then each group of the table.
      notes: What a reader of the figures must know, one sentence each.
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

    @property
    def row(self) -> int:
        """The place of the racer's own alpha among `alphas`."""
        return self.alphas.index(self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain lists, dictionaries, numbers and strings; NaN and infinities as strings."""
        plain: dict[str, Any] = as_plain(self)
        return plain

    def __str__(self) -> str:
        own = self.row
        aggregation = next(
            (name for group in self.groups for name in group.accuracy if name == MAJORITY), "a judge picks"
        )
        head = [
            "group",
            "queries",
            "risk",
            "at most",
            "expected",
            "size",
            "calls saved",
            "abstains",
            "cost",
            aggregation,
        ]
        rows = []
        for group in self.groups:
            promised = [f"{group.upper[own]:.3f}", f"{group.expected[own]:.3f}"] if group.promised else ["-", "-"]
            cost = "-" if group.cost is None else f"${group.cost[own]:.3g}"
            figures = [f"{group.size[own]:.2f}", f"{group.calls_saved[own]:.1%}", f"{group.abstention[own]:.1%}", cost]
            accuracy = f"{group.accuracy[aggregation][own]:.1%}"
            rows.append([group.group, str(group.num_queries), f"{group.risk[own]:.3f}", *promised, *figures, accuracy])
        fixed = []
        for line in self.groups[0].baselines:
            cost = "-" if line.cost is None else f"${line.cost:.3g}"
            accuracy = f"{line.accuracy.get(aggregation, line.accuracy['a judge picks']):.1%}"
            fixed.append([line.name, str(line.size), f"{line.avoidable_miss:.3f}", cost, accuracy])
        avoidable = f"avoidable misses at alpha = {self.alpha}: {self.groups[0].avoidable_miss[own]:.3f}"
        whole = self.groups[0]
        beta = f"no model answers {whole.beta:.1%} of the queries (95%: {whole.beta_low:.1%} to {whole.beta_high:.1%})"
        parts = [
            f"alpha = {self.alpha}, nonconformity {self.nonconformity}, null mode {self.null!r}",
            text_table(head, rows),
            f"{beta}; {avoidable}",
            text_table(["fixed choice", "size", "avoidable misses", "cost", aggregation], fixed),
            self.guarantee,
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n\n".join(parts[:4]) + "\n\n" + "\n".join(parts[4:])


# --- step functions --------------------------------------------------------------------------------------------------


def step_totals(keys: np.ndarray, table: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Total over queries of a metric that changes at each of a query's keys.

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
    return np.asarray(table[:, 0].sum() + sums[np.searchsorted(flat[order], thresholds, side="right")])


def _tables(
    correct: np.ndarray, order: np.ndarray, cost: np.ndarray | None, right: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Each metric of a query by the number of models called, float64 `[n, m + 1]`."""
    num, num_models = correct.shape
    in_order = np.take_along_axis(correct, order, axis=1)
    start = np.zeros((num, 1))
    answered = np.concatenate([start, np.maximum.accumulate(in_order, axis=1)], axis=1)
    counts = np.broadcast_to(np.arange(num_models + 1.0), (num, num_models + 1))
    tables = {
        "size": counts,
        "abstention": (counts == 0).astype(np.float64),
        "avoidable_miss": correct.any(axis=1, keepdims=True) - answered,
        "a judge picks": answered,
        **{f"accuracy {name}": table.astype(np.float64) for name, table in right.items()},
    }
    if cost is not None:
        tables["cost"] = np.concatenate([start, np.cumsum(np.take_along_axis(cost, order, axis=1), axis=1)], axis=1)
    return tables


def _filled_cost(table: RoutingTable, mean: np.ndarray | None) -> np.ndarray | None:
    """Dollars of each answer; where one is not known the model's mean, None where that is not known either."""
    if table.cost is None and mean is None:
        return None
    known = np.full(table.correct.shape, np.nan) if table.cost is None else table.cost
    if table.cost is not None and np.isfinite(known).any(axis=0).all():
        mean = np.nanmean(known, axis=0)
    if mean is None or not np.isfinite(mean).all():
        return None
    return np.where(np.isfinite(known), known, mean[None])


def votes(
    table: RoutingTable, measured: Measured, ties: np.ndarray | None, temperatures: Sequence[float]
) -> dict[str, np.ndarray]:
    """Whether each aggregation is right by the number of models called, bool `[n, m + 1]`; none without answers."""
    if table.answers is None:
        return {}
    whole = {name: value for name, value in table.confidence.items() if np.isfinite(value).all()}
    made = vote_tables(
        measured.nonconformity,
        answer_codes(table.answers),
        measured.scores,
        table.correct,
        ties,  # type: ignore[arg-type]
        confidence={name: value.astype(np.float32) for name, value in whole.items()},
        temperatures=tuple(temperatures),
    )
    names = [
        weighting if weighting == MAJORITY else f"{weighting}, T = {temperature:g}"
        for weighting, temperature in zip(made.weighting, made.temperature, strict=True)
    ]
    return dict(zip(names, made.right, strict=True))


def fixed_votes(table: RoutingTable, order: Sequence[int], scores: np.ndarray) -> np.ndarray | None:
    """Whether the majority of the first k models of a fixed order is right, bool `[n, m + 1]`; None without answers."""
    if table.answers is None:
        return None
    codes = answer_codes(table.answers)
    voted = prefix_answers(np.broadcast_to(np.array(order), codes.shape), codes, scores)
    return np.asarray(voted_right(voted, codes[:, None], table.correct[:, None]))


# --- the laws --------------------------------------------------------------------------------------------------------


def _laws(calibration: Calibration, alphas: Sequence[str], counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Expected risk, its lower bound and the variance of the observed share of misses, each `[g, a]`.

    Given the calibration set the risk is Beta(b + 1, n - b), so the misses of `counts` queries are beta-binomial.
    """
    budgets, n = calibration.budgets(alphas), calibration.num_queries[:, None].astype(np.float64)
    a, b, num = budgets + 1.0, n - budgets, np.maximum(counts, 1)[:, None]
    expected = a / (n + 1)
    variance = a * b * (n + 1 + num) / ((n + 1) ** 2 * (n + 2)) / num
    return expected, expected - 1 / (n + 1), variance


# --- all together ----------------------------------------------------------------------------------------------------


def evaluate(
    table: RoutingTable,
    measured: Measured,
    ties: np.ndarray | None,
    calibration: Calibration,
    alphas: Sequence[str],
    *,
    static_order: Sequence[int],
    mean_cost: np.ndarray | None,
    temperatures: Sequence[float] = TEMPERATURES,
) -> tuple[GroupEvaluation, ...]:
    """All queries first, then each group of the table; see `Evaluation`.

    Args:
      table: Labelled queries of the calibration's pool, complete.
      measured: Their scores and nonconformity.
      ties: Their second keys, uint32 `[n, m + 1]`, where the calibration has them.
      calibration: Whose thresholds are evaluated.
      alphas: Risk levels.
      static_order: The models in the order of the baseline.
      mean_cost: Mean dollars of each model, float64 `[m]`, in the place of costs the table lacks.
      temperatures: Of the weighted votes.
    """
    num, num_models = table.correct.shape
    keys = entry_keys(measured.nonconformity, ties)
    order = np.argsort(keys[:, :-1], axis=1, kind="stable")
    entries = np.take_along_axis(keys[:, :-1], order, axis=1)
    cost = _filled_cost(table, mean_cost)
    tables = _tables(table.correct, order, cost, votes(table, measured, ties, temperatures))
    truth = np.concatenate([table.correct, ~table.correct.any(axis=1, keepdims=True)], axis=1)
    critical = np.where(truth, keys, NEVER).min(axis=1)

    thresholds = calibration.threshold_keys(alphas)
    group_of_row = np.array(table.group if table.group is not None else [ALL] * num)
    code = calibration.codes(table.group, num)
    cells: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    sizes: dict[tuple[str, int], int] = {}
    miss = np.broadcast_to(np.array([1.0, 0.0]), (num, 2))
    for name in dict.fromkeys(group_of_row.tolist()):
        for place in np.unique(code[group_of_row == name]).tolist():
            rows = np.flatnonzero((group_of_row == name) & (code == place))
            at = thresholds[place]
            totals = {metric: step_totals(entries[rows], values[rows], at) for metric, values in tables.items()}
            totals["risk"] = step_totals(critical[rows, None], miss[rows], at)
            for j, model in enumerate(table.models):
                totals[f"called {model}"] = step_totals(keys[rows, j : j + 1], 1 - miss[rows], at)
            cells[name, place], sizes[name, place] = totals, len(rows)

    laws = _laws(calibration, alphas, np.bincount(code, minlength=len(thresholds))[:-1])
    fixed = fixed_votes(table, static_order, measured.scores)
    best = calibration.accuracy
    infeasible = calibration.budgets(alphas) < 0
    broken = ~np.isfinite(calibration.thresholds(alphas)[0]) & ~infeasible  # null mode `never`, out of reach
    summary = {group.group: group for group in summarize(table).groups}

    def one(name: str, parts: Sequence[tuple[str, int]], rows: np.ndarray) -> GroupEvaluation:
        count = len(rows)
        mean = {metric: sum(cells[part][metric] for part in parts) / count for metric in cells[parts[0]]}
        places = [place for _, place in parts]
        whole = name == ALL or calibration.groups is not None
        known = all(place < len(calibration.num_queries) for place in places)
        promised = whole and known and not calibration.num_overlap
        nothing = np.full(len(alphas), np.nan)
        lower, upper, expected, variance = (nothing.copy() for _ in range(4))
        if promised:
            share = np.bincount(code[rows], minlength=len(calibration.num_queries)) / count
            weight = share[:, None]
            pooled = infeasible & (calibration.fallback == "pooled")
            held = ~((pooled | broken) & (weight > 0)).any(axis=0)
            expected = np.where(held, (weight * laws[0]).sum(axis=0), np.nan)
            lower = np.where(held, (weight * laws[1]).sum(axis=0), np.nan)
            variance = np.where(held, (weight**2 * laws[2]).sum(axis=0), np.nan)
            upper = np.where(held, np.array([float(exact_alpha(alpha)) for alpha in alphas]), np.nan)
        figures = summary[name] if name in summary else summary[ALL]
        right = table.correct[rows]
        chosen = best[places[0]] if len(set(places)) == 1 and places[0] < len(best) else best.mean(axis=0)
        spent = None if cost is None else cost[rows]
        lines = _baselines(table, rows, static_order, int(np.argmax(chosen)), fixed, spent, _full_votes(tables, rows))
        full_cost = None if spent is None else float(spent.sum(axis=1).mean())
        picks = {"a judge picks": mean["a judge picks"]}
        accuracy = {m.removeprefix("accuracy "): v for m, v in mean.items() if m.startswith("accuracy ")}
        return GroupEvaluation(
            group=name,
            num_queries=count,
            num_calibration=int(
                sum(calibration.num_queries[p] for p in set(places) if p < len(calibration.num_queries))
            ),
            promised=bool(promised),
            beta=figures.all_wrong,
            beta_low=figures.all_wrong_low,
            beta_high=figures.all_wrong_high,
            risk=mean["risk"],
            lower=lower,
            upper=upper,
            expected=expected,
            std=np.sqrt(variance),
            size=mean["size"],
            calls_saved=1 - mean["size"] / num_models,
            cost=mean.get("cost"),
            cost_saved=None if not full_cost else 1 - mean["cost"] / full_cost,
            abstention=mean["abstention"],
            avoidable_miss=mean["avoidable_miss"],
            accuracy={**accuracy, **picks},
            called={model: mean[f"called {model}"] for model in table.models},
            baselines=lines,
            oracle=float(right.any(axis=1).mean()),
            random=float(right.mean()),
        )

    names = list(dict.fromkeys(group_of_row.tolist()))
    result = [one(ALL, list(cells), np.arange(num))]
    if table.group is not None:
        result += [
            one(name, [part for part in cells if part[0] == name], np.flatnonzero(group_of_row == name))
            for name in names
        ]
    return tuple(result)


def _full_votes(tables: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, float]:
    """Accuracy of each aggregation of the full ensemble."""
    return {
        name.removeprefix("accuracy "): float(table[rows, -1].mean())
        for name, table in tables.items()
        if name.startswith("accuracy ")
    }


def _baselines(
    table: RoutingTable,
    rows: np.ndarray,
    static_order: Sequence[int],
    best: int,
    fixed: np.ndarray | None,
    cost: np.ndarray | None,
    full: Mapping[str, float],
) -> tuple[Baseline, ...]:
    right = table.correct[rows]
    some = right.any(axis=1)

    def line(name: str, columns: Sequence[int], accuracy: Mapping[str, float]) -> Baseline:
        covered = right[:, list(columns)].any(axis=1)
        return Baseline(
            name=name,
            models=tuple(table.models[j] for j in columns),
            size=len(columns),
            avoidable_miss=float((some & ~covered).mean()),
            accuracy={**accuracy, "a judge picks": float(covered.mean())},
            cost=None if cost is None else float(cost[:, list(columns)].sum(axis=1).mean()),
        )

    single = float(right[:, best].mean())
    lines = [line("best single", [best], {MAJORITY: single} if fixed is not None else {})]
    for k in range(1, len(static_order)):
        voted = {} if fixed is None else {MAJORITY: float(fixed[rows, k].mean())}
        lines.append(line(f"static order, {k} model{'s' * (k > 1)}", list(static_order[:k]), voted))
    lines.append(line("full ensemble", range(len(static_order)), full))
    return tuple(lines)
