"""`bound_check` beyond misses of the simulated pool: graded losses, stops, orders, titles."""

import jax
import numpy as np
import pytest

from experiments.bound_check import Config, load_pools, main, run
from racer_jax.data import RoutingTable, save
from racer_jax.studies.bound_report import Result, figures

ALPHAS = "0.1,0.3"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table with texts, answers and grades; a few models that are right more or less often."""
    rng = np.random.default_rng(0)
    right = rng.random((240, 4)) < np.array([0.5, 0.6, 0.7, 0.8])
    answers = np.where(right, "right", rng.choice(["x", "y", "z"], right.shape)).astype(object)
    path = tmp_path_factory.mktemp("table") / "mine.npz"
    save(
        RoutingTable(
            ids=[f"q{i}" for i in range(240)],
            texts=[f"question number {i * 7919} of {i % 11}" for i in range(240)],
            models=list("abcd"),
            correct=right,
            graded=right * rng.choice([0.5, 0.75, 1.0], right.shape),
            answers=answers,
        ),
        path,
    )
    return path


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "grade"},
        {"loss": "shortfall", "null": "free"},
        {"loss": "regret"},
        {"loss": "differs"},
        {"loss": "wrong"},
        {"nonconformity": "J,static", "null": "free"},
    ],
    ids=str,
)
def test_the_promise_holds_on_any_table(table, options):
    config = Config(data=table, alphas=ALPHAS, splits=300, **options)
    pools = load_pools(config, jax.random.key(0))
    result = run(jax.random.key(1), pools, config)
    assert result.passed
    for check in result.checks:
        promised = np.array(check.verdict) == "PASS"
        assert (check.risk <= check.upper + 5 * check.risk_error)[promised].all()
        assert promised[1]
    assert max(check.risk[1] for check in result.checks) > 0.05  # not by calling every model


@pytest.mark.long
def test_graded_losses_of_the_simulated_pool_run_from_the_command(tmp_path, capsys):
    arguments = ["--loss", "shortfall", "--splits", "20", "--alphas", "0.3", "--nonconformity"]
    assert main([*arguments, "gap", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "PASS: 4 of 4 cells" in printed
    assert "nan" not in printed
    assert (tmp_path / "risk.png").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "grade", "broken": True}, "broken and validation are for the loss 'miss'"),
        ({"loss": "grade", "exact": True}, "no closed law"),
        ({"loss": "regret", "scores": "m.npz"}, "takes no scores"),
        ({"nonconformity": "J", "scores": "m.npz"}, "J is learned from texts"),
        ({"nonconformity": "nothing"}, "nonconformity must be both, or among"),
        ({"nonconformity": "gap,gap"}, "must name each score once"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)


@pytest.mark.long
def test_every_title_says_that_the_check_failed(tmp_path):
    rng = np.random.default_rng(1)
    scores = rng.random((300, 4)).astype(np.float32)
    np.savez(tmp_path / "sharp.npz", scores=scores, correct=rng.random((300, 4)) < scores**2)
    config = Config(scores=tmp_path / "sharp.npz", alphas=ALPHAS, broken=True, splits=50)
    result = run(jax.random.key(0), load_pools(config, jax.random.key(1)), config)
    assert isinstance(result, Result)
    assert not result.passed
    for draw in figures(config, result).values():
        assert draw(width=None).get_suptitle().startswith("FAIL")
