"""All keys of a run at once: those that `jax.random` derives one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from racer_jax.routers.run_keys import draws_of_order, epochs_of_round, run_keys
from racer_jax.routers.training import Rounds, batch_indices, fit_in_memory, ordered, permutation

SIZES = 7, 3, 5, 4  # rows, rows of a batch, steps of a round, rounds


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize("impl", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.long)])
def test_keys_are_those_of_a_chain_of_splits(impl):
    key = jax.random.key(5, impl=impl)
    with jax.debug_key_reuse(False):
        keys = run_keys(key, *SIZES)
        first, second = jax.random.split(key)
        for e in (0, 3, 8):
            draws = jax.random.split(jax.random.fold_in(first, e), draws_of_order(SIZES[0]))
            assert words(keys.epochs[e]) == words(draws)
        for i in (0, 7, 19):
            assert words(keys.steps[i]) == words(jax.random.fold_in(second, i))
    assert keys.steps.shape == (20,)
    # 20 batches of 3 rows end in the ninth epoch of 7.
    assert keys.epochs.shape[0] >= 9


def test_rounds_touch_as_many_epochs_as_one_counts():
    for num_rows, draws, rounds in ((7, 15, 4), (10, 10, 3), (4, 3, 9), (5, 1, 1)):
        touched = [
            (r * draws + draws - 1) // num_rows - r * draws // num_rows + 1 for r in range(rounds)
        ]
        assert epochs_of_round(num_rows, draws, rounds) == max(touched)


@pytest.mark.long
def test_a_run_from_derived_keys_is_the_run_of_the_key():
    data = 2.0 ** jnp.arange(SIZES[0])  # the sum of distinct powers of two names its terms
    loss = lambda params, batch, noise: 0 * params + batch.sum() + 0 * noise  # noqa: E731
    draw = lambda key: jax.random.uniform(key)  # noqa: E731

    keys, sizes = run_keys(jax.random.key(3), *SIZES), Rounds(*SIZES[1:])
    losses = fit_in_memory(
        keys, jnp.float32(0), data, loss, optax.sgd(0.1), sizes, draw=draw
    ).losses
    rows = batch_indices(jax.random.split(jax.random.key(3))[0], *SIZES[:2], 0, 20)
    np.testing.assert_array_equal(losses.reshape(-1), np.asarray(data)[np.asarray(rows)].sum(1))


@pytest.mark.long
def test_an_order_is_drawn_by_the_split_of_its_key():
    keys = jax.random.split(jax.random.key(1), draws_of_order(50))
    np.testing.assert_array_equal(ordered(keys, 50), permutation(jax.random.key(1), 50))
