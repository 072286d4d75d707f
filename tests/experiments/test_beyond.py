import json
import re

import jax
import numpy as np
import pytest
from scipy import stats

import racer_jax as racer
from experiments.beyond import Config, main, nonconformities, pools_of
from racer_jax.data import RoutingTable, save
from racer_jax.montecarlo.exact import pool_law
from racer_jax.studies.corpora import read_parts

OPTIONS = [
    "--queries",
    "120",
    "--networks",
    "1",
    "--epochs",
    "2",
    "--resamples",
    "5",
    "--neighbors",
    "20",
]


@pytest.mark.long
def test_a_tiny_run_writes_a_table_a_figure_and_files(tmp_path, capsys):
    status = main([*OPTIONS, "--alphas", "0.1,0.4", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert status == 0
    for name in ("static", "oracle", "P, MLP", "J blend", "J tilt, MLP"):
        assert name in printed
    # Of what is trained the first decimal alone is printed.
    assert re.search(r"^ +P, MLP +\d\.\d +\d\.\d$", printed, re.MULTILINE)
    assert re.search(r"^ +static +\d\.\d\d +\d\.\d\d$", printed, re.MULTILINE)
    names = {path.suffix for path in tmp_path.iterdir()}
    assert {".json", ".csv", ".png"} <= names
    (file,) = tmp_path.glob("*.json")
    cells = json.loads(file.read_text())["results"]["cells"]
    assert {cell["benchmark"] for cell in cells} == {"gsm8k", "mmlu", "cmmlu", "arc_challenge"}
    sizes = {(cell["benchmark"], cell["score"]): np.array(cell["size"], float) for cell in cells}
    for (benchmark, _), size in sizes.items():
        assert (size >= sizes[benchmark, "oracle"] - 1e-9).all()
        assert (np.diff(size) <= 1e-9).all()
    for cell in cells:
        if cell["score"] != "oracle":
            assert (np.array(cell["risk"], float) <= np.array([0.1, 0.4]) + 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibration", "0"], "calibration must be in (0, 1), got 0.0"),
        (["--resamples", "1"], "resamples must be at least 2, got 1"),
    ],
)
def test_usage_errors_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def expected_risk(budget, num, size, lost):
    """Mean test risk over all splits of `size` queries, ties broken.

    `lost` of them have a critical score of +inf.

    With c of the lost ones among the `num` calibration queries: up to the budget, the threshold is
    as if they were merely the largest, and the mean over all c would be (b + 1) / (n + 1). Beyond
    it the threshold is +inf, and the misses are the lost queries of the test part, in place of
    those above the (c - b)-th lost calibration query.
    """
    c = np.arange(budget + 1, min(lost, num) + 1)
    chance = stats.hypergeom.pmf(c, size, lost, num)
    as_if = lost - (c - budget) * (lost + 1) / (c + 1) - budget
    return (budget + 1) / (num + 1) + (chance * ((lost - c) - as_if)).sum() / (size - num)


@pytest.mark.slow
def test_the_exact_law_on_real_data_for_every_score_null_mode_and_benchmark(data_dir):
    config = Config(data=data_dir / "routerdc")
    train, test, _ = read_parts(jax.random.key(0), config.data)
    scores = nonconformities(config, jax.random.key(1), train, test)
    assert len(scores) == 10
    alphas = ["0.01", "0.02", "0.05", "0.1", "0.15", "0.2", "0.3", "0.4", "0.5"]
    for null in ("paper", "free", "never"):
        for name in test.groups:
            rows = np.array(test.group) == name
            size = int(rows.sum())
            num = size // 2
            lost = int((~test.correct[rows].any(axis=1)).sum()) if null == "never" else 0
            budgets = racer.miss_budget(alphas, num)
            expected = np.array([expected_risk(b, num, size, lost) for b in budgets])
            if null != "never":
                assert (expected <= np.array([float(a) for a in alphas])).all()
                assert (expected > np.array([float(a) for a in alphas]) - 1 / (num + 1)).all()
            for score, pool in pools_of(jax.random.key(2), test, name, scores, null).items():
                law = pool_law(pool, num_calibration=num, alpha=alphas)
                np.testing.assert_allclose(
                    law.risk_mean, expected, atol=1e-9, err_msg=f"{name}, {score}, {null}"
                )
                np.testing.assert_allclose(
                    (law.risk_support * law.risk_probability).sum(axis=1),
                    expected,
                    atol=1e-7,
                    err_msg=score,
                )


@pytest.mark.slow
def test_any_table_can_be_compared(tmp_path, capsys):
    path = tmp_path / "table.npz"
    texts = [f"how much is {i} and {i % 7}?" for i in range(120)]
    correct = np.random.default_rng(0).random((120, 3)) < 0.6
    save(
        RoutingTable(
            ids=[str(i) for i in range(120)], texts=texts, models=["a", "b", "c"], correct=correct
        ),
        path,
    )
    assert (
        main(
            [
                *OPTIONS,
                "--data",
                str(path),
                "--alphas",
                "0.2,0.4",
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert "table: models called at each alpha" in capsys.readouterr().out


def test_the_expected_risk_is_that_of_all_splits():
    from itertools import combinations

    size, num, lost, budget = 9, 4, 3, 1
    critical = np.append(np.arange(size - lost, dtype=float), np.full(lost, np.inf))
    risks = []
    for rows in combinations(range(size), num):
        threshold = np.sort(critical[list(rows)])[num - budget - 1]
        rest = np.delete(critical, rows)
        risks.append(np.mean((rest > threshold) | np.isinf(rest)))
    assert expected_risk(budget, num, size, lost) == pytest.approx(np.mean(risks))
