"""The host's integer keys against the core's pairs, and against Python's own comparison of tuples."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from racer_jax import critical_scores, prediction_sets, reference
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.sort_keys import (
    ALWAYS,
    NEVER,
    critical_keys,
    critical_places,
    entry_keys,
    ordered_keys,
)

# Few levels, so that numbers tie; among them both zeros, subnormal numbers and infinities.
NUMBERS = [-np.inf, -1.5, -1e-45, -0.0, 0.0, 1e-45, 2e-45, 0.5, np.float32(0.7), 3e38, np.inf]
VALUES = st.sampled_from(NUMBERS)
TIES = st.sampled_from([0, 1, 2**16 - 1, 2**16, 2**32 - 2, 2**32 - 1])


def tables(dtype=np.float32):
    """Nonconformity [6, 4], ties of its shape and correct [6, 3]."""
    return st.tuples(
        hnp.arrays(dtype, (6, 4), elements=VALUES.map(float)),
        hnp.arrays(np.uint32, (6, 4), elements=TIES),
        hnp.arrays(bool, (6, 3)),
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_keys_are_in_the_order_of_the_pairs(dtype, data):
    value, tie, _ = data.draw(tables())
    with np.errstate(over="ignore"):
        value = value.ravel()[:10].astype(dtype)
    tie = tie.ravel()[:10]
    keys, plain = ordered_keys(value, tie), ordered_keys(value, None)
    assert (keys.dtype, plain.dtype) == (np.uint64, np.uint32)
    pairs = [*zip(value.tolist(), tie.tolist(), strict=True)]
    for i, first in enumerate(pairs):
        for j, second in enumerate(pairs):
            assert (keys[i] < keys[j]) == (first < second)
            assert (plain[i] < plain[j]) == (first[0] < second[0])


@pytest.mark.long
@given(tables(), st.booleans())
@settings(deadline=None, max_examples=100)
def test_the_critical_score_is_the_core_s(table, broken):
    value, tie, correct = table
    ties = tie if broken else None
    expected = critical_scores(value, correct, jnp.asarray(tie) if broken else None)
    rows = np.arange(len(value))
    for keys in (entry_keys(value, ties), ordered_keys(value, ties)):
        places = critical_places(keys, correct)
        truth = [reference.truth_set(row) for row in correct.tolist()]
        assert all(place in row for place, row in zip(places.tolist(), truth, strict=True))
        np.testing.assert_array_equal(critical_keys(keys, correct), keys[rows, places])
        wanted = expected.value if broken else expected
        np.testing.assert_array_equal(value[rows, places], wanted)
        # An infinite score is in every set or in none, so its tie says nothing.
        if broken:
            finite = np.isfinite(value[rows, places])
            np.testing.assert_array_equal(
                tie[rows, places][finite], np.asarray(expected.tie)[finite]
            )


@given(tables(), VALUES, TIES, st.booleans())
@settings(deadline=None, max_examples=100)
def test_one_comparison_of_keys_is_the_prediction_set(table, value, tie, broken):
    nonconformity, ties, _ = table
    at, second = np.float32(value), np.uint32(tie if broken else 0)
    limit = ordered_keys(at[None], second[None])
    if broken:
        threshold = TieBroken(jnp.asarray(at), jnp.asarray(second))
        expected = prediction_sets(nonconformity, threshold, jnp.asarray(ties))
        sets = entry_keys(nonconformity, ties) <= limit
    else:
        expected = prediction_sets(nonconformity, jnp.asarray(at))
        sets = entry_keys(nonconformity, None) <= limit
    # Of a threshold -inf without tie-break the core says the same: only E = -inf is inside.
    np.testing.assert_array_equal(sets, expected)


def test_the_infinite_entries_are_in_every_set_and_in_none():
    keys = entry_keys(np.float32([[np.inf, -np.inf, 0.0]]), np.uint32([[0, 9, 9]]))
    assert keys[0, 0] == NEVER
    assert keys[0, 1] == ALWAYS
    edges = ordered_keys(np.float32([np.inf, -np.inf]), np.uint32([2**32 - 1, 0]))
    assert (edges > ALWAYS).all()
    assert (edges < NEVER).all()


def test_a_truth_that_is_in_no_set_is_critical_all_the_same():
    keys = entry_keys(np.float32([[0.5, np.inf, np.inf], [0.5, np.inf, np.inf]]), None)
    correct = np.array([[False, True], [False, False]])
    assert critical_places(keys, correct).tolist() == [1, 2]
    assert critical_keys(keys, correct).tolist() == [int(NEVER)] * 2
