import csv
import json
import re

import jax
import numpy as np
import pytest

from experiments import beyond
from racer_jax import gap, inverse_probability, tie_break
from racer_jax.comparing import at_equal_service, bootstrap_sizes
from racer_jax.exact import pool_law
from racer_jax.steps import pool_steps

TINY = ["--queries", "60", "--networks", "1", "--epochs", "1", "--neighbors", "20", "--resamples", "20"]


def test_everything_is_compared_and_written(tmp_path, capsys):
    assert beyond.main([*TINY, "--alphas", "0.1,0.5", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "J learned against static" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = {row["score"] for row in rows}
    assert {"static", "oracle", "P, MLP", "P, KNN", "J blend", "J tilt, MLP", "J factor, KNN", "J learned"} <= scores
    assert len(rows) == 4 * len(scores) * 2
    for row in rows:
        if row["score"] != "oracle":
            assert float(row["risk"]) <= float(row["alpha"]) + 1e-9
        if row["score"] == "static":
            assert float(row["change"]) == 0
            assert float(row["change_error"]) == 0
    assert {row["null"] for row in results["service"]} == {"paper", "free"}
    assert (tmp_path / "size.png").read_bytes().startswith(b"\x89PNG")


def test_bootstrap_sizes_are_centred_and_paired():
    rng = np.random.default_rng(0)
    scores = rng.random((800, 4)).astype(np.float32)
    correct = rng.random((800, 4)) < scores
    ties = tie_break(jax.random.key(0), (800, 5))
    pools = {
        name: pool_steps(score(scores, "free"), correct, ties)
        for name, score in {"gap": gap, "inverse": inverse_probability, "again": gap}.items()
    }
    alphas = ["0.1", "0.3"]
    sampled = bootstrap_sizes(jax.random.key(1), pools, alphas, 300)
    assert (sampled["gap"] == sampled["again"]).all()
    for name in ("gap", "inverse"):
        exact = pool_law(pools[name], num_calibration=400, alpha=alphas).size_mean
        error = sampled[name].std(axis=0)
        assert (np.abs(sampled[name].mean(axis=0) - exact) < error).all()
        # Independent samples of the same law vary as the bootstrap says they do.
        fresh = []
        for seed in range(60):
            own = np.random.default_rng(100 + seed)
            s = own.random((800, 4)).astype(np.float32)
            pool = pool_steps({"gap": gap, "inverse": inverse_probability}[name](s, "free"), own.random((800, 4)) < s)
            fresh.append(pool_law(pool, num_calibration=400, alpha=alphas).size_mean)
        np.testing.assert_allclose(error, np.std(fresh, axis=0), rtol=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_sizes(jax.random.key(0), {}, 0.1, 1), "num must be at least 2 resamples, got 1"),
        (lambda: at_equal_service([0.1], [1.0, 2.0], [0.1]), "avoidable_miss and size must have one shape [a]"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_usage_errors_are_named(capsys):
    with pytest.raises(SystemExit):
        beyond.main(["--resamples", "1"])
    assert "resamples must be at least 2, got 1" in capsys.readouterr().err
