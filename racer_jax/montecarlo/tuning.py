r"""Choosing alpha and the aggregation on validation, over thousands of splits at once.

The set of a query is a prefix of its models, so whether an aggregate is right is a table by the
number of models called (`vote_tables`, made once). For each split the threshold of each alpha is an
order statistic of its calibration part; the tables at those thresholds, over the validation part,
say what each alpha and aggregation would have got right; the best is used unchanged on the test
part. A Monte Carlo over splits is then nothing but lookups.

Rule. Let the best be the pair of alpha and aggregation with the most right answers on validation
(of several, the one with the fewest calls). A pair is as good if it is within `tolerance` standard
errors of the best, where the error is that of the PAIRED difference, query by query. Chosen is, of
those as good, the one with the fewest calls; of these the one with the most right answers; of these
the first.

Pooled votes. No threshold depends on how the answers of a set are merged, so the calibration part
may help to choose that: the aggregation of each alpha is then the one with the most right answers
on calibration and validation together (of several, the first), and the rule above chooses among the
alphas by the right answers on validation. The guarantee holds for each alpha that is fixed in
advance. For the alpha chosen it does not hold in full, since the calibration part now also
influences the choice through the votes; where it must hold, calibrate on new queries.
"""

from collections.abc import Mapping
from functools import partial
from math import inf
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from racer_jax._arrays import given
from racer_jax.core.aggregation import log_odds, model_order, prefix_answers, voted_right
from racer_jax.core.checks import check_floating, is_traced
from racer_jax.core.risk_levels import Alpha, Budget, budget_of
from racer_jax.montecarlo.step_functions import Pool

MAJORITY = "majority"
# Log-spaced, as in the paper's tuning: from the heaviest voter alone to almost a majority.
TEMPERATURES: tuple[float, ...] = tuple(np.geomspace(0.01, 10.0, 12).round(4).tolist())
_LEAST = -(2**31)
# Splits that are looked up at once.
_BATCH = 16


class VoteTables(NamedTuple):
    """What every aggregation makes of every set, for all queries of a pool.

    Aggregation 0 is the majority vote. Use this when reading what `vote_tables` made.

    Attributes:
      weighting: Name of the weighting of each aggregation, `[k]`.
      temperature: Its temperature, inf for the majority vote, `[k]`.
      right: Whether the aggregate is right, by the number of models called, bool `[k, n, m + 1]`.
    """

    weighting: tuple[str, ...]
    temperature: tuple[float, ...]
    right: np.ndarray


class Selections(NamedTuple):
    """The choice of each split, and the data to measure any metric of it on the test part.

    Use this when reading what `select` chose.

    Attributes:
      part: Part of each query: 0 calibration, 1 validation, 2 test; int8 `[s, n]`.
      alpha: Which alpha was chosen, int `[s]`.
      aggregation: Which aggregation, int `[s]`.
      full_aggregation: Which one the full ensemble chose, int `[s]`.
      num_called: Models called for each query at the chosen alpha, int `[s, n]`.
      validation_right: Share of the validation part that is right under the choice, `[s]`.
    """

    part: np.ndarray
    alpha: np.ndarray
    aggregation: np.ndarray
    full_aggregation: np.ndarray
    num_called: np.ndarray
    validation_right: np.ndarray

    def called_value(self, table: ArrayLike) -> np.ndarray:
        """Any metric of the chosen sets, from its table by number of models called.

        Use this when you have a metric by number of models called, such as a cost; pass the result
        to `mean`.

        Args:
          table: `[n, m + 1]`, for no model called up to all, in the order the sets grow.

        Returns:
          `[s, n]`.

        Raises:
          ValueError: If the table is not of these queries.
        """
        values, num = np.asarray(table), self.part.shape[1]
        if values.ndim != 2 or len(values) != num or values.shape[1] <= self.num_called.max():
            raise ValueError(f"table must have shape [n, m + 1] with n = {num}, got {values.shape}")
        return np.asarray(values[np.arange(num), self.num_called])

    def mean(self, values: ArrayLike, part: int = 2) -> np.ndarray:
        """Mean over the test part, or another, of each split.

        Use this when you have one value for each query and want its mean over a part of each split.

        Args:
          values: By query `[n]`, or by split and query `[s, n]`.
          part: 0 calibration, 1 validation, 2 test.

        Returns:
          float64 `[s]`.

        Raises:
          ValueError: If the shape is neither of these.
        """
        values, inside = np.asarray(values, np.float64), self.part == part
        if values.shape not in (inside.shape, inside.shape[1:]):
            raise ValueError(
                f"values must have shape [n] or [s, n] = {inside.shape}, got {values.shape}"
            )
        total = inside @ values if values.ndim == 1 else (values * inside).sum(axis=1)
        return np.asarray(total / inside.sum(axis=1))

    def accuracy(self, right: np.ndarray) -> np.ndarray:
        """Test accuracy of each split's choice, `[s]`, from `VoteTables.right`.

        Use this when you want the accuracy that a choice on validation reaches.
        """
        return self.mean(
            right[self.aggregation[:, None], np.arange(self.part.shape[1]), self.num_called]
        )

    def full_accuracy(self, right: np.ndarray) -> np.ndarray:
        """Test accuracy of the full ensemble under the aggregation it chose, `[s]`.

        Use this when you want the full ensemble beside the chosen one.
        """
        return self.mean(right[self.full_aggregation, :, -1])


