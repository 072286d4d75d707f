from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import racer_jax as racer
from racer_jax import reference
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials
from racer_jax.montecarlo.tuning import TEMPERATURES, select, select_each, vote_tables

pytestmark = pytest.mark.long

NUM, MODELS = 61, 4
ALPHAS = ["0.01", "0.1", "0.2", "0.35", "0.6"]
SPLIT = {"num_calibration": 25, "num_validation": 15}
WARM = (0.05, 0.5)


@pytest.fixture(scope="module", params=["gap", "inverse_probability", "tied"])
def study(request):
    """A small pool with ties of every kind, its vote tables and its steps."""
    rng = np.random.default_rng(4)
    scores = (rng.random((NUM, MODELS)) * 8).round().astype(np.float32) / 8
    correct = rng.random((NUM, MODELS)) < 0.3 + 0.5 * scores
    answers = np.where(correct, 0, rng.integers(-1, 3, (NUM, MODELS)))
    correct &= answers == 0
    answers = np.where(correct, 0, np.where(answers == 0, 1, answers)).astype(np.int32)
    nonconformity = (
        racer.inverse_probability if request.param == "inverse_probability" else racer.gap
    )(scores)
    ties = (
        None if request.param == "tied" else racer.tie_break(jax.random.key(5), nonconformity.shape)
    )
    confidence = {"verbal": rng.integers(0, 2, (NUM, MODELS))}
    tables = vote_tables(
        nonconformity, answers, scores, correct, ties, confidence=confidence, temperatures=WARM
    )
    pool = pool_steps(nonconformity, correct, ties)
    return scores, correct, answers, nonconformity, ties, confidence, tables, pool


def test_tables_hold_the_vote_of_every_set(study):
    scores, correct, answers, nonconformity, ties, confidence, tables, _ = study
    assert tables.weighting == (
        "majority",
        "score",
        "score",
        "log_odds",
        "log_odds",
        "verbal",
        "verbal",
    )
    assert tables.temperature == (np.inf, *WARM * 3)
    assert tables.right.shape == (7, NUM, MODELS + 1)
    odds = np.log(
        np.clip(scores, 0.005, 0.995).astype(np.float64) / (1 - np.clip(scores, 0.005, 0.995))
    )
    weights = {
        "majority": scores,
        "score": scores,
        "log_odds": odds.astype(np.float32),
        **confidence,
    }
    second = np.zeros_like(nonconformity, np.uint32) if ties is None else np.asarray(ties)
    for i in range(0, NUM, 7):
        order = sorted(
            range(MODELS), key=lambda m: (float(nonconformity[i, m]), int(second[i, m]), m)
        )
        for k, (name, temperature) in enumerate(
            zip(tables.weighting, tables.temperature, strict=True)
        ):
            row = (answers[i].tolist(), scores[i].tolist(), weights[name][i].tolist())
            voted = reference.prefix_answers(order, *row, temperature)
            expected = [
                any(correct[i][m] and answers[i][m] == v for m in range(MODELS)) for v in voted
            ]
            assert tables.right[k, i].tolist() == expected


def parts_of(study, num_splits):
    return split_parts(jax.random.key(9), jnp.arange(num_splits), study[-1], **SPLIT)


