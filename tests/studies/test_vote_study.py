import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import gap, reference, tie_break
from racer_jax.core.aggregation import answer_codes, model_order
from racer_jax.data import save
from racer_jax.montecarlo.replay import split_parts
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.tuning import select, vote_tables
from racer_jax.studies.benchmarks import study
from racer_jax.studies.strategies import (
    BEST_SINGLE,
    ORACLE,
    PICKED_SINGLE,
    STATIC_TOP,
    StrategyMetrics,
    difference,
    dollars,
    full_name,
    pooled_name,
    racer_name,
    saved,
    single_name,
    top_name,
)
from racer_jax.studies.vote_strategies import VoteConfig
from racer_jax.studies.vote_study import num_repeats, vote_study
from tests.studies.test_benchmarks import MODELS, table

SPLITS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of one benchmark, two repeats, one router."""
    path = tmp_path_factory.mktemp("votes") / "table.npz"
    save(table(150, groups=("maths",)), path)
    config = VoteConfig(
        data=path, routers="knn", neighbors=10, splits=SPLITS, repeats=2, alphas="0.05,0.2,0.4"
    )
    benchmarks = study(config)
    steps = []
    votes = vote_study(jax.random.key(2), benchmarks, config, steps.append)
    assert sum(steps) == num_repeats(config, benchmarks) == 2
    return config, benchmarks, votes[0]


def parts_and_keys(made, repeat):
    """The splits of a repeat, and the keys that made them."""
    config, benchmarks, _ = made
    split_key, tie_key, _ = jax.random.split(jax.random.fold_in(jax.random.key(2), repeat), 3)
    benchmark = benchmarks[repeat]
    ties = tie_break(tie_key, (len(benchmark.test), len(MODELS) + 1))
    nonconformity = gap(benchmark.scores["knn"], config.null)
    pool = pool_steps(nonconformity, benchmark.test.correct, ties)
    calibration, validation = benchmark.part_sizes
    by_query = pool._replace(order=np.arange(len(benchmark.test), dtype=np.int32))
    part = split_parts(
        split_key,
        jnp.arange(SPLITS),
        by_query,
        num_calibration=calibration,
        num_validation=validation,
    )
    return part, ties, nonconformity, pool


@pytest.mark.long
def test_fixed_ways_are_means_over_the_test_parts(made):
    _, benchmarks, votes = made
    for repeat, benchmark in enumerate(benchmarks):
        part, _, _, _ = parts_and_keys(made, repeat)
        correct, scores, rows = (
            benchmark.test.correct,
            benchmark.scores["knn"],
            slice(repeat * SPLITS, None),
        )
        codes = answer_codes(benchmark.test.answers)
        for s in range(SPLITS):
            test = np.flatnonzero(part[s] == 2)
            for m, model in enumerate(MODELS):
                way = votes.strategies[single_name(model)]
                assert way.accuracy[rows][s] == pytest.approx(correct[test, m].mean())
                assert way.cost[rows][s] == pytest.approx(
                    benchmark.test.cost[test, m].mean(), rel=1e-5
                )
            picked = correct[part[s] == 1].mean(axis=0).argmax()
            assert votes.strategies[PICKED_SINGLE].accuracy[rows][s] == pytest.approx(
                correct[test, picked].mean()
            )
            assert votes.strategies[ORACLE].accuracy[rows][s] == pytest.approx(
                correct[test].any(axis=1).mean()
            )
            voted = [
                reference.vote([0, 1, 2, 3], codes[i].tolist(), scores[i].astype(float).tolist())
                for i in test
            ]
            right = [
                bool((correct[i] & (codes[i] == v)).any()) for i, v in zip(test, voted, strict=True)
            ]
            assert votes.strategies[full_name("KNNR", False)].accuracy[rows][s] == pytest.approx(
                np.mean(right)
            )
    assert votes.strategies[full_name("KNNR")].calls == pytest.approx(4)
    assert votes.strategies[top_name("KNNR", 2)].calls == pytest.approx(2)
    assert votes.strategies[STATIC_TOP].calls == pytest.approx(3)
    assert votes.strategies["KNNR"].calls == pytest.approx(1)


@pytest.mark.long
def test_racer_is_what_each_split_selects(made):
    config, benchmarks, votes = made
    for repeat, benchmark in enumerate(benchmarks):
        part, ties, nonconformity, pool = parts_and_keys(made, repeat)
        codes = answer_codes(benchmark.test.answers)
        own = vote_tables(
            nonconformity, codes, benchmark.scores["knn"], benchmark.test.correct, ties
        )
        choice = select(part, pool, own.right, alpha=config.alphas.split(","))
        rows = slice(repeat * SPLITS, (repeat + 1) * SPLITS)
        way = votes.strategies["KNNR + RACER-G"]
        np.testing.assert_allclose(way.accuracy[rows], choice.accuracy(own.right), rtol=1e-6)
        np.testing.assert_allclose(way.calls[rows], choice.mean(choice.num_called), rtol=1e-6)
        full = votes.strategies[full_name("KNNR")]
        np.testing.assert_allclose(full.accuracy[rows], choice.full_accuracy(own.right), rtol=1e-6)
        pooled = select(
            part, pool, own.right, alpha=config.alphas.split(","), tolerance=0, pooled_vote=True
        )
        way = votes.strategies["KNNR + RACER-G, best on validation, pooled vote"]
        np.testing.assert_allclose(way.accuracy[rows], pooled.accuracy(own.right), rtol=1e-6)
        full = votes.strategies[pooled_name("KNNR")]
        np.testing.assert_allclose(full.accuracy[rows], pooled.full_accuracy(own.right), rtol=1e-6)
        order = np.asarray(model_order(nonconformity, ties))
        spent = np.take_along_axis(benchmark.test.cost, order, axis=1)
        test = np.flatnonzero(part[0] == 2)
        expected = np.mean([spent[i, : choice.num_called[0, i]].sum() for i in test])
        assert way.cost[rows][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.long
def test_queries_of_all_repeats_are_matched_by_name(made):
    _, benchmarks, votes = made
    way = votes.strategies[single_name("b")]
    names = list(dict.fromkeys(name for benchmark in benchmarks for name in benchmark.test.ids))
    truth = dict(
        zip(
            table(150, groups=("maths",)).ids,
            table(150, groups=("maths",)).correct[:, 1],
            strict=True,
        )
    )
    seen = ~np.isnan(way.by_query)
    assert seen.sum() == votes.num_queries
    assert [bool(truth[name]) for name in np.array(names)[seen]] == (
        way.by_query[seen] == 1
    ).tolist()


@pytest.mark.long
def test_bounds_and_shares_are_in_order(made):
    _, _, votes = made
    for score in ("RACER-G", "RACER-P"):
        label = racer_name("KNNR", score)
        chosen, within = (
            votes.strategies[label],
            votes.strategies[f"{label}: oracle within the set"],
        )
        assert (chosen.accuracy <= within.accuracy + 1e-9).all()
        assert (within.accuracy <= votes.strategies[ORACLE].accuracy + 1e-9).all()
        best = votes.strategies[f"{label}, best on validation"]
        assert chosen.calls.mean() <= best.calls.mean() + 1e-9
        chance = votes.strategies[f"{label}: random sets of the same sizes, majority"]
        np.testing.assert_allclose(chance.calls, chosen.calls)
        assert votes.choices[label].sum() == pytest.approx(1)
        calls = [
            votes.strategies[racer_name("KNNR", score, alpha)].calls.mean()
            for alpha in votes.alphas
        ]
        assert calls == sorted(calls, reverse=True)
    best = max((votes.strategies[single_name(model)] for model in MODELS), key=lambda way: way.mean)
    assert votes.strategies[BEST_SINGLE].mean == best.mean
    assert votes.weightings == ("majority", "score", "log_odds")
    assert votes.routers == ["KNNR"]


@pytest.mark.long
def test_pools_share_their_splits(made):
    config, benchmarks, votes = made
    other = VoteConfig(**{**config.__dict__, "pools": "all; three=-d", "repeats": 1})
    both = vote_study(jax.random.key(2), benchmarks[:1], other, lambda _: None)
    assert [study.name for study in both] == ["maths", "maths, three"]
    assert both[1].models == ("a", "b", "c")
    one, two = (study.strategies[single_name("a")].accuracy for study in both)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, votes.strategies[single_name("a")].accuracy[:SPLITS])
    assert STATIC_TOP not in both[1].strategies


def measured(accuracy, by_query, calls=1.0, cost=None):
    accuracy = np.array(accuracy)
    return StrategyMetrics(
        "single", accuracy, np.full(len(accuracy), calls), cost, np.array(by_query)
    )


def test_a_difference_is_paired_by_split_and_by_question():
    one = measured([0.5, 0.7, 0.6], [1.0, 0.0, np.nan, 0.5])
    other = measured([0.4, 0.5, 0.6], [1.0, 0.5, np.nan, 0.0])
    found = difference(one, other)
    assert found.mean == pytest.approx(0.1)
    assert found.error == pytest.approx(np.std([0, -0.5, 0.5], ddof=1) / np.sqrt(3))
    assert found.split_error == pytest.approx(np.std([0.1, 0.2, 0.0], ddof=1) / np.sqrt(3))
    assert np.isnan(difference(measured([0.5], [1.0]), measured([0.5], [1.0])).error)


def test_savings():
    full, half = (
        measured([0.5], [1], calls=8),
        measured([0.5], [1], calls=2, cost=np.array([0.002])),
    )
    assert saved(half, full) == pytest.approx(0.75)
    assert dollars(half) == pytest.approx(2)
    assert dollars(full) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": 1}, "splits must be at least 2"),
        ({"repeats": 0}, "repeats must be at least 1"),
        ({"tolerance": -1.0}, "tolerance must be at least 0"),
        ({"alphas": "2"}, "alpha"),
    ],
)
def test_misuse_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        VoteConfig(**options)
