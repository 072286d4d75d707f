r"""The votes of the paper in plain Python, exact: the oracle of the tests and the baseline of the benchmarks.

Like `reference`, it shares no code with the rest of the package and nothing is vectorised. Weights are summed as exact
fractions of exponentials with as many digits as the smallest of them needs, so no two sums are confused by rounding.
"""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import inf

NO_ANSWER = -1


def softmax(weights: list[float], temperature: float) -> list[Fraction]:
    """Terms of the softmax of w / T, each rounded far below the smallest; equal weights at T = inf."""
    if temperature == inf:
        return [Fraction(1, len(weights))] * len(weights)
    spread = (max(weights) - min(weights)) / temperature
    with localcontext() as context:
        context.prec = int(spread / 2.3) + 50
        largest, scale = Decimal(max(weights)), Decimal(temperature)
        terms = [Fraction(((Decimal(w) - largest) / scale).exp()) for w in weights]
    return [term / sum(terms) for term in terms]


def vote(
    called: list[int],
    answers: list[int],
    scores: list[float],
    weights: list[float] | None = None,
    temperature: float = inf,
) -> int:
    """The answer of the called models: most weight, then highest mean router score, then smallest code; -1 for none.

    Args:
      called: Indices of the models of the set.
      answers: Answer code of each model of the pool, -1 for none.
      scores: Router score of each.
      weights: w of each; None for a majority vote.
      temperature: T.
    """
    if not called:
        return NO_ANSWER
    shares = softmax([0.0 if weights is None else weights[m] for m in called], temperature)
    voters: dict[int, list[int]] = {}
    support: dict[int, Fraction] = {}
    for m, share in zip(called, shares, strict=True):
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
    """The answer of the first 0, 1, ..., m models of an order, each voted anew."""
    return [vote(order[:k], answers, scores, weights, temperature) for k in range(len(order) + 1)]
