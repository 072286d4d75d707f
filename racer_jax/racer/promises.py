"""What a calibration promises, in words, and what a user must know before trusting it.

The sentences are part of the format: an artefact whose sentence is not the one of its content is
refused. Whoever changes them keeps the sentences before in `earlier_promises`, in which an artefact
of the same format may have been written; those of older formats are not compared.
"""

from collections.abc import Iterator, Sequence
from math import ceil, floor, inf, log10
from types import MappingProxyType

import numpy as np

from racer_jax.core.risk_levels import confidence_name
from racer_jax.racer.calibration_facts import CalibrationFacts
from racer_jax.racer.loss_promises import (
    is_out_of_reach,
    loss_guarantee,
    loss_warnings,
    loss_words,
)
from racer_jax.racer.wording import Wording, counted
from racer_jax.risk_control.bounds import smallest_calibration_size

WORDING = Wording(
    assumption="For new queries{of} drawn like (exchangeable with) {who}",
    misses=MappingProxyType(
        {
            "paper": "no called model is right (a question that no model can answer counts as "
            "right if its set holds the null model, 'none of them')",
            "free": "no called model is right (although some model of the pool could answer)",
            "never": "no called model is right (also where no model could answer)",
        }
    ),
    # `grade_loss` gives the null model the best grade where every grade is 0.
    grades=MappingProxyType(
        {
            "paper": "1 - the best grade among the called models (a question on which every grade "
            "is 0 counts as no loss if its set holds the null model, 'none of them')",
            "free": "1 - the best grade among the called models (a question on which every grade "
            "is 0 counts as no loss)",
            "never": "1 - the best grade among the called models (also where every grade is 0)",
        }
    ),
    surely="with {confidence} confidence",
    # All at once they hold with less.
    by_group=" for each of them by itself",
)


def guarantee(calibration: CalibrationFacts, null: str, words: Wording = WORDING) -> str:
    """What is promised under a null mode, in a few sentences, with its assumption.

    Use this when you are below `Calibration.guarantee`, which calls it.

    Args:
      calibration: What calibration has set.
      null: The null mode.
      words: The words; those of an earlier version to read its artefacts.
    """
    miss, alpha = words.misses[null], calibration.alpha
    if calibration.num_overlap and calibration.loss is None:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were trained "
            f"on. The threshold was set for a chance of at most {alpha} that {miss}."
        )
    is_lost = _is_lost(calibration, null)
    if is_lost.all() and calibration.loss is None:
        return f"Nothing is promised: no threshold reaches a chance of at most {alpha} that {miss}."
    assumption, where = _assumption(calibration, is_lost, words)
    how = "on average over calibration sets"
    if calibration.delta is not None:
        confidence = confidence_name(calibration.delta)
        how = words.surely.format(confidence=confidence, delta=calibration.delta)
        how += words.by_group if where and len(calibration.threshold) > 1 else ""
    if calibration.loss is not None:
        amount = loss_words(calibration.loss.name, null, words)
        beginning = f"{assumption}, the mean"
        promise = loss_guarantee(calibration, amount, beginning, where, how, is_lost)
    else:
        promise = f"{assumption}, the chance that {miss} is at most {alpha}{where}, {how}."
    if is_lost.all() or calibration.num_overlap:
        return promise
    return promise + "".join(f" {sentence}" for sentence in _beside(calibration, is_lost))


def _assumption(
    calibration: CalibrationFacts, is_lost: np.ndarray, words: Wording
) -> tuple[str, str]:
    """What is assumed of which queries, and where the promise holds."""
    num = calibration.num_queries
    if calibration.groups is None:
        who = f"the {int(num.sum()):,} calibration queries"
        return words.assumption.format(who=who, of=""), ""
    keeps = ~is_lost if not is_lost.all() else np.ones_like(is_lost)
    names = [name for name, stays in zip(calibration.groups, keeps, strict=True) if stays]
    counts = zip(names, num[keeps].tolist(), strict=True)
    who = f"the calibration queries of their group ({', '.join(f'{n} {c:,}' for n, c in counts)})"
    of, where = "", ", in each group"
    if not keeps.all():
        of, where = f" of {_groups(names)}", ", in each of these groups"
    if not keeps.all() and len(names) == 1:
        who, where = f"its {int(num[keeps][0]):,} calibration queries", ""
    return words.assumption.format(who=who, of=of), where


def _beside(calibration: CalibrationFacts, is_lost: np.ndarray) -> Iterator[str]:
    """What is said beside the promise, a sentence each."""
    if calibration.groups is not None and is_lost.any():
        names = [name for name, none in zip(calibration.groups, is_lost, strict=True) if none]
        yield f"For {_groups(names)} nothing is promised."
    if calibration.max_models is not None:
        yield f"No query calls more than {counted(calibration.max_models)}."
    if calibration.min_models:
        yield f"Every query calls at least {counted(calibration.min_models)}."


def _groups(names: Sequence[str]) -> str:
    """Groups in a sentence."""
    if len(names) == 1:
        return f"group {names[0]}"
    return f"groups {', '.join(names[:-1])} and {names[-1]}"


