import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from racer_jax import augment, gap, inverse_probability, null_score, reference, tie_break
from racer_jax.core import nonconformity
from racer_jax.core.nonconformity import (
    NULL_MODES,
    augmented_truth,
    null_nonconformity,
    register_nonconformity,
    smooth,
)
from tests.strategies import NULLS, problems

SCORES = np.random.default_rng(0).random((50, 7)).astype(np.float32)
PAIRS = [(gap, reference.gap), (inverse_probability, reference.inverse_probability)]


@pytest.mark.long
@pytest.mark.parametrize(("ours", "plain"), PAIRS)
@pytest.mark.parametrize("null", NULL_MODES)
def test_equals_the_reference(ours, plain, null, transform):
    expected = np.array([plain(row, null) for row in SCORES.astype(float).tolist()])
    actual = transform(lambda s: ours(s, null))(SCORES)
    np.testing.assert_allclose(actual, expected, atol=1e-7)


def test_null_score_equals_the_reference(transform):
    expected = [reference.null_score(row) for row in SCORES.astype(float).tolist()]
    np.testing.assert_allclose(transform(null_score)(SCORES), expected, atol=1e-7)


def test_the_null_model_is_the_last_column():
    augmented = augment(SCORES)
    np.testing.assert_array_equal(augmented[:, :-1], SCORES)
    np.testing.assert_array_equal(augmented[:, -1], null_score(SCORES))
    assert augment(SCORES, "free")[0, -1] == jnp.inf
    assert augment(SCORES, "never")[0, -1] == -jnp.inf


@pytest.mark.parametrize("score", [gap, inverse_probability])
def test_null_modes_order_the_null_model_first_or_last(score):
    assert bool((score(SCORES, "free")[:, -1] == -jnp.inf).all())
    assert bool((score(SCORES, "never")[:, -1] == jnp.inf).all())
    assert bool(jnp.isfinite(score(SCORES, "never")[:, :-1]).all())


@pytest.mark.long
@given(problems(), NULLS)
@settings(deadline=None, max_examples=40)
def test_models_keep_the_order_of_their_scores(problem, null):
    scores, _ = problem
    for score in (gap, inverse_probability):
        nonconformity = np.asarray(score(scores, null))
        higher = scores[:, :, None] >= scores[:, None, :]
        lower = nonconformity[:, :-1][:, :, None] <= nonconformity[:, :-1][:, None, :]
        assert (lower | ~higher).all()


@given(problems())
@settings(deadline=None, max_examples=40)
def test_permuting_the_models_permutes_nonconformity(problem):
    scores, _ = problem
    order = np.random.default_rng(0).permutation(scores.shape[1])
    columns = [*order, scores.shape[1]]
    for score in (gap, inverse_probability):
        np.testing.assert_array_equal(
            score(scores[:, order]), np.asarray(score(scores))[:, columns]
        )


def test_leading_axes_and_one_model():
    assert gap(SCORES.reshape(5, 10, 7)).shape == (5, 10, 8)
    assert gap(jnp.array([0.25])).tolist() == [0.5, 0.0]
    assert augment(jnp.zeros((0, 3))).shape == (0, 4)


@pytest.mark.long
def test_dtype_is_kept():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        for null in NULL_MODES:
            assert gap(jnp.asarray(SCORES, dtype), null).dtype == dtype


@given(problems())
@settings(deadline=None, max_examples=40)
def test_augmented_truth_is_never_empty_and_equals_the_reference(problem):
    _, correct = problem
    truth = np.asarray(augmented_truth(correct))
    assert truth.any(-1).all()
    for row, right in zip(truth, correct, strict=True):
        assert np.flatnonzero(row).tolist() == reference.truth_set(right.tolist())


@pytest.mark.long
def test_tie_break_is_typed_and_a_function_of_the_key():
    first = tie_break(jax.random.key(1), (1000, 3))
    assert first.dtype == jnp.uint32
    np.testing.assert_array_equal(first, tie_break(jax.random.key(1), (1000, 3)))
    assert bool((first != tie_break(jax.random.key(2), (1000, 3))).any())
    mean = np.asarray(first, np.float64).mean() / 2**32
    assert abs(mean - 0.5) < 5 * np.sqrt(1 / 12 / 3000)


