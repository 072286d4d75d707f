r"""The paper in plain NumPy, float64, one query and one split at a time.

Slow, literal, easy to check by eye.

The oracle of the tests and the baseline of the benchmarks. It shares no code with the rest of the
package and nothing is vectorised: each function is its formula. A tie-break pairs every
nonconformity with a second number; Python compares the pairs as tuples. Of votes the weights are
summed as exact fractions of exponentials, with as many digits as the smallest of them needs, so
that no two sums are confused by rounding.
"""

from bisect import bisect_right
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from math import inf

import numpy as np

Pair = tuple[float, float]
NO_ANSWER = -1


def null_score(scores: list[float]) -> float:
    """g(x) = 1 - max_m s(x, m). Use this when a test needs the score of the null model."""
    return 1 - max(scores)


def gap(scores: list[float], null: str = "paper") -> list[float]:
    """RACER-G of one query, null model last: max_m' s~(x, m') - s~(x, m).

    Use this when a test needs RACER-G without the package.
    """
    if null == "paper":
        all_scores = [*scores, null_score(scores)]
        return [max(all_scores) - s for s in all_scores]
    return [max(scores) - s for s in scores] + [-inf if null == "free" else inf]


def inverse_probability(scores: list[float], null: str = "paper") -> list[float]:
    """RACER-P of one query, null model last: 1 - s~(x, m).

    Use this when a test needs RACER-P without the package.
    """
    if null == "paper":
        return [1 - s for s in [*scores, null_score(scores)]]
    return [1 - s for s in scores] + [-inf if null == "free" else inf]


def truth_set(correct: list[int]) -> list[int]:
    """Eq. 2: indices of the models that are right.

    The null model's, len(correct), where none is.

    Use this when a test needs the right models, the null model among them.
    """
    right = [m for m, y in enumerate(correct) if y]
    return right if right else [len(correct)]


def critical_score(
    nonconformity: list[float], correct: list[int], tie_break: list[int] | None = None
) -> Pair:
    """Min over the augmented truth set of (E, U).

    Use this when a test needs critical scores without the package.
    """
    ties = [0] * len(nonconformity) if tie_break is None else tie_break
    return min((nonconformity[m], ties[m]) for m in truth_set(correct))


@cache
def miss_budget(alpha: str | float, n: int) -> int:
    """The largest number of misses that Eq. 6 allows, by search over its inequality in rationals.

    -1 if none.

    Use this when a test needs the budget without rounding.
    """
    level = Fraction(str(alpha))
    misses = -1
    while misses < n and Fraction(n, n + 1) * Fraction(misses + 1, n) + Fraction(1, n + 1) <= level:
        misses += 1
    return misses


def threshold(critical: list[Pair], alpha: str | float) -> Pair:
    """Eq. 6: the smallest lambda at which the calibration loss is within the budget.

    (inf, inf) if there is none.

    Use this when a test needs a threshold without the package.
    """
    budget = miss_budget(alpha, len(critical))
    in_order = sorted(critical)
    for candidate in in_order:
        # the number of scores above the candidate
        if len(in_order) - bisect_right(in_order, candidate) <= budget:
            return candidate
    return (inf, inf)


def prediction_set(
    nonconformity: list[float], threshold: Pair, tie_break: list[int] | None = None
) -> list[bool]:
    """Eq. 4: the models at or below the threshold.

    E = inf is in no set and E = -inf in every set.

    Use this when a test needs a set without the package.
    """
    ties = [0] * len(nonconformity) if tie_break is None else tie_break
    return [
        e == -inf or (e < inf and (e, u) <= threshold)
        for e, u in zip(nonconformity, ties, strict=True)
    ]


