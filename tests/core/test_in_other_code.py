"""The core inside other people's programs.

Transforms, guards and debug modes, and few compilations.
"""

import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import racer_jax as racer
from racer_jax.core import aggregation, calibration, padding
from racer_jax.core.calibration import calibrate, critical_scores, threshold_at_budget
from racer_jax.core.nonconformity import TieBroken
from tests.devices import devices

pytestmark = pytest.mark.long

RNG = np.random.default_rng(0)
SCORES = (RNG.integers(0, 11, (40, 3)) / 10).astype(np.float32)
CORRECT = RNG.random((40, 3)) < 0.5
ANSWERS = RNG.integers(-1, 3, (40, 3))


def whole_core(scores, correct, answers, ties):
    """Scores to votes."""
    nonconformity = racer.gap(scores)
    mask = jnp.arange(len(scores)) < 30
    threshold = calibrate(critical_scores(nonconformity, correct, ties), ["0.1", "0.3"], mask)
    sets = racer.prediction_sets(nonconformity, threshold, ties)
    return (
        threshold,
        racer.misrouted(sets, correct).mean(),
        racer.set_size(sets),
        aggregation.majority_vote(sets, answers, scores),
        aggregation.weighted_vote(sets, answers, scores, aggregation.log_odds(scores), 0.5),
        aggregation.model_order(nonconformity, ties),
    )


@pytest.mark.parametrize(
    "dtype",
    ["float16", *(pytest.param(d, marks=pytest.mark.slow) for d in ("bfloat16", "float32"))],
)
def test_strict_promotion(dtype):
    scores = jnp.asarray(SCORES, dtype)
    ties = racer.tie_break(jax.random.key(0), (40, 4))
    expected = whole_core(scores, CORRECT, ANSWERS, ties)
    with jax.numpy_dtype_promotion("strict"):
        actual = whole_core(scores, CORRECT, ANSWERS, ties)
        plain = whole_core(scores, CORRECT, ANSWERS, None)
        traced = jax.jit(calibrate)(critical_scores(racer.gap(scores), CORRECT), jnp.float32(0.3))
    chex.assert_trees_all_equal(actual, expected)
    assert plain[0].dtype == traced.dtype == scores.dtype


def test_leaks_nans_and_keys():
    ties = racer.tie_break(jax.random.key(0), (40, 4))
    expected = whole_core(SCORES, CORRECT, ANSWERS, ties)
    run = jax.jit(whole_core)
    with jax.checking_leaks():
        chex.assert_trees_all_equal(run(SCORES, CORRECT, ANSWERS, ties), expected)
    with jax.debug_nans(True):
        chex.assert_trees_all_equal(run(SCORES, CORRECT, ANSWERS, ties), expected)


def test_nothing_is_transferred_unasked():
    arguments = jax.device_put(
        (SCORES, CORRECT, ANSWERS, racer.tie_break(jax.random.key(0), (40, 4)))
    )
    expected = whole_core(*arguments)
    run = jax.jit(whole_core)
    run(*arguments)  # constants of the program are put on the device once
    with jax.transfer_guard("disallow"):
        actual = run(*arguments)
    chex.assert_trees_all_equal(actual, expected)


def test_a_gradient_through_a_threshold_is_refused_in_words():
    critical = jnp.arange(20.0)
    for function in (jax.grad, jax.jacfwd, lambda f: jax.jit(jax.grad(f))):
        with pytest.raises(TypeError, match=r"no useful gradient.*stop_gradient"):
            function(lambda c: calibrate(c, 0.3))(critical)
    fixed = jax.grad(lambda c: calibrate(jax.lax.stop_gradient(c), 0.3) * c.sum())(critical)
    assert fixed.tolist() == [float(calibrate(critical, 0.3))] * 20


def test_a_gradient_passes_through_the_critical_score():
    nonconformity = jnp.array([[0.5, 0.25, 0.75], [0.5, 0.25, 0.75]])
    gradient = jax.grad(lambda e: critical_scores(e, jnp.array([[1, 0], [0, 0]])).sum())
    assert gradient(nonconformity).tolist() == [[1, 0, 0], [0, 0, 1]]


# --- few compilations -----------------------------------------------------------------------------


