"""The pieces of training: batches, optimizer, steps that fail, held-out rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from racer_jax.routers.report import holdout, routing_accuracy
from racer_jax.routers.training import (
    OptimizerConfig,
    Rounds,
    all_finite,
    batch_indices,
    fit_in_memory,
    permutation,
    start,
    update,
)

pytestmark = pytest.mark.long


def test_batches_are_permutations_one_after_another():
    indices = np.asarray(batch_indices(jax.random.key(0), 10, 4, 0, 15))
    epochs = indices.reshape(6, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 6
    later = jax.jit(batch_indices, static_argnums=(1, 2, 4))(
        jax.random.key(0), 10, 4, jnp.int32(7), 5
    )
    np.testing.assert_array_equal(later, indices[7:12])
    with pytest.raises(
        ValueError, match="batch_size must be between 1 and the number of rows, 10, got 11"
    ):
        batch_indices(jax.random.key(0), 10, 11, 0, 1)


@pytest.mark.parametrize("num", [1, 2, 3, 64, 65, 5093, 2**20])
def test_permutation_holds_every_number_once(num):
    order = np.asarray(permutation(jax.random.key(num), num))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(num))
    if num > 100:
        # A third of the length is what two independent positions lie apart in the mean.
        apart = np.abs(order - np.arange(num)).mean() / num
        assert abs(apart - 1 / 3) < 4 / np.sqrt(num)
        # As often up as down from one to the next. With a million numbers a word has twelve random
        # bits: after a single round, or rounds that forget the one before, nearly all of those with
        # equal bits would stand in order.
        assert abs((np.diff(order) > 0).mean() - 1 / 2) < 5 / np.sqrt(12 * num)


def test_every_permutation_is_as_likely():
    num_draws = 24_000
    keys = jax.random.split(jax.random.key(0), num_draws)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, 4)))(keys))
    _, found = np.unique(orders, axis=0, return_counts=True)
    assert len(found) == 24
    # Chi-squared with 23 degrees of freedom; 49.7 is its 99.9th percentile.
    assert ((found - 1000) ** 2 / 1000).sum() < 49.7


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0, 0.5, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.5, 0]),
        ("cosine", [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_schedules(schedule, expected):
    config = OptimizerConfig(1.0, weight_decay=0.0, schedule=schedule, warmup=0.2)
    optimizer = config.transformation(100)
    params = jnp.float32(0)
    state = optimizer.init(params)
    rates = []
    for _ in range(101):
        # A constant gradient makes Adam's step the learning rate itself.
        updates, state = optimizer.update(jnp.float32(1), state, params)
        rates.append(-float(updates))
    np.testing.assert_allclose([rates[i] for i in (0, 10, 20, 60, 100)], expected, atol=1e-3)


def test_clipping_and_decay_are_optax():
    config = OptimizerConfig(0.1, weight_decay=0.2, clip_norm=0.5)
    ours, theirs = (
        config.transformation(10),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.2)),
    )
    params, grads = {"a": jnp.array([1.0, -2.0])}, {"a": jnp.array([3.0, 4.0])}
    a, b = (o.update(grads, o.init(params), params)[0]["a"] for o in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
        (
            {"schedule": "step"},
            r"schedule must be one of \('constant', 'linear', 'cosine'\), got 'step'",
        ),
        ({"warmup": 1.0}, r"warmup must be a share of the steps in \[0, 1\), got 1.0"),
        ({"clip_norm": 0.0}, "clip_norm must be positive or None, got 0.0"),
    ],
)
def test_bad_optimizer(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**options)


def test_a_step_that_fails_changes_nothing_and_is_remembered():
    optimizer = optax.adam(0.1)
    state = start(jnp.array([1.0]), optimizer)
    loss = lambda params, batch, key: (params * batch).sum()  # noqa: E731
    step = jax.jit(lambda state, batch: update(None, state, batch, loss, optimizer))
    state, value = step(state, jnp.float32(2))
    assert float(value) == 2
    good = state.params
    for batch in (jnp.nan, jnp.inf, 1.0):
        state, _ = step(state, jnp.float32(batch))
        np.testing.assert_array_equal(state.params, good)
    assert (int(state.step), int(state.failed_at)) == (4, 1)


@pytest.mark.parametrize(
    ("num", "batch", "steps"), [(10, 4, 3), (10, 10, 1), (7, 3, 5), (4, 3, 8), (12, 4, 3)]
)
def test_every_round_takes_the_rows_that_its_steps_name(num, batch, steps):
    # The sum of distinct powers of two names its terms.
    powers = 2.0 ** jnp.arange(num)
    loss = lambda params, batch, noise: 0 * params + batch.sum()  # noqa: E731
    fitted = fit_in_memory(
        jax.random.key(5),
        jnp.float32(0),
        powers,
        loss,
        optax.sgd(1.0),
        Rounds(batch, steps, 7),
    )
    first_key = jax.random.split(jax.random.key(5))[0]
    rows = np.asarray(batch_indices(first_key, num, batch, 0, 7 * steps))
    np.testing.assert_array_equal(fitted.losses.reshape(-1), np.asarray(powers)[rows].sum(axis=1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(), (1,), (2,), (7,), (3, 5), (1, 4), (5, 1, 2), (0, 3)])
def test_one_entry_that_is_not_finite_is_found_wherever_it_is(shape, dtype):
    largest = jnp.full(shape, jnp.finfo(dtype).max, dtype)
    tree = {"a": largest, "b": (jnp.float32(1), -largest)}
    assert bool(all_finite(tree))
    assert bool(all_finite({}))
    found = jax.jit(jax.vmap(lambda a: all_finite(tree | {"b": a})))
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        # One copy of the array for each place.
        spoilt = jnp.where(
            jnp.eye(largest.size, dtype=bool), jnp.asarray(bad, dtype), largest.reshape(1, -1)
        )
        assert not np.asarray(found(spoilt.reshape(largest.size, *shape))).any()


def test_fit_in_memory_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    optimizer = optax.sgd(0.1)
    loss = lambda w, batch, key: ((batch[0] @ w - batch[1]) ** 2).mean()  # noqa: E731
    sizes = Rounds(batch_size=4, steps_per_round=5, num_rounds=2)
    fitted = jax.jit(lambda key: fit_in_memory(key, jnp.zeros(3), (x, y), loss, optimizer, sizes))(
        jax.random.key(3)
    )
    w, losses = np.zeros(3), []
    for rows in np.asarray(batch_indices(jax.random.split(jax.random.key(3))[0], 12, 4, 0, 10)):
        residual = x[rows] @ w - y[rows]
        losses.append((residual**2).mean())
        w = w - 0.1 * 2 * x[rows].T @ residual / 4
    np.testing.assert_allclose(fitted.params, w, atol=1e-5)
    np.testing.assert_allclose(fitted.losses.reshape(-1), losses, atol=1e-5)
    assert int(fitted.failed_at) == -1


@pytest.mark.parametrize("vmapped", [False, True])
def test_noise_drawn_for_a_round_is_that_of_each_step(vmapped):
    optimizer = optax.sgd(0.5)
    data = jnp.arange(6.0)
    loss = lambda w, batch, noise: (w * noise).sum()  # noqa: E731
    sizes = Rounds(batch_size=2, steps_per_round=3, num_rounds=2)
    draw = lambda key: jax.random.normal(key, (4,))  # noqa: E731

    def fit(key):
        start = jnp.zeros(4)
        return fit_in_memory(key, start, data, loss, optimizer, sizes, draw=draw).params

    params = jax.vmap(fit)(jax.random.key(8)[None])[0] if vmapped else fit(jax.random.key(8))
    step_key = jax.random.split(jax.random.key(8))[1]
    total = sum(
        np.asarray(draw(jax.random.fold_in(step_key, step)), np.float64) for step in range(6)
    )
    np.testing.assert_allclose(params, -0.5 * total, atol=1e-5)


def test_holdout_keeps_questions_together():
    questions = np.array([7, 7, 3, 3, 3, 9, 1, 1])
    for seed in range(5):
        held = holdout(jax.random.key(seed), 8, 0.5, questions)
        assert len(set(questions[held])) == 2
        assert not set(questions[held]) & set(questions[~held])
    assert holdout(jax.random.key(0), 2, 0.01).sum() == 1
    with pytest.raises(ValueError, match="at least two different questions, got 1"):
        holdout(jax.random.key(0), 3, 0.5, [4, 4, 4])


def test_routing_accuracy_takes_the_first_of_equals():
    assert routing_accuracy(np.full((3, 2), 0.5), [[1, 0], [0, 1], [1, 1]]) == pytest.approx(2 / 3)
