"""The simulated pool: published marginals to within sampling error, solved and not stated."""

import math
import re

import jax
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from racer_jax.data import simulated_pool
from racer_jax.data.synthetic import (
    ACCURACIES,
    ALL_WRONG_RATES,
    BENCHMARKS,
    MODELS,
    TOPIC_SHARE,
    _normal_cdf,
    _root,
    solve,
)
from racer_jax.data.synthetic_texts import questions
from racer_jax.data.texts import normal_text
from racer_jax.encoders import HashedNgrams
from racer_jax.routers import KNNR


@pytest.fixture(scope="module")
def pool():
    return simulated_pool(jax.random.key(7))


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
def test_accuracies_and_all_wrong_rates_are_the_published_ones(pool, name):
    labels = np.concatenate([pool[name].train.correct, pool[name].test.correct])
    n = len(labels)
    target = np.array([row[BENCHMARKS.index(name)] for row in ACCURACIES.values()])
    assert (np.abs(labels.mean(axis=0) - target) < 5 * np.sqrt(target * (1 - target) / n)).all()
    rate = ALL_WRONG_RATES[name]
    assert abs((~labels.any(axis=1)).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_correctness_is_correlated_and_scores_are_informative_but_imperfect(pool, name):
    table, scores = pool[name].test, pool[name].scores
    pairs = np.corrcoef(table.correct.T.astype(float))[np.triu_indices(len(MODELS), 1)]
    assert 0.2 < pairs.min() <= pairs.max() < 0.9
    brier = {quality: float(((s - table.correct) ** 2).mean()) for quality, s in scores.items()}
    constant = float((table.correct.mean(axis=0) * (1 - table.correct.mean(axis=0))).mean())
    assert 0 < brier["strong"] < brier["fair"] < brier["weak"] < constant
    for s in scores.values():
        assert s.dtype == np.float32
        assert s.shape == table.correct.shape
        assert ((s >= 0) & (s <= 1)).all()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_texts_are_in_the_benchmark_s_manner_and_all_different(pool, name):
    tables = (pool[name].train, pool[name].test)
    texts = [text for table in tables for text in table.texts]
    assert len({normal_text(text) for text in texts}) == len(texts)
    pattern = {
        "gsm8k": r"\w+ \w+ \d+ .*How many .*\?",
        "mmlu": r".*\?\nA\. .*\nB\. .*\nC\. .*\nD\. .*",
        "cmmlu": r"[\u4e00-\u9fff《].*\nA\. .*\nB\. .*\nC\. .*\nD\. .*\n答案：",
        "arc_challenge": r"Question:.*\?\nAnswer:",
    }[name]
    assert all(re.fullmatch(pattern, text) for text in texts)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_equal_answers_are_equally_right(pool, name):
    table = pool[name].test
    for labels, answers in zip(table.correct, table.answers, strict=True):
        right = {a for a, c in zip(answers, labels, strict=True) if c}
        assert len(right) <= 1
        assert None not in right
        assert not right & {a for a, c in zip(answers, labels, strict=True) if not c}
    assert 0 < (table.answers == None).mean() < 0.05  # noqa: E711 - elementwise


def test_confidences_tell_right_from_wrong(pool):
    table = pool["mmlu"].test
    p_true, verbal = table.confidence["p_true"], table.confidence["verbal"]
    silent = table.answers == None  # noqa: E711 - elementwise
    np.testing.assert_array_equal(np.isnan(p_true), silent)
    np.testing.assert_array_equal(verbal[~silent], p_true[~silent] > 0.5)
    assert p_true[table.correct].mean() > p_true[~table.correct & ~silent].mean() + 0.1


@pytest.mark.long
def test_a_router_learns_from_the_texts(pool):
    part, encoder = pool["mmlu"], HashedNgrams(dim=1024)
    router = KNNR.fit(encoder.encode(part.train.texts), part.train.correct, k=100)
    scores = np.asarray(router(encoder.encode(part.test.texts)))
    constant = part.train.correct.mean(axis=0)
    assert ((scores - part.test.correct) ** 2).mean() < 0.95 * (
        (constant - part.test.correct) ** 2
    ).mean()
    best = part.test.correct[:, constant.argmax()].mean()
    assert part.test.correct[np.arange(len(scores)), scores.argmax(axis=1)].mean() > best


@pytest.mark.long
def test_more_questions_than_there_are_get_numbers():
    rng = np.random.default_rng(0)
    made = questions(rng, "arc_challenge", np.zeros(4000, int), np.zeros(4000, int))
    assert len({question.text for question in made}) == 4000
    assert sum(question.text.startswith("(") for question in made) > 0


def test_the_solved_law_fits_by_direct_integration():
    accuracies = np.array([0.4, 0.7, 0.55])
    affinity = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]) * np.array([1, 1, 0])
    law = solve(accuracies, 0.2, affinity)
    # An independent check: the integral over z by a plain Riemann sum, the product over models
    # written out.
    z, step = np.linspace(-8, 8, 4001, retstep=True)
    rest = np.sqrt(1 - law.loading**2)
    right, wrong = np.zeros(3), 0.0
    for topic in range(2):
        miss = np.ones_like(z)
        for m in range(3):
            shift = law.thresholds[m] + rest * np.sqrt(TOPIC_SHARE) * affinity[topic, m]
            p = norm.cdf((shift + law.loading * z) / (rest * np.sqrt(1 - TOPIC_SHARE)))
            right[m] += (p * norm.pdf(z)).sum() * step / 2
            miss *= 1 - p
        wrong += (miss * norm.pdf(z)).sum() * step / 2
    np.testing.assert_allclose(right, accuracies, atol=1e-6)
    assert wrong == pytest.approx(0.2, abs=1e-6)


