import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax import gap, prediction_sets, reference, tie_break
from racer_jax.core import vote_kernels
from racer_jax.core.aggregation import (
    answer_codes,
    log_odds,
    majority_vote,
    model_order,
    prefix_answers,
    voted_right,
    weighted_vote,
)
from racer_jax.core.nonconformity import TieBroken

TEMPERATURES = (0.01, 0.1, 1.0, 30.0, 1000.0, jnp.inf)
MODEST = settings(max_examples=60, deadline=None)


@st.composite
def votes(draw, num_models=(1, 2, 5, 7)):
    """One query: order, answers, scores and weights, on coarse grids so that ties of every kind abound."""
    m = draw(st.sampled_from(num_models))
    levels = draw(st.sampled_from([1, 2, 10]))
    grid = st.lists(st.integers(0, levels), min_size=m, max_size=m)
    scores = np.array(draw(grid), np.float32) / levels
    weights = np.array(draw(grid), np.float32) / levels
    answers = np.array(draw(st.lists(st.integers(-1, 3), min_size=m, max_size=m)), np.int32)
    order = np.array(draw(st.permutations(range(m))), np.int32)
    return order, answers, scores, weights


def with_null(called: np.ndarray) -> np.ndarray:
    return np.concatenate([called, np.ones((*called.shape[:-1], 1), bool)], axis=-1)


# --- against the exact reference ---


@pytest.mark.long
@MODEST
@given(votes(), st.sampled_from(TEMPERATURES))
def test_every_prefix_equals_the_exact_vote(problem, temperature):
    order, answers, scores, weights = problem
    table = prefix_answers(order, answers, scores, weights, temperature)
    expected = reference.prefix_answers(
        order.tolist(), answers.tolist(), scores.tolist(), weights.tolist(), float(temperature)
    )
    assert table.tolist() == expected


@pytest.mark.long
@MODEST
@given(votes(), st.data())
def test_the_vote_of_any_set_equals_the_exact_vote(problem, data):
    _, answers, scores, weights = problem
    m = len(answers)
    called = np.array(data.draw(st.lists(st.booleans(), min_size=m, max_size=m)))
    members, lists = np.flatnonzero(called).tolist(), (answers.tolist(), scores.tolist())
    assert int(majority_vote(with_null(called), answers, scores)) == reference.vote(members, *lists)
    for temperature in TEMPERATURES:
        voted = weighted_vote(with_null(called), answers, scores, weights, temperature)
        assert int(voted) == reference.vote(members, *lists, weights.tolist(), float(temperature))


@pytest.mark.long
def test_random_weights_over_many_magnitudes_equal_the_exact_vote():
    rng = np.random.default_rng(0)
    n, m = 60, 9
    order = np.argsort(rng.random((n, m)), axis=1)
    answers, scores = rng.integers(-1, 4, (n, m)), rng.random((n, m), np.float32)
    # some equal the score of others
    weights = np.where(rng.random((n, m)) < 0.5, scores, np.asarray(log_odds(scores)))
    for temperature in (0.01, 0.07, 1.0, 1e4, jnp.inf):
        table = prefix_answers(order, answers, scores, weights, temperature)
        for i in range(n):
            row = (order[i].tolist(), answers[i].tolist(), scores[i].tolist(), weights[i].tolist())
            assert table[i].tolist() == reference.prefix_answers(*row, float(temperature))


@pytest.mark.long
def test_sixty_models_tie_exactly():
    # the means 1/3 + 1/3 + ... differ in floating point with the order of the sums, but not here
    m = 60
    scores = np.full(m, np.float32(1 / 3))
    answers = np.arange(m) % 4
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(m)
        assert int(prefix_answers(order, answers, scores)[-1]) == 0
        assert int(prefix_answers(order, answers, scores, scores, 0.01)[-1]) == 0


# --- exactness at the ends of the scale of temperatures ---


