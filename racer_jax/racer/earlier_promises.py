"""The sentences of a promise as versions before wrote them into artefacts of the same format.

An artefact whose sentence is not the one of its content is refused; one in earlier words is read.
"""

from math import inf
from types import MappingProxyType

from racer_jax.core.risk_levels import confidence_name
from racer_jax.racer.calibration_facts import CalibrationFacts
from racer_jax.racer.loss_promises import loss_guarantee, loss_words
from racer_jax.racer.promises import WORDING, group_names, guarantee, is_lost_with_enough
from racer_jax.racer.wording import Wording, counted

_GRADES = MappingProxyType(
    dict.fromkeys(WORDING.grades, "1 - the best grade among the called models")
)
_FIRST = Wording(
    assumption="If the queries to come are exchangeable with {who}",
    misses=MappingProxyType(
        {
            "paper": "no called model answers rightly (where none of the pool does: that the null "
            "model is left out)",
            "free": "some model of the pool answers rightly and none that is called does",
            "never": "no called model answers rightly",
        }
    ),
    grades=_GRADES,
    surely="for all calibration sets but a share of {delta}",
)
_THIRD = WORDING._replace(by_group="")
_SECOND = _THIRD._replace(
    misses=MappingProxyType(
        {
            **WORDING.misses,
            "paper": "no called model is right (if no model could answer, abstaining counts as "
            "right)",
        }
    ),
    grades=_GRADES,
)


def earlier_guarantees(calibration: CalibrationFacts, null: str) -> tuple[str, ...]:
    """The promise in the words of each version before, the first of them first.

    Use this when an artefact states its promise in words that are not those of today.
    """
    earlier = [_earlier(calibration, null, words) for words in (_FIRST, _SECOND)]
    return (*earlier, *(guarantee(calibration, null, words) for words in (_SECOND, _THIRD)))


def _earlier(calibration: CalibrationFacts, null: str, words: Wording) -> str:
    """The sentence that had every group and the cap on the models in it."""
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
    assumption = words.assumption.format(who=who, of="")
    if calibration.loss is not None:
        amount = loss_words(calibration.loss.name, null, words)
        lost, beginning = calibration.threshold == inf, f"{assumption}, the mean"
        return loss_guarantee(calibration, amount, beginning, where, how, lost)
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were trained "
            f"on. The threshold was set for a chance of at most {alpha} that {miss}."
        )
    if calibration.max_models is not None:
        where += f", and no query calls more than {counted(calibration.max_models)}"
    names = group_names(calibration)
    is_lost = is_lost_with_enough(calibration)
    lost = [name for name, none in zip(names, is_lost, strict=True) if none]
    if len(lost) == len(num):
        return f"Nothing is promised: no threshold reaches a chance of at most {alpha} that {miss}."
    beside = f" Nothing is promised for {', '.join(lost)}." if lost else ""
    if calibration.min_models:
        beside += f" Every query calls at least {counted(calibration.min_models)}."
    return f"{assumption}, the chance that {miss} is at most {alpha}{where}, {how}.{beside}"