def test_the_key_fixes_the_pool_and_each_benchmark_is_its_own(pool):
    again = simulated_pool(jax.random.key(7), test_sizes={"arc_challenge": 352})["arc_challenge"]
    np.testing.assert_array_equal(again.test.correct, pool["arc_challenge"].test.correct)
    np.testing.assert_array_equal(again.scores["fair"], pool["arc_challenge"].scores["fair"])
    other = simulated_pool(jax.random.key(8), test_sizes={"arc_challenge": 352})["arc_challenge"]
    assert (other.test.correct != again.test.correct).any()


def test_a_rate_that_no_correlation_gives_is_refused():
    with pytest.raises(ValueError, match="all_wrong_rate must be in"):
        solve(np.array([0.5, 0.5]), 0.6, np.zeros((1, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_sizes": {"squad": 3}}, "test_sizes must name benchmarks among .* got 'squad'"),
        ({"train_sizes": {}}, "got no size for 'gsm8k'"),
        ({"test_sizes": {"mmlu": 0}}, "sizes must be at least 1, got 0 for 'mmlu'"),
        ({"qualities": {"perfect": 1.0}}, r"qualities must be in \[0, 1\), got 1.0 for 'perfect'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulated_pool(jax.random.key(0), **options)


def test_the_key_must_be_typed():
    with pytest.raises(TypeError, match=r"key must be jax\.random\.key"):
        simulated_pool(np.array([0, 1], dtype=np.uint32))


def test_a_root_is_that_of_scipy_to_the_last_bit():
    rng, num_compared = np.random.default_rng(0), 0
    for i in range(300):
        slope, bend, place = rng.standard_normal(), 3 * rng.standard_normal(), rng.random()
        low, high = place - 2 * rng.random(), place + 3 * rng.random()

        def smooth(x, slope=slope, bend=bend, place=place):
            return math.exp(slope * x) * (x - place) + bend * (x - place) ** 3

        def steep(x, slope=slope, place=place):
            return math.tanh(5 * slope * (x - place))

        function = smooth if i % 2 else steep
        if function(low) * function(high) < 0:
            num_compared += 1
            assert _root(function, low, high) == brentq(function, low, high)
    assert num_compared > 200


def test_the_normal_law_is_that_of_scipy():
    value = np.concatenate([np.linspace(-40, 40, 4000), [-np.inf, np.inf]]).reshape(3, -1)
    np.testing.assert_allclose(_normal_cdf(value), norm.cdf(value), rtol=1e-12, atol=1e-300)
