"""What a calibration promises, in words, and what a user must know before trusting it.

The sentences are part of the format: an artefact whose sentence is not the one of its content is
refused. Whoever changes their words keeps the words before as `EARLIER`, in which an artefact of
the same format may have been written; those of older formats are not compared.
"""

from collections.abc import Sequence
from math import ceil, inf
from types import MappingProxyType

import numpy as np

from racer_jax.core.risk_levels import confidence_name
from racer_jax.racer.calibration_facts import CalibrationFacts
from racer_jax.racer.loss_promises import loss_guarantee, loss_warnings
from racer_jax.racer.wording import Wording
from racer_jax.risk_control.bounds import smallest_calibration_size

WORDING = Wording(
    assumption="For new queries drawn like (exchangeable with) {who}",
    misses=MappingProxyType(
        {
            "paper": "no called model is right (if no model could answer, abstaining counts as "
            "right)",
            "free": "no called model is right (although some model of the pool could answer)",
            "never": "no called model is right (also where no model could answer)",
        }
    ),
    surely="with {confidence} confidence",
)
EARLIER = Wording(
    assumption="If the queries to come are exchangeable with {who}",
    misses=MappingProxyType(
        {
            "paper": "no called model answers rightly (where none of the pool does: that the null "
            "model is left out)",
            "free": "some model of the pool answers rightly and none that is called does",
            "never": "no called model answers rightly",
        }
    ),
    surely="for all calibration sets but a share of {delta}",
)


def guarantee(calibration: CalibrationFacts, null: str, words: Wording = WORDING) -> str:
    """What is promised under a null mode, in a sentence, with its assumption.

    Use this when you are below `Calibration.guarantee`, which calls it.

    Args:
      calibration: What calibration has set.
      null: The null mode.
      words: The words of the sentence; `EARLIER` for those before.
    """
    miss = words.misses[null]
    alpha, num = calibration.alpha, calibration.num_queries
    if calibration.groups is None:
        who, where = f"the {int(num.sum())} calibration queries", ""
    else:
        counts = zip(calibration.groups, num.tolist(), strict=True)
        sizes = ", ".join(f"{name} {count}" for name, count in counts)
        who, where = f"the calibration queries of their group ({sizes})", ", in each group"
    how = "on average over calibration sets"
    if calibration.delta is not None:
        confidence = confidence_name(calibration.delta)
        how = words.surely.format(confidence=confidence, delta=calibration.delta)
    assumption = words.assumption.format(who=who)
    if calibration.loss is not None:
        return loss_guarantee(calibration, assumption, where, how)
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were trained "
            f"on. The threshold was set for a chance of at most {alpha} that {miss}."
        )
    if calibration.max_models is not None:
        where += f", and no query calls more than {_counted(calibration.max_models)}"
    names = _names(calibration)
    lost = [name for name, is_lost in zip(names, _lost(calibration), strict=True) if is_lost]
    if len(lost) == len(num):
        return f"Nothing is promised: no threshold reaches a chance of at most {alpha} that {miss}."
    beside = f" Nothing is promised for {', '.join(lost)}." if lost else ""
    if calibration.min_models:
        beside += f" Every query calls at least {_counted(calibration.min_models)}."
    return f"{assumption}, the chance that {miss} is at most {alpha}{where}, {how}.{beside}"


def warnings_of(calibration: CalibrationFacts) -> tuple[str, ...]:
    """What a user must know of a calibration, one sentence each.

    Use this when you are below `Calibration.warnings`, which calls it.
    """
    if calibration.loss is not None:
        sentences = loss_warnings(calibration, _names(calibration))
    else:
        budgets = calibration.budgets([calibration.alpha])[:, 0].tolist()
        rows = zip(_names(calibration), range(len(budgets)), budgets, strict=True)
        sentences = [_warning(calibration, *row) for row in rows]
    if calibration.num_overlap:
        sentences.append(
            f"{calibration.num_overlap} calibration questions were trained on: the risk is not "
            "promised"
        )
    return tuple(sentence for sentence in sentences if sentence)


def _names(calibration: CalibrationFacts) -> Sequence[str]:
    """What each group is called in a sentence."""
    if calibration.groups is None:
        return ("all queries",)
    return [f"group {name!r}" for name in calibration.groups]


def _lost(calibration: CalibrationFacts) -> np.ndarray:
    """Whether calling every model that may be called misses more than alpha allows, bool `[g]`."""
    enough = calibration.budgets([calibration.alpha])[:, 0] >= 0
    return np.asarray(enough & (calibration.threshold == inf))


def _warning(calibration: CalibrationFacts, name: str, place: int, budget: int) -> str:
    """What a user must know of one group; empty where there is nothing."""
    alpha, delta, most = calibration.alpha, calibration.delta, calibration.max_models
    num, threshold = int(calibration.num_queries[place]), float(calibration.threshold[place])
    if budget < 0 and delta is None:
        needed = smallest_calibration_size(alpha)
        what = "the pooled threshold is used, with no promise"
        if threshold == inf:
            what = "every model is called" if most is None else f"{_first(most)} called"
        return (
            f"{name}: alpha = {alpha} takes at least {needed} calibration queries, got {num}; "
            f"{what}"
        )
    if budget < 0:
        return f"{name}: {num} calibration queries cannot promise alpha = {alpha}, delta = {delta}"
    if threshold < inf:
        return ""
    if most is None:
        return (
            f"{name}: more calibration queries than alpha = {alpha} allows have no model "
            f"that is right, and null mode 'never' counts each as a miss; every model is "
            f"called, and the risk is higher"
        )
    misses = int((calibration.value[calibration.code == place] == inf).sum())
    least = ceil(1000 * (misses + 1) / (num + 1)) / 1000
    reach = f", which takes alpha = {least:g} or more" if delta is None else ""
    return (
        f"{name}: with at most {_counted(most)} for a query the risk cannot be brought to alpha = "
        f"{alpha}{reach}; {_first(most)} called, and the risk is higher"
    )


def _counted(most: int) -> str:
    return "1 model" if most == 1 else f"{most} models"


def _first(most: int) -> str:
    return "the first model is" if most == 1 else f"the first {most} models are"
