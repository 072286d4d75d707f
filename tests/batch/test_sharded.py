"""The threshold of shards is that of all scores together."""

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from racer_jax.batch import (
    Bucket,
    bucket_of_threshold,
    count_buckets,
    count_within,
    threshold_in_bucket,
    threshold_of_shards,
)
from racer_jax.core.risk_levels import miss_budget

SCORES = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(allow_nan=False, width=32, allow_subnormal=True),
)


def reference(critical, alpha):
    """The k-th smallest by a sort."""
    budget = int(miss_budget(alpha, len(critical)))
    return np.sort(critical)[len(critical) - budget - 1] if budget >= 0 else np.float32(np.inf)


@given(SCORES, st.integers(1, 99), st.integers(1, 5))
def test_it_is_the_one_of_a_sort(critical, percent, num_shards):
    shards = np.array_split(critical, num_shards)
    alpha = f"0.{percent:02d}"
    threshold = threshold_of_shards(lambda: shards, alpha)
    assert threshold.dtype == np.float32
    assert threshold == reference(critical, alpha)


def test_it_is_the_one_of_calibrate():
    import racer_jax

    critical = np.random.default_rng(0).random(999).astype(np.float32)
    ours = threshold_of_shards(lambda: np.array_split(critical, 7), 0.1)
    assert ours == racer_jax.calibrate(jnp.asarray(critical), 0.1)


def test_an_alpha_that_no_threshold_keeps_reads_the_shards_once():
    reads = []

    def shards():
        reads.append(1)
        return [np.float32([0.5, 0.25])]

    assert threshold_of_shards(shards, 0.1) == np.inf
    assert len(reads) == 1
    assert count_within(np.float32([0.5]), Bucket(None, 0, 2)).sum() == 0


@pytest.mark.parametrize(
    ("shards", "error", "match"),
    [
        ([], ValueError, "at least one critical score, got none"),
        ([np.float32([np.nan])], ValueError, "must not be NaN"),
        ([np.arange(3)], TypeError, "must be floating, got dtype int64"),
        ([np.ma.masked_array([0.5, 9.0], [False, True])], ValueError, "must not be null"),
        ([pa.array([0.5, None])], ValueError, "must not be NaN"),
    ],
)
def test_what_is_no_score_is_refused(shards, error, match):
    with pytest.raises(error, match=match):
        threshold_of_shards(lambda: shards, 0.5)


def test_shards_that_change_between_the_passes_are_noticed():
    bucket = bucket_of_threshold(count_buckets(np.float32([0.25, 0.5, 0.75])), 0.5)
    with pytest.raises(ValueError, match="both passes must read the same shards"):
        threshold_in_bucket(count_within(np.float32([9.0]), bucket), bucket)
    more = count_within(np.float32([0.5, 0.5]), bucket)
    with pytest.raises(ValueError, match=r"must count 1 scores of the bucket, .* got 2"):
        threshold_in_bucket(more, bucket)
    of_unknown_size = bucket._replace(size=None)
    assert threshold_in_bucket(more, of_unknown_size) == 0.5
    with pytest.raises(ValueError, match=r"at least 1 scores of the bucket, .* got 0"):
        threshold_in_bucket(count_within(np.float32([9.0]), bucket), of_unknown_size)


@pytest.mark.parametrize(
    "second", [[], [[0.25, 0.5]], [[0.25, 0.5, 0.75, 9.0]], [[0.25, 0.5, 0.75]] * 2]
)
def test_another_number_of_scores_in_the_second_pass_is_noticed(second):
    passes = iter([[[0.25, 0.5, 0.75]], second])
    with pytest.raises(ValueError, match="the same shards, got 3 scores first and then"):
        threshold_of_shards(lambda: next(passes), 0.5)


def test_an_iterator_that_ends_after_the_first_pass():
    once = iter([[0.25, 0.5, 0.75]])
    with pytest.raises(ValueError, match="got 3 scores first and then 0"):
        threshold_of_shards(lambda: once, 0.5)


@pytest.mark.parametrize(
    "held_as",
    [
        lambda x: jnp.asarray(x, jnp.bfloat16),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.float64) * 1e-45,
        lambda x: (x * 99).astype(np.int32).astype(np.float32) * -np.float32(1e-45),
        lambda x: np.where(x > 0.5, np.float32(0), np.float32(-0.0)),
        lambda x: np.where(x > 0.5, np.float32(np.inf), -x),
        lambda x: x.astype(">f4")[::-1],
    ],
    ids=["bfloat16", "float16", "float64", "subnormal", "zeros", "infinite", "foreign"],
)
@pytest.mark.parametrize("alpha", ["0.01", "0.1", "0.5", "0.99"])
def test_what_calibrate_takes_is_taken(held_as, alpha):
    import racer_jax

    critical = held_as(np.random.default_rng(1).random(120).astype(np.float32))
    shards = [critical[:1], critical[1:1], critical[1:77], critical[77:]]
    native = np.asarray(critical)
    expected = np.float32(racer_jax.calibrate(native.astype(native.dtype.newbyteorder("=")), alpha))
    if native.dtype == np.float64:  # rounded up, and not to the nearest
        exact = reference(native, alpha)
        at_most = np.float32([expected, np.nextafter(expected, np.float32(np.inf))])
        expected = at_most[np.searchsorted(at_most.astype(np.float64), exact)]
    assert threshold_of_shards(lambda: shards, alpha) == expected


def test_counts_that_were_not_added_up_are_refused():
    shards = [count_buckets([0.25, 0.5])] * 2
    with pytest.raises(ValueError, match="added up over the shards, got \\(2, 65536\\)"):
        bucket_of_threshold(np.stack(shards), 0.5)
    with pytest.raises(ValueError, match="at least one critical score, got none"):
        bucket_of_threshold(sum(map(count_buckets, [])), 0.5)
    assert bucket_of_threshold(sum(shards).tolist(), 0.5).num == 4


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ["0.1", "0.0001"])
def test_ten_million_rows_of_a_hundred_shards(alpha):
    def shards():
        for i in range(100):
            yield np.random.default_rng(i).beta(2, 5, 100_000).astype(np.float32)

    everything = np.concatenate(list(shards()))
    place = len(everything) - int(miss_budget(alpha, len(everything))) - 1
    assert threshold_of_shards(shards, alpha) == np.partition(everything, place)[place]


@pytest.mark.parametrize("score", [0.7, 0.1, -0.7, 1e-320, 1e300, -1e300, 0.5])
def test_scores_of_an_engine_are_covered_as_they_are_counted(score):
    """0.7 as a float32 is below 0.7: every row with that score would be missed."""
    shards = [np.full(10, score), np.array([score + 1.0])]
    threshold = threshold_of_shards(lambda: shards, 0.2)
    assert (np.float64(threshold) >= np.float64(score)).all()
    with np.errstate(over="ignore"):
        assert np.float64(np.nextafter(threshold, np.float32(-np.inf))) < score