def chosen_plainly(study, part, tolerance, pooled=False):
    """One split in plain Python.

    Alpha, aggregation, the full ensemble's aggregation, models called.
    """
    _, correct, _, nonconformity, ties, _, tables, _ = study
    rows = np.asarray(nonconformity, np.float64).tolist()
    second = [None] * NUM if ties is None else np.asarray(ties).tolist()
    critical = [
        reference.critical_score(rows[i], correct[i].tolist(), second[i])
        for i in np.flatnonzero(part == 0)
    ]
    validation = np.flatnonzero(part == 1)
    called, right = [], {}
    for a, alpha in enumerate(ALPHAS):
        limit = reference.threshold(critical, alpha)
        limit = (limit[0], np.inf) if ties is None else limit
        called.append(
            [sum(reference.prediction_set(rows[i], limit, second[i])[:-1]) for i in range(NUM)]
        )
        for k in range(len(tables.right)):
            right[a, k] = [bool(tables.right[k, i, called[a][i]]) for i in validation]
    labelled = np.flatnonzero(part <= 1) if pooled else validation
    if pooled:
        for a in range(len(ALPHAS)):
            total = [sum(table[i, called[a][i]] for i in labelled) for table in tables.right]
            right = {
                pair: value
                for pair, value in right.items()
                if pair[0] != a or pair[1] == total.index(max(total))
            }
    calls = [sum(called[a][i] for i in validation) for a in range(len(ALPHAS))]
    best = max(right, key=lambda pair: (sum(right[pair]), -calls[pair[0]], -pair[0], -pair[1]))

    def as_good(pair):
        difference = [int(x) - int(y) for x, y in zip(right[best], right[pair], strict=True)]
        mean = Fraction(sum(difference), len(difference))
        variance = Fraction(sum(d * d for d in difference), len(difference)) - mean**2
        return mean**2 <= Fraction(tolerance) ** 2 * variance / len(difference)

    good = [pair for pair in right if as_good(pair)]
    chosen = min(good, key=lambda pair: (calls[pair[0]], -sum(right[pair]), pair))
    full = max(
        range(len(tables.right)), key=lambda k: (sum(tables.right[k, i, -1] for i in labelled), -k)
    )
    return (*chosen, full, called[chosen[0]])


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
def test_every_split_chooses_as_plain_python_does(study, tolerance, pooled):
    pool, tables, key = study[-1], study[-2], jax.random.key(6)
    parts = split_parts(key, jnp.arange(15), pool, **SPLIT)
    picked = select(
        parts, pool, tables.right, alpha=ALPHAS, tolerance=tolerance, pooled_vote=pooled
    )
    for s in range(15):
        alpha, aggregation, full, called = chosen_plainly(study, parts[s], tolerance, pooled)
        assert (int(picked.alpha[s]), int(picked.aggregation[s])) == (alpha, aggregation)
        assert int(picked.full_aggregation[s]) == full
        assert picked.num_called[s].tolist() == called
        test = np.flatnonzero(parts[s] == 2)
        rights = [tables.right[aggregation, i, called[i]] for i in test]
        assert picked.accuracy(tables.right)[s] == pytest.approx(np.mean(rights))
        assert picked.full_accuracy(tables.right)[s] == pytest.approx(
            tables.right[full, test, -1].mean()
        )
        validated = [tables.right[aggregation, i, called[i]] for i in np.flatnonzero(parts[s] == 1)]
        assert picked.validation_right[s] == pytest.approx(np.mean(validated))


def test_a_single_choice_agrees_with_the_engine_of_trials(study):
    _, correct, _, nonconformity, ties, _, tables, _ = study
    pool = pool_steps(nonconformity, correct, ties, metrics={"accuracy": tables.right[1]})
    key = jax.random.key(7)
    trials = split_trials(key, pool, **SPLIT, alpha="0.2", num_trials=20)
    picked = select(
        split_parts(key, jnp.arange(20), pool, **SPLIT), pool, tables.right[1:2], alpha="0.2"
    )
    np.testing.assert_allclose(
        picked.accuracy(tables.right[1:2]), trials.extra["accuracy"][:, 0], rtol=1e-6
    )
    np.testing.assert_allclose(picked.mean(picked.num_called), trials.size[:, 0], rtol=1e-6)
    np.testing.assert_allclose(
        picked.mean(picked.num_called, 1), trials.validation["size"][:, 0], rtol=1e-6
    )
    table = np.arange(MODELS + 1.0) ** 2 + np.zeros((NUM, 1))
    assert picked.called_value(table).tolist() == (picked.num_called**2).tolist()
    assert picked.mean(correct[:, 0])[3] == pytest.approx(correct[picked.part[3] == 2, 0].mean())


