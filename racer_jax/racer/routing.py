"""From queries to decisions: each step hands its result to the next one.

Texts are scored (`scoring`), their ties are drawn (`fingerprints`), and what they get is compared
with the thresholds (`decision`).
"""

from collections.abc import Sequence

from jax.typing import ArrayLike

from racer_jax.racer.decision import Decisions, Groups, Rule, decide
from racer_jax.racer.fingerprints import row_ties, text_ties
from racer_jax.racer.score_orders import measure_by
from racer_jax.racer.state import RacerState
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
    racer: RacerState, scores: Scores | ArrayLike, groups: Groups, ids: Sequence[str] | None
) -> Decisions:
    """The decisions on queries whose scores are there; see `Racer.route_scores`.

    Use this when you are below `Racer.route_scores`, which calls it.
    """
    rule = _rule(racer, "route_scores")
    values = racer._given(scores)
    num, num_keys = len(values), len(racer.models) + 1
    names = _one_for_each(groups, num)
    if ids is not None and len(ids) != num:
        raise ValueError(f"ids must name each of the {num} queries, got {len(ids)}")
    model_scores = measure_by(racer.scores_order, values, racer.nonconformity, racer.null, names)
    ties = None
    if racer.seed is not None and ids is None:
        ties = row_ties(values, racer.seed, num_keys)
    elif racer.seed is not None and ids is not None:
        ties = text_ties(ids, racer.seed, num_keys)
    return decide(rule, model_scores, ties, names)


def _one_for_each(groups: Groups, num: int) -> Sequence[str | None] | None:
    """The group of each of so many queries, from one name for all or one for each."""
    names = [groups] * num if isinstance(groups, str) else groups
    if names is not None and len(names) != num:
        raise ValueError(
            f"groups must name one group for each of the {num} queries, got {len(names)}"
        )
    return names


def _rule(racer: RacerState, step: str) -> Rule:
    return Rule(racer._calibrated(step), racer.models, racer.cost, racer._order_by_group)
