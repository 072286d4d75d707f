r"""The augmented pool and its nonconformity scores (Eqs. 2-3 and Appendix B of the paper).

A router gives scores s(x, m) in [0, 1], one for each of M models. A null model m0, right exactly
when no real model is, joins the pool as the LAST column. Nonconformity E(x, m) is low where a model
is plausible; a set is {m : E(x, m) <= lambda}.

Null modes, an explicit choice since sizes are only comparable within one mode:

- `"paper"`: the null model scores g(x) = 1 - max_m s(x, m) and competes with the others (Eq. 3).
- `"free"`: the null model is in every set (E = -inf). A query that no model can answer is never a
  miss, so the risk is "some model could answer, and none that can was called".
- `"never"`: the null model is in no set (E = +inf). A query that no model can answer is always a
  miss, so no threshold reaches a risk below the share of such queries.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.checks import (
    as_array,
    as_binary,
    check_no_nan,
    check_scores,
    check_tie_break,
    nan_as_inf,
)
from racer_jax.core.padding import by_rows
from racer_jax.core.placement import on_any_mesh
from racer_jax.core.tie_breaking import smooth as smooth
from racer_jax.core.tie_breaking import tie_break as tie_break

NullMode = Literal["paper", "free", "never"]
NULL_MODES: tuple[str, ...] = get_args(NullMode)


class TieBroken(NamedTuple):
    """Numbers whose ties are broken exactly.

    They are compared by `value`, and by `tie` where the values are equal.

    Attributes:
      value: Nonconformity, critical scores or thresholds; floating, any shape.
      tie: The second key, uint32, same shape.

    Use this when you store or pass on critical scores or thresholds that were made with a
    `tie_break`; without one they are plain arrays.
    """

    value: jax.Array
    tie: jax.Array


def value_and_tie(
    name: str, numbers: ArrayLike | TieBroken, tie_break: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Numbers `[..., n]`, n >= 1, without NaN, and their second keys where they have any.

    Checked.

    Use this when a function takes critical scores with or without second keys.
    """
    if isinstance(numbers, TieBroken):
        if tie_break is not None:
            raise ValueError(f"{name} is a TieBroken pair already; got a tie_break as well")
        numbers, tie_break = numbers
    value = as_array(name, numbers)
    check_no_nan(name, value)
    value = nan_as_inf(value)
    if value.ndim < 1 or value.shape[-1] < 1:
        raise ValueError(f"{name} must have shape [..., n] with n >= 1, got {value.shape}")
    if tie_break is None:
        return value, None
    tie = as_array("tie_break", tie_break)
    check_tie_break(tie, value.shape)
    return value, tie


def check_null(null: str) -> None:
    """Refuses what is not a null mode. Use this when a function takes the name of a null mode."""
    if null not in NULL_MODES:
        raise ValueError(f"null must be one of {NULL_MODES}, got {null!r}")


@on_any_mesh
def null_score(scores: ArrayLike) -> jax.Array:
    r"""Score of the null model, g(x) = 1 - max_m s(x, m).

    Args:
      scores: Router scores s(x, m) in [0, 1], floating, `[..., m]`.

    Returns:
      `[...]`, the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating.
      ValueError: If there is no model, or a score is not finite or outside [0, 1].

    References:
      Section 5.1 of the paper, the max-based choice of g.

    Use this when you need the null model's score alone, in the null mode `"paper"`; `augment`
    appends it to the scores of the models.

    >>> float(null_score(jnp.array([0.25, 0.75])))
    0.25
    """
    return _of_each(_null_score, _checked_scores(scores, "paper"))


@partial(jax.jit, inline=True)
def _null_score(scores: jax.Array) -> jax.Array:
    return 1 - scores.max(axis=-1)


def _checked_scores(scores: ArrayLike, null: str) -> jax.Array:
    """Scores of routers, and the null mode, checked."""
    check_null(null)
    scores = as_array("scores", scores)
    check_scores(scores)
    return scores


def _of_each(kernel: Callable[..., jax.Array], array: jax.Array, **options: str) -> jax.Array:
    """What a kernel makes of each query."""
    result: jax.Array = by_rows(partial(kernel, **options), array)
    return result


def null_nonconformity(largest: jax.Array, null: str) -> jax.Array:
    """E of the null model where the real models are ordered already.

    1 - g(x), g(x) = 1 - max_m s(x, m) (Eq. 3).

    Use this when an order takes the place of scores.

    Args:
      largest: max_m s(x, m), floating, any shape.
      null: The null mode.

    Returns:
      Of the same shape: `largest` under `paper`, -inf (in every set) under `free`, +inf (in none)
      under `never`.
    """
    if null == "paper":
        return largest
    return jnp.full_like(largest, -jnp.inf if null == "free" else jnp.inf)


