"""A tiny run of the study of a calibrated stop, and its parts against something independent."""

import itertools
import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sequential
from racer_jax import reference
from racer_jax.data.formats.table_npz import save_table
from racer_jax.montecarlo import pool_law
from racer_jax.risk_control.bounds import sharp_risk
from racer_jax.studies import stopping_ways
from racer_jax.studies.answer_pools import answer_pools
from racer_jax.studies.stopping_ways import Rows, Way, means_by_query
from tests.sequential.pools import answered_table

pytestmark = pytest.mark.long


@pytest.mark.parametrize("splits", [0, pytest.param(500, marks=pytest.mark.slow)])
def test_a_tiny_run(splits, tmp_path, capsys):
    save_table(answered_table(150, seed=9), tmp_path / "pool.npz")
    options = {"draws": 1, "alphas": "0.05", "splits": splits, "output": tmp_path / "out"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    status = sequential.main([f"--data={tmp_path / 'pool.npz'}", *arguments])
    assert status == 0
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["rows"] == written["results"]["rows"]
    rows = {(row["way"], row["alpha"]): row for row in written["rows"]}
    fields = "pool way alpha calls dollars rounds accuracy difference difference_error regret law"
    assert set(fields.split()) <= set(rows[sequential.SEQUENTIAL, 0.05])
    decided, full = rows[sequential.SEQUENTIAL, 0.0], rows["full vote", None]
    assert (decided["difference"], decided["regret"]) == (0, 0)
    assert decided["calls"] < full["calls"] == 5
    assert rows[sequential.UNLABELLED, 0.0]["calls"] < 5
    for (_, alpha), row in rows.items():
        if alpha:
            by_labels = row["way"] not in (sequential.LABEL_FREE, sequential.UNLABELLED)
            assert row["regret"] <= row["law"] + 1e-9 or not by_labels
            assert row["law"] == pytest.approx(float(sharp_risk("0.05", 45)))
    assert (tmp_path / "out" / "sequential.png").read_bytes()[:4] == b"\x89PNG"
    assert ("PASS: mean envelope risk" in capsys.readouterr().out) == bool(splits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--data is needed"),
        (["--data", "{table}", "--pools", "nine"], "pools must be among .*, got 'nine'"),
    ],
)
def test_options_that_do_not_fit(options, message, tmp_path, capsys):
    save_table(answered_table(20), tmp_path / "pool.npz")
    arguments = [option.format(table=tmp_path / "pool.npz") for option in options]
    assert sequential.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_ways_are_named():
    with pytest.raises(ValueError, match=r"ways must be among .*, got 'RACER'"):
        sequential.Config(ways="RACER")
    assert sequential.Config(ways="RACER-P; static").way_names == ("RACER-P", "static")
    assert sequential.Config().way_names == sequential.WAYS


def test_a_pool_that_runs_alone_keeps_its_random_numbers(monkeypatch):
    monkeypatch.setattr(sequential, "answer_pools", lambda _: {"first": "one", "second": "two"})
    _, both = sequential.load(sequential.Config(data=Path("logs")))
    _, alone = sequential.load(sequential.Config(data=Path("logs"), pools="second"))
    assert both == {"first": (0, "one"), "second": (1, "two")}
    assert alone == {"second": (1, "two")}


def small_rows(seed=0, num=9):
    table = answered_table(300, seed=seed).select(slice(0, num))
    codes = stopping_ways.codes_of(table)
    weights = np.array([1.0, 2.0, 1.5, 1.25, 0.5])
    reference_code = [reference.stop_leader(row, weights.tolist()) for row in codes.tolist()]
    return Rows(codes, np.asarray(table.correct), table.cost, np.array(reference_code, np.int32))


def random_way(seed, num=9, num_calls=4):
    """Stopping scores with ties, many losses, and queries at which no stop is safe."""
    rng = np.random.default_rng(seed)
    scores = rng.choice([-np.inf, 0.25, 0.5, 0.75], (num, num_calls)).astype(np.float32)
    scores[:, -1] = np.where(rng.random(num) < 0.7, np.inf, scores[:, -1])
    losses = rng.random((num, num_calls)) < 0.6
    losses[scores == np.inf] = False  # what always stops loses nothing
    return Way(scores, losses, {"calls": rng.random((num, num_calls + 1))})


def agreement_way():
    return stopping_ways.agreement(small_rows(), np.array([0.6, 0.8, 0.7, 0.75, 0.65]))


