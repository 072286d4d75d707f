"""What a calibrated stop promises, in words."""

from racer_jax.sequential.calibration import StopCalibration
from racer_jax.sequential.policy import Policy

_LOST = {
    "regret": "the answer is wrong although that of {reference} is right",
    "differs": "the answer differs from that of {reference}",
    "covers": "no model called answers rightly although some model of the pool does",
    "wrong": "a wrong answer is given (rather than none)",
}
_NOT_SAID = {
    "regret": "where {reference} is wrong, so may the answer be",
    "differs": "whether either is right is not part of it",
    "covers": "which of the answers is right is not part of it",
    "wrong": "the share of wrong answers among those given may be larger",
}


def promise(policy: Policy, calibration: StopCalibration | None) -> str:
    """What is promised, in a sentence or two, with its assumption, and what is not.

    Use this when a cascade states its guarantee.

    Args:
      policy: The policy.
      calibration: Its calibration, or None.
    """
    reference = "the full vote"
    if policy.reference == "best":
        reference = policy.calls[-1]
    if calibration is None:
        return (
            "Not calibrated: it stops only where the vote is decided, and then its answers are "
            f"those of {reference}; how often they are right is not promised."
        )
    loss_words = _LOST[calibration.loss].format(reference=reference)
    if calibration.num_overlap:
        return (
            f"Nothing is promised: {calibration.num_overlap} calibration questions were "
            f"trained on. The threshold was set for a chance of at most {calibration.alpha} "
            f"that {loss_words}."
        )
    where = "" if calibration.groups is None else ", in each group"
    how = "on average over calibration sets"
    if calibration.delta is not None:
        how = f"for all calibration sets but a share of {calibration.delta}"
    return (
        "If the queries to come are exchangeable with the "
        f"{len(calibration.value)} calibration queries, the chance that {loss_words} is at most "
        f"{calibration.alpha}{where}, {how}; "
        f"{_NOT_SAID[calibration.loss].format(reference=reference)}."
    )
