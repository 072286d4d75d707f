"""The keys of a training run, derived at once.

Each use of a key within a program takes XLA a tenth of a second to compile, whatever it draws: the
rounds of the generator are some hundred operations. A key that is derived from another costs as
much. So all keys of a run are derived before it, on the host where the key is there, and a program
draws with them alone.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from racer_jax.core.threefry import at, folded_each, split_each


class RunKeys(NamedTuple):
    """The keys that a run in memory draws with.

    Use this when you call `fit_in_memory` with keys that were derived outside of `jit`.

    Attributes:
      epochs: Keys of the order of the rows in each epoch, typed `[..., e, r]`.
      steps: Of each step what its noise is drawn with, `[..., s, ...]`; typed keys `[..., s]` as
        `run_keys` makes them.
    """

    epochs: jax.Array
    steps: Any


def draws_of_order(num: int) -> int:
    """How many random words each of so many rows takes, to be ordered by them.

    Beside the position of its row a word has room for some random bits; equal ones keep the order
    from before, so sorting is repeated with fresh ones until a pair that was equal in every round
    is less likely than `1 / num`.

    Use this when keys for `ordered` are derived.
    """
    position_bits = (num - 1).bit_length()
    return max(1, math.ceil(3 * math.log2(num) / (32 - position_bits)))


def epochs_of_round(num_rows: int, draws_per_round: int, num_rounds: int) -> int:
    """How many epochs a round touches at most.

    The first row of a round in its epoch is known before the run, the round only later.

    Use this when the rows of a round are taken from the orders of its epochs.
    """
    firsts = (number * draws_per_round % num_rows for number in range(num_rounds))
    return max(-(-(first + draws_per_round) // num_rows) for first in firsts)


def run_keys(
    keys: jax.Array, num_rows: int, batch_size: int, steps_per_round: int, num_rounds: int
) -> RunKeys:
    """All keys of a run: those that `jax.random` derives from its key one by one.

    Epoch e draws with `fold_in` of the key's first half and e, step i with that of its second half
    and i.

    Use this when a run is compiled: what is derived on the host is not compiled.

    Args:
      keys: Typed PRNG keys `[...]`, of a run each.
      num_rows: Rows of the data.
      batch_size: Rows of a batch.
      steps_per_round: Steps of a round.
      num_rounds: Rounds at most.
    """
    draws_per_round = steps_per_round * batch_size
    last = (num_rounds - 1) * draws_per_round // num_rows
    num_epochs = last + epochs_of_round(num_rows, draws_per_round, num_rounds)
    both = split_each(keys, 2)
    epochs = folded_each(at(both, (..., 0)), np.arange(num_epochs))
    steps = folded_each(at(both, (..., 1)), np.arange(num_rounds * steps_per_round))
    return RunKeys(split_each(epochs, draws_of_order(num_rows)), steps)
