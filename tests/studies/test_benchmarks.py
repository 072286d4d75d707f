import numpy as np
import pytest

from racer_jax.data import RoutingTable, load, save
from racer_jax.studies.benchmarks import (
    ROUTERBENCH_POOLS,
    StudyConfig,
    model_pools,
    run_key,
    study,
    subpool,
)
from racer_jax.studies.corpora import unseen_questions

pytestmark = pytest.mark.long

MODELS = ("a", "b", "c", "d")
WORDS = ("tide", "moss", "lamp", "rust", "fern", "salt")


def table(num=90, seed=0, groups=("maths", "law")):
    """Questions whose words say which models answer them; some stand twice."""
    rng = np.random.default_rng(seed)
    texts = [f"What of {WORDS[i % 6]} {WORDS[(i // 6) % 6]} {i}?" for i in np.arange(num) % 80]
    right = rng.random((num, 4)) < np.where(
        (np.arange(num) % 6 < 3)[:, None], [0.8, 0.7, 0.3, 0.4], [0.3, 0.4, 0.8, 0.6]
    )
    answers = np.where(right, "right", rng.choice(["x", "y"], (num, 4))).astype(object)
    answers[(rng.random((num, 4)) < 0.05) & ~right] = None
    group = [groups[i % len(groups)] for i in range(num)] if groups else None
    cost = rng.random((num, 4)) * np.array([1, 2, 3, 4]) / 1000
    return RoutingTable(
        ids=[f"q{i}" for i in range(num)],
        texts=texts,
        models=MODELS,
        correct=right,
        answers=answers,
        group=group,
        cost=cost,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    name = tmp_path_factory.mktemp("study") / "table.npz"
    save(table(), name)
    return name


def test_a_table_in_one_part_is_split_by_question_and_scored(path):
    both = study(StudyConfig(data=path, routers="knn", neighbors=10))
    assert [benchmark.name for benchmark in both] == ["maths", "law"]
    for benchmark in both:
        assert benchmark.scores["knn"].shape == benchmark.test.correct.shape
        assert benchmark.scores["knn"].dtype == np.float32
        assert set(benchmark.train.texts).isdisjoint(benchmark.test.texts)
        assert len(set(benchmark.test.texts)) == len(benchmark.test)
        calibration, validation = benchmark.part_sizes
        assert calibration == round(0.5 * len(benchmark.test))
        assert validation == round(0.1 * len(benchmark.test))
        assert "right: as given" in benchmark.notes
    # 40% of the questions train; what a share of the neighbours got right predicts who is right.
    assert 25 <= sum(len(benchmark.train) for benchmark in both) <= 45
    scores = np.concatenate([b.scores["knn"] for b in both])
    correct = np.concatenate([b.test.correct for b in both])
    assert scores[correct].mean() > scores[~correct].mean()


def test_the_training_questions_change_with_every_repeat_and_with_nothing_else(path):
    class Twice(StudyConfig):
        repeats = 2

    first, _, second, _ = study(Twice(data=path, routers="knn", neighbors=5))
    again = study(StudyConfig(data=path, routers="knn", neighbors=5))[0]
    assert first.train.ids != second.train.ids
    assert first.train.ids == again.train.ids
    np.testing.assert_array_equal(first.scores["knn"], again.scores["knn"])
    assert (
        study(StudyConfig(data=path, routers="knn", neighbors=5, seed=1))[0].train.ids
        != again.train.ids
    )


def test_scores_are_kept_and_not_fitted_again(path, tmp_path, monkeypatch):
    config = StudyConfig(data=path, routers="knn", neighbors=5, cache=tmp_path / "cache")
    fresh = study(config)
    monkeypatch.setattr(
        "racer_jax.studies.benchmarks._fitted", lambda *_: pytest.fail("fitted again")
    )
    for one, other in zip(fresh, study(config), strict=True):
        np.testing.assert_array_equal(one.scores["knn"], other.scores["knn"])
    monkeypatch.undo()
    changed = study(StudyConfig(data=path, routers="knn", neighbors=9, cache=tmp_path / "cache"))
    assert (changed[0].scores["knn"] != fresh[0].scores["knn"]).any()


def test_a_table_without_groups_is_one_benchmark_named_as_its_file(tmp_path):
    save(table(groups=()), tmp_path / "logs.npz")
    (only,) = study(StudyConfig(data=tmp_path / "logs.npz", routers="knn", neighbors=5, queries=30))
    assert only.name == "logs"
    assert len(only.test) <= 30


def test_no_question_stands_in_both_parts():
    whole = table()
    left, note = unseen_questions(whole.select(range(40)), whole.select(range(40, 90)))
    assert set(left.texts).isdisjoint(whole.select(range(40)).texts)
    assert "trained-on" in note


def test_pools_of_models():
    assert model_pools(MODELS, None) == {"all": MODELS}
    assert model_pools(MODELS, "all; no d=-d;pair = b, a") == {
        "all": MODELS,
        "no d": ("a", "b", "c"),
        "pair": ("a", "b"),
    }
    eleven = list(
        dict.fromkeys(["mistral", *(m for out in ROUTERBENCH_POOLS.values() for m in out)])
    )
    pools = model_pools(eleven, None)
    assert set(pools) == {"all", *ROUTERBENCH_POOLS}
    assert set(pools["7 least accurate"]) == {"mistral", "claude-v2"}
    assert set(pools["7 weak that answer"]) == {"mistral", "mistralai/mixtral-8x7b-chat"}
    assert "gpt-4-1106-preview" not in pools["without gpt-4"]


def test_the_pools_of_routerbench_are_what_their_names_say(data_dir):
    table = load(data_dir / "routerbench").complete()
    pools = model_pools(table.models, None)
    accuracy = dict(zip(table.models, table.correct.mean(axis=0), strict=True))
    silent = dict(zip(table.models, np.equal(table.answers, None).mean(axis=0), strict=True))
    assert pools["7 least accurate"] == tuple(
        m for m in table.models if m in sorted(accuracy, key=accuracy.get)[:7]
    )
    weak = pools["7 weak that answer"]
    assert weak == tuple(m for m in table.models if accuracy[m] < 0.9 and silent[m] < 0.01)
    assert silent["claude-v2"] > 1 / 3


def test_neighbours_are_chosen_on_the_training_questions(path):
    chosen = study(StudyConfig(data=path, routers="knn", neighbors=0))[0]
    train = chosen.train.texts
    fixed = study(StudyConfig(data=path, routers="knn", neighbors=25))[0]
    assert fixed.train.texts == train
    # 25 is the one candidate among the training questions of so small a table.
    np.testing.assert_array_equal(chosen.scores["knn"], fixed.scores["knn"])


def test_the_prior_is_the_accuracy_on_the_training_questions_of_all_benchmarks(path):
    benchmarks = study(StudyConfig(data=path, routers="prior"))
    expected = np.concatenate([b.train.correct for b in benchmarks]).mean(axis=0)
    for benchmark in benchmarks:
        np.testing.assert_allclose(
            benchmark.scores["prior"], np.broadcast_to(expected, benchmark.test.correct.shape)
        )
        assert len(np.unique(benchmark.scores["prior"], axis=0)) == 1


def test_a_pool_keeps_the_columns_of_its_models(path):
    benchmark = study(StudyConfig(data=path, routers="knn", neighbors=5))[0]
    part = subpool(benchmark, ("d", "b"))
    assert part.test.models == part.train.models == ("d", "b")
    np.testing.assert_array_equal(part.scores["knn"], benchmark.scores["knn"][:, [3, 1]])
    np.testing.assert_array_equal(part.test.correct, benchmark.test.correct[:, [3, 1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StudyConfig(routers=""), "routers must be among .* got 'none'"),
        (lambda: StudyConfig(routers="knn,svm"), "routers must be among .* got 'svm'"),
        (lambda: StudyConfig(routers="knn,knn"), "routers must differ"),
        (lambda: StudyConfig(train=1.0), "train must be in"),
        (lambda: StudyConfig(neighbors=-1), "neighbors must be at least 0"),
        (lambda: StudyConfig(queries=-1), "queries must be at least 0"),
        (lambda: model_pools(MODELS, "pair"), "pools must be like"),
        (lambda: model_pools(MODELS, "pair=a,z"), "'pair' must hold models among .* got 'z'"),
        (lambda: model_pools(MODELS, "one=a"), "at least two models"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_benchmark_too_small_to_split_is_named(path):
    benchmark = study(StudyConfig(data=path, routers="knn", neighbors=5))[0]
    small = benchmark._replace(test=benchmark.test.select(range(3)))
    with pytest.raises(ValueError, match="'maths' of 3 queries is too small"):
        _ = small.part_sizes


def test_the_paper_splits_the_smallest_benchmark_otherwise(path):
    benchmark = study(StudyConfig(data=path, routers="knn", neighbors=5))[0]
    num = len(benchmark.test)
    for name in ("arc_challenge", "arc-challenge", "ARC-C"):
        assert benchmark._replace(name=name).part_sizes == (round(0.4 * num), round(0.2 * num))


def test_keys_of_data_and_of_the_experiment_differ():
    import jax

    mine = run_key(StudyConfig(seed=3))
    assert not any(
        (jax.random.key_data(mine) == jax.random.key_data(jax.random.key(s))).all()
        for s in range(8)
    )
