r"""The risk model: a logistic regression of the loss of stopping on the state of the vote.

Its rows are (query, call), its columns an intercept for each call, the standardised features of the
state, the interactions of the three sums with the call, whether each model votes for the leader,
and the group of the query. Some 30 columns against thousands of rows: it is fitted in sample, by
Newton's method with a ridge of 1, in float64 on the host.
"""

from typing import NamedTuple

import numpy as np

from racer_jax.risk_control.vote_path import NUM_STATE_FEATURES
from racer_jax.sequential.weights import GRID

_NUM_INTERACTIONS = 3  # the leader's sum, the runner-up's and their difference
_RIDGE = 1.0
_STEPS = 12
_TOLERANCE = 1e-4
_BLOCK = 64
_DIGITS = 23  # one less than float32 holds


class RiskModel(NamedTuple):
    """A linear model of the logit of the loss, by call.

    Use this when you read `Policy.risk`.

    Attributes:
      coefficients: Intercept, then one for each feature, by call, `[b, 1 + f]`.
      groups: What the score of a query of each group gains, `[g]`.
    """

    coefficients: np.ndarray
    groups: np.ndarray

    def scores(self, features: np.ndarray, group: np.ndarray) -> np.ndarray:
        """-logit of the loss, float64 `[n, b]`; group codes `[n]`, -1 for none.

        Use this when features of many queries are there.
        """
        linear = self.coefficients[:, 0] + np.einsum(
            "nbf,bf->nb", features, self.coefficients[:, 1:]
        )
        return np.asarray(np.append(self.groups, 0.0)[group][:, None] - linear)


def fit_logistic(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients `[k]` of a ridge logistic regression: target `[r]` on columns `[r, k]`.

    Use this when you fit a risk of your own; `fit_risk_model` makes the columns.
    """
    from scipy.linalg import cho_factor, cho_solve  # takes long to import
    from scipy.special import expit

    num, num_columns = columns.shape
    # Products of blocks of rows are too small for BLAS to share among threads: on a busy machine
    # threads that wait for each other take a hundred times as long as the work, and the sums would
    # depend on their number. Rows of zeros fill the last block; they add nothing to any sum.
    blocks = np.zeros((-(-num // _BLOCK), _BLOCK, num_columns))
    blocks.reshape(-1, num_columns)[:num] = columns
    targets = np.zeros(blocks.shape[:2])
    targets.reshape(-1)[:num] = target
    across = blocks.transpose(0, 2, 1)
    beta = np.zeros(num_columns)
    for _ in range(_STEPS):
        chance = expit(blocks @ beta)
        slope = (across @ (chance - targets)[..., None]).sum(axis=0)[:, 0] + _RIDGE * beta
        curvature = (across @ (blocks * (chance * (1 - chance))[..., None])).sum(axis=0)
        curvature[np.diag_indices_from(curvature)] += _RIDGE
        step = cho_solve(cho_factor(curvature), slope)
        beta -= step
        if np.abs(step).max() < _TOLERANCE:
            break
    return beta


def fit_risk_model(
    features: np.ndarray,
    losses: np.ndarray,
    rows: np.ndarray,
    group: np.ndarray | None = None,
) -> RiskModel:
    """Fits the risk of stopping after each call.

    Use this when a policy is fitted; `fit_policy` does it for you.

    Args:
      features: Of each state, `[n, b, f]`, from `state_features`.
      losses: Loss of stopping there, bool `[n, b]`.
      rows: Where the policy could stop and lose, bool `[n, b]`: only these are learned from.
      group: Code of each query's group, int `[n]`; None where there are none.

    Returns:
      The `RiskModel` on the scale of the features.
    """
    _, num_calls, num_features = features.shape
    num_groups = 0 if group is None else int(group.max()) + 1
    query, call = np.nonzero(rows)
    design = features[query, call].astype(np.float64)
    target = losses[query, call].astype(np.float64)
    if not len(query):
        return RiskModel(np.zeros((num_calls, 1 + num_features)), np.zeros(num_groups))
    # Only the state is standardised; the rest is 0 or 1 already.
    mean, scale = np.zeros(num_features), np.ones(num_features)
    mean[:NUM_STATE_FEATURES] = design[:, :NUM_STATE_FEATURES].mean(axis=0)
    deviation = design[:, :NUM_STATE_FEATURES].std(axis=0)
    scale[:NUM_STATE_FEATURES] = np.where(deviation > 0, deviation, 1.0)
    design = (design - mean) / scale
    place = (np.arange(num_calls) + 1) / num_calls - 0.5
    columns = [
        np.eye(num_calls)[call],
        design,
        design[:, :_NUM_INTERACTIONS] * place[call][:, None],
    ]
    if group is not None:
        columns.append(np.eye(num_groups)[group[query]])
    beta = fit_logistic(np.concatenate(columns, axis=1), target)
    intercepts, beta = beta[:num_calls], beta[num_calls:]
    table = np.tile(beta[:num_features], (num_calls, 1))
    table[:, :_NUM_INTERACTIONS] += (
        place[:, None] * beta[num_features : num_features + _NUM_INTERACTIONS]
    )
    table /= scale
    coefficients = np.concatenate([(intercepts - table @ mean)[:, None], table], axis=1)
    return RiskModel(coefficients, -beta[num_features + _NUM_INTERACTIONS :])


def on_grid(model: RiskModel, total_weight: float) -> RiskModel:
    """Coefficients rounded so that float32 holds every score and every partial sum.

    Features are multiples of the grid of the weights, sums up to the total weight and counts up to
    the number of calls. So a score is a multiple of grid x unit, below 2^23 of them if the unit is
    large enough.

    Use this when scores computed on the host and on the device must be equal.

    Args:
      model: From `fit_risk_model`.
      total_weight: The sum of all vote weights.
    """
    table = model.coefficients
    num_calls = len(table)
    largest = np.ones(table.shape[1])
    largest[1 : 1 + _NUM_INTERACTIONS] = total_weight
    largest[1 + _NUM_INTERACTIONS : 1 + NUM_STATE_FEATURES] = num_calls
    offset = np.abs(model.groups).max(initial=0.0)
    bound = float((np.abs(table) @ largest).max() + offset)
    bound = 2 * max(bound, 1.0)  # a margin for what the rounding itself adds
    unit = 2.0 ** (np.ceil(np.log2(bound / GRID)) - _DIGITS)
    return RiskModel(np.rint(table / unit) * unit, np.rint(model.groups / unit) * unit)