def split_metrics(
    nonconformity: np.ndarray,
    correct: np.ndarray,
    calibration: np.ndarray,
    alpha: str | float,
    tie_break: np.ndarray | None = None,
) -> dict[str, float]:
    """One split at one alpha: calibrate on the rows of the mask, measure on the others.

    Use this when a test needs the metrics of one split without the package.

    Args:
      nonconformity: float `[n, m + 1]`, null model last.
      correct: 0/1 `[n, m]`.
      calibration: bool `[n]`, which rows calibrate.
      alpha: Risk level.
      tie_break: Integers `[n, m + 1]`, or None.

    Returns:
      `threshold`, and the test means `risk`, `size`, `abstention`, `avoidable_miss`.
    """
    rows = nonconformity.astype(np.float64).tolist()
    right = np.asarray(correct, dtype=int).tolist()
    ties = [None] * len(rows) if tie_break is None else np.asarray(tie_break).tolist()
    critical = [critical_score(rows[i], right[i], ties[i]) for i in np.flatnonzero(calibration)]
    limit = threshold(critical, alpha)
    if tie_break is None:
        limit = (limit[0], inf)
    totals = {"risk": 0, "size": 0, "abstention": 0, "avoidable_miss": 0}
    test = np.flatnonzero(~np.asarray(calibration, dtype=bool))
    for i in test:
        members = prediction_set(rows[i], limit, ties[i])
        members_called = [m for m, inside in enumerate(members[:-1]) if inside]
        truth = truth_set(right[i])
        totals["risk"] += not any(members[m] for m in truth)
        totals["size"] += len(members_called)
        totals["abstention"] += not members_called
        totals["avoidable_miss"] += any(right[i]) and not any(right[i][m] for m in members_called)
    return {"threshold": limit[0], **{name: total / len(test) for name, total in totals.items()}}


def softmax(weights: list[float], temperature: float) -> list[Fraction]:
    """Terms of the softmax of w / T, each rounded far below the smallest.

    Equal weights at T = inf.

    Use this when a test needs the softmax without the package.
    """
    if temperature == inf:
        return [Fraction(1, len(weights))] * len(weights)
    spread = (max(weights) - min(weights)) / temperature
    with localcontext() as context:
        context.prec = int(spread / 2.3) + 50
        largest, scale = Decimal(max(weights)), Decimal(temperature)
        terms = [Fraction(((Decimal(w) - largest) / scale).exp()) for w in weights]
    return [term / sum(terms) for term in terms]


def vote(
    models: list[int],
    answers: list[int],
    scores: list[float],
    weights: list[float] | None = None,
    temperature: float = inf,
) -> int:
    """The answer of the called models.

    Most weight, then highest mean router score, then smallest code; -1 for none.

    Use this when a test needs one vote without the package.

    Args:
      models: Indices of the models of the set.
      answers: Answer code of each model of the pool, -1 for none.
      scores: Router score of each.
      weights: w of each; None for a majority vote.
      temperature: T of the weights; inf counts votes alike.
    """
    if not models:
        return NO_ANSWER
    shares = softmax([0.0 if weights is None else weights[m] for m in models], temperature)
    voters: dict[int, list[int]] = {}
    support: dict[int, Fraction] = {}
    for m, share in zip(models, shares, strict=True):
        if answers[m] != NO_ANSWER:
            voters.setdefault(answers[m], []).append(m)
            support[answers[m]] = support.get(answers[m], Fraction(0)) + share
    if not voters:
        return NO_ANSWER
    mean = {answer: sum(Fraction(scores[m]) for m in ms) / len(ms) for answer, ms in voters.items()}
    return max(voters, key=lambda answer: (support[answer], mean[answer], -answer))


def prefix_answers(
    order: list[int],
    answers: list[int],
    scores: list[float],
    weights: list[float] | None = None,
    temperature: float = inf,
) -> list[int]:
    """The answer of the first 0, 1, ..., m models of an order, each voted anew.

    Use this when a test needs the votes along an order without the package.
    """
    return [vote(order[:k], answers, scores, weights, temperature) for k in range(len(order) + 1)]


# --- one model after another ----------------------------------------------------------------------


def stop_leader(answers: list[int], weights: list[float]) -> int:
    """The answer with the most weight, of equal ones the first to be there.

    -1 where no model answered.

    Use this when a test needs the leader of a sequence of answers.
    """
    present = [a for a in dict.fromkeys(answers) if a != NO_ANSWER]
    if not present:
        return NO_ANSWER
    return max(
        present, key=lambda a: sum(w for w, b in zip(weights, answers, strict=True) if b == a)
    )


