"""What a calibrated stop promises, in words."""

from racer_jax.core.risk_levels import confidence_name
from racer_jax.sequential.calibration import StopCalibration
from racer_jax.sequential.policy import Policy

_LOST = {
    "regret": "the cascade's answer is wrong although {reference} would be right",
    "differs": "the cascade's answer differs from that of {reference}",
    "covers": "no called model is right (although some model of the pool could answer)",
    "wrong": "the cascade gives a wrong answer (where it gives none, that is not wrong)",
}
_NOT_SAID = {
    "regret": "where {reference} is wrong, the answer may be wrong too",
    "differs": "whether the answers are right is not part of the promise",
    "covers": "which of the answers is right is not part of the promise",
    "wrong": "the share of wrong answers among those that it gives may be larger",
}


def promise(policy: Policy, calibration: StopCalibration | None) -> str:
    """What is promised, in a sentence or two, with its assumption, and what is not.

    Use this when a cascade states its guarantee.

    Args:
      policy: The policy.
      calibration: Its calibration, or None.
    """
    reference = "the vote of all models"
    if policy.reference == "best":
        reference = policy.calls[-1]
    if calibration is None:
        return (
            "Not calibrated: it stops only where no answer to come can change the vote, so its "
            f"answers are those of {reference}. How often they are right is not promised."
        )
    loss_words = _LOST[calibration.loss].format(reference=reference)
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap:,} calibration questions were "
            f"trained on. The threshold was set for a chance of at most {calibration.alpha} "
            f"that {loss_words}."
        )
    where = "" if calibration.groups is None else ", in each group"
    how = "on average over calibration sets"
    if calibration.delta is not None:
        how = f"with {confidence_name(calibration.delta)} confidence"
        if calibration.groups is not None and len(calibration.groups) > 1:
            how += " for each of them by itself"  # all at once they hold with less
    return (
        f"For new queries drawn like (exchangeable with) the {len(calibration.value):,} "
        f"calibration queries, the chance that {loss_words} is at most {calibration.alpha}{where}, "
        f"{how}; {_NOT_SAID[calibration.loss].format(reference=reference)}."
    )