def vote_tables(
    nonconformity: ArrayLike,
    answers: ArrayLike,
    scores: ArrayLike,
    correct: ArrayLike,
    tie_break: jax.Array | None = None,
    *,
    confidence: Mapping[str, ArrayLike] | None = None,
    temperatures: tuple[float, ...] = TEMPERATURES,
) -> VoteTables:
    """The answer of every set under every weighting and temperature, right or wrong.

    Use this when votes are to be compared or tuned: it is made once for a pool, and every choice of
    `select` is a look-up in it. The weightings are the router's scores, their log-odds and every
    confidence given.

    Args:
      nonconformity: E(x, m) of the augmented pool, floating `[n, m + 1]`, null model last.
      answers: Answer codes, int `[n, m]`; -1 where a model gave none. See `answer_codes`.
      scores: Router scores in [0, 1], floating `[n, m]`.
      correct: Whether each model is right, bool or 0/1 `[n, m]`.
      tie_break: The second keys given to `pool_steps`, uint32 `[n, m + 1]`.
      confidence: Further weightings by name (`verbal`, `p_true`), finite, `[n, m]`.
      temperatures: T of each weighting, positive.

    Returns:
      The tables of 1 + (2 + number of confidences) * number of temperatures aggregations.

    Raises:
      TypeError: If an array has the wrong kind.
      ValueError: If shapes do not fit, or a value is out of range.
    """
    scores = jnp.asarray(given("scores", scores))
    check_floating("scores", scores)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape [n, m], got {scores.shape}")
    weightings = {"score": scores, "log_odds": log_odds(scores)}
    for name, value in (confidence or {}).items():
        if name in (MAJORITY, *weightings):
            raise ValueError(f"confidence: the name {name!r} is taken")
        value = jnp.asarray(given(f"confidence[{name!r}]", value))
        if value.shape != scores.shape:
            raise ValueError(
                f"confidence[{name!r}] must have the shape of scores, {scores.shape}, got "
                f"{value.shape}"
            )
        weightings[name] = value.astype(scores.dtype)
    order = model_order(nonconformity, tie_break)
    weights = jnp.stack(list(weightings.values()))[:, None]
    weighted = prefix_answers(
        order, answers, scores, weights, jnp.asarray(temperatures, jnp.float32)[:, None]
    )
    majority = prefix_answers(order, answers, scores)
    answers_of = jnp.concatenate([majority[None], weighted.reshape(-1, *majority.shape)])
    right = voted_right(answers_of, jnp.asarray(answers)[:, None], jnp.asarray(correct)[:, None])
    return VoteTables(
        (MAJORITY, *(name for name in weightings for _ in temperatures)),
        (inf, *(float(t) for _ in weightings for t in temperatures)),
        np.asarray(right),
    )


def _entries(pool: Pool, num_models: int) -> np.ndarray:
    """Position from which the k-th model of each query is called, ascending, `[n, m]`.

    N + 1 where it never is.
    """
    size, num = pool.metrics["size"], pool.num_queries
    by_query = np.argsort(size.query, kind="stable")
    query, first = size.query[by_query], size.first[by_query]
    count = np.bincount(query, minlength=num)
    place = np.arange(len(query)) - np.repeat(np.cumsum(count) - count, count)
    entries = np.full((num, num_models), num + 1, np.int32)
    entries[pool.order[query], place] = first
    return entries