def test_each_alpha_is_what_it_would_be_alone(study):
    parts, pool, right = parts_of(study, 6), study[-1], study[-2].right
    for a, choice in enumerate(select_each(parts, pool, right, alpha=ALPHAS)):
        alone = select(parts, pool, right, alpha=ALPHAS[a], tolerance=0)
        assert choice.alpha.tolist() == [a] * 6
        for mine, other in zip(choice[2:], alone[2:], strict=True):
            np.testing.assert_array_equal(mine, other)
    (single,) = select_each(parts, pool, right, alpha="0.2")
    assert single.alpha.tolist() == [0] * 6
    with pytest.raises(ValueError, match="alpha"):
        select_each(parts, pool, right, alpha=["0.2", "1.5"])


def test_an_infeasible_alpha_calls_every_model(study):
    picked = select(parts_of(study, 3), study[-1], study[-2].right, alpha=0.01)
    assert (picked.num_called == MODELS).all()


def test_more_tolerance_never_calls_more_models_on_validation(study):
    def calls(tolerance):
        picked = select(
            parts_of(study, 40), study[-1], study[-2].right, alpha=ALPHAS, tolerance=tolerance
        )
        return picked.mean(picked.num_called, 1)

    best, near, far = calls(0.0), calls(1.0), calls(3.0)
    assert (near <= best).all()
    assert (far <= near).all()
    assert far.mean() < best.mean()


def test_temperatures_span_what_the_paper_tunes():
    assert TEMPERATURES[0] == 0.01
    assert TEMPERATURES[-1] == 10
    assert len(TEMPERATURES) == 12


ONES = np.ones((2, NUM, MODELS + 1), bool)


PARTS = np.repeat([[0, 1, 2]], 2, 0).repeat([40, 11, 10], 1)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"right": ONES.astype(float)}, TypeError, "right must be boolean"),
        (
            {"right": ONES[:, 1:]},
            ValueError,
            r"right must have shape \[k, n, m \+ 1\] with the n = 61",
        ),
        ({"part": PARTS.astype(float)}, TypeError, "part must hold integers"),
        (
            {"part": PARTS[:, 1:]},
            ValueError,
            r"part must have shape \[s, n\] with s >= 1 and the n = 61",
        ),
        ({"part": PARTS[:0]}, ValueError, "with s >= 1"),
        (
            {"part": np.where(PARTS == 1, 2, PARTS)},
            ValueError,
            "queries of part 1 in every split, at least one, got 0",
        ),
        (
            {"part": np.where(PARTS == 2, 0, PARTS)},
            ValueError,
            "queries of part 2 in every split, at least one, got 0",
        ),
        (
            {"part": np.concatenate([PARTS, 2 - PARTS])},
            ValueError,
            "part 0 in every split, at least one, got 10 to 40",
        ),
        ({"tolerance": -1}, ValueError, "tolerance must be a finite number"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be a finite number"),
        ({"alpha": 1.5}, ValueError, "alpha must be in"),
    ],
)
def test_errors_of_selection(study, change, error, message):
    arguments = {"part": PARTS, "right": study[-2].right, "alpha": ALPHAS} | change
    with pytest.raises(error, match=message):
        select(pool=study[-1], **arguments)


def test_errors_of_tables_and_lookups(study):
    scores, correct, answers, nonconformity, ties, _, tables, pool = study
    with pytest.raises(ValueError, match="the name 'score' is taken"):
        vote_tables(nonconformity, answers, scores, correct, ties, confidence={"score": scores})
    with pytest.raises(ValueError, match="must have the shape of scores"):
        vote_tables(
            nonconformity, answers, scores, correct, ties, confidence={"verbal": scores[1:]}
        )
    with pytest.raises(ValueError, match=r"scores must have shape \[n, m\]"):
        vote_tables(nonconformity, answers, scores[0], correct, ties)
    with pytest.raises(TypeError, match="cannot be traced"):
        jax.jit(lambda right: select(PARTS, pool, right, alpha=0.1).alpha)(
            jnp.asarray(tables.right)
        )
    picked = select(PARTS, pool, tables.right, alpha=0.1)
    with pytest.raises(ValueError, match=r"values must have shape \[n\] or \[s, n\] = \(2, 61\)"):
        picked.mean(np.ones(3))
    with pytest.raises(ValueError, match=r"table must have shape \[n, m \+ 1\] with n = 61"):
        picked.called_value(np.ones((3, MODELS + 1)))
