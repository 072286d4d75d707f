r"""The order of the calls after which the vote is decided soonest, exactly, on training rows.

Whether a vote is decided after some calls depends on which models were called, not on their order
(but for exact ties). So the mean number of calls of an order is a sum over its prefixes,

  1 + sum_j share of the rows that are open after {pi_1, ..., pi_j},

and the best order is a shortest path from the empty set of models to the whole pool, by dynamic
programming over its subsets. Dollars and batches of calls only change what a step costs.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from racer_jax.sequential.order_search import Order

# A vote of more models has too many subsets: 2^12 of them take a quarter of a second.
MOST_MODELS = 12
_BLOCK = 32


def decided_order(
    codes: np.ndarray,
    weights: np.ndarray,
    cost: np.ndarray | None = None,
    batches: Sequence[int] | None = None,
) -> Order | None:
    """The order with the least mean number of calls (or dollars) until the vote is decided.

    Use this when a policy stops on decided votes alone, and as a candidate of `search` otherwise.

    Args:
      codes: Answer codes, int `[n, m]`, at least 0, -1 for none.
      weights: Vote weight of each model, at least 0, `[m]`.
      cost: Dollars of each answer, `[n, m]`; None to count calls.
      batches: Sizes of the first batches of calls made at once; None for one at a time.

    Returns:
      A permutation of the models, those without weight last; None where more than `MOST_MODELS`
      have weight, too many to search through.
    """
    voters = np.flatnonzero(weights > 0)
    num_voters = len(voters)
    if not 0 < num_voters <= MOST_MODELS:
        return None
    price = np.ones((len(codes), num_voters)) if cost is None else cost[:, voters]
    step_cost = _step_costs(codes[:, voters], weights[voters], price)
    whole = (1 << num_voters) - 1
    sizes = _batch_sizes(batches, num_voters)
    # What the cheapest path from each subset to the whole pool costs, and its first batch; subsets
    # are reached by size, so those after a batch come before those it starts from.
    least = {whole: 0.0}
    first: dict[int, tuple[int, ...]] = {}
    for start, size in reversed(sizes):
        for members in combinations(range(num_voters), start):
            subset = sum(1 << m for m in members)
            rest = [m for m in range(num_voters) if m not in members]
            steps = {
                batch: step_cost[subset, list(batch)].sum()
                + least[subset + sum(1 << m for m in batch)]
                for batch in combinations(rest, size)
            }
            first[subset] = min(steps, key=steps.__getitem__)
            least[subset] = steps[first[subset]]
    order: list[int] = []
    subset = 0
    while subset != whole:
        # Within a batch the weightiest first: it leads where answers differ.
        batch = sorted(first[subset], key=lambda m: -weights[voters[m]])
        order += batch
        subset += sum(1 << m for m in batch)
    silent = [m for m in range(len(weights)) if weights[m] <= 0]
    return (*(int(voters[m]) for m in order), *silent)


def _batch_sizes(batches: Sequence[int] | None, num: int) -> list[tuple[int, int]]:
    """Where each batch of `num` calls starts, and its size."""
    sizes = [1] * num if batches is None else [*batches, num]
    starts = np.cumsum([0, *sizes])[:-1].tolist()
    return [
        (start, min(size, num - start))
        for start, size in zip(starts, sizes, strict=True)
        if start < num
    ]


def _step_costs(codes: np.ndarray, weights: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Mean cost of calling each model where the vote is open after a subset, `[2^m, m]`.

    Bit m of a subset's number stands for model m.
    """
    num, num_models = codes.shape
    total = np.zeros((1 << num_models, num_models))
    weights = weights.astype(np.float32)
    answers = np.arange(codes.max(initial=0) + 1)
    for begin in range(0, num, _BLOCK):
        block = codes[begin : begin + _BLOCK]
        votes = (block[:, :, None] == answers) * weights[None, :, None]
        # The sums of all subsets of the first models, [subsets, rows, answers].
        sums = np.zeros((1, len(block), len(answers)), np.float32)
        left = np.full(1, weights.sum())
        for m in range(num_models):
            sums = np.concatenate([sums, sums + votes[:, m]])
            left = np.concatenate([left, left - weights[m]])
        lead = sums.max(axis=2)
        # A tie with all the weight that is left goes to the answer that was there first, which a
        # subset does not say: it counts as open.
        within_reach = sums >= (lead - left[:, None])[..., None]
        is_open = (within_reach.sum(axis=2) > 1) | (lead <= left[:, None])
        total += is_open.astype(np.float64) @ price[begin : begin + _BLOCK]
    return np.asarray(total / num)