def _choose(
    position: jax.Array,
    validation: jax.Array,
    voters: jax.Array,
    entries: jax.Array,
    table: jax.Array,
    tolerance: jax.Array,
) -> dict[str, jax.Array]:
    """Chooses for one split, from a table `[n, m + 1, k]`: scalars by name of `Selections`.

    Whatever the rule looks at is a whole number: how many answers are right, how many models are
    called, on how many queries two pairs differ. So pairs are compared exactly, ties are ties on
    every machine, and the only rounding is in the comparison with the standard error.

    Args:
      position: Positions of the thresholds, `[a]`.
      validation: Validation queries, `[v]`.
      voters: Queries that help to choose the aggregation, `[c]`; where there are any, each alpha
        has its own.
      entries: From `_entries`.
      table: Whether each aggregation is right.
      tolerance: Standard errors.
    """
    num = validation.shape[0]

    def looked_up(queries: jax.Array) -> tuple[jax.Array, jax.Array]:
        size = (entries[queries][None] <= position[:, None, None]).sum(axis=-1, dtype=jnp.int32)
        return size, table[queries[None], size]

    size, rows = looked_up(validation)
    right = rows.sum(axis=1, dtype=jnp.int32)
    calls = size.sum(axis=1, dtype=jnp.int32)[:, None]

    def best_of(affordable: jax.Array, *keys: jax.Array) -> jax.Array:
        """Flat index of the pair with the largest keys, compared in turn."""
        for key in keys:
            affordable = affordable & (key == jnp.where(affordable, key, _LEAST).max())
        return jnp.argmax(affordable.reshape(-1))

    affordable = jnp.ones(right.shape, bool)
    if voters.shape[0]:
        num_right = right + looked_up(voters)[1].sum(axis=1, dtype=jnp.int32)
        affordable = jnp.arange(right.shape[1])[None] == jnp.argmax(num_right, axis=1)[:, None]
    fewest = jnp.broadcast_to(-calls, right.shape)
    best = jnp.unravel_index(best_of(affordable, right, fewest), right.shape)
    # d <= tolerance * sqrt((q / n - d^2) / n), d the mean difference and q the number of queries
    # that differ.
    behind = (right[best] - right).astype(jnp.float32)
    differ = (
        (rows != rows[best[0], :, best[1]][None, :, None])
        .sum(axis=1, dtype=jnp.int32)
        .astype(jnp.float32)
    )
    as_good = behind**2 * (1 + tolerance**2 / num) <= tolerance**2 * differ
    choice = jnp.unravel_index(best_of(as_good & affordable, fewest, right), right.shape)
    full = jnp.argmax(table[jnp.concatenate([validation, voters]), -1].sum(axis=0, dtype=jnp.int32))
    num_called = (entries <= position[choice[0]]).sum(axis=-1, dtype=jnp.int32)
    return {
        "alpha": choice[0],
        "aggregation": choice[1],
        "full_aggregation": full,
        "num_called": num_called,
        "validation_right": right[choice],  # a number; `select` makes a share of it
    }


@partial(jax.jit, static_argnames="batch")
def _choices(
    splits: tuple[jax.Array, jax.Array, jax.Array],
    entries: jax.Array,
    table: jax.Array,
    tolerance: jax.Array,
    batch: int,
) -> dict[str, jax.Array]:
    """`_choose` of every split, some at a time."""

    def choose(split: tuple[jax.Array, jax.Array, jax.Array]) -> dict[str, jax.Array]:
        position, validation, voters = split
        return _choose(position, validation, voters, entries, table, tolerance)

    choices: dict[str, jax.Array] = lax.map(choose, splits, batch_size=batch)
    return choices


def _indices(part: np.ndarray, code: int) -> np.ndarray:
    """The queries of one part, `[s, v]`; every split must have as many."""
    inside = part == code
    counts = inside.sum(axis=1)
    if (counts != counts[0]).any() or not counts[0]:
        raise ValueError(
            f"part must hold as many queries of part {code} in every split, at least one, got "
            f"{counts.min()} to {counts.max()}"
        )
    return np.asarray(np.nonzero(inside)[1].reshape(len(part), -1))


