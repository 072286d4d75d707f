"""A tiny run of the study of the default of `Racer.fit`."""

import json

import jax
import numpy as np
import pytest

from experiments import defaults
from racer_jax.core.risk_levels import parse_alphas
from racer_jax.data.formats.table_npz import save_table
from racer_jax.racer.racer import Racer
from racer_jax.risk_control.bounds import sharp_risk
from tests.sequential.pools import answered_table


@pytest.mark.long
def test_sizes_at_equal_risk(tmp_path, capsys):
    save_table(answered_table(150, seed=9), tmp_path / "pool.npz")
    options = [f"--data={tmp_path}/pool.npz", f"--output={tmp_path}/out", "--alphas=0.1,0.2"]
    assert defaults.main(options) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    rows = rows["rows"] if isinstance(rows, dict) else rows
    assert {(row["nonconformity"], row["alpha"]) for row in rows} == {
        (name, float(alpha)) for name in defaults.NAMES for alpha in parse_alphas("0.1,0.2")
    }
    for row in rows:  # 90 rows are not trained on
        assert row["risk"] == pytest.approx(float(sharp_risk(str(row["alpha"]), 45)), abs=1e-6)
        assert 0 < row["size"] <= 5
    assert "Above the smallest of the cell" in capsys.readouterr().out


@pytest.mark.long
def test_a_router_is_trained_once_for_all_scores():
    """Each racer has the scores of one that `Racer.fit` makes with the same key."""
    table = answered_table(60, seed=9)
    train, rest = table.select(np.arange(60) < 30), table.select(np.arange(60) >= 30)
    first = Racer.fit(jax.random.key(3), train, nonconformity=defaults.NAMES[0], null="free")
    for name in ("gap", "J_learned"):
        again = defaults.with_nonconformity(first, train, name).score(rest)
        fitted = Racer.fit(jax.random.key(3), train, nonconformity=name, null="free").score(rest)
        np.testing.assert_array_equal(again.nonconformity, fitted.nonconformity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "--data is needed"), (["--data=nowhere.npz"], "nowhere.npz")],
)
def test_options_that_do_not_fit(arguments, message, capsys):
    assert defaults.main(arguments) == 2
    assert message in capsys.readouterr().err
