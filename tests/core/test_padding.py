"""Few lengths are compiled for, and no entry is changed by what is added."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core import calibration, loss_calibration
from racer_jax.core.padding import can_pad, first_rows, padded, padded_size
from tests.losses_by_hand import loss_by_hand


def test_lengths_are_few_and_little_longer():
    sizes = np.arange(1, 20_000)
    lengths = np.array([padded_size(int(size)) for size in sizes])
    assert (lengths >= sizes).all()
    small = sizes <= 1024
    assert (lengths[small] == 2 ** np.ceil(np.log2(sizes[small]))).all()
    assert (lengths[~small] * 8 < sizes[~small] * 9 + 8).all()  # an eighth at most
    assert len(set(lengths[sizes > 8192].tolist())) == 8 + 2  # eight for each power of two
    assert all(padded_size(int(length)) == length for length in set(lengths.tolist()))
    assert (np.diff(lengths) >= 0).all()
    assert (padded_size(1025), padded_size(2048), padded_size(2049)) == (1152, 2048, 2304)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(3, 5), (4, 4), (5, 1), (2, 7)])
def test_what_is_added_stands_behind(axis, shape):
    array = jnp.asarray(np.arange(np.prod(shape), dtype=np.int32).reshape(shape))
    longer = padded(array, axis, -9)
    expected = list(shape)
    expected[axis] = padded_size(shape[axis])
    assert longer.shape == tuple(expected)
    assert isinstance(longer, jax.Array)
    head, rest = np.split(np.asarray(longer), [shape[axis]], axis=axis)
    np.testing.assert_array_equal(head, array)
    assert (rest == -9).all()
    again = first_rows(longer, axis, shape[axis])
    assert isinstance(again, jax.Array)
    np.testing.assert_array_equal(again, array)


def test_nothing_is_copied_where_nothing_is_added():
    array = jnp.zeros((4, 3))
    assert padded(array, 0, 1) is array
    assert first_rows(array, 0, 4) is array


def test_only_arrays_with_values_are_padded():
    array = jnp.zeros(3)
    assert can_pad(array, np.zeros(3), None)
    assert can_pad()
    seen = []
    jax.make_jaxpr(lambda x: seen.append((can_pad(x), can_pad(array, x), can_pad(array))))(array)
    assert seen == [(False, False, True)]


class _Spread:
    """Stands for an array on several devices."""

    def __init__(self, num):
        self.num = num

    def devices(self):
        return set(range(self.num))


@pytest.mark.parametrize(("nums", "expected"), [((1, 1), True), ((1, 2), False), ((2, 1), False)])
def test_arrays_on_several_devices_are_not_padded(monkeypatch, nums, expected):
    monkeypatch.setattr("racer_jax.core.padding.jax.Array", _Spread)
    assert can_pad(*map(_Spread, nums)) is expected


SETS = importlib.import_module("racer_jax.core.prediction_sets")  # a function has its name too


def lengths_compiled(monkeypatch, module, kernel, call, shapes):
    """The shapes in which a kernel is called, of scores of these shapes; the kernel itself is not."""
    called = []

    def recorded(value, *arguments):
        called.append(value.shape)
        return np.zeros(value.shape[:-1] if kernel == "_critical" else value.shape, bool)

    monkeypatch.setattr(module, kernel, recorded)
    for shape in shapes:
        call(np.zeros(shape, np.float32))
    return called


def test_scores_of_many_lengths_are_few_programs(monkeypatch):
    rows = [(33, 3), (64, 3), (65, 3), (0, 3), (3,), (2, 33, 3)]
    padded_rows = [(64, 3), (64, 3), (128, 3), (0, 3), (3,), (2, 33, 3)]

    def critical(entries):
        result = calibration.critical_scores(entries, np.zeros((*entries.shape[:-1], 2), bool))
        assert result.shape == entries.shape[:-1]

    def sets(entries):
        assert SETS.prediction_sets(entries, 0.5).shape == entries.shape

    def threshold(scores):
        calibration.threshold_at_budget(scores, np.arange(scores.shape[-1]))

    how = (monkeypatch, calibration, "_critical", critical, rows)
    assert lengths_compiled(*how) == padded_rows
    how = (monkeypatch, SETS, "_inside", sets, rows)
    assert lengths_compiled(*how) == padded_rows
    monkeypatch.setattr(SETS, "_MOST_PADDED", 3 * 33)
    assert lengths_compiled(*how) == [(64, 3), *rows[1:]]
    how = (monkeypatch, calibration, "_at_rank", threshold, [(33,), (64,), (2, 65)])
    assert lengths_compiled(*how) == [(64,), (64,), (2, 128)]


def test_losses_of_many_lengths_are_few_programs(monkeypatch):
    called = []

    def recorded(loss, budget, mask):
        called.append((loss, budget, mask))
        return np.zeros(1), None

    monkeypatch.setattr(loss_calibration, "_threshold", recorded)
    entries = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    loss = loss_by_hand(entries, np.ones((5, 2)), np.ones((5, 3), np.uint32))
    mask = jnp.asarray([True, False, True, True, True])
    for rows in (mask, None):
        loss_calibration.threshold_at_loss(loss, (np.zeros(1), np.zeros(1)), rows)
    for (longer, _, rows), expected in zip(called, (mask, None), strict=True):
        for name, fill in (("start", 0), ("step", np.inf), ("drop", 0), ("model", 0)):
            whole, own = np.asarray(getattr(longer, name)), np.asarray(getattr(loss, name))
            np.testing.assert_array_equal(whole[:5], own)
            assert (whole[5:] == fill).all()
            assert len(whole) == 8
        assert (np.asarray(longer.tie)[5:] == 0xFFFFFFFF).all()
        if expected is None:
            assert rows is None
        else:
            assert rows.tolist() == [*expected.tolist(), False, False, False]
    # A batch of pools is the caller's own `jit`.
    batch = jax.tree.map(lambda x: x[None], loss)
    loss_calibration.threshold_at_loss(batch, (np.zeros(1), np.zeros(1)), None)
    assert called[-1][0].start.shape == (1, 5)
