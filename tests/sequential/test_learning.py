"""What a policy learns: weights, risk model, order, reference.

From training rows alone, the same every time.
"""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from racer_jax import RoutingTable
from racer_jax.core.aggregation import answer_codes
from racer_jax.risk_control.vote_path import path_states
from racer_jax.sequential import order_search, policy, risk_model, weights
from racer_jax.sequential.policy import batch_ends, batch_last, fit_policy
from tests.sequential.pools import answered_table


def likelihood(parameters, codes, correct, start):
    """The penalised negative log-likelihood, one query and one answer at a time."""
    num, m = codes.shape
    total = 0.0
    for row, right in zip(codes, correct, strict=True):
        present = sorted(set(row.tolist()) - {-1})
        logits = [sum(w for w, a in zip(parameters, row, strict=False) if a == c) for c in present]
        logits.append(parameters[m] + parameters[m + 1] * (row == -1).sum() / 3)
        good = [any(right[row == c]) for c in present]
        target = [x for x, is_good in zip(logits, [*good, not any(good)], strict=True) if is_good]
        total += logsumexp(logits) - logsumexp(target)
    return total / num + 2 * ((parameters[:m] - start) ** 2).sum() / num


@pytest.mark.long
def test_weights_are_the_maximum_of_the_likelihood():
    table = answered_table(40)
    codes, correct = answer_codes(table.answers), np.asarray(table.correct)
    result = weights.fit_vote_weights(codes, correct)
    assert (result >= 0).all()
    assert (result % weights.GRID == 0).all()
    start = weights.starting_weights(correct.mean(axis=0))
    solution = minimize(
        likelihood,
        np.append(start, [0.0, 0.0]),
        args=(codes, correct, start),
        method="L-BFGS-B",
        bounds=[(0, None)] * 5 + [(None, None)] * 2,
    )
    assert np.abs(result - solution.x[:5]).max() < weights.GRID


def test_nobody_right_and_nobody_answering_leave_equal_weights():
    codes = np.array([[0, 1], [-1, -1]])
    assert weights.fit_vote_weights(codes, np.zeros((2, 2), bool)).tolist() == [1, 1]


def test_the_logistic_regression_is_at_its_optimum():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(200, 4))
    target = (rng.random(200) < expit(columns @ [1, -2, 0, 0.5])).astype(float)
    beta = risk_model.fit_logistic(columns, target)
    slope = columns.T @ (expit(columns @ beta) - target) + beta
    assert np.abs(slope).max() < 1e-3


def test_a_risk_model_on_the_grid_scores_exactly_in_float32():
    rng = np.random.default_rng(1)
    b, total = 6, 12.5
    coefficients = rng.normal(size=(b, 8 + b)) * 3
    rough = risk_model.RiskModel(coefficients, rng.normal(size=2))
    model = risk_model.on_grid(rough, total)
    assert np.abs(model.coefficients - coefficients).max() < 2e-3
    features = rng.integers(0, b + 1, (500, b, 7 + b)).astype(float)
    features[..., :3] = rng.integers(0, int(total / weights.GRID), (500, b, 3)) * weights.GRID
    features[..., 7:] = rng.integers(0, 2, (500, b, b))
    group = rng.integers(-1, 2, 500)
    exact = model.scores(features, group)
    terms = features.astype(np.float32) * model.coefficients[:, 1:].astype(np.float32)
    offset = np.append(model.groups, 0)[group].astype(np.float32)[:, None]
    # Summed forwards and backwards, in float32: the same to the last bit.
    for axis in (slice(None), slice(None, None, -1)):
        linear = np.zeros((500, b), np.float32)
        for column in range(terms.shape[-1])[axis]:
            linear = linear + terms[..., column]
        score = offset - (linear + model.coefficients[:, 0].astype(np.float32))
        assert (score.astype(np.float64) == exact).all()


def test_batches():
    assert batch_ends(None, 3).tolist() == [True] * 3
    assert batch_ends((2, 2), 4).tolist() == [False, True, False, True]
    assert batch_ends((9,), 3).tolist() == [False, False, True]
    assert batch_last(batch_ends((1, 2), 5)).tolist() == [0, 2, 2, 4, 4]
    for bad in ((0, 2), (2.5,), (), (True,)):
        with pytest.raises(ValueError, match="batches must be sizes of at least 1"):
            batch_ends(bad, 3)


def test_the_search_finds_the_best_order_where_moves_reach_it():
    cheap = {(2, 0, 1): 1.0, (0, 1, 2): 3.0, (1, 0, 2): 4.0}
    order, value = order_search.search([(0, 1, 2), (1, 0, 2)], lambda o: cheap.get(o, 2.0), None)
    # (0, 1, 2) moves to (1, 2, 0), at 2; that to (2, 0, 1), at 1.
    assert (order, value) == ((2, 0, 1), 1.0)


