"""Whether a measured risk fits what was promised: the same words for sets and for stops."""

from math import isnan

NO_PROMISE, KEPT, WITHIN = "no promise", "at most alpha", "within chance"
ABOVE, BEYOND = "above alpha", "higher than chance"
# What each says, for the lines below a table.
MEANINGS = {
    KEPT: "the risk seen is not above what is promised",
    WITHIN: "above what is promised, by no more than chance explains, in these and in the "
    "calibration queries",
    ABOVE: "above what is promised; what chance does is not known, since ties are not broken",
    BEYOND: "more than chance explains: these queries are probably not like those of the "
    "calibration; calibrate again on queries like these",
    NO_PROMISE: "nothing is promised for just these queries",
}


def verdict(risk: float, at_most: float, expected: float, deviation: float) -> str:
    """What a measured risk says of a promise, in two or three words.

    Use this when a risk is printed beside what was promised.

    Args:
      risk: The risk seen.
      at_most: What was promised; NaN where nothing was.
      expected: The mean of the risk if the promise holds; NaN where its law is not known.
      deviation: Standard deviation of the risk seen around it.

    >>> verdict(0.179, 0.15, 0.149, 0.02), verdict(0.3, 0.15, 0.149, 0.02)
    ('within chance', 'higher than chance')
    """
    if isnan(at_most):
        return NO_PROMISE
    if risk <= at_most:
        return KEPT
    if isnan(expected) or isnan(deviation):
        return ABOVE
    return WITHIN if risk <= expected + 2 * deviation else BEYOND
