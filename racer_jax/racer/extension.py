"""A racer of a larger pool: trained and calibrated anew on the questions of the smaller one."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from racer_jax.data.table import RoutingTable
from racer_jax.racer.fingerprints import question_fingerprints
from racer_jax.routers.base import Router

if TYPE_CHECKING:
    pass


def extended(racer: Any, key: jax.Array, table: RoutingTable, router: Any) -> Any:
    """A racer of the models of a table; see `Racer.extended`.

    Use this when you are below `Racer.extended`, which calls it.
    """
    calibration = racer._calibrated("extended")
    if racer.scorer is None:
        raise ValueError(
            "this racer has no router of its own: with scores of the larger pool, make a new one "
            "(Racer.from_scores) and calibrate it"
        )
    new = [model for model in table.models if model not in racer.models]
    if not new:
        raise ValueError(f"table must hold a model that is not in the pool, got {table.models}")
    larger = table.aligned([*racer.models, *new])
    questions = question_fingerprints(larger)
    trained_on = np.isin(questions, racer.trained_on)
    calibrated_on = np.isin(questions, calibration.questions) & ~trained_on
    for what, expected in (("training", racer.trained_on), ("calibration", calibration.questions)):
        lacking = int((~np.isin(expected, questions)).sum())
        if lacking:
            raise ValueError(
                f"table must hold the questions the racer has seen, with a result of every model: "
                f"{lacking} of {len(expected)} {what} questions are missing"
            )
    order, cost_weight = racer.scorer.order, 0.0
    if order is not None and order.prices is not None:
        cost_weight = order.prices.gamma
    if router is None:
        router = _configuration(racer.scorer.router)
    fitted = type(racer).fit(
        key,
        larger.select(trained_on),
        router,
        racer.scorer.encoder,
        nonconformity=racer.nonconformity,
        null=racer.null,
        tie_break=racer.seed is not None,
        cost_weight=cost_weight,
    )
    options = calibration.options()
    return fitted.calibrate(larger.select(calibrated_on), calibration.alpha, **options)


def _configuration(router: Router) -> Any:
    """What trains a router like this one.

    Raises:
      ValueError: If it was not trained here.
    """
    from racer_jax.routers.knn import KNNR, KNNConfig

    inner = getattr(router, "router", router)  # of a scaled or restricted one
    if isinstance(inner, KNNR):
        return KNNConfig(k=inner.k)
    names = {"MLPR": "mlp", "ServedMLP": "mlp", "RouterDC": "routerdc"}
    if type(inner).__name__ not in names:
        raise ValueError(
            f"a router of kind {type(inner).__name__} was not trained here: pass router=, a name "
            f"or a configuration, or train it yourself on the larger pool"
        )
    return names[type(inner).__name__]