def test_the_path_ends_with_the_reference():
    orders = order_search.candidate_orders(np.array([1.0, 2, 3]), np.array([0.5, 0.6, 0.7]), None)
    assert orders == [(2, 1, 0)]
    assert order_search.cut_after((2, 0, 1), 0) == (2, 0)
    order, _ = order_search.search([(2, 0, 1)], len, 0)
    assert order == (0,)  # moving model 2 to the end leaves one call


def same(one, other):
    return (
        one.order == other.order
        and (one.weights == other.weights).all()
        and all(
            (a == b).all()
            for name in one.risk
            for a, b in zip(one.risk[name], other.risk[name], strict=True)
        )
    )


@pytest.mark.long
def test_a_policy_is_the_same_every_time_and_whatever_the_answers_are_called():
    table = answered_table(200)
    fitted = fit_policy(jax.random.key(0), table, reference="vote")
    assert same(fitted, fit_policy(jax.random.key(0), table, reference="vote"))
    names = {"A": "zero", "B": "alpha", "C": "C", "D": "omega", None: None}
    answers = np.vectorize(names.__getitem__, otypes=[object])(table.answers)
    renamed = RoutingTable(
        table.ids, table.texts, table.models, table.correct, answers=answers, cost=table.cost
    )
    assert same(fitted, fit_policy(jax.random.key(0), renamed, reference="vote"))


@pytest.mark.long
def test_the_order_of_rows_does_not_matter():
    table = answered_table(200)
    fitted = fit_policy(jax.random.key(0), table, reference="vote")
    shuffled = table.select(np.random.default_rng(0).permutation(200))
    other = fit_policy(jax.random.key(0), shuffled, reference="vote")
    assert fitted.order == other.order
    assert np.abs(fitted.weights - other.weights).max() <= weights.GRID


@pytest.mark.long
def test_dollars_are_saved_where_they_are_asked_for():
    table = answered_table(200)
    by_calls = fit_policy(jax.random.key(0), table, reference="vote")
    by_dollars = fit_policy(jax.random.key(0), table, reference="vote", objective="dollars")
    assert by_calls.calls[0] == "large"
    assert by_dollars.calls[0] != "large"  # eight times the price of the small one
    with pytest.raises(ValueError, match="objective 'dollars' needs the cost"):
        fit_policy(
            jax.random.key(0),
            RoutingTable(
                table.ids, table.texts, table.models, table.correct, answers=table.answers
            ),
            objective="dollars",
        )


def test_a_dominating_model_is_the_reference_and_ends_the_path():
    table = answered_table(200)
    correct = np.array(table.correct)
    answers = np.array(table.answers)
    answers[:, 1], correct[:, 1] = "A", True
    correct[:, [0, 2, 3, 4]] = answers[:, [0, 2, 3, 4]] == "A"
    sure = RoutingTable(table.ids, table.texts, table.models, correct, answers=answers)
    fitted = fit_policy(jax.random.key(0), sure)
    assert (fitted.reference, fitted.calls) == ("best", ("large",))


def test_zero_weight_models_are_never_waited_for():
    states = path_states(np.array([[0, 1, 1]]), np.array([1.0, 0.0, 0.0], np.float32))
    assert states.is_decided.tolist() == [[True] * 3]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"answers": None}, {}, "must hold the answer of every model"),
        ({"answers": np.full((20, 5), None)}, {}, "no model answered any training query"),
        ({}, {"loss": "accuracy"}, "loss must be one of"),
        ({}, {"reference": "mean"}, "reference must be one of"),
        ({}, {"objective": "tokens"}, "objective must be one of"),
        ({}, {"batches": (0,)}, "batches must be sizes"),
    ],
)
def test_bad_input_is_refused(change, options, message):
    table = answered_table(20)
    fields = {"answers": table.answers, "correct": np.zeros((20, 5), bool)}
    actual = RoutingTable(table.ids, table.texts, table.models, **{**fields, **change})
    with pytest.raises(ValueError, match=message):
        fit_policy(jax.random.key(0), actual, **options)


def test_unlabelled_rows_do_not_train_and_no_rows_neither():
    table = answered_table(20)
    unlabelled = RoutingTable(
        table.ids, table.texts, table.models, np.zeros((20, 5)), answers=table.answers,
        missing=np.ones((20, 5), bool),
    )  # fmt: skip
    with pytest.raises(ValueError, match="must hold every label"):
        fit_policy(jax.random.key(0), unlabelled)
    with pytest.raises(ValueError, match="at least one query"):
        fit_policy(jax.random.key(0), table.select([]))


@pytest.mark.long
def test_a_pool_of_one_model_and_of_models_that_never_answer():
    table = answered_table(60)
    one = fit_policy(jax.random.key(0), table.select(models=["large"]))
    assert one.calls == ("large",)
    answers = np.array(table.answers)
    answers[:, [0, 2]] = None
    correct = np.array(table.correct)
    correct[:, [0, 2]] = False
    silent = RoutingTable(table.ids, table.texts, table.models, correct, answers=answers)
    fitted = policy.fit_policy(jax.random.key(0), silent, reference="vote")
    # They may be in the order, never before those that answer.
    assert set(fitted.calls[-2:]) == {"small", "middle"}
