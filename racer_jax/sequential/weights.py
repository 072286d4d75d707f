r"""Vote weights by maximum likelihood: how much the answer of each model says about the right one.

The chance that answer c is right is modelled as

  P(c) = exp(sum_m w_m 1{a_m = c}) / (exp(t_0 + t_1 none / 3) + sum_c' exp(sum_m w_m 1{a_m = c'})),

where the first term of the denominator stands for "no model is right" and `none` counts the models
without an answer. One fit serves every order and every subset of the pool. Weights are at least 0:
a vote with negative weights is never decided before its end.
"""

import numpy as np

from racer_jax.core.aggregation import NO_ANSWER
from racer_jax.core.host_threads import one_blas_thread

# Weights are multiples of this, so that their sums are exact in float32 (see
# risk_control.vote_path); it is far below their standard error.
GRID = 1 / 64
_LARGEST = 64.0
_PENALTY = 2.0


def starting_weights(accuracy: np.ndarray) -> np.ndarray:
    """The weights that the penalty pulls to: .7 times the log-odds of the accuracy plus 1, clipped.

    Use this when a fit of weights needs where to begin.

    Args:
      accuracy: Share of right answers of each model, `[m]`.
    """
    share = np.clip(accuracy, 0.05, 0.97)
    return np.asarray(0.7 * np.clip(np.log(share / (1 - share)) + 1, 0.2, 4.0))


@one_blas_thread()
def fit_vote_weights(codes: np.ndarray, correct: np.ndarray) -> np.ndarray:
    r"""Nonnegative maximum-likelihood weights of a vote over answers.

    Use this when models of unequal accuracy vote: the vote is right more often than the majority,
    and it is decided after fewer calls.

    Args:
      codes: Answer codes, int `[n, m]`, at least 0, -1 for none; from `answer_codes`.
      correct: Whether each answer is right, bool `[n, m]`.

    Returns:
      float64 `[m]`, at least 0, multiples of 1/64. Where no model is ever right, and so nothing
      can be learned, all weights are 1.
    """
    from scipy.optimize import minimize  # takes half a second to import
    from scipy.special import logsumexp, softmax

    num, num_models = codes.shape
    right = correct & (codes != NO_ANSWER)
    if not right.any():
        return np.ones(num_models)
    # The indicators of answer c by query and model, [n, c, m].
    votes = (codes[:, None, :] == np.arange(codes.max() + 1)[:, None]).astype(np.float64)
    absent = ~votes.any(axis=2)
    is_right = (votes * right[:, None, :]).any(axis=2)
    target = np.concatenate([is_right, ~is_right.any(axis=1, keepdims=True)], axis=1)
    none = (codes == NO_ANSWER).sum(axis=1) / 3
    null = np.stack([np.ones(num), none])
    start = starting_weights(right.mean(axis=0))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, null_terms = parameters[:num_models], parameters[num_models:]
        logits = np.concatenate(
            [np.where(absent, -np.inf, votes @ weights), (null_terms @ null)[:, None]], axis=1
        )
        among = np.where(target, logits, -np.inf)
        value = (logsumexp(logits, axis=1) - logsumexp(among, axis=1)).mean()
        excess = softmax(logits, axis=1) - softmax(among, axis=1)
        away = weights - start
        slope = np.einsum("nc,ncm->m", excess[:, :-1], votes) / num + 2 * _PENALTY * away / num
        null_slope = null @ excess[:, -1] / num
        return float(value + _PENALTY * (away @ away) / num), np.concatenate([slope, null_slope])

    # Nothing is known of a model that never answers, and no vote shall wait for it.
    largest = np.where((codes != NO_ANSWER).any(axis=0), _LARGEST, 0.0)
    bounds = [(0.0, limit) for limit in largest.tolist()] + [(None, None)] * 2
    solution = minimize(
        loss, np.concatenate([start, np.zeros(2)]), jac=True, method="L-BFGS-B", bounds=bounds
    )
    weights = np.rint(solution.x[:num_models] / GRID) * GRID
    # All weights 0 would leave the answer to the first model that has one.
    return np.asarray(weights if weights.any() else np.ones(num_models))


def cross_validated_accuracy(codes: np.ndarray, correct: np.ndarray, fold: np.ndarray) -> float:
    """Accuracy of the weighted vote on rows its weights were not fitted to.

    Use this when you want to know how good the weights are before they are used.

    Args:
      codes: Answer codes, int `[n, m]`.
      correct: Whether each answer is right, bool `[n, m]`.
      fold: Number of the fold of each row, int `[n]`.
    """
    right = np.zeros(len(codes), bool)
    for number in np.unique(fold):
        outside, inside = fold != number, fold == number
        weights = fit_vote_weights(codes[outside], correct[outside])
        right[inside] = vote_is_right(codes[inside], correct[inside], weights)
    return float(right.mean())


def vote_is_right(codes: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether the weighted vote of all models is right, bool `[n]`; ties go to the first model.

    Use this when answers and labels of a table are there.
    """
    has_answer = codes != NO_ANSWER
    same = (codes[:, :, None] == codes[:, None, :]) & has_answer[:, None, :]
    sums = np.where(has_answer, same @ weights, -1.0)
    winner = sums.argmax(axis=1)
    supporters = np.take_along_axis(same, winner[:, None, None], axis=1)[:, 0]
    return np.asarray((supporters & correct).any(axis=1))