@pytest.mark.long
def test_a_weight_that_underflows_still_breaks_a_tie():
    # exp(-80) is lost beside 1 in any float; 0.9 + 0.1 against 0.9 is won by the second voter all
    # the same.
    answers, weights = jnp.array([0, 0, 1]), jnp.array([0.9, 0.1, 0.9])
    scores = jnp.array([0.5, 0.0, 0.75])
    assert int(prefix_answers([0, 1, 2], answers, scores, weights, 0.01)[-1]) == 0
    assert (
        int(prefix_answers([0, 1, 2], answers, scores, jnp.array([1e4, -1e4, 1e4]), 0.01)[-1]) == 0
    )
    # with equal weights alone it is a tie, and the mean score decides
    assert int(prefix_answers([0, 1], answers[::2], scores[::2], weights[::2], 0.01)[-1]) == 1


def test_a_large_temperature_still_sees_small_differences():
    answers, weights = jnp.array([0, 1]), jnp.array([0.5, 0.25])
    scores = jnp.array([0.25, 0.5])
    assert int(prefix_answers([0, 1], answers, scores, weights, 1e30)[-1]) == 0
    assert int(prefix_answers([0, 1], answers, scores, weights, jnp.inf)[-1]) == 1


@pytest.mark.long
@MODEST
@given(votes())
def test_an_infinite_temperature_is_the_majority(problem):
    order, answers, scores, weights = problem
    majority = prefix_answers(order, answers, scores)
    assert prefix_answers(order, answers, scores, weights, jnp.inf).tolist() == majority.tolist()
    assert (
        prefix_answers(order, answers, scores, np.zeros_like(weights), 0.01).tolist()
        == majority.tolist()
    )


@pytest.mark.long
@MODEST
@given(votes())
def test_a_small_temperature_follows_the_heaviest_voter(problem):
    order, answers, scores, _ = problem
    weights = np.arange(len(answers), dtype=np.float32)  # all different
    last = int(prefix_answers(order, answers, scores, weights, 0.01)[-1])
    voting = np.flatnonzero(answers >= 0)
    assert last == (answers[voting[-1]] if len(voting) else -1)


def test_the_smallest_and_largest_numbers_stay_finite():
    answers, scores = jnp.array([0, 1, 1]), jnp.array([1.0, 0.0, 1e-30])
    for weights in ([3e38, 0.0, 0.0], [1e-40, 0.0, 0.0]):
        for temperature in (1e-38, 1.0, 1e30, jnp.inf):
            winner = int(
                prefix_answers([0, 1, 2], answers, scores, jnp.array(weights), temperature)[-1]
            )
            assert winner == (0 if weights[0] / temperature > 0.7 else 1)


# --- ties, abstention, properties ---


@pytest.mark.long
def test_ties_go_to_the_highest_mean_score_then_to_the_smallest_code():
    scores = jnp.array([0.25, 0.75, 0.625, 0.5])
    every = jnp.ones(5, bool)
    assert int(majority_vote(every, jnp.array([0, 0, 1, 1]), scores)) == 1  # .5 against .5625
    assert int(majority_vote(every, jnp.array([1, 1, 0, 2]), scores)) == 1  # two votes beat one
    assert (
        int(majority_vote(every, jnp.array([3, 2, 2, 3]), jnp.array([0.25, 0.75, 0.25, 0.75]))) == 2
    )


def test_nobody_called_or_nobody_answered_abstains():
    scores = jnp.array([0.25, 0.75])
    assert int(majority_vote(jnp.array([False, False, True]), jnp.array([0, 1]), scores)) == -1
    assert int(majority_vote(jnp.array([True, True, False]), jnp.array([-1, -1]), scores)) == -1
    assert (
        int(weighted_vote(jnp.array([True, True, False]), jnp.array([-1, 5]), scores, scores, 0.01))
        == 5
    )
    assert not voted_right(jnp.array(-1), jnp.array([-1, 1]), jnp.array([1, 0]))


def test_a_single_model_decides_alone():
    assert prefix_answers([0], [3], jnp.array([0.0])).tolist() == [-1, 3]
    assert prefix_answers([0], [-1], jnp.array([1.0])).tolist() == [-1, -1]


