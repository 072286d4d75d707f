"""`bound_check` beyond misses of the simulated pool: graded losses, stops, orders, titles."""

from functools import partial
from itertools import combinations

import jax
import numpy as np
import pytest

from experiments.bound_check import Config, load_pools, main, run
from racer_jax import gap, reference
from racer_jax.core.nonconformity import tie_break
from racer_jax.data import RoutingTable, load, save
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


@pytest.fixture(scope="module")
def few(table, tmp_path_factory):
    """Sixteen questions of it."""
    path = tmp_path_factory.mktemp("few") / "few.npz"
    save(load(table).select(np.arange(16)), path)
    return path


@pytest.mark.long
@pytest.mark.parametrize("loss", ["grade", "shortfall"])
def test_exact_means_of_a_graded_loss_are_those_of_all_splits(few, loss, tmp_path, capsys):
    options = {"data": few, "loss": loss, "alphas": "0.2,0.45", "neighbors": 3, "null": "never"}
    one = {"nonconformity": "gap", "calibration": 0.6}
    config = Config(**options, **one, exact=True)
    pools = load_pools(config, jax.random.key(0))
    (exact,) = run(jax.random.key(1), pools, config).checks
    (drawn,) = run(jax.random.key(1), pools, Config(**options, **one, splits=1000)).checks
    assert exact.num_splits == 0
    assert (np.abs(drawn.risk - exact.risk) <= 5 * drawn.risk_error).all()
    assert (np.abs(drawn.size - exact.size) <= 0.1).all()
    assert (exact.risk_error == 0).all()
    # Without JAX: the threshold of each split by search, in rationals.
    pool = pools[0]
    entries, grades = np.asarray(gap(pool.pool.scores, "never"), float), pool.graded
    ties = np.asarray(tie_break(jax.random.split(jax.random.fold_in(jax.random.fold_in(
        jax.random.key(1), 0), 0))[0], entries.shape))  # fmt: skip
    against = "perfect" if loss == "grade" else "pool"
    num, losses = len(entries), []
    for rows in combinations(range(num), exact.num_calibration):
        lost = [partial(lost_at, entries[i], grades[i], ties[i], against) for i in range(num)]
        steps = [
            (e, u) for i in rows for e, u in zip(entries[i].tolist(), ties[i].tolist(), strict=True)
        ]
        at = reference.loss_threshold([lost[i] for i in rows], steps, "0.45")
        losses.append(np.mean([float(lost[i](at)) for i in range(num) if i not in rows]))
    assert exact.risk[1] == pytest.approx(np.mean(losses), abs=1e-5)
    arguments = ["--data", str(few), "--loss", loss, "--alphas", "0.45", "--neighbors", "3"]
    arguments += ["--exact", "--nonconformity", "gap", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert "all splits, exactly" in capsys.readouterr().out


def lost_at(entries, grades, ties, against, at):
    return reference.grade_loss(entries.tolist(), grades.tolist(), at, ties.tolist(), against)


@pytest.mark.long
def test_too_many_splits_to_go_through_are_named(table, tmp_path, capsys):
    arguments = ["--data", str(table), "--loss", "grade", "--exact", "--output", str(tmp_path)]
    assert main(arguments) == 2
    assert (
        "--exact goes through all splits of a graded loss, at most 200,000"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "grade", "broken": True}, "broken and validation are for the loss 'miss'"),
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