def test_few_lengths_are_compiled(monkeypatch):
    kernels = [
        (calibration, "_at_rank"),
        (calibration, "_critical"),
        (sys.modules[racer.prediction_sets.__module__], "_inside"),
    ]
    for module, name in kernels:  # eight lengths, 600 to 1,000: two paddings
        plain = getattr(module, name).__wrapped__
        monkeypatch.setattr(module, name, jax.jit(chex.assert_max_traces(plain, n=1)))
    for size in (513, 600, 700, 800, 900, 1000, 1023, 1024):
        scores = np.resize(SCORES, (size, 3))
        nonconformity = racer.gap(jnp.asarray(np.resize(scores, (1024, 3))))[:size]
        critical = critical_scores(nonconformity, np.resize(CORRECT, (size, 3)))
        threshold = calibrate(critical, 0.2)
        assert racer.prediction_sets(nonconformity, threshold).shape == (size, 4)


@pytest.mark.parametrize("size", [1, 31, 1025])
@pytest.mark.parametrize("broken", [False, True])
def test_padding_changes_no_bit(size, broken, monkeypatch):
    rng = np.random.default_rng(size)
    nonconformity = rng.choice(np.float32([-np.inf, -0.0, 0.5, np.inf]), (size, 4))
    correct = rng.random((size, 3)) < 0.4
    ties = jnp.asarray(rng.choice(np.uint32([0, 2**32 - 1]), (size, 4))) if broken else None
    mask = rng.random(size) < 0.5
    mask[-1] = True

    def run():
        critical = critical_scores(nonconformity, correct, ties)
        threshold = calibrate(critical, ["0.001", "0.3", "0.9"])
        return (
            critical,
            threshold,
            calibrate(critical, 0.3, mask),
            threshold_at_budget(critical, [-1, 0, size - 1, size, 3 * size + 9]),
            racer.prediction_sets(nonconformity, threshold, ties),
        )

    padded = run()
    monkeypatch.setattr(padding, "padded_size", lambda size: size)
    chex.assert_trees_all_equal(padded, run())


def test_padded_sizes_are_few_and_close():
    sizes = np.arange(1, 200_000)
    padded = np.array([padding.padded_size(int(size)) for size in sizes])
    assert (padded >= sizes).all()
    assert (padded[1024:] <= sizes[1024:] * 1.125 + 1).all()
    assert len(np.unique(padded)) == 11 + 8 * 7 + 5
    assert padding.padded_size(1024) == 1024
    assert padding.padded_size(1025) == 1152


# --- over devices ---------------------------------------------------------------------------------

SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from tests.core.test_in_other_code import over_two_devices
over_two_devices()
print("equal")
"""


def over_two_devices():
    """Calibration in `shard_map` with its defaults, rows and masks split, equals that on one."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    levels = ["0.1", "0.3"]
    second = jax.devices()[1]
    there = jax.device_put(SCORES, second)
    assert critical_scores(racer.gap(there), CORRECT).devices() == {second}
    assert calibrate(there[:, 0], 0.3).devices() == {second}
    assert racer.misrouted(racer.prediction_sets(racer.gap(there), 0.5), CORRECT).devices() == {
        second
    }
    many = [i / 20 for i in range(1, 12)]
    for size in (300, 1 << 14):
        critical = jnp.asarray(RNG.integers(0, 11, (2, size)) / 10, jnp.float32)
        ties = racer.tie_break(jax.random.key(0), critical.shape)
        mask = jnp.asarray(RNG.random(critical.shape) < 0.5)
        cases = [
            (lambda c: calibrate(c, levels), (critical,)),
            (lambda c, t, m: calibrate(TieBroken(c, t), levels, m), (critical, ties, mask)),
            (lambda c, t, m: calibrate(TieBroken(c, t), many, m), (critical, ties, mask)),
        ]
        for function, arguments in cases:
            sharded = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("d"), out_specs=P("d")))
            chex.assert_trees_all_equal(sharded(*arguments), function(*arguments))
        shared = jax.shard_map(
            lambda c, m: calibrate(c, levels, m),
            mesh=mesh,
            in_specs=(P(), P("d")),
            out_specs=P("d"),
        )
        chex.assert_trees_all_equal(
            jax.jit(shared)(critical[0], mask), calibrate(critical[0], levels, mask)
        )


def test_shard_map_with_its_defaults():
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        check=False,
        env=devices(2),
    )
    assert done.stdout == "equal\n", done.stderr[-2000:]