@pytest.mark.long
@MODEST
@given(votes(num_models=(5,)), st.permutations(range(5)), st.sampled_from(TEMPERATURES))
def test_the_order_of_the_models_does_not_matter(problem, permutation, temperature):
    _, answers, scores, weights = problem
    p = np.array(permutation)
    every = jnp.ones(6, bool)
    first = weighted_vote(every, answers, scores, weights, temperature)
    assert int(weighted_vote(every, answers[p], scores[p], weights[p], temperature)) == int(first)
    assert int(prefix_answers(p, answers, scores, weights, temperature)[-1]) == int(first)


@MODEST
@given(votes(num_models=(5,)), st.floats(-50, 50, width=16))
def test_a_shift_of_all_weights_changes_nothing(problem, shift):
    order, answers, scores, weights = problem
    weights = np.round(weights * 8)  # integers: the shift is then exact
    moved = prefix_answers(order, answers, scores, weights + np.float32(round(shift)), 1.0)
    assert moved.tolist() == prefix_answers(order, answers, scores, weights, 1.0).tolist()


@pytest.mark.long
def test_eager_jit_and_vmap_agree(transform):
    rng = np.random.default_rng(1)
    scores = jnp.asarray(rng.integers(0, 4, (6, 5)) / 4, jnp.float32)
    answers = jnp.asarray(rng.integers(-1, 3, (6, 5)))
    order = jnp.asarray(np.argsort(rng.random((6, 5)), axis=1))
    sets = jnp.asarray(rng.random((6, 6)) < 0.7)
    temperature = jnp.array(0.3)
    expected = prefix_answers(order, answers, scores, scores, 0.3)
    assert (
        transform(prefix_answers)(order, answers, scores, scores, temperature).tolist()
        == expected.tolist()
    )
    expected = weighted_vote(sets, answers, scores, scores, 0.3)
    assert (
        transform(weighted_vote)(sets, answers, scores, scores, temperature).tolist()
        == expected.tolist()
    )
    assert (
        transform(majority_vote)(sets, answers, scores).tolist()
        == majority_vote(sets, answers, scores).tolist()
    )
    codes = jnp.asarray(expected)
    right = answers == 1
    assert (
        transform(voted_right)(codes, answers, right).tolist()
        == voted_right(codes, answers, right).tolist()
    )


@pytest.mark.long
def test_weightings_and_temperatures_make_one_table():
    rng = np.random.default_rng(2)
    n, m = 8, 4
    scores, verbal = rng.random((n, m), np.float32), rng.integers(0, 2, (n, m)).astype(np.float32)
    answers, order = rng.integers(-1, 3, (n, m)), np.argsort(rng.random((n, m)), axis=1)
    weights, temperatures = np.stack([scores, verbal]), np.array([0.01, 0.5, np.inf], np.float32)
    table = prefix_answers(order, answers, scores, weights[:, None], temperatures[:, None])
    assert table.shape == (2, 3, n, m + 1)
    for w in range(2):
        for t in range(3):
            one = prefix_answers(order, answers, scores, weights[w], temperatures[t])
            assert table[w, t].tolist() == one.tolist()


def test_one_compilation_for_any_temperature(monkeypatch):
    traces = []
    inner = vote_kernels._prefix_winners
    monkeypatch.setattr(
        vote_kernels, "_prefix_winners", lambda *args: traces.append(1) or inner(*args)
    )
    for temperature in (0.125, 17.0, jnp.inf):
        prefix_answers(
            [1, 0, 2],
            [0, 1, 1],
            jnp.array([0.125, 0.25, 0.5]),
            jnp.array([0.0, 1.0, 2.0]),
            temperature,
        )
    assert len(traces) <= 1


# --- the pieces around the vote ---