def _checked(part: ArrayLike, pool: Pool, right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The parts and tables of `select` on the host, checked."""
    if is_traced(part, right):
        raise TypeError("select runs on the host and cannot be traced; call it outside jit")
    parts, tables, num = np.asarray(part), np.asarray(right), pool.num_queries
    if parts.dtype.kind not in "iu":
        raise TypeError(f"part must hold integers, got dtype {parts.dtype}")
    if tables.dtype != np.bool_:
        raise TypeError(f"right must be boolean, got dtype {tables.dtype}")
    if parts.ndim != 2 or parts.shape[1] != num or not len(parts):
        raise ValueError(
            f"part must have shape [s, n] with s >= 1 and the n = {num} of the pool, got "
            f"{parts.shape}"
        )
    if tables.ndim != 3 or tables.shape[1] != num or tables.shape[2] < 2:
        raise ValueError(
            f"right must have shape [k, n, m + 1] with the n = {num} of the pool, got "
            f"{tables.shape}"
        )
    return parts, tables


def select(
    part: ArrayLike,
    pool: Pool,
    right: ArrayLike,
    *,
    alpha: Alpha | None = None,
    budget: Budget | None = None,
    tolerance: float = 1.0,
    pooled_vote: bool = False,
) -> Selections:
    """Calibrates each split for every alpha and chooses among them on its own validation part.

    The full ensemble chooses its aggregation on the same validation part: most right answers, of
    several the first. With `pooled_vote` the aggregations are chosen on calibration and validation
    together, by most right answers too.

    Why it is fast: nothing is calibrated or voted anew. A threshold is an order statistic of
    positions, the models it calls are a comparison of positions, and whether their vote is right is
    an entry of `right`. A choice among a levels and k aggregations is a table [a, k] of whole
    numbers, summed over the validation part.

    Use this when alpha and the aggregation are to be tuned as the paper does, on validation, and
    the gain is to be measured on a test part that had no say.

    Args:
      part: Part of each query in each split: 0 calibration, 1 validation, 2 test; int `[s, n]`,
        from `split_parts`.
      pool: From `pool_steps`, of the nonconformity and tie-break that `right` was made with.
      right: Whether each aggregation is right by the number of models called, bool `[k, n, m + 1]`;
        `VoteTables.right`.
      alpha: Risk levels in (0, 1) to choose from, one or several.
      budget: In the place of `alpha`: how many calibration queries each threshold may miss, one
        integer or `[a]`.
      tolerance: How many standard errors behind the best still count as good; 0 insists on the
        best.
      pooled_vote: Whether the calibration part helps to choose the aggregation, the full ensemble's
        too.

    Returns:
      The alpha and the aggregation that each split chose.

    Raises:
      TypeError: If `part` does not hold integers, or `right` is not boolean; or if not exactly one
        of `alpha` and `budget` is there.
      ValueError: If an alpha or a budget is out of range, the shapes do not fit, the splits differ
        in the size of a part, or the tolerance is negative.
    """
    if not 0 <= tolerance < inf:
        raise ValueError(
            f"tolerance must be a finite number of standard errors, at least 0, got {tolerance}"
        )
    parts, tables = _checked(part, pool, right)
    calibration = _indices(parts[:, pool.order], 0)  # positions, ascending
    validation = _indices(parts, 1)
    _indices(parts, 2)
    voters = _indices(parts, 0) if pooled_vote else validation[:, :0]
    num = calibration.shape[1]
    rank = num - np.atleast_1d(budget_of(alpha, num, budget))
    infinite = np.full((len(parts), 1), pool.num_queries)  # rank n + 1 is the threshold +inf
    position = np.concatenate([calibration, infinite], axis=1)[:, rank - 1]
    choices = _choices(
        tuple(jnp.asarray(x, jnp.int32) for x in (position, validation, voters)),
        jnp.asarray(_entries(pool, tables.shape[2] - 1)),
        jnp.asarray(np.moveaxis(tables, 0, -1)),
        jnp.float32(tolerance),
        _BATCH,
    )
    arrays = {name: np.asarray(value) for name, value in choices.items()}
    arrays["validation_right"] = arrays["validation_right"] / validation.shape[1]
    return Selections(part=parts, **arrays)


def select_each(
    part: ArrayLike,
    pool: Pool,
    right: ArrayLike,
    *,
    alpha: Alpha | None = None,
    budget: Budget | None = None,
) -> list[Selections]:
    """`select` for one alpha after another, with tolerance 0: only the aggregation is chosen.

    Use this when every level of a curve is to be shown, each with the votes tuned for it.

    Args:
      part: As for `select`.
      pool: As for `select`.
      right: As for `select`.
      alpha: Risk levels in (0, 1), one or several.
      budget: In the place of `alpha`, as for `select`.

    Returns:
      The `Selections` of each level, whose `alpha` is its place among them.

    Raises:
      TypeError: As `select`.
      ValueError: As `select`.
    """
    parts, _ = _checked(part, pool, right)
    num = _indices(parts, 0).shape[1]
    choices = [
        select(parts, pool, right, budget=int(misses), tolerance=0.0)
        for misses in np.atleast_1d(budget_of(alpha, num, budget))
    ]
    return [choice._replace(alpha=choice.alpha + a) for a, choice in enumerate(choices)]
