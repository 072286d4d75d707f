"""Sums of a stream against NumPy on all of it, however it is cut."""

import numpy as np
import pytest

from racer_jax.montecarlo.summaries import Accumulator, Checkpoint, Summary, fingerprint


def totals(kind, rng, low=0, high=50, num=1000):
    values = rng.integers(low, high, (3, num)).astype(np.int32)
    values[1] = 7  # one that never changes
    return values if kind == "i" else (values / np.float32(3)).astype(np.float32)


def added(values, pilot, scale=0.25, bins=16, cuts=(1, 300, 301)):
    sums = Accumulator.start(pilot, scale, bins)
    for part in np.split(values, cuts, axis=1):
        sums.add(part)
    return sums


@pytest.mark.parametrize("kind", ["i", "f"])
@pytest.mark.parametrize(("low", "high"), [(0, 50), (-20, 5), (10**6, 10**6 + 3), (-3000, 90000)])
def test_moments_and_extremes_are_those_of_all_trials(kind, low, high):
    values = totals(kind, np.random.default_rng(0), low, high)
    sums = added(values, values[:, :64])
    assert sums.exact == (kind == "i")
    summary = sums.summary()
    exact = values.astype(np.float64)
    np.testing.assert_allclose(summary.mean, 0.25 * exact.mean(1), rtol=1e-6)
    std = 0.25 * exact.std(1, ddof=1)
    np.testing.assert_allclose(summary.std, std, rtol=1e-5, atol=1e-6 * abs(high) * (kind == "f"))
    np.testing.assert_array_equal(summary.minimum, 0.25 * exact.min(1))
    np.testing.assert_array_equal(summary.maximum, 0.25 * exact.max(1))
    assert (summary.histogram.sum(1) == values.shape[1]).all()
    rows = zip(0.25 * exact, summary.edges, summary.histogram, strict=True)
    for row, edges, counts in rows:
        if kind == "f" and row.min() == row.max():
            continue  # it stands on an edge, but for rounding
        inner = np.searchsorted(edges[1:-1], row, side="left")  # an edge is of the bin below it
        np.testing.assert_array_equal(np.bincount(inner, minlength=len(counts)), counts)


def test_counts_are_summed_without_rounding():
    values = np.array([[2**29, 2**29 + 1, 2**29 + 1, -(2**29)] * 50], np.int32)
    summary = added(values, values[:, :3], 1.0, cuts=(7,)).summary()
    whole = [int(x) for x in values[0]]
    assert summary.mean[0] == sum(whole) / len(whole)
    square = len(whole) * sum(x * x for x in whole) - sum(whole) ** 2
    assert summary.std[0] == np.sqrt(square / (len(whole) * (len(whole) - 1)))


def test_bins_are_whole_counts_around_the_mean_of_the_pilot():
    pilot = np.array([[90, 110] * 8, [5] * 16], np.int32)  # means 100 and 5, spreads 10 and 0
    sums = Accumulator.start(pilot, 1.0, 10)
    assert sums.width.tolist() == [16, 1]  # 160 counts in ten bins, and one count at least
    assert sums.centre.tolist() == [100, 5]
    assert sums.low.tolist() == [100 - 5 * 16, 0]
    halves = Accumulator.start(pilot / np.float32(2), 1.0, 10)
    np.testing.assert_allclose(halves.width, [8, 2 * 8 * 2.5e-3 / 10])
    np.testing.assert_allclose(halves.low, [50 - 5 * 8, 2.5 - 5 * 4e-3])


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_what_is_beyond_the_bins_is_in_the_first_and_the_last(kind):
    pilot = np.array([[90, 110] * 8], kind)  # bins of 16 from 20 on
    sums = Accumulator.start(pilot, 1.0, 10)
    sums.add(np.array([[-(10**6), 20, 21, 36, 37, 163, 165, 10**6]], kind))
    assert sums.histogram.tolist() == [[2, 2, 1, 0, 0, 0, 0, 0, 0, 3]]


def test_one_trial_has_no_spread():
    summary = added(np.array([[3]], np.int32), np.array([[3]], np.int32), 1.0, cuts=()).summary()
    assert (summary.mean[0], summary.std[0]) == (3, 0)


def test_quantiles_are_within_a_bin_of_those_of_the_trials():
    values = totals("i", np.random.default_rng(1))
    summary = added(values, values, 1.0, bins=64).summary()
    for level in (0, 0.01, 0.25, 0.5, 0.9, 1):
        expected = np.quantile(values, level, axis=1, method="inverted_cdf")
        width = np.diff(summary.edges, axis=1)[:, 0]
        assert (np.abs(summary.quantile(level) - expected) <= width).all()
    assert summary.quantile(1).tolist() == values.max(1).tolist()
    for level in (-0.01, 1.01, np.nan):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            summary.quantile(level)


def test_a_quantile_is_the_upper_edge_of_the_bin_that_reaches_the_level():
    edges, histogram = np.array([[0.0, 1, 2, 3]]), np.array([[2, 1, 1]])
    summary = Summary(*(np.array([value]) for value in (0.0, 1.0, 0.5, 2.5)), edges, histogram)
    levels = (0, 0.5, 0.51, 0.75, 0.76, 1)
    assert [summary.quantile(level)[0] for level in levels] == [1, 1, 2, 2, 2.5, 2.5]


def test_fingerprints_tell_values_shapes_and_kinds_apart():
    arrays = [np.arange(4), np.arange(4).reshape(2, 2), np.arange(4.0), np.arange(1, 5), "a", 4]
    assert len({fingerprint([array]) for array in arrays}) == len(arrays)
    assert fingerprint([np.arange(4)]) == fingerprint([np.arange(4)])
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_a_checkpoint_goes_on_and_is_of_its_run(tmp_path):
    values = totals("i", np.random.default_rng(2))
    file = Checkpoint(tmp_path / "a.npz", 1e9, "run")
    assert file.load() == {}
    first = {"risk": added(values[:, :500], values), "size": added(values[:, :500], values)}
    file.save_when_due(first)
    assert not file.path.exists()
    file.every = -1.0
    file.save_when_due(first)
    again = file.load()
    assert list(again) == ["risk", "size"]
    again["risk"].add(values[:, 500:])
    whole = added(values, values)
    for one, other in zip(again["risk"].summary(), whole.summary(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with pytest.raises(ValueError, match="is of another run"):
        Checkpoint(file.path, 0, "other").load()
    file.path.write_bytes(b"x")
    with pytest.raises(ValueError, match="is not the state of a stream of trials"):
        file.load()


@pytest.mark.parametrize("bins", [2, 7, 200])
def test_the_reach_is_eight_standard_deviations_and_never_narrow(bins):
    rng = np.random.default_rng(0)
    pilot = np.stack(
        [rng.normal(5_000, 300, 512), np.full(512, 40), np.full(512, 2**31 - 1), -np.arange(512.0)]
    ).astype(np.int32)
    low, width = Accumulator.start(pilot, 1.0, bins).reach()
    assert low.dtype == np.int32
    high = low.astype(np.int64) + width - 1
    assert high.max() <= 2**31 - 1
    mean, spread = pilot.mean(axis=1), pilot.std(axis=1)
    assert (low <= mean - np.maximum(8 * spread, 100)).all()
    assert (high >= np.minimum(mean + np.maximum(8 * spread, 100), 2**31 - 1)).all()
    assert (pilot >= low[:, None]).all()
    assert (pilot <= high[:, None]).all()