@pytest.mark.parametrize("make", [agreement_way, *(partial(random_way, seed) for seed in range(4))])
def test_means_by_query_add_up_to_the_exact_law_and_equal_enumeration(make):
    way = make()
    ties = np.random.default_rng(0).integers(0, 2**32, way.scores.shape, dtype=np.uint32)
    alphas = ["0.25", "0.5"]
    means = means_by_query(way, ties, alphas)
    law = pool_law(way.pool(jnp.asarray(ties)), num_calibration=4, alpha=alphas)
    for name, value in means.items():
        np.testing.assert_allclose(value.mean(axis=1), law.extra_mean[name], atol=1e-12)
    paths = [
        list(zip(s, u, strict=True))
        for s, u in zip(way.scores.tolist(), ties.tolist(), strict=True)
    ]
    critical = []
    for path, lost in zip(paths, way.losses.tolist(), strict=True):
        records = [p for k, p in enumerate(path) if p > max([(-np.inf, 0), *path[:k]]) and lost[k]]
        critical.append(max([(-np.inf, 0), *records]))
    for a, alpha in enumerate(alphas):
        total, count = np.zeros(9), np.zeros(9)
        for split in itertools.combinations(range(9), 4):
            level = reference.threshold([critical[i] for i in split], alpha)
            for i in set(range(9)) - set(split):
                total[i] += way.metrics["calls"][i, place(paths[i], level)]
                count[i] += 1
        np.testing.assert_allclose(means["calls"][a], total / count, atol=1e-12)


def place(path, level):
    """Number of calls before the last one; that of all where no stop is safe."""
    safe = [
        k
        for k, pair in enumerate(path)
        if (pair[0] > -np.inf and pair > level) or pair[0] == np.inf
    ]
    return safe[0] if safe else len(path)


def test_unanimity_and_majority_decided_by_hand():
    codes = np.array([[0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 1, 1], [0, 1, 0, -1, -1, -1]], np.int32)
    correct = codes == 1
    rows = Rows(codes, correct, None, np.array([0, 1, 0], np.int32))
    abc = stopping_ways.unanimity(rows, np.arange(6.0))
    first = sequential.stopped_where_sure(abc)
    assert first["calls"].tolist() == [3, 6, 6]
    assert first["rounds"].tolist() == [1, 2, 2]
    assert first["accuracy"].tolist() == [0, 1, 0]  # three agree; three agree at last; plurality
    decided = sequential.stopped_where_sure(stopping_ways.majority_decided(rows, np.arange(6.0)))
    # From the back, three votes of six: a tie would go to the answer that was there first.
    assert decided["calls"].tolist() == [3, 3, 6]


def test_a_set_chosen_beforehand_is_a_path():
    rows = small_rows(3)
    nonconformity = np.random.default_rng(1).random((9, 5)).round(1)
    way = stopping_ways.one_shot(rows, nonconformity, np.ones(5))
    for level in (0.15, 0.55, 0.95):
        sizes = np.maximum((nonconformity <= level).sum(axis=1), 1)
        stop = (way.scores > np.float32(level)).argmax(axis=1) + 1
        assert (stop == sizes).all()


def floors(data_dir, pool, alpha, draws, *ways):
    """The rows of one pool by way and level, and what is seen beside."""
    config = sequential.Config(
        draws=draws, splits=0, data=data_dir, alphas=alpha, ways="; ".join(ways)
    )
    pools = {pool: sequential.NumberedPool(0, answer_pools(data_dir)[pool])}
    result = sequential.run(jax.random.key(0), pools, config, lambda _: None)
    return {(row.way, row.alpha): row for row in result.rows}


# Twenty training parts, for they matter: on small7 three equal answers of the weightiest models
# decide a vote (3.7 calls), or do not (4.5), by the weights that the part leads to.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("pool", "decided", "tolerance", "most"),
    [("arc weak7", 2.6, 0.15, 2.1), ("gsm8k small7", 4.2, 0.2, 2.7)],
)
def test_the_floors_of_calls_on_real_data(pool, decided, tolerance, most, data_dir):
    rows = floors(data_dir, pool, "0.01", 20, sequential.SEQUENTIAL)
    lossless, early = rows[sequential.SEQUENTIAL, 0.0], rows[sequential.SEQUENTIAL, 0.01]
    assert abs(lossless.calls - decided) <= tolerance
    assert lossless.difference == 0
    assert early.calls <= most
    # The mean over all splits is summed in float32.
    assert early.risk == pytest.approx(early.law, rel=1e-4)


@pytest.mark.slow
def test_the_floor_of_dollars_on_real_data(data_dir):
    rows = floors(data_dir, "arc without gpt-4", "0.02", 6, sequential.DOLLARS)
    cheap, single = rows[sequential.DOLLARS, 0.02], rows["best single", None]
    assert cheap.dollars <= 0.4 * single.dollars
    assert cheap.accuracy >= single.accuracy - 2 * cheap.difference_error


def test_the_pools_of_the_data(data_dir):
    pools = answer_pools(data_dir)
    sizes = {name: len(table.models) for name, table in pools.items()}
    if "arc all" in pools:
        assert (sizes["arc all"], sizes["arc without gpt-4"], sizes["arc weak7"]) == (11, 10, 7)
        assert pools["arc weak7"].correct.mean(axis=0).max() < 0.84
    if "gsm8k small7" in pools:
        assert (sizes["gsm8k small7"], sizes["gsm8k mid7"], sizes["gsm8k api11"]) == (7, 7, 11)