@pytest.mark.long
def test_the_prefixes_of_the_order_are_the_sets():
    rng = np.random.default_rng(3)
    nonconformity = gap(jnp.asarray(rng.integers(0, 5, (20, 4)) / 5, jnp.float32))
    ties = tie_break(jax.random.key(0), nonconformity.shape)
    order = np.asarray(model_order(nonconformity, ties))
    for threshold in (0.0, 0.2, 0.4):
        limit = TieBroken(jnp.float32(threshold), jnp.uint32(1 << 31))
        sets = np.asarray(prediction_sets(nonconformity, limit, ties))[:, :-1]
        for members, row in zip(sets, order, strict=True):
            assert set(row[: members.sum()]) == set(np.flatnonzero(members))
    assert model_order(jnp.array([0.5, 0.5, 0.0, 0.0])).tolist() == [2, 0, 1]


def test_codes_are_by_query_and_do_not_depend_on_the_order_of_the_models():
    table = np.array([["B", "A", None, "B"], ["x", None, "y", "x"]], dtype=object)
    assert answer_codes(table).tolist() == [[1, 0, -1, 1], [0, -1, 1, 0]]
    assert answer_codes(table[:, ::-1]).tolist() == answer_codes(table)[:, ::-1].tolist()
    assert answer_codes([[None, None]]).tolist() == [[-1, -1]]
    assert answer_codes(table).dtype == np.int32


def test_log_odds_are_clipped_and_finite():
    odds = log_odds(jnp.array([0.0, 0.005, 0.5, 0.75, 1.0]))
    assert odds.tolist() == pytest.approx([-5.2933, -5.2933, 0.0, 1.0986, 5.2933], abs=1e-4)


def test_right_is_the_answer_of_a_model_that_is_right():
    answers, correct = jnp.array([0, 1, 1, -1]), jnp.array([0, 1, 1, 1])
    assert [bool(voted_right(jnp.array(a), answers, correct)) for a in (-1, 0, 1, 2)] == [
        False,
        False,
        True,
        False,
    ]


# --- errors ---

SCORES3 = jnp.array([0.25, 0.5, 0.75])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, 1], jnp.array([0.5, 2.0, 0.5])),
            ValueError,
            "scores must be in",
        ),
        (
            lambda: prefix_answers([0, 1, 2], jnp.array([0.0, 1, 1]), SCORES3),
            TypeError,
            "answers must be integer",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1], SCORES3),
            ValueError,
            r"answers must have shape \[\.\.\., m\]",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, -2], SCORES3),
            ValueError,
            "answers must be codes >= 0, or -1",
        ),
        (
            lambda: prefix_answers([0.0, 1, 2], [0, 1, 1], SCORES3),
            TypeError,
            "order must hold integers",
        ),
        (lambda: prefix_answers([0, 1], [0, 1, 1], SCORES3), ValueError, "order must have shape"),
        (
            lambda: prefix_answers([0, 1, 1], [0, 1, 1], SCORES3),
            ValueError,
            "order must hold permutations",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, 1], SCORES3, [1, 2, 3]),
            TypeError,
            "weights must be floating",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, 1], SCORES3, SCORES3[:2]),
            ValueError,
            "weights must have shape",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, 1], SCORES3, jnp.array([0, jnp.inf, 0])),
            ValueError,
            r"weights must be finite, got inf at \[1\]",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, 1], SCORES3, SCORES3, 0.0),
            ValueError,
            "temperature must be pos",
        ),
        (
            lambda: prefix_answers([0, 1, 2], [0, 1, 1], SCORES3, SCORES3, jnp.nan),
            ValueError,
            "temperature must be",
        ),
        (
            lambda: majority_vote(jnp.ones(3, bool), [0, 1, 1], SCORES3),
            ValueError,
            "sets must have shape",
        ),
        (lambda: answer_codes(["A", "B"]), ValueError, r"answers must have shape \[n, m\]"),
        (lambda: log_odds(SCORES3, 0.5), ValueError, r"margin must be in \(0, 0.5\)"),
        (lambda: model_order(jnp.array([0.5])), ValueError, r"nonconformity must have shape"),
        (
            lambda: voted_right(jnp.array(0.0), [0, 1], [0, 1]),
            TypeError,
            "voted must hold integer codes",
        ),
        (
            lambda: voted_right(0, [0, 1], [0, 1, 1]),
            ValueError,
            r"answers and correct must both be \[\.\.\., m\]",
        ),
    ],
)
def test_errors_say_what_was_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
