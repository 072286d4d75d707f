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

_AGAINST: Mapping[str, Against] = {"grade": "perfect", "shortfall": "pool"}
_WORDS = {
    "grade": "1 - the best grade among the called models",
    "shortfall": "the best grade of the pool minus the best among the called models",
}


def loss_thresholds(
    calibration: CalibrationFacts, alphas: Sequence[Level]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Thresholds of each group and alpha, and of all queries together last, `[g + 1, a]`.

    Use this when a calibration for a loss needs its thresholds.

    Args:
      calibration: The calibration, with a loss and a record.
      alphas: The levels.
    """
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
    value, second = _thresholds(steps, list(alphas), masks, calibration.delta)
    if calibration.groups is not None and calibration.fallback == "pooled":
        lost = value[:-1] == inf
        value[:-1] = np.where(lost, value[-1:], value[:-1])
        if second is not None:
            second[:-1] = np.where(lost, second[-1:], second[:-1])
    return value, second


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


def loss_guarantee(calibration: CalibrationFacts, assumption: str, where: str, how: str) -> str:
    """What a calibration for a loss promises, in a sentence.

    Use this when you are below `Calibration.guarantee`, which calls it.
    """
    words = _WORDS[calibration.loss.name] if calibration.loss is not None else ""
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were trained "
            f"on. The threshold was set for a mean of at most {calibration.alpha} of {words}."
        )
    if not (calibration.threshold < inf).any():
        return (
            f"Nothing is promised: no threshold reaches a mean of at most {calibration.alpha} of "
            f"{words}."
        )
    return f"{assumption}, the mean of {words} is at most {calibration.alpha}{where}, {how}."


def loss_warnings(calibration: CalibrationFacts, names: Sequence[str]) -> list[str]:
    """The groups in which no threshold reaches alpha, one sentence each.

    Use this when you are below `Calibration.warnings`, which calls it.
    """
    rows = zip(names, calibration.num_queries.tolist(), calibration.threshold, strict=True)
    return [
        f"{name}: no threshold reaches alpha = {calibration.alpha} on {num} calibration queries; "
        "every model is called"
        for name, num, threshold in rows
        if threshold == inf
    ]