@on_any_mesh
def augment(scores: ArrayLike, null: NullMode = "paper") -> jax.Array:
    r"""Augmented scores s~(x, .): the router's, and the null model's as the last column (Eq. 3).

    Args:
      scores: Router scores s(x, m) in [0, 1], floating, `[..., m]`.
      null: The null mode. `"free"` scores the null model +inf (above every model), `"never"` -inf
        (below every model).

    Returns:
      `[..., m + 1]`, the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating.
      ValueError: If there is no model, a score is not finite or outside [0, 1], or the null mode is
        unknown.

    Use this when you write a nonconformity score of your own; `inverse_probability` and `gap` call
    it for you.

    >>> augment(jnp.array([0.25, 0.75])).tolist()
    [0.25, 0.75, 0.25]
    """
    return _of_each(_augment, _checked_scores(scores, null), null=null)


@partial(jax.jit, static_argnames="null", inline=True)
def _augment(scores: jax.Array, null: str) -> jax.Array:
    if null == "paper":
        g = 1 - scores.max(axis=-1, keepdims=True)
    else:
        g = jnp.full((*scores.shape[:-1], 1), jnp.inf if null == "free" else -jnp.inf, scores.dtype)
    return jnp.concatenate([scores, g], axis=-1)


@on_any_mesh
def gap(scores: ArrayLike, null: NullMode = "paper") -> jax.Array:
    r"""Router score gap, the nonconformity of RACER-G: E(x, m) = max_m' s~(x, m') - s~(x, m).

    Under the null modes `"free"` and `"never"` the maximum is over the real models, since the null
    model then has a fixed place in the order and no score.

    Args:
      scores: Router scores s(x, m) in [0, 1], floating, `[..., m]`.
      null: The null mode.

    Returns:
      Nonconformity `[..., m + 1]`, null model last; the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating.
      ValueError: If there is no model, a score is not finite or outside [0, 1], or the null mode is
        unknown.

    References:
      Appendix B of the paper, "Router Score-Gap".

    Use this when a model should be judged by how far its score is below the best one of the same
    query; `inverse_probability` judges it by its own score alone.

    >>> gap(jnp.array([0.25, 0.75])).tolist()
    [0.5, 0.0, 0.5]
    """
    return _of_each(_gap, _checked_scores(scores, null), null=null)


@partial(jax.jit, static_argnames="null", inline=True)
def _gap(scores: jax.Array, null: str) -> jax.Array:
    all_scores = _augment(scores, null)
    competing = all_scores if null == "paper" else all_scores[..., :-1]
    below_best: jax.Array = competing.max(axis=-1, keepdims=True) - all_scores
    return below_best


@on_any_mesh
def inverse_probability(scores: ArrayLike, null: NullMode = "paper") -> jax.Array:
    r"""Inverse probability, the nonconformity of RACER-P: E(x, m) = 1 - s~(x, m).

    Args:
      scores: Router scores s(x, m) in [0, 1], floating, `[..., m]`.
      null: The null mode.

    Returns:
      Nonconformity `[..., m + 1]`, null model last; the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating.
      ValueError: If there is no model, a score is not finite or outside [0, 1], or the null mode is
        unknown.

    References:
      Appendix B of the paper, "Inverse Probability".

    Use this when a score means the same on every query, as a calibrated chance of being right does;
    `gap` only compares the scores of one query with each other.

    >>> inverse_probability(jnp.array([0.25, 0.75])).tolist()
    [0.75, 0.25, 0.75]
    """
    return _of_each(_inverse_probability, _checked_scores(scores, null), null=null)


@partial(jax.jit, static_argnames="null", inline=True)
def _inverse_probability(scores: jax.Array, null: str) -> jax.Array:
    inverse: jax.Array = 1 - _augment(scores, null)
    return inverse


