"""Keys and draws on the host, and keys whose rounds are written out: JAX's own numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core import threefry
from tests.parameters import few_by_default

DRAWS = {
    "uniform": lambda key: jax.random.uniform(key, (7, 3)),
    "bits of 8": lambda key: jax.random.bits(key, (9,), np.uint8),
    "normal of a split": lambda key: jax.random.normal(jax.random.split(key, 5)[3], (4,)),
    "permutation": lambda key: jax.random.permutation(key, 100),
    "fold_in under vmap": lambda key: jax.vmap(
        lambda i: jax.random.uniform(jax.random.fold_in(key, i), (2,))
    )(jnp.arange(5)),
}


def words(key):
    return np.asarray(jax.random.key_data(key)).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**31, -1])
def test_a_seed_gives_its_key(seed):
    assert words(threefry.seeded(seed)) == words(jax.random.key(seed))


@pytest.mark.long
@pytest.mark.parametrize("impl", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.long)])
def test_keys_and_draws_of_the_host_are_those_of_jax(impl):
    key = partial(jax.random.key, 5, impl=impl)  # anew for each use
    assert [words(half) for half in threefry.halves(key())] == words(jax.random.split(key()))
    for number in (0, 3, 2**31 - 1):
        assert words(threefry.folded(key(), number)) == words(jax.random.fold_in(key(), number))
    many = partial(jax.random.split, key(), 3)
    chosen = np.array([2, 0])
    with jax.debug_key_reuse(False):
        folded = jax.vmap(lambda key: jax.random.fold_in(key, 2))(many())
        assert words(threefry.folded(many(), 2)) == words(folded)
        assert words(threefry.at(many(), chosen)) == words(many()[chosen])
        numbers = np.array([4, 0, 4])
        pairs = [[jax.random.fold_in(one, n) for n in numbers] for one in many()]
        each = threefry.folded_each(many(), numbers)
        assert words(each) == [[words(one) for one in row] for row in pairs]
        assert words(threefry.at(each, (..., 1))) == words(each[..., 1])
        assert words(threefry.at(each, (2, 0))) == words(each[2, 0])
        thirds = threefry.split_each(many(), 3)
        assert words(thirds) == [words(jax.random.split(one, 3)) for one in many()]
        if impl == "threefry2x32":  # another kind goes the way of JAX outside of `jit` too
            folded_and_split = lambda keys: threefry.split_each(  # noqa: E731
                threefry.folded_each(keys, numbers), 1
            )
            within = jax.jit(folded_and_split)
            assert words(within(many())) == words(threefry.split_each(each, 1))
    np.testing.assert_array_equal(
        threefry.bits(key(), (4, 5)), jax.random.bits(key(), (4, 5), jnp.uint32)
    )


@pytest.mark.parametrize("num", [1, 2, 50, 2000])  # from 1,626 on JAX shuffles twice
def test_an_order_of_the_host_is_that_of_jax(num):
    order = threefry.permutation(jax.random.key(num), num)
    np.testing.assert_array_equal(order, jax.random.permutation(jax.random.key(num), num))
    assert order.dtype == np.int32


@pytest.mark.parametrize("name", few_by_default(DRAWS, 1))
def test_rounds_that_are_written_out_draw_the_same(name):
    draw = DRAWS[name]
    assert words(threefry.written_out(jax.random.key(5))) == words(jax.random.key(5))
    np.testing.assert_array_equal(
        jax.jit(lambda key: draw(threefry.written_out(key)))(jax.random.key(5)),
        jax.jit(draw)(jax.random.key(5)),
    )


def test_keys_of_another_kind_stay_as_they_are():
    key = jax.random.key(0, impl="rbg")
    assert threefry.written_out(key) is key
