r"""Routes against each other on live traffic: who gets which, and whether one answers better.

Whoever asks for an experiment gets the route that a keyed hash draws for its conversation, its user
or its key, always the same. So what is drawn is the conversation, user or key (a unit), and not the
request: the answers of one unit are alike, and many of them say little more than one. Each unit
counts once, with the first of its labels, which is a rule fixed beforehand; and only decisions
count whose route an experiment drew. What is compared is then the chance that the first labelled
answer of a unit is right. It is assumed that units are drawn like each other and independently, and
that which unit gets a label, and when, does not depend on its route.

The answers of two routes are compared at any time, however often. For a route with s right answers
of n units, the mixture of likelihood ratios against a rate p,
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
from racer_jax.serving.gateway._databases import Connection, columns_of, reading, shown
from racer_jax.serving.gateway._hash_keys import change_of
from racer_jax.serving.gateway._identifiers import draw, number_of, signed
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


def number_of_unit(key: bytes, experiment: str, unit: str) -> int:
    """A signed number of 64 bits that stands for a unit, and that only the key's holder can name.

    Args:
      key: The secret key of the draw.
      experiment: Name of the experiment.
      unit: Name of the conversation, user or key.
    """
    return signed(number_of(key, f"{experiment}\n{unit}", "unit"))


@dataclass(frozen=True)
class Arm:
    """What is known of the answers of one route.

    Attributes:
      route: Name of the route.
      num: Units (conversations, users or keys) with a label, each counted once.
      right: Those whose first labelled answer was right.
      lower: Least rate of right answers that the labels allow.
      upper: Greatest rate that they allow.
      decisions: Decisions of the route that the experiment drew.
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
      experiment: The experiment whose decisions are counted.
      arms: Both.
      level: Chance that equal routes are ever said to differ.
      evidence: Evidence against equal rates of right answers.
      better: The route that answers better; None where that is not shown.
      since: When the key of the draw was changed, seconds since 1970: decisions before it are left
        out, since units may have changed their route. None where it was not.
    """

    experiment: str
    arms: tuple[Arm, Arm]
    level: float
    evidence: float
    better: str | None
    since: float | None = None


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
    state: str | Path,
    first: str,
    second: str,
    level: float = 0.05,
    users: bool = False,
    experiment: str | None = None,
) -> Comparison:
    """Compares the answers of two routes.

    Use this when an experiment runs, at any time and as often as you like.

    Args:
      state: The state of a gateway.
      first: Name of a route.
      second: Name of another.
      level: Chance that equal routes are ever said to differ.
      users: Whether what users say counts, instead of the labels of audits.
      experiment: The experiment that drew the routes; None for the one that there is.

    Raises:
      DataError: If it is no state, holds no decision of a route that an experiment drew, or holds
        those of several experiments and none is named.
      ValueError: If both routes are the same, or the level is not between 0 and 1.
    """
    if first == second:
        raise ValueError(f"the routes must be two, got {first!r} twice")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    with reading(state) as connection:
        name = _experiment(connection, state, (first, second), experiment)
        change = change_of(connection)
        after = 0 if change is None else change.seq
        arms = (
            _arm(connection, name, first, level, users, after),
            _arm(connection, name, second, level, users, after),
        )
    pairs = [(arm.right, arm.num) for arm in arms]
    against_equal = evidence(*pairs)
    better = None
    if against_equal >= 1 / level:
        rates = [right / num for right, num in pairs]
        better = arms[rates.index(max(rates))].route
    since = None if change is None else change.at
    return Comparison(name, arms, level, against_equal, better, since)


def _experiment(
    connection: Connection, state: str | Path, routes: tuple[str, str], experiment: str | None
) -> str:
    """The experiment that drew both routes."""
    place = shown(str(state))
    drawn: dict[str, set[str]] = {route: set() for route in routes}
    if "experiment" in columns_of(connection, "decision"):  # an older version kept none
        for route in routes:
            rows = connection.execute(
                "select distinct experiment from decision where route = ? "
                "and experiment is not null",
                [route],
            ).fetchall()
            drawn[route] = {name for (name,) in rows}
    for route, names in drawn.items():
        if not names or (experiment is not None and experiment not in names):
            which = "an experiment" if experiment is None else f"the experiment {experiment!r}"
            raise DataError(
                f"holds no decision of a route {route!r} that {which} drew: only routes that were "
                "drawn can be compared, since who chooses one may have other questions",
                path=place,
            )
    if experiment is not None:
        return experiment
    both = sorted(set.intersection(*drawn.values()))
    if not both:
        raise DataError(f"holds no experiment that drew both {' and '.join(routes)}", path=place)
    if len(both) > 1:
        raise DataError(
            f"holds several experiments that drew both routes: give --experiment, one of "
            f"{', '.join(both)}",
            path=place,
        )
    return both[0]


def _arm(
    connection: Connection, experiment: str, route: str, level: float, users: bool, after: int
) -> Arm:
    """What is known of a route by the decisions that came after one."""
    drawn = [route, experiment, after]
    decisions, dollars = connection.execute(
        "select count(*), avg(dollars) from decision where route = ? and experiment = ? "
        "and seq > ?",
        drawn,
    ).fetchone()
    (calls,) = connection.execute(
        "select count(*) from call c join decision d on d.id = c.decision where d.route = ? "
        "and d.experiment = ? and d.seq > ?",
        drawn,
    ).fetchone()
    # A label that says more than one before it keeps the place of that one, if that one said
    # whether the answer was right: the first label of a unit never becomes another.
    place = "f.seq"
    if "completes" in columns_of(connection, "feedback"):  # an older version kept none
        place = "coalesce(f.completes, f.seq)"
    rows = connection.execute(
        "select f.source, f.content, d.answered, d.audited, d.unit from feedback f "
        "join decision d on d.id = f.decision where d.route = ? and d.experiment = ? "
        f"and d.seq > ? order by {place}, f.seq desc",
        drawn,
    ).fetchall()
    labels: dict[int, bool] = {}
    for source, content, answered, audited, unit in rows:
        trusted = source in TRUSTED and bool(audited)
        if trusted == users:
            continue
        label = _right(msgspec.json.decode(content), answered)
        if label is not None:
            labels.setdefault(unit, label)
    num, right = len(labels), sum(labels.values())
    lower, upper = interval(right, num, level)
    mean = calls / max(decisions, 1)
    return Arm(route, num, right, lower, upper, decisions, mean, dollars)


def _right(content: Mapping[str, Any], answered: str) -> bool | None:
    """Whether the answer that was shown is right; None where the label does not say it."""
    correct = content.get("correct")
    if correct is not None and answered in correct:
        return bool(correct[answered])
    said = content.get("answer_correct")
    return None if said is None else bool(said)