def stop_state(answers: list[int], weights: list[float], num_called: int) -> list[float]:
    """State of the vote after the first calls.

    Leader's sum, runner-up's, difference, leader's votes, second, distinct, missing.

    Use this when a test needs the state after some calls without the package.
    """
    answers_so_far, shares = answers[:num_called], weights[:num_called]
    leader = stop_leader(answers_so_far, shares)
    present = set(answers_so_far) - {NO_ANSWER}
    sums = {
        a: sum(w for w, b in zip(shares, answers_so_far, strict=True) if b == a) for a in present
    }
    votes = {a: answers_so_far.count(a) for a in present}
    leader_weight, own_votes = sums.pop(leader, 0.0), votes.pop(leader, 0)
    second, second_votes = max(sums.values(), default=0.0), max(votes.values(), default=0)
    missing = answers_so_far.count(NO_ANSWER)
    return [
        leader_weight,
        second,
        leader_weight - second,
        own_votes,
        second_votes,
        len(present),
        missing,
    ]


def stop_decided(answers: list[int], weights: list[float], num_called: int) -> bool:
    """Whether the leader stays the leader when all models left give any one answer together.

    Use this when a test needs to know whether a vote can still change.
    """
    answers_so_far, num_left = answers[:num_called], len(answers) - num_called
    leader = stop_leader(answers_so_far, weights[:num_called])
    endings = {*answers_so_far, max(answers) + 1} - {NO_ANSWER}
    full = [stop_leader([*answers_so_far, *[a] * num_left], weights) for a in endings]
    return leader != NO_ANSWER and all(answer == leader for answer in full)


def stop_loss(
    loss: str, answers: list[int], weights: list[float], correct: list[int], num_called: int
) -> bool:
    """The loss of stopping after the first calls, the full vote being the reference.

    Use this when a test needs the loss of stopping early.
    """
    answer, reference = (stop_leader(answers[:k], weights[:k]) for k in (num_called, len(answers)))
    right = {a for a, y in zip(answers, correct, strict=True) if y} - {NO_ANSWER}
    if loss == "differs":
        return answer != reference
    if loss == "covers":
        return any(correct) and not any(correct[:num_called])
    return answer not in right and (loss == "wrong" or reference in right)


def stop_call(path: list[Pair], threshold: Pair) -> int | None:
    """The first call whose score is above the threshold.

    None if there is none, and the policy abstains.

    Use this when a test needs the call at which a policy stops.
    """
    for j, pair in enumerate(path, start=1):
        if pair[0] == inf or (pair[0] > -inf and pair > threshold):
            return j
    return None


def stop_envelope(path: list[Pair], losses: list[bool], threshold: Pair) -> bool:
    """Whether the policy loses at the threshold or at any above it, by trying all that differ.

    Use this when a test needs the envelope of losses without the package.
    """
    thresholds = [threshold, *(pair for pair in path if pair > threshold)]
    stops = [stop_call(path, level) for level in thresholds]
    return any(j is not None and losses[j - 1] for j in stops)


# --- bounded losses -------------------------------------------------------------------------------


def grade_loss(
    nonconformity: list[float],
    grades: list[float],
    threshold: Pair,
    tie_break: list[int] | None = None,
    against: str = "perfect",
) -> Fraction:
    """What the best answer of the set lacks: 1, or the best grade of the pool, minus its grade.

    The null model's grade is 1 where the grade of every model is 0, else 0.

    Use this when a test needs the loss of graded answers without the package.
    """
    exact = [Fraction(str(grade)) for grade in grades]
    exact.append(Fraction(not any(exact)))
    members = prediction_set(nonconformity, threshold, tie_break)
    best = max((exact[m] for m, inside in enumerate(members) if inside), default=Fraction(0))
    return (max(exact) if against == "pool" else Fraction(1)) - best


def loss_threshold(
    losses: list[Callable[[Pair], Fraction]],
    steps: list[Pair],
    alpha: str | float,
    bound: Fraction = Fraction(1),
) -> Pair:
    """The smallest lambda with (L_1(lambda) + ... + L_n(lambda) + B) / (n + 1) <= alpha.

    Only the steps of the losses need be tried. (-inf, 0) if the empty set will do, (inf, inf) if
    nothing will.

    Use this when a test needs a loss threshold without the package.
    """
    level = Fraction(str(alpha)) * (len(losses) + 1)
    for candidate in [(-inf, 0), *sorted(steps)]:
        if sum(loss(candidate) for loss in losses) + bound <= level:
            return candidate
    return (inf, inf)
