"""From queries to decisions: each step hands its result to the next one.

Texts are scored (`scoring`), their ties are drawn (`fingerprints`), and what they get is compared
with the thresholds (`decision`).
"""

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike

from racer_jax.racer.decision import Decisions, Groups, Rule, decide
from racer_jax.racer.fingerprints import text_ties
from racer_jax.racer.score_orders import measure_by
from racer_jax.racer.state import RacerState
from racer_jax.racer.unknown_groups import check_groups
from racer_jax.routers.scores import Scores


def route_texts(racer: RacerState, texts: Sequence[str], groups: Groups) -> Decisions:
    """The decisions on texts; see `Racer.route`.

    Use this when you are below `Racer.route`, which calls it.
    """
    rule = _rule(racer, "route")
    if racer.scorer is None:
        raise ValueError("this racer has no router of its own: give scores to route_scores")
    names = _one_for_each(groups, len(texts))
    model_scores = racer.scorer(texts, racer.nonconformity, racer.null, names)
    ties = None if racer.seed is None else text_ties(texts, racer.seed, len(racer.models) + 1)
    return decide(rule, model_scores, ties, names)


def route_scores(
    racer: RacerState,
    scores: Scores | ArrayLike,
    groups: Groups,
    ids: Sequence[str | None] | None,
) -> Decisions:
    """The decisions on queries whose scores are there; see `Racer.route_scores`.

    Use this when you are below `Racer.route_scores`, which calls it.
    """
    rule = _rule(racer, "route_scores")
    values = racer._given(scores)
    num = len(values)
    names = _one_for_each(groups, num)
    if ids is not None and len(ids) != num:
        raise ValueError(f"ids must name each of the {num} queries, got {len(ids)}")
    keys = None
    if racer.seed is not None:
        keys = _id_ties(racer, [None] * num if ids is None else ids)
    model_scores = measure_by(racer.scores_order, values, racer.nonconformity, racer.null, names)
    return decide(rule, model_scores, keys, names)


def needs_ids(racer: RacerState) -> bool:
    """Whether each query of `Racer.route_scores` must have an id.

    So it is where a set holds at most or at least some models: which of several models of equal
    scores these are is drawn from the id, as calibration drew it from the question.

    Use this when you read queries for `Racer.route_scores` and an error shall name the line.
    """
    calibration = racer.calibration
    if racer.seed is None or calibration is None:
        return False
    most, least = calibration.max_models, calibration.min_models
    return least > 0 or (most is not None and most < len(racer.models))


# A draw that is the same for all queries of equal scores, such as one made from the scores, is none
# at calibration: there every question has its own. Where a router has few different scores, the
# chance of a miss would then be as that one draw falls, up to that of calling no model. With the
# key 0 a model is in the set if its nonconformity is at most the threshold, whatever the tie: the
# set holds that of every draw, so it misses no more.
def _id_ties(racer: RacerState, ids: Sequence[str | None]) -> np.ndarray:
    """Second keys of queries by id, uint32 `[n, m + 1]`; 0 for a query without one.

    Raises:
      TypeError: If an id is neither a string nor None.
      ValueError: If an id is blank, or absent where sets hold at most or at least some models.
    """
    num_keys = len(racer.models) + 1
    ties = np.zeros((len(ids), num_keys), np.uint32)
    is_needed = needs_ids(racer)
    for row, name in enumerate(ids):
        if name is None and is_needed:
            raise ValueError(
                f"ids must name every query, got none for query {row}: with max_models or "
                "min_models the models of equal scores that are called are drawn from the id; "
                "give the text of each query, or another name of its own"
            )
        if name is not None and not isinstance(name, str):
            raise TypeError(f"ids must be strings or None, got {name!r} for query {row}")
        if name is not None and not name.strip():
            raise ValueError(
                f"ids must not be blank, got {name!r} for query {row}: give its text, another "
                "name of its own, or None"
            )
    rows = [row for row, name in enumerate(ids) if name is not None]
    ties[rows] = text_ties([name for name in ids if name is not None], racer.seed or 0, num_keys)
    return ties


def _one_for_each(groups: Groups, num: int) -> Sequence[str | None] | None:
    """The group of each of so many queries, from one name for all or one for each."""
    names = [groups] * num if isinstance(groups, str) else groups
    if names is not None and len(names) != num:
        raise ValueError(
            f"groups must name one group for each of the {num} queries, got {len(names)}"
        )
    check_groups(() if names is None else names)
    return names


def _rule(racer: RacerState, step: str) -> Rule:
    return Rule(racer._calibrated(step), racer.models, racer.cost, racer._order_by_group)
