"""Policies and calibrations in pieces: a description in JSON and arrays by name, and back.

No pickle.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from racer_jax.data.table import RoutingTable
from racer_jax.risk_control.stopping import LOSSES
from racer_jax.sequential.calibration import StopCalibration
from racer_jax.sequential.policy import REFERENCES, Policy
from racer_jax.sequential.risk_model import RiskModel

Arrays = dict[str, np.ndarray]


def policy_parts(policy: Policy) -> tuple[dict[str, Any], Arrays]:
    """The description and the arrays of a policy.

    Use this when a cascade is written; `Cascade.save` does it for you.
    """
    arrays = {"policy.weights": policy.weights, "policy.ends": policy.ends}
    if policy.mean_cost is not None:
        arrays["policy.mean_cost"] = policy.mean_cost
    for loss, model in policy.risk.items():
        arrays[f"policy.risk.{loss}.coefficients"] = model.coefficients
        arrays[f"policy.risk.{loss}.groups"] = model.groups
    description = {
        "reference": policy.reference,
        "loss": policy.loss,
        "groups": list(policy.groups),
        "weights": policy.weights.tolist(),
        "batch_ends": policy.ends.astype(int).tolist(),
    }
    return description, arrays


def policy_from(
    models: tuple[str, ...],
    order: list[str],
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> Policy:
    """The policy of a description.

    Use this when a cascade is read; `Cascade.load` does it for you.

    Raises:
      KeyError: If a part is missing.
      ValueError: If the parts do not fit together.
    """
    places = tuple(models.index(name) for name in order)
    num_calls, num_groups = len(places), len(description["groups"])
    risk = {}
    for loss in LOSSES:
        coefficients = arrays[f"policy.risk.{loss}.coefficients"]
        groups = arrays[f"policy.risk.{loss}.groups"]
        if coefficients.shape != (num_calls, 8 + num_calls) or groups.shape != (num_groups,):
            raise ValueError(f"the risk model of {loss!r} does not fit {num_calls} calls")
        risk[loss] = RiskModel(coefficients, groups)
    weights, ends = arrays["policy.weights"], arrays["policy.ends"]
    if weights.shape != (num_calls,) or ends.shape != (num_calls,) or len(set(places)) != num_calls:
        raise ValueError(f"weights and batches do not fit {num_calls} calls")
    if description["reference"] not in REFERENCES or description["loss"] not in LOSSES:
        raise ValueError("the reference or the loss is unknown")
    return Policy(
        models=models,
        order=places,
        weights=weights,
        reference=description["reference"],
        ends=ends,
        risk=risk,
        groups=tuple(description["groups"]),
        mean_cost=arrays.get("policy.mean_cost"),
        loss=description["loss"],
    )


def calibration_parts(
    calibration: StopCalibration | None,
) -> tuple[dict[str, Any] | None, Arrays]:
    """The description and the arrays of a calibration; None and nothing where there is none.

    Use this when a cascade is written; `Cascade.save` does it for you.
    """
    if calibration is None:
        return None, {}
    arrays = {
        "calibration.value": calibration.value,
        "calibration.tie": calibration.tie,
        "calibration.code": calibration.code,
        "calibration.questions": calibration.questions,
    }
    thresholds = []
    for name in (None,) if calibration.groups is None else calibration.groups:
        value, tie = calibration.threshold(name)
        plain = value if np.isfinite(value) else str(value)
        thresholds.append({"group": name, "threshold": plain, "tie": tie})
    description = {
        "alpha": calibration.alpha,
        "loss": calibration.loss,
        "n": len(calibration.value),
        "thresholds": thresholds,
        "groups": None if calibration.groups is None else list(calibration.groups),
        "delta": calibration.delta,
        "label_rule": calibration.label_rule,
        "num_overlap": calibration.num_overlap,
        "date": calibration.date,
    }
    return description, arrays


def calibration_from(
    description: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]
) -> StopCalibration | None:
    """The calibration of a description; None where there is none.

    Use this when a cascade is read; `Cascade.load` does it for you.
    """
    if description is None:
        return None
    return StopCalibration(
        alpha=description["alpha"],
        loss=description["loss"],
        value=arrays["calibration.value"],
        tie=arrays["calibration.tie"],
        code=arrays["calibration.code"],
        groups=None if description["groups"] is None else tuple(description["groups"]),
        delta=description["delta"],
        questions=arrays["calibration.questions"],
        num_overlap=description["num_overlap"],
        label_rule=description["label_rule"],
        date=description["date"],
    )


def notes_from(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The notes of an artefact, of which older ones have none.

    Use this when an artefact is read.

    Raises:
      ValueError: If they are no list of texts.
    """
    notes = description.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("notes must be a list of texts")
    return tuple(notes)


def rules_in_one(table: RoutingTable) -> str:
    """The label rules of a table in one string. Use this when an artefact is written."""
    rules = table.rules
    if len(set(rules.values())) == 1:
        return next(iter(rules.values()))
    return "; ".join(f"{group}: {rule}" for group, rule in rules.items())
