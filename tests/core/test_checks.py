"""What the core refuses at its edge, and what it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.checks import (
    as_binary,
    check_floating,
    check_no_nan,
    check_scores,
    check_tie_break,
    first_bad,
    is_traced,
)
from racer_jax.core.scalar_checks import check_chance, check_count


def test_traced_is_any_of_the_arrays():
    seen = []
    jax.make_jaxpr(lambda x: seen.append((is_traced(x), is_traced(1.0, x), is_traced(1.0))))(0.0)
    assert seen == [(True, True, False)]


def test_the_first_bad_entry_is_named():
    assert first_bad(np.array([[False, False], [True, True]])) == "[1, 0]"
    assert first_bad(np.array([False, True])) == "[1]"


def test_floating_only():
    check_floating("x", np.zeros(1, np.float16))
    check_floating("x", jnp.zeros(1, jnp.bfloat16))
    with pytest.raises(TypeError, match="x must be floating, got dtype int32"):
        check_floating("x", np.zeros(1, np.int32))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.float32(0.5), r"shape \[..., m\] with at least one model, got \(\)"),
        (np.zeros((2, 0), np.float32), r"at least one model, got \(2, 0\)"),
        (np.float32([[0.5, np.nan]]), r"finite, got nan at \[0, 1\]"),
        (np.float32([[np.inf, 0.5]]), r"finite, got inf at \[0, 0\]"),
        (np.float32([0.5, -0.25]), r"in \[0, 1\], got -0.25 at \[1\]"),
        (np.float32([1.5, 0.5]), r"in \[0, 1\], got 1.5 at \[0\]"),
    ],
)
def test_scores_that_are_none(scores, message):
    with pytest.raises(ValueError, match=message):
        check_scores(scores)


def test_scores_at_the_edges_and_of_no_query():
    check_scores(np.float32([0.0, 1.0]))
    check_scores(np.float32([[0.5]]))
    check_scores(np.zeros((0, 1), np.float32))


def test_nan_is_refused_and_infinity_is_not():
    check_no_nan("x", np.float32([np.inf, -np.inf, 0]))
    with pytest.raises(ValueError, match=r"x must not be NaN, got NaN at \[1\]"):
        check_no_nan("x", np.float32([0, np.nan]))
    with pytest.raises(TypeError, match="x must be floating"):
        check_no_nan("x", np.zeros(1, int))


@pytest.mark.parametrize("kind", [bool, np.int32, np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("place", [np.asarray, jnp.asarray, list])
def test_labels_of_every_kind(kind, place):
    values = np.array([0, 1, 1, 0], np.float32 if kind is np.float64 else kind)
    binary = as_binary("y", place(values.tolist() if place is list else values))
    assert binary.dtype == bool
    assert isinstance(binary, jax.Array)
    assert binary.tolist() == [False, True, True, False]


def test_labels_under_jit_are_compared_there():
    assert jax.jit(lambda x: as_binary("y", x))(jnp.float32([0, 1])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["a"], TypeError, "boolean or 0/1, got dtype <U1"),
        ([0, 2], ValueError, r"0/1, got 2.0 at \[1\]"),
        ([-1, 1], ValueError, r"0/1, got -1.0 at \[0\]"),
        ([0.5], ValueError, r"0/1, got 0.5 at \[0\]"),
        ([np.nan], ValueError, r"0/1, got nan at \[0\]"),
        ([1j], TypeError, "got dtype complex128"),
    ],
)
def test_labels_that_are_none(labels, error, message):
    with pytest.raises(error, match=message):
        as_binary("y", labels)


def test_a_tie_break_is_uint32_of_one_shape():
    tie = jnp.zeros((2, 3), jnp.uint32)
    check_tie_break(tie, (2, 3))
    with pytest.raises(ValueError, match=r"must have shape \(2, 2\), got \(2, 3\)"):
        check_tie_break(tie, (2, 2))
    with pytest.raises(TypeError, match="must be uint32"):
        check_tie_break(tie.astype(jnp.int32), (2, 3))


def test_counts():
    assert check_count("n", np.int64(3)) == 3
    assert type(check_count("n", np.int64(3))) is int
    assert check_count("n", 1) == 1
    assert check_count("n", 0, least=0) == 0
    for value in (True, np.bool_(True), 1.0, "1", None):
        with pytest.raises(TypeError, match="n must be an integer, got"):
            check_count("n", value)
    for value, least in ((0, 1), (4, 5)):
        with pytest.raises(ValueError, match=f"n must be at least {least}, got {value}"):
            check_count("n", value, least)


def test_chances():
    for value in (0.5, np.float32(0.5), np.nextafter(0, 1), np.nextafter(1, 0)):
        assert check_chance("delta", value) == float(value)
        assert type(check_chance("delta", value)) is float
    for value in (True, np.bool_(True), "0.5", None):
        with pytest.raises(TypeError, match=r"delta must be a number in \(0, 1\), got"):
            check_chance("delta", value)
    for value in (0, 1, 0.0, 1.0, -0.5, 1.5, np.nan):
        with pytest.raises(ValueError, match=r"delta must be in \(0, 1\), got"):
            check_chance("delta", value)
