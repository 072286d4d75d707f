"""A calibration for graded answers: its thresholds, and what it promises in words."""

from collections.abc import Mapping, Sequence
from math import inf

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import Against, SetLoss, grade_loss
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level
from racer_jax.racer.calibration_facts import CalibrationFacts
from racer_jax.racer.limits import limited
from racer_jax.racer.wording import Wording, counted

_AGAINST: Mapping[str, Against] = {"grade": "perfect", "shortfall": "pool"}
# What a set is calibrated for is at least this, in every null mode: a question on which every grade
# is 0 counts there as a loss of 1 unless the null model is in the set.
_SHORTFALL = "the best grade of the pool minus the best among the called models"


def loss_words(name: str, null: str, words: Wording) -> str:
    """What the loss of a calibration is, in words.

    Use this when a sentence says what is at most alpha.

    Args:
      name: The loss.
      null: The null mode.
      words: The words of a version.
    """
    return words.grades[null] if name == "grade" else _SHORTFALL


def loss_thresholds(
    calibration: CalibrationFacts, alphas: Sequence[Level]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Thresholds of each group and alpha, and of all queries together last, `[g + 1, a]`.

    Use this when a calibration for a loss needs its thresholds.

    Args:
      calibration: The calibration, with a loss and a record.
      alphas: The levels.
    """
    value, second = _own_thresholds(calibration, alphas)
    if calibration.groups is not None and calibration.fallback == "pooled":
        lost = value[:-1] == inf
        value[:-1] = np.where(lost, value[-1:], value[:-1])
        if second is not None:
            second[:-1] = np.where(lost, second[-1:], second[:-1])
    return value, second


def is_out_of_reach(calibration: CalibrationFacts) -> np.ndarray:
    """Whether no threshold of its own reaches alpha in a group, bool `[g]`.

    Such a group may have the pooled threshold, which promises it nothing.

    Use this when a sentence says which groups a promise is for.
    """
    if calibration.groups is None or calibration.fallback != "pooled":
        return np.asarray(calibration.threshold == inf)
    return np.asarray(_own_thresholds(calibration, [calibration.alpha])[0][:-1, 0] == inf)


def _own_thresholds(
    calibration: CalibrationFacts, alphas: Sequence[Level]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The thresholds of `loss_thresholds`, +inf where a group has none of its own."""
    loss, record = calibration.loss, calibration.record
    if loss is None or record is None:
        raise ValueError("a calibration for a loss needs its grades and its record")
    tie = None if loss.tie is None else jnp.asarray(loss.tie)
    most, least = calibration.max_models, calibration.min_models
    entries = limited(record.nonconformity, loss.tie, most, least)
    steps = grade_loss(entries, loss.graded, tie, against=_AGAINST[loss.name])
    num = 1 if calibration.groups is None else len(calibration.groups)
    code = record.code if calibration.groups is not None else np.zeros(len(record), np.int32)
    masks = np.concatenate([code == np.arange(num)[:, None], np.ones((1, len(record)), bool)])
    return _thresholds(steps, list(alphas), masks, calibration.delta)


def _thresholds(
    steps: SetLoss, alphas: list[Level], masks: np.ndarray, delta: float | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Thresholds of each mask and alpha, `[k, a]`, and their second keys."""
    result: jax.Array | TieBroken
    if delta is None:
        result = calibrate_loss(steps, alphas, masks)
    else:
        # SciPy is loaded where a delta is asked for, and not with `Racer`.
        from racer_jax.risk_control.loss_guarantees import calibrate_loss_with_probability

        parts = [
            calibrate_loss_with_probability(steps.rows(np.flatnonzero(mask)), alphas, delta)
            for mask in masks
        ]
        result = jax.tree.map(lambda *rows: jnp.stack(rows), *parts)
    if isinstance(result, TieBroken):
        return np.array(result.value), np.array(result.tie)
    return np.array(result), None


def loss_guarantee(
    calibration: CalibrationFacts,
    amount: str,
    assumption: str,
    where: str,
    how: str,
    is_lost: np.ndarray,
) -> str:
    """What a calibration for a loss promises, in a sentence.

    Use this when you are below `Calibration.guarantee`, which calls it.

    Args:
      calibration: What calibration has set.
      amount: What the loss is, of `loss_words`.
      assumption: How the sentence begins, with what is assumed.
      where: The groups that it is for.
      how: How sure it is.
      is_lost: Whether nothing is promised to a group, bool `[g]`.
    """
    alpha = calibration.alpha
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were trained "
            f"on. The threshold was set for a mean of at most {alpha} of {amount}."
        )
    if is_lost.all() or not (calibration.threshold < inf).any():
        return f"Nothing is promised: no threshold reaches a mean of at most {alpha} of {amount}."
    return f"{assumption} of {amount} is at most {alpha}{where}, {how}."


def loss_warnings(
    calibration: CalibrationFacts, names: Sequence[str], with_fallback: bool
) -> list[str]:
    """The groups in which no threshold reaches alpha, one sentence each.

    Use this when you are below `Calibration.warnings`, which calls it.

    Args:
      calibration: What calibration has set.
      names: The groups, in words.
      with_fallback: False for the sentences of versions before, which did not say it of groups
        with the pooled threshold, nor of a cap.
    """
    if not with_fallback:
        is_named, what = calibration.threshold == inf, np.full(len(names), "every model is called")
    else:
        is_named = is_out_of_reach(calibration)
        calls = "every model is called"
        if calibration.max_models is not None:
            calls = f"no query calls more than {counted(calibration.max_models)}"
        pooled = "the pooled threshold is used, with no promise"
        what = np.where(calibration.threshold == inf, calls, pooled)
    rows = zip(names, calibration.num_queries.tolist(), is_named, what, strict=True)
    return [
        f"{name}: no threshold reaches alpha = {calibration.alpha} on {num} calibration queries; "
        f"{fallback}"
        for name, num, is_lost, fallback in rows
        if is_lost
    ]