def test_smoothing_adds_uniform_noise_and_leaves_ties_in_float32():
    nonconformity = jnp.full(10_000, 0.9)
    assert len(np.unique(smooth(jax.random.key(0), nonconformity, 1e-6))) < 30
    noise = np.asarray(smooth(jax.random.key(0), jnp.zeros(10_000), 0.5))
    assert noise.min() >= 0
    assert noise.max() < 0.5
    assert abs(noise.mean() - 0.25) < 5 * 0.5 / np.sqrt(12 * 10_000)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: gap(jnp.array([0.5, jnp.nan])),
            ValueError,
            "scores must be finite, got nan at [1]",
        ),
        (
            lambda: gap(jnp.array([[0.5], [jnp.inf]])),
            ValueError,
            "scores must be finite, got inf at [1, 0]",
        ),
        (
            lambda: gap(jnp.array([0.5, 1.5])),
            ValueError,
            "scores must be in [0, 1], got 1.5 at [1]",
        ),
        (
            lambda: inverse_probability(jnp.array([-0.5])),
            ValueError,
            "scores must be in [0, 1], got -0.5 at [0]",
        ),
        (lambda: augment(jnp.array([0, 1])), TypeError, "scores must be floating, got dtype int32"),
        (lambda: null_score(jnp.zeros((3, 0))), ValueError, "at least one model, got (3, 0)"),
        (lambda: null_score(jnp.float32(0.5)), ValueError, "at least one model, got ()"),
        (
            lambda: gap(SCORES, "perhaps"),
            ValueError,
            "null must be one of ('paper', 'free', 'never'), got 'perhaps'",
        ),
        (
            lambda: augmented_truth(jnp.array([0, 2])),
            ValueError,
            "correct must be 0/1, got 2.0 at [1]",
        ),
        (
            lambda: augmented_truth(jnp.array([1j])),
            TypeError,
            "correct must be boolean or 0/1, got dtype complex64",
        ),
        (
            lambda: augmented_truth(jnp.zeros((3, 0), bool)),
            ValueError,
            "at least one model, got (3, 0)",
        ),
        (
            lambda: smooth(jax.random.key(0), jnp.zeros(3), 0.0),
            ValueError,
            "eps must be positive and finite, got 0.0",
        ),
        (
            lambda: smooth(jax.random.key(0), jnp.array([jnp.nan])),
            ValueError,
            "nonconformity must not be NaN",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.long
@pytest.mark.parametrize("null", NULL_MODES)
def test_the_null_model_beside_models_in_order(null):
    """Where 1 - s orders the real models, its E is the null column of `inverse_probability`."""
    scores = jax.random.uniform(jax.random.key(5), (20, 4))
    mine = null_nonconformity(scores.max(axis=1), null)
    np.testing.assert_allclose(mine, inverse_probability(scores, null)[:, -1], atol=1e-7)


# --- the scores by name ---------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch):
    """The registry, put back as it was."""
    monkeypatch.setattr(nonconformity, "NONCONFORMITIES", dict(nonconformity.NONCONFORMITIES))
    monkeypatch.setattr(
        nonconformity, "NONCONFORMITY_LABELS", dict(nonconformity.NONCONFORMITY_LABELS)
    )
    return nonconformity


def test_the_paper_s_scores_have_their_names(registry):
    assert {"inverse_probability": inverse_probability, "gap": gap} == registry.NONCONFORMITIES
    for name, label in [("inverse_probability", "RACER-P"), ("gap", "RACER-G")]:
        assert registry.NONCONFORMITY_LABELS[name] == label
        for text in (name, label, label.lower()):
            assert registry.nonconformity_name(text) == name
    with pytest.raises(
        ValueError,
        match=r"one of inverse_probability \(RACER-P\), gap \(RACER-G\), got 'gapp'",
    ):
        registry.nonconformity_name("gapp")


def test_an_own_score_joins(registry):
    def squared(scores, null):
        return gap(scores, null) * jnp.abs(gap(scores, null))

    register_nonconformity("squared", squared, label="SQ")
    register_nonconformity("squared", squared)  # again, as a module that is reloaded does
    assert registry.NONCONFORMITIES["squared"] is squared
    assert registry.nonconformity_name("sq") == "squared"
    register_nonconformity("plain", squared)
    with pytest.raises(ValueError, match=r"squared \(SQ\), plain, got 'x'"):
        registry.nonconformity_name("x")


@pytest.mark.parametrize(
    ("name", "function", "label", "error", "message"),
    [
        (1, gap, None, TypeError, "name must be a string, got 1"),
        ("my-score", gap, None, ValueError, "name must be an identifier such as my_score"),
        ("gap", inverse_probability, None, ValueError, "'gap' is registered already"),
        ("mine", gap, "racer-g", ValueError, "the label 'racer-g' is taken"),
        ("mine", 3, None, TypeError, "function must be callable, got 3"),
        ("mine", lambda s, null: s, None, ValueError, "got (2, 3) for scores of shape (2, 3)"),
        (
            "mine",
            lambda s, null: gap(s, null) * 0,
            None,
            ValueError,
            "'mine' under null='free' must not be NaN",
        ),
        (
            "mine",
            lambda s, null: gap(s, "paper"),
            None,
            ValueError,
            "'mine' must give -inf for the null model under null='free', got",
        ),
        (
            "mine",
            lambda s, null: gap(s, "never" if null == "paper" else null),
            None,
            ValueError,
            "'mine' must give a finite null model under null='paper', got inf",
        ),
        (
            "mine",
            lambda s, null: gap(s, null).astype(jnp.int32),
            None,
            TypeError,
            "'mine' under null='paper' must be floating, got dtype int32",
        ),
    ],
)
def test_a_score_that_cannot_be_one_is_refused(registry, name, function, label, error, message):
    before = dict(registry.NONCONFORMITIES)
    with pytest.raises(error, match=re.escape(message)):
        register_nonconformity(name, function, label)
    assert before == registry.NONCONFORMITIES


def test_an_own_score_is_tried_on_scores_between_0_and_1(registry):
    """With both ends among them: what is no number outside of [0, 1] is none of its concern."""
    seen = []

    def rooted(scores, null):
        seen.append(scores.shape)
        return inverse_probability(jnp.sqrt(scores) * jnp.sqrt(1 - scores), null)

    register_nonconformity("rooted", rooted)
    assert registry.NONCONFORMITIES["rooted"] is rooted
    for wrong in (lambda s: 1 / s, lambda s: 1 / (1 - s)):
        with pytest.raises(ValueError, match="must"):
            register_nonconformity("mine", lambda s, null, wrong=wrong: gap(wrong(s) * 0, null))
