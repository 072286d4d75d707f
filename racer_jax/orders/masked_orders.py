"""The order of some models of a pool, by the programs of the whole pool.

`Order.of_models` makes the arrays of an order smaller. Each size of them is another program for the
compiler, and a pool of m models has 2^m - 2 smaller ones. Where models are down for a while, a
program for each would take its seconds in the midst of the outage, and memory that stays. Here the
arrays keep their shapes: which models are left out is data, they can add nothing, and the others
get what they would get without them, up to the rounding of sums in another order.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from racer_jax.core.checks import on_device
from racer_jax.orders.coverage_gain import coverage_gain
from racer_jax.orders.learned_gains import LearnedGains
from racer_jax.orders.model_orders import BLEND, LEARNED, STATIC, Order, RestrictedOrder
from racer_jax.orders.racer_j import RacerJ
from racer_jax.orders.static_orders import Prices, StaticOrder


def masked(order: Order, columns: Sequence[int]) -> Order:
    """The order of some of the models, which compiles nothing that the whole pool has compiled.

    Use this when models leave the pool for a while and decisions must go on; `Order.of_models` is
    for those that leave it for good, and can be saved.

    Args:
      order: The order of the whole pool.
      columns: Places in it of the models that are left.
    """
    places = tuple(columns)
    if order.kind == STATIC and order.model.counts is not None:
        return replace(order, model=_static(order.model, places, order.prices))
    if order.kind == BLEND:
        prices = _prices(order.prices, places)
        options = {} if prices is None else prices._asdict()
        return Order(order.kind, RestrictedOrder(_blend(order.model, places), places, options))
    if order.kind == LEARNED:
        return Order(order.kind, RestrictedOrder(_learned(order.model, places), places))
    return order.of_models(places)  # one column for each model already, or an order of the user's


def _prices(prices: Prices | None, columns: tuple[int, ...]) -> Prices | None:
    """Prices by which those that are left out change nothing: gains go by the smallest of all."""
    if prices is None:
        return None
    cost = np.full_like(prices.cost, prices.cost[list(columns)].max())
    cost[list(columns)] = prices.cost[list(columns)]
    return Prices(cost, prices.gamma)


def _only(columns: tuple[int, ...], num_models: int) -> np.ndarray:
    """Which models are left, bool `[m]`."""
    mask = np.zeros(num_models, bool)
    mask[list(columns)] = True
    return mask


def _static(model: StaticOrder, columns: tuple[int, ...], prices: Prices | None) -> StaticOrder:
    """The static order, learned from training rows in which the others are never right."""
    if model.patterns is None or model.counts is None:
        raise AssertionError("an order without its rows cannot be learned from them")
    rows = np.asarray(model.patterns, bool) & _only(columns, model.patterns.shape[1])
    shares = (model.counts / model.counts.sum(axis=1, keepdims=True)).astype(np.float32)
    left = _prices(prices, columns)
    options: dict[str, Any] = {} if left is None else left._asdict()
    real = np.asarray(coverage_gain(shares, rows, **options))
    return StaticOrder(real[:, list(columns)], model.groups)


def _blend(model: RacerJ, columns: tuple[int, ...]) -> RacerJ:
    """RACER-J on training rows in which the others are never right."""
    patterns = np.asarray(model.patterns)
    return replace(model, patterns=on_device(patterns * _only(columns, patterns.shape[1])))


def _learned(model: LearnedGains, columns: tuple[int, ...]) -> LearnedGains:
    """Learned gains with the others at the end of the order, where none is ever the first right."""
    order, weights, bias = map(np.asarray, (model.order, model.weights, model.bias))
    is_left = _only(columns, order.shape[1])[order]  # by place in the order of the group
    places = np.argsort(~is_left, axis=1, kind="stable")
    classes = np.append(places, np.full((len(order), 1), order.shape[1]), axis=1)
    chances = np.where(np.append(is_left, np.ones((len(order), 1), bool), axis=1), bias, -inf)
    return replace(
        model,
        order=on_device(np.take_along_axis(order, places, axis=1)),
        weights=on_device(np.take_along_axis(weights, classes[:, None], axis=2)),
        bias=on_device(np.take_along_axis(chances.astype(np.float32), classes, axis=1)),
    )
