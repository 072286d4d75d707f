"""What answers tell without labels: whom the others agree with, and the answer of most weight.

A model that often gives the answer of the weighted vote of all is taken to be good, and its weight
follows from that, as it would from its accuracy; vote and weights are made to fit each other in
turns. This is the one-coin model of annotators, with the weights of `starting_weights`.
"""

import numpy as np
from scipy.special import softmax

from racer_jax.core.aggregation import NO_ANSWER
from racer_jax.sequential.weights import GRID, starting_weights

_ROUNDS = 50
_TOLERANCE = 1e-6


def agreement_weights(codes: np.ndarray) -> np.ndarray:
    """Vote weights from answers alone.

    Use this when a table has answers and no labels.

    Args:
      codes: Answer codes, int `[n, m]`, at least 0, -1 for none; from `answer_codes`.

    Returns:
      float64 `[m]`, above 0 (0 for a model that never answers), multiples of 1/64.
    """
    has_answer = codes != NO_ANSWER
    same = (codes[:, :, None] == codes[:, None, :]) & has_answer[:, None, :]
    share = np.full(codes.shape[1], 0.6)
    for _ in range(_ROUNDS):
        sums = np.where(has_answer, same @ starting_weights(share), -np.inf)
        # An answer of k models stands in k columns: each is a k-th of its chance.
        votes = np.maximum(same.sum(axis=2), 1)
        some = has_answer.any(axis=1)
        chance = np.zeros(codes.shape)
        chance[some] = softmax((sums - np.log(votes))[some], axis=1)
        # The chance that the model's own answer is the one: the columns that give it, together.
        before, share = share, (same @ chance[..., None])[..., 0].mean(axis=0)
        if np.abs(share - before).max() < _TOLERANCE:
            break
    weights = np.rint(starting_weights(share) / GRID) * GRID
    return np.asarray(np.where(has_answer.any(axis=0), weights, 0.0))


def agrees_with_vote(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether each answer is that of the weighted vote of all, bool `[n, m]`.

    Use this when a table has answers and no labels.

    Args:
      codes: Answer codes, int `[n, m]`.
      weights: Vote weights `[m]`.
    """
    has_answer = codes != NO_ANSWER
    same = (codes[:, :, None] == codes[:, None, :]) & has_answer[:, None, :]
    winner = np.where(has_answer, same @ weights, -1.0).argmax(axis=1)
    return np.asarray((codes == codes[np.arange(len(codes)), winner][:, None]) & has_answer)
