"""Label rules: by name, read back from their name."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax.data.labels import LabelRule, generator

GRADED = np.array([[0.0, 0.5, 1.0]])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("score > 0", [0, 1, 1]),
        ("score > 0.5", [0, 0, 1]),
        ("score >= 0.5", [0, 1, 1]),
        ("score>=1", [0, 0, 1]),
    ],
)
def test_thresholds(name, labels):
    assert LabelRule.parse(name).apply(GRADED).astype(int).tolist() == [labels]


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.booleans())
def test_a_rule_is_its_name(threshold, inclusive):
    name = f"score {'>=' if inclusive else '>'} {threshold!r}"
    rule = LabelRule.parse(name)
    assert (rule.threshold, rule.inclusive) == (threshold, inclusive)
    assert LabelRule.parse(rule.name) == rule
    assert LabelRule.parse(rule) is rule


@pytest.mark.parametrize(
    "name", ["score", "score > x", "score > nan", "score > 1e999", "score < 1", "one", "score > 1e"]
)
def test_a_rule_nobody_knows_is_refused(name):
    with pytest.raises(
        ValueError, match="label rule must be 'score > X', 'score >= X' or 'one attempt', got"
    ):
        LabelRule.parse(name)


def test_a_rule_that_is_no_text_is_refused():
    with pytest.raises(
        TypeError, match=r"label rule must be a string such as 'score > 0.5', got 0.5"
    ):
        LabelRule.parse(0.5)


def test_one_attempt_needs_a_key_and_pass_rates():
    rule = LabelRule.parse("one attempt")
    with pytest.raises(ValueError, match="draws an attempt and needs a key, got none"):
        rule.apply(GRADED)
    with pytest.raises(ValueError, match=r"needs pass rates in \[0, 1\]"):
        rule.apply(GRADED * 2, jax.random.key(0))
    drawn = rule.apply(np.full((1, 10_000), 0.3), jax.random.key(0)).mean()
    assert abs(drawn - 0.3) < 5 * np.sqrt(0.21 / 10_000)
    assert not rule.apply(np.zeros((9, 9)), jax.random.key(0)).any()
    assert rule.apply(np.ones((9, 9)), jax.random.key(0)).all()


def test_the_generator_is_fixed_by_the_key():
    assert generator(jax.random.key(5)).random() == generator(jax.random.key(5)).random()
    assert generator(jax.random.key(5)).random() != generator(jax.random.key(6)).random()
    with pytest.raises(TypeError, match="key must be a single key"):
        generator(jax.random.split(jax.random.key(0)))
