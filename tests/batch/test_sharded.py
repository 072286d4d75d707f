"""The threshold of shards is that of all scores together."""

import jax.numpy as jnp
import numpy as np
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
    ],
)
def test_what_is_no_score_is_refused(shards, error, match):
    with pytest.raises(error, match=match):
        threshold_of_shards(lambda: shards, 0.5)


def test_shards_that_change_between_the_passes_are_noticed():
    bucket = bucket_of_threshold(count_buckets(np.float32([0.25, 0.5, 0.75])), 0.5)
    with pytest.raises(ValueError, match="both passes must read the same shards"):
        threshold_in_bucket(count_within(np.float32([9.0]), bucket), bucket)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", ["0.1", "0.0001"])
def test_ten_million_rows_of_a_hundred_shards(alpha):
    def shards():
        for i in range(100):
            yield np.random.default_rng(i).beta(2, 5, 100_000).astype(np.float32)

    everything = np.concatenate(list(shards()))
    place = len(everything) - int(miss_budget(alpha, len(everything))) - 1
    assert threshold_of_shards(shards, alpha) == np.partition(everything, place)[place]