@on_any_mesh
def augmented_truth(correct: ArrayLike) -> jax.Array:
    r"""The augmented truth set Y~(x).

    The models that are right, or the null model where none is (Eq. 2).

    Args:
      correct: Whether each model is right, bool or 0/1, `[..., m]`.

    Returns:
      bool `[..., m + 1]`, null model last; every row holds at least one True.

    Raises:
      TypeError: If `correct` is neither boolean nor numeric.
      ValueError: If it holds anything but 0 and 1, or there is no model.

    Use this when you write a loss or a metric of your own; `misrouted` and `critical_scores` call
    it for you.

    >>> augmented_truth(jnp.array([[1, 0], [0, 0]])).astype(int).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    correct = as_binary("correct", correct)
    if correct.ndim < 1 or correct.shape[-1] < 1:
        raise ValueError(
            f"correct must have shape [..., m] with at least one model, got {correct.shape}"
        )
    return _of_each(_augmented_truth, correct)


@partial(jax.jit, inline=True)
def _augmented_truth(correct: jax.Array) -> jax.Array:
    return jnp.concatenate([correct, ~correct.any(axis=-1, keepdims=True)], axis=-1)


# --- the scores by name ---------------------------------------------------------------------------

NonconformityFunction: TypeAlias = Callable[[jax.Array, Any], jax.Array]
# Every score by name: (scores [..., m], null mode) -> nonconformity [..., m + 1]. Own ones join by
# `register_nonconformity`.
NONCONFORMITIES: dict[str, NonconformityFunction] = {
    "inverse_probability": inverse_probability,
    "gap": gap,
}
# What the paper calls each: its label in tables and figures.
NONCONFORMITY_LABELS: dict[str, str] = {"inverse_probability": "RACER-P", "gap": "RACER-G"}


def nonconformity_name(name: str) -> str:
    """The name of a score that is named either way, such as `gap` or `RACER-G`.

    Args:
      name: A name or a label; labels in any case.

    Returns:
      Its name: `gap` for either of these.

    Raises:
      ValueError: If there is no such score.

    Use this when a user names a score.

    >>> nonconformity_name("racer-p")
    'inverse_probability'
    """
    if name in NONCONFORMITIES:
        return name
    for short_name, label in NONCONFORMITY_LABELS.items():
        if isinstance(name, str) and name.lower() == label.lower():
            return short_name
    known_names = [
        f"{short_name} ({NONCONFORMITY_LABELS[short_name]})"
        if short_name in NONCONFORMITY_LABELS
        else short_name
        for short_name in NONCONFORMITIES
    ]
    raise ValueError(f"nonconformity must be one of {', '.join(known_names)}, got {name!r}")


def register_nonconformity(
    name: str, function: NonconformityFunction, label: str | None = None
) -> None:
    """Adds a nonconformity score of yours to those that `Racer` and the experiments know by name.

    It is tried once, on two queries, under `jit`, in each null mode. A program that loads an
    artefact made with such a score registers it first.

    Args:
      name: Its name, a Python identifier that is not taken.
      function: A pure, jittable function of scores in [0, 1], floating `[..., m]`, and a null mode;
        it returns nonconformity `[..., m + 1]`, lower where a model is more plausible, null model
        last: -inf under `"free"`, +inf under `"never"`, finite under `"paper"`.
      label: What tables and figures call it; the name by default.

    Raises:
      TypeError: If the name is not a string, the function not callable, or its result not floating.
      ValueError: If the name or the label is taken or the name no identifier, or the result has
        another shape, holds NaN, or does not keep the null mode.

    Use this when RACER-P and RACER-G do not order the models as your scores should.

    >>> register_nonconformity("half_gap", lambda scores, null: gap(scores, null) / 2)
    >>> NONCONFORMITIES["half_gap"](jnp.array([0.25, 0.75]), "paper").tolist()
    [0.25, 0.0, 0.25]
    >>> del NONCONFORMITIES["half_gap"]
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {name!r} of type {type(name).__name__}")
    if not name.isidentifier():
        raise ValueError(f"name must be an identifier such as my_score, got {name!r}")
    if NONCONFORMITIES.get(name, function) is not function:
        raise ValueError(f"the nonconformity {name!r} is registered already")
    labels = {label_.lower() for other, label_ in NONCONFORMITY_LABELS.items() if other != name}
    if label is not None and label.lower() in labels:
        raise ValueError(f"the label {label!r} is taken by another nonconformity")
    if not callable(function):
        raise TypeError(f"function must be callable, got {function!r}")
    for null in NULL_MODES:
        _check_nonconformity(f"the nonconformity {name!r}", function, null)
    NONCONFORMITIES[name] = function
    if label is not None:
        NONCONFORMITY_LABELS[name] = label


def _check_nonconformity(who: str, function: NonconformityFunction, null: str) -> None:
    """Tries a nonconformity of the user on two queries of three models under one null mode."""
    scores = jnp.array([[0.25, 0.75, 0.0], [0.5, 0.5, 1.0]], jnp.float32)
    result = jax.jit(function, static_argnums=1)(scores, null)
    check_no_nan(f"{who} under null={null!r}", result)
    if result.shape != (2, 4):
        raise ValueError(
            f"{who} must give shape [..., m + 1], the null model last: got {result.shape} for "
            f"scores of shape (2, 3)"
        )
    last = np.asarray(result)[:, -1]
    null_value = {"free": -np.inf, "never": np.inf}.get(null)
    keeps = np.isfinite(last) if null_value is None else last == null_value
    if not keeps.all():
        rule = "a finite null model" if null_value is None else f"{null_value} for the null model"
        raise ValueError(f"{who} must give {rule} under null={null!r}, got {last[~keeps][0]}")