def warnings_of(calibration: CalibrationFacts, *, with_advice: bool = True) -> tuple[str, ...]:
    """What a user must know of a calibration, one sentence each.

    Use this when you are below `Calibration.warnings`, which calls it.

    Args:
      calibration: What calibration has set.
      with_advice: False for the sentences of versions before, which did not say what to do.
    """
    if calibration.loss is not None:
        sentences = loss_warnings(calibration, group_names(calibration), with_advice)
    else:
        budgets = calibration.budgets([calibration.alpha])[:, 0].tolist()
        rows = zip(group_names(calibration), range(len(budgets)), budgets, strict=True)
        sentences = [_warning(calibration, *row, with_advice) for row in rows]
    if calibration.num_overlap:
        sentences.append(
            f"{calibration.num_overlap} calibration questions were trained on: the risk is not "
            "promised"
        )
    return tuple(sentence for sentence in sentences if sentence)


def group_names(calibration: CalibrationFacts) -> Sequence[str]:
    """What each group is called in a sentence. Use this when a sentence names groups."""
    if calibration.groups is None:
        return ("all queries",)
    return [f"group {name!r}" for name in calibration.groups]


def unpromised(calibration: CalibrationFacts, null: str) -> tuple[str, ...]:
    """Why nothing is promised to queries of each group, `[g]`; empty where the promise holds.

    Use this when a program must know for which decisions `guarantee` speaks.

    Args:
      calibration: What calibration has set.
      null: The null mode.
    """
    if calibration.num_overlap:
        return ("the artefact was calibrated on questions it was trained on",) * len(
            calibration.threshold
        )
    what = f"no threshold keeps alpha = {calibration.alpha}"
    pooled = "there were too few calibration queries, and the threshold of all groups is used"
    reasons = np.where(calibration.threshold == inf, what, pooled)
    return tuple(np.where(_is_lost(calibration, null), reasons, "").tolist())


def unpromised_to_all(calibration: CalibrationFacts, null: str) -> str:
    """Why nothing is promised where every model of the pool is called; empty where it is.

    Use this when a query is of a group without calibration queries.

    Args:
      calibration: What calibration has set.
      null: The null mode.
    """
    if calibration.num_overlap:
        return "the artefact was calibrated on questions it was trained on"
    if calibration.loss is not None and calibration.loss.name == "grade":
        return "even the best of all answers may have a low grade"
    if calibration.loss is None and null == "never":
        return "a question that no model can answer counts as a miss, whoever is called"
    return ""


def is_lost_with_enough(calibration: CalibrationFacts) -> np.ndarray:
    """Whether calling every model that may be called misses more than alpha allows, bool `[g]`.

    Groups with too few queries are not among them. Use this when a promise leaves groups out.
    """
    enough = calibration.budgets([calibration.alpha])[:, 0] >= 0
    return np.asarray(enough & (calibration.threshold == inf))


def _is_lost(calibration: CalibrationFacts, null: str) -> np.ndarray:
    """Whether nothing is promised to a group, bool `[g]`."""
    calls_all, is_capped = calibration.threshold == inf, calibration.max_models is not None
    if calibration.loss is not None:
        # With every model called nothing is lost against the best of the pool.
        lost = calls_all & (is_capped or calibration.loss.name == "grade")
        return np.asarray(lost | (~calls_all & is_out_of_reach(calibration)))
    budgets = calibration.budgets([calibration.alpha])[:, 0]
    return is_unbounded(calibration.threshold, budgets, is_capped, null == "never")


def is_unbounded(
    threshold: np.ndarray, budgets: np.ndarray, is_capped: bool, is_never: bool
) -> np.ndarray:
    """Whether nothing bounds the chance of a miss by alpha.

    Use this when a sentence or a figure says what is promised.

    Args:
      threshold: Thresholds, of any shape.
      budgets: The misses that calibration may make, of the same shape; -1 where no threshold is
        safe.
      is_capped: Whether a set holds some models at most.
      is_never: Whether the null mode is `never`.
    """
    # With too few queries every model is called, which misses nothing, if it may be called and a
    # question that no model can answer is no miss; or the pooled threshold is used.
    is_safe = (budgets < 0) & (not is_capped and not is_never)
    return np.asarray(np.where(threshold == inf, ~is_safe, budgets < 0))


def _warning(
    calibration: CalibrationFacts, name: str, place: int, budget: int, with_advice: bool
) -> str:
    """What a user must know of one group; empty where there is nothing."""
    by_thousands = "," if with_advice else ""
    alpha, delta, most = calibration.alpha, calibration.delta, calibration.max_models
    num, threshold = int(calibration.num_queries[place]), float(calibration.threshold[place])
    if budget < 0 and delta is None:
        needed = smallest_calibration_size(alpha)
        what = "the pooled threshold is used, with no promise"
        if threshold == inf:
            what = "every model is called" if most is None else f"{_first(most)} called"
        least = _rounded_up(1 / (num + 1))
        advice = f"; take a larger alpha (at least {least:g} here) or more questions"
        return (
            f"{name}: alpha = {alpha} takes at least {needed:{by_thousands}} calibration queries, "
            f"got {num:{by_thousands}}; {what}{advice if with_advice else ''}"
        )
    if budget < 0:
        advice = "; take a larger alpha or delta, or more questions" if with_advice else ""
        return (
            f"{name}: {num:{by_thousands}} calibration queries cannot promise alpha = {alpha}, "
            f"delta = {delta}{advice}"
        )
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
        f"{name}: with at most {counted(most)} for a query the risk cannot be brought to alpha = "
        f"{alpha}{reach}; {_first(most)} called, and the risk is higher"
    )


def _rounded_up(alpha: float) -> float:
    """A level of two digits that is not below another."""
    step = 10.0 ** (floor(log10(alpha)) - 1)
    return round(ceil(alpha / step - 1e-9) * step, 12)


def _first(most: int) -> str:
    return "the first model is" if most == 1 else f"the first {most} models are"
