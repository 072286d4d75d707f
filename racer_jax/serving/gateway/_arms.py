r"""Routes against each other on live traffic: who gets which, and whether one answers better.

Whoever asks for an experiment gets the route that a keyed hash draws for its conversation, its user
or its key, always the same. So what is drawn is the conversation, user or key (a unit), and not the
request: the answers of one unit are alike, and many of them say little more than one. Each unit
counts once, with the first of its labels, which is a rule fixed beforehand; and only decisions
count whose route an experiment drew. What is compared is then the chance that the first labelled
answer of a unit is right. It is assumed that units are drawn like each other and independently, and
that which unit gets a label, and when, does not depend on its route.

A label that cannot be read, and was or may have been the first of its unit, counts as the one of
right and wrong that speaks less for a difference, so that no damage to the state makes one.

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
from math import exp, inf, isfinite, lgamma, log
from pathlib import Path
from typing import Any

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._databases import Connection, columns_of, reading, shown
from racer_jax.serving.gateway._hash_keys import change_of
from racer_jax.serving.gateway._identifiers import draw, number_of, signed
from racer_jax.serving.gateway._records import TRUSTED
from racer_jax.serving.gateway._rows import SHOWN_MODEL, Said, UnreadableError, rated_of

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
      unreadable: Units beside `num` whose first label cannot be read, and labels that may be those
        of one. The bounds allow for any of them to be right or wrong.
    """

    route: str
    num: int
    right: int
    lower: float
    upper: float
    decisions: int
    models: float
    dollars: float | None
    unreadable: int = 0


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
      unreadable: Labels that cannot be read, and why.
    """

    experiment: str
    arms: tuple[Arm, Arm]
    level: float
    evidence: float
    better: str | None
    since: float | None = None
    unreadable: tuple[str, ...] = ()


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


def least_evidence(first: "_Counts", second: "_Counts") -> float:
    """The evidence if labels that cannot be read say what speaks least for a difference.

    Whatever they did say, the evidence of all labels is no less. For each number of right ones
    among them the likeliest to be least is known: the logarithm of each mixture is convex in its
    number of right answers, so that one more is taken where that costs less.
    """
    counts = (first, second)
    right, nums = [c.right for c in counts], [c.num + c.unreadable for c in counts]
    most = [c.right + c.unreadable for c in counts]

    def now() -> float:
        return evidence((right[0], nums[0]), (right[1], nums[1]))

    least = now()
    while open_ := [i for i in (0, 1) if right[i] < most[i]]:
        one = min(
            open_,
            key=lambda i: _log_mixture(right[i] + 1, nums[i]) - _log_mixture(right[i], nums[i]),
        )
        right[one] += 1
        least = min(least, now())
    return least


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
        those of several experiments and none is named, or if when the key of the draws was changed
        cannot be read.
      ValueError: If both routes are the same, or the level is not between 0 and 1.
    """
    if first == second:
        raise ValueError(f"the routes must be two, got {first!r} twice")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    with reading(state) as connection:
        name = _experiment(connection, state, (first, second), experiment)
        try:
            change = change_of(connection)
        except UnreadableError as error:
            raise DataError(
                f"does not say which decisions one key drew: {error}", path=shown(str(state))
            ) from None
        after = 0 if change is None else change.seq
        labels, unreadable = _labels(connection, name, (first, second), users, after)
        arms = (
            _arm(connection, name, first, level, labels[first], after),
            _arm(connection, name, second, level, labels[second], after),
        )
    against_equal = least_evidence(labels[first], labels[second])
    better = None
    if against_equal >= 1 / level:
        rates = [arm.right / arm.num if arm.num else 0.0 for arm in arms]
        better = arms[rates.index(max(rates))].route
    since = None if change is None else change.at
    return Comparison(name, arms, level, against_equal, better, since, tuple(unreadable))


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
            drawn[route] = {name for (name,) in rows if isinstance(name, str)}
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


@dataclass
class _Counts:
    """The first labels of the units of one route.

    Attributes:
      right: Units whose answer was right.
      num: Units with a label that can be read.
      unreadable: Units whose label cannot be, and labels that may be those of one.
    """

    right: int = 0
    num: int = 0
    unreadable: int = 0


def _arm(
    connection: Connection, experiment: str, route: str, level: float, counts: _Counts, after: int
) -> Arm:
    """What is known of a route by the decisions that came after one."""
    drawn = [route, experiment, after]
    rows = connection.execute(
        "select dollars from decision where route = ? and experiment = ? and seq > ?", drawn
    ).fetchall()
    known = [dollars for (dollars,) in rows if isinstance(dollars, float) and isfinite(dollars)]
    (calls,) = connection.execute(
        "select count(*) from call c join decision d on d.id = c.decision where d.route = ? "
        "and d.experiment = ? and d.seq > ?",
        drawn,
    ).fetchone()
    right, num = counts.right, counts.num + counts.unreadable
    return Arm(
        route=route,
        num=counts.num,
        right=right,
        lower=interval(right, num, level)[0],
        upper=interval(right + counts.unreadable, num, level)[1],
        decisions=len(rows),
        models=calls / max(len(rows), 1),
        dollars=sum(known) / len(known) if known else None,
        unreadable=counts.unreadable,
    )


def _labels(
    connection: Connection, experiment: str, routes: tuple[str, str], users: bool, after: int
) -> tuple[dict[str, _Counts], list[str]]:
    """The first labels of the units of each route, and what cannot be read of labels, and why."""
    # A label that says more than one before it keeps the place of that one, if that one said
    # whether the answer was right: the first label of a unit never becomes another.
    place = "f.seq"
    if "completes" in columns_of(connection, "feedback"):  # an older version kept none
        place = "coalesce(f.completes, f.seq)"
    rows = connection.execute(
        "select f.decision, f.source, f.content, d.route, d.experiment, d.unit, "
        f"{SHOWN_MODEL}, d.audited from feedback f left join decision d on d.id = f.decision "
        f"where d.id is null or d.seq > ? order by {place}, f.seq desc",
        [after],
    ).fetchall()
    firsts: dict[str, dict[Any, bool | None]] = {route: {} for route in routes}
    unreadable: list[str] = []
    for row in rows:
        try:
            rated, said = rated_of(row)
        except UnreadableError as error:
            name, source, _, route, drawn, unit, _, audited = row
            trusted = source in TRUSTED and audited == 1
            may_count = not trusted if users else source != "user" and audited != 0
            # Of what is no text, or of no decision, the route may have been either.
            is_other = route is not None and isinstance(drawn, str | None) and drawn != experiment
            if may_count and not is_other:
                may_be = [one for one in routes if one == route or not isinstance(route, str)]
                unreadable += [f"label of {name}: {error}"] if may_be else []
                for one in may_be:
                    firsts[one].setdefault(unit if isinstance(unit, int) else object(), None)
            continue
        if rated.route not in routes or rated.experiment != experiment:
            continue
        if (rated.source in TRUSTED and bool(rated.audited)) != users:
            right = _right(said, rated.answered)
            if right is not None:
                firsts[rated.route].setdefault(rated.unit, right)
    counts = {}
    for route, labels in firsts.items():
        read = [right for right in labels.values() if right is not None]
        counts[route] = _Counts(sum(read), len(read), len(labels) - len(read))
    return counts, unreadable


def _right(said: Said, answered: str) -> bool | None:
    """Whether the answer that was shown is right; None where the label does not say it."""
    if said.correct is not None and answered in said.correct:
        return bool(said.correct[answered])
    return None if said.answer_correct is None else bool(said.answer_correct)
