import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import bound_check
from experiments.bound_check import Config, main, run
from racer_jax import gap
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.montecarlo.bound_check import verdicts
from racer_jax.montecarlo.exact import split_law
from racer_jax.studies.scored_pools import ScoredPool

ALPHAS = "0.001,0.05,0.1,0.3,0.7,0.99"


@pytest.fixture(scope="module")
def pools():
    rng = np.random.default_rng(0)
    scores = (rng.random((160, 3)) * 8).round() / 8  # ties, as k-NN routers make them
    return [ScoredPool("small", scores.astype(np.float32), rng.random((160, 3)) < 0.7 * scores)]


@pytest.mark.long
def test_the_bounds_hold_and_everything_is_written(pools, tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", scores=pools[0].scores, correct=pools[0].correct)
    arguments = [
        "--scores",
        str(tmp_path / "mine.npz"),
        "--splits",
        "400",
        "--alphas",
        ALPHAS,
        "--output",
    ]
    assert main([*arguments, str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "PASS: 12 of 12 cells" in printed
    assert "needs n >= 999" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {"results.json", "results.csv", "tables.txt"}
    assert names == files | {"risk.png", "size.png", "histogram.png"}
    for picture in ("risk.png", "size.png", "histogram.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["results"]["alphas"] == ALPHAS.split(",")
    assert results["environment"]["jax"] == jax.__version__
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        assert float(row["lower"]) < float(row["sharp"]) <= float(row["upper"])
        assert float(row["risk"]) == pytest.approx(
            float(row["sharp"]), abs=6 * float(row["risk_error"]) + 1e-9
        )


@pytest.mark.long
def test_a_pool_that_is_not_exchangeable_fails(pools, tmp_path, capsys):
    rng = np.random.default_rng(1)
    scores = rng.random((300, 4)).astype(np.float32)
    np.savez(tmp_path / "sharp.npz", scores=scores, correct=rng.random((300, 4)) < scores**2)
    arguments = ["--scores", str(tmp_path / "sharp.npz"), "--splits", "100", "--alphas", "0.1,0.3"]
    assert main([*arguments, "--broken", "--output", str(tmp_path / "broken")]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0


@pytest.mark.long
@pytest.mark.parametrize("null", ["paper", "free", "never"])
@pytest.mark.parametrize("tie_break", [True, False])
def test_every_null_mode_keeps_its_promise(pools, null, tie_break):
    config = Config(alphas=ALPHAS, splits=300, null=null, tie_break=tie_break, nonconformity="gap")
    result = run(jax.random.key(0), pools, config)
    (cell,) = result.checks
    assert result.passed
    assert ("infeasible" in cell.verdict) == (null == "never")
    if null == "never":  # nothing lowers the risk below the share of queries that nobody answers
        assert cell.risk[1] == pytest.approx((~pools[0].correct.any(1)).mean(), abs=0.02)


@pytest.mark.long
def test_the_exact_laws_alone_equal_the_splits(pools):
    sampled = run(
        jax.random.key(0), pools, Config(alphas=ALPHAS, splits=3000, nonconformity="gap")
    ).checks[0]
    exact = run(
        jax.random.key(0), pools, Config(alphas=ALPHAS, exact=True, nonconformity="gap")
    ).checks[0]
    assert exact.num_splits == 0
    assert set(exact.verdict) == {"PASS"}
    np.testing.assert_array_equal(exact.risk, sampled.exact)
    assert exact.histogram.share.sum() == pytest.approx(1, abs=1e-4)
    error = sampled.risk_error + 1e-12
    assert (np.abs(sampled.risk - exact.risk) < 5 * error).all()
    np.testing.assert_allclose(sampled.risk_std, exact.risk_std, rtol=0.1)
    law = split_law(
        gap(pools[0].scores), pools[0].correct, num_calibration=80, alpha=ALPHAS.split(",")
    )
    assert (np.abs(sampled.size - exact.size) < 5 * law.size_std / np.sqrt(3000) + 1e-12).all()


@pytest.mark.long
def test_a_validation_part_leaves_the_mean_and_widens_the_law(pools):
    config = Config(alphas=ALPHAS, splits=3000, nonconformity="gap", validation=0.3)
    check = run(jax.random.key(0), pools, config).checks[0]
    assert (check.num_calibration, check.num_test) == (80, 32)
    assert set(check.verdict) == {"PASS"}
    np.testing.assert_allclose(check.risk_std[1:], check.exact_std[1:], rtol=0.1)
    np.testing.assert_allclose(check.histogram.share, check.histogram.law, atol=0.03)
    whole = run(
        jax.random.key(0), pools, Config(alphas=ALPHAS, exact=True, nonconformity="gap")
    ).checks[0]
    assert (check.exact_std[1:] > whole.exact_std[1:]).all()


@pytest.mark.slow  # two processes are in every run in test_trials.py
def test_two_processes_find_what_one_does(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", scores=rng.random((60, 2)), correct=rng.random((60, 2)) < 0.5)
    command = [
        sys.executable,
        bound_check.__file__,
        "--scores",
        "mine.npz",
        "--splits",
        "64",
        "--alphas",
        "0.1,0.3",
    ]
    environment = os.environ | {
        "PYTHONPATH": str(Path(bound_check.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    result = []
    for num in ("1", "2"):
        options = ["--processes", num, "--output", num, "--cache", "cache"]
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("PASS: 4 of 4 cells") == 1
        result.append(
            json.loads((tmp_path / num / "results.json").read_text())["results"]["checks"]
        )
    assert result[0] == result[1]


@pytest.mark.long
def test_a_shifted_mean_fails_on_either_side(pools):
    config = Config(alphas=ALPHAS, splits=400, nonconformity="gap")
    result = run(jax.random.key(0), pools, config)
    (cell,) = result.checks
    for shift in (-8, 8):
        moved = cell._replace(risk=cell.risk + shift * cell.risk_error)
        moved_verdicts = verdicts(moved, result.z_limit, "paper")
        # the first alpha is infeasible: risk 0 without error
        assert moved_verdicts[1:] == ["FAIL"] * 5


@pytest.mark.long
def test_the_run_is_a_function_of_its_seed(pools):
    config = Config(alphas="0.1", splits=50, nonconformity="gap")
    first, again, other = (
        run(jax.random.key(seed), pools, config).checks[0].risk for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_alphas_are_exact_decimals():
    assert parse_alphas("0.01:0.99:0.01")[28] == "0.29"
    assert parse_alphas("0.10,0.2") == ("0.1", "0.2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alphas", "1.5"], "--alphas must be in (0, 1), got 1.5"),
        (["--alphas", "a"], "alphas must be like 0.05,0.1 or 0.01:0.99:0.01, got 'a'"),
        (["--alphas", "0.1,0.10"], "alphas must differ"),
        (["--alphas", "0.5:0.1:0.1"], "alphas must be like"),
        (["--splits", "1"], "splits must be at least 2, got 1"),
        (["--calibration", "1"], "calibration must be in (0, 1), got 1.0"),
        (["--validation", "0.5"], "--calibration + --validation must leave a test part, got 0.5 +"),
        (["--exact", "--broken"], "exact laws are of exchangeable splits in two parts"),
        (["--processes", "-1"], "processes must be at least 0, got -1"),
    ],
)
def test_usage_errors_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_unreadable_files_and_small_pools_end_with_one_line(tmp_path, capsys):
    assert main(["--scores", str(tmp_path / "none.npz"), "--output", str(tmp_path / "out")]) == 2
    assert "none.npz: " in capsys.readouterr().err
    np.savez(tmp_path / "one.npz", scores=np.ones((1, 2)), correct=np.ones((1, 2)))
    assert main(["--scores", str(tmp_path / "one.npz"), "--output", str(tmp_path / "out")]) == 2
    assert "pool 'one' of 1 queries is too small" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_embedded_default_and_real_data(data_dir, tmp_path):
    for arguments in ([], ["--data", str(data_dir / "routerdc")]):
        options = ["--splits", "60", "--alphas", "0.1,0.3", "--output", str(tmp_path)]
        assert main([*arguments, *options]) == 0
        results = json.loads((tmp_path / "results.json").read_text())
        assert [c["pool"] for c in results["results"]["checks"][::2]] == [
            "gsm8k",
            "mmlu",
            "cmmlu",
            "arc_challenge",
        ]
