r"""Routes against each other on live traffic: who gets which, and whether one answers better.

Whoever asks for an experiment gets the route that a keyed hash draws for its conversation, its user
or its key, always the same. The answers of two routes are compared at any time, however often:

For a route with s right answers of n, the mixture of likelihood ratios against a rate p,
$$ M(p) = \frac{B(1/2 + s, 1/2 + n - s)}{B(1/2, 1/2) \, p^s (1 - p)^{n - s}}, $$
has mean 1 at all times where p is the true rate. Where both routes have the same rate p, so has the
product of both; its smallest value over p, at the common rate of both, is the evidence against
equal rates. Its chance to reach 1 / level, ever, is at most the level (Ville's inequality). The
rates p with M(p) < 1 / level are an interval that holds the true rate at all times with a chance of
at least 1 - level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, inf, lgamma, log
from pathlib import Path
from typing import Any

import msgspec

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._databases import reading, shown
from racer_jax.serving.gateway._identifiers import draw
from racer_jax.serving.gateway._records import TRUSTED

_PRIOR = 0.5
_HALVINGS = 60


def arm_of(shares: Mapping[str, float], key: bytes, experiment: str, unit: str) -> str:
    """The route that a conversation, user or key gets, always the same.

    Args:
      shares: Share of each route, up to a factor.
      key: The secret key of the draw.
      experiment: Name of the experiment: draws of different ones are independent.
      unit: Name of the conversation, user or key.
    """
    place = draw(key, f"{experiment}\n{unit}", "arm") * sum(shares.values())
    names = list(shares)
    for name in names:
        place -= shares[name]
        if place < 0:
            return name
    return names[-1]


@dataclass(frozen=True)
class Arm:
    """What is known of the answers of one route.

    Attributes:
      route: Name of the route.
      num: Questions with a label, a repeat counted once.
      right: Those whose answer was right.
      lower: Least rate of right answers that the labels allow.
      upper: Greatest rate that they allow.
      decisions: Decisions of the route.
      models: Mean number of models called.
      dollars: Mean dollars of a request; None where not known.
    """

    route: str
    num: int
    right: int
    lower: float
    upper: float
    decisions: int
    models: float
    dollars: float | None


@dataclass(frozen=True)
class Comparison:
    """Two routes, compared at any time.

    Attributes:
      arms: Both.
      level: Chance that equal routes are ever said to differ.
      evidence: Evidence against equal rates of right answers.
      better: The route that answers better; None where that is not shown.
    """

    arms: tuple[Arm, Arm]
    level: float
    evidence: float
    better: str | None


def evidence(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Evidence against equal rates; pairs are right answers and all.

    >>> round(evidence((5, 10), (5, 10)), 3), evidence((10, 10), (0, 10)) > 1000
    (0.061, True)
    """
    right, num = first[0] + second[0], first[1] + second[1]
    value = _log_mixture(*first) + _log_mixture(*second)
    for count in (right, num - right):
        if count:
            value -= count * log(count / num)
    return exp(min(value, 700.0))


def interval(right: int, num: int, level: float) -> tuple[float, float]:
    """The rates that are not refuted, at all times with a chance of at least 1 - level.

    >>> interval(0, 0, 0.05)
    (0.0, 1.0)
    """
    if num == 0:
        return 0.0, 1.0
    rate = right / num
    most = log(1 / level)

    def allowed(p: float) -> bool:
        value = _log_mixture(right, num)
        for count, chance in ((right, p), (num - right, 1 - p)):
            if count:
                value += inf if chance <= 0 else -count * log(chance)
        return value < most

    def bound(outside: float) -> float:
        if allowed(outside):
            return outside
        inside = rate
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if allowed(middle):
                inside = middle
            else:
                outside = middle
        return outside

    return bound(0.0), bound(1.0)


def _log_mixture(right: int, num: int) -> float:
    """The logarithm of B(1/2 + s, 1/2 + n - s) / B(1/2, 1/2)."""
    return (
        lgamma(_PRIOR + right)
        + lgamma(_PRIOR + num - right)
        - lgamma(2 * _PRIOR + num)
        - 2 * lgamma(_PRIOR)
        + lgamma(2 * _PRIOR)
    )


def compare(
    state: str | Path, first: str, second: str, level: float = 0.05, users: bool = False
) -> Comparison:
    """Compares the answers of two routes.

    Use this when an experiment runs, at any time and as often as you like.

    Args:
      state: The state of a gateway.
      first: Name of a route.
      second: Name of another.
      level: Chance that equal routes are ever said to differ.
      users: Whether what users say counts, instead of the labels of audits.

    Raises:
      DataError: If it is no state, or holds no decision of a route.
      ValueError: If both routes are the same, or the level is not between 0 and 1.
    """
    if first == second:
        raise ValueError(f"the routes must be two, got {first!r} twice")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    with reading(state) as connection:
        arms = (
            _arm(connection, state, first, level, users),
            _arm(connection, state, second, level, users),
        )
    pairs = [(arm.right, arm.num) for arm in arms]
    against_equal = evidence(*pairs)
    better = None
    if against_equal >= 1 / level:
        rates = [right / num for right, num in pairs]
        better = arms[rates.index(max(rates))].route
    return Comparison(arms, level, against_equal, better)


def _arm(connection: Any, state: str | Path, route: str, level: float, users: bool) -> Arm:
    decisions, dollars = connection.execute(
        "select count(*), avg(dollars) from decision where route = ?", [route]
    ).fetchone()
    if not decisions:
        raise DataError(f"holds no decision of a route {route!r}", path=shown(str(state)))
    (calls,) = connection.execute(
        "select count(*) from call c join decision d on d.id = c.decision where d.route = ?",
        [route],
    ).fetchone()
    rows = connection.execute(
        "select f.source, f.content, d.answered, d.audited, d.fingerprint from feedback f "
        "join decision d on d.id = f.decision where d.route = ? order by f.seq",
        [route],
    ).fetchall()
    labels: dict[int, bool] = {}
    for source, content, answered, audited, question in rows:
        trusted = source in TRUSTED and bool(audited)
        if trusted == users:
            continue
        label = _right(msgspec.json.decode(content), answered)
        if label is not None:
            labels.setdefault(question, label)
    num, right = len(labels), sum(labels.values())
    lower, upper = interval(right, num, level)
    return Arm(route, num, right, lower, upper, decisions, calls / decisions, dollars)


def _right(content: Mapping[str, Any], answered: str) -> bool | None:
    """Whether the answer that was shown is right; None where the label does not say it."""
    correct = content.get("correct")
    if correct is not None and answered in correct:
        return bool(correct[answered])
    said = content.get("answer_correct")
    return None if said is None else bool(said)
