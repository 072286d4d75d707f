"""Trials against the package's own calibration and sets, on the splits that they drew."""

import json
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax import (
    abstains,
    avoidably_missed,
    calibrate,
    critical_scores,
    gap,
    misrouted,
    prediction_sets,
    set_size,
    tie_break,
)
from racer_jax.montecarlo import plan, trial_runs, trials
from racer_jax.montecarlo.exact import pool_law
from racer_jax.montecarlo.replay import split_masks, split_parts
from racer_jax.montecarlo.step_functions import METRICS, pool_steps
from racer_jax.montecarlo.trials import split_trials, stream_trials
from tests.devices import devices

ALPHAS = [0.01, 0.1, 0.3, 0.5, 0.9]
REPLAYED = [*ALPHAS, 0.04]  # 0.04 of 30 is one: no miss is allowed
CALIBRATION, VALIDATION, TEST = 0, 1, 2


def example(total, num_models, levels, null, broken, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((total, num_models)) * levels) / levels
    correct = jnp.asarray(rng.random((total, num_models)) < 0.6 * scores)
    nonconformity = gap(jnp.asarray(scores, jnp.float32), null)
    return (
        nonconformity,
        correct,
        tie_break(jax.random.key(seed), nonconformity.shape) if broken else None,
    )


def measured(nonconformity, correct, tie, cost, parts, part):
    """Threshold and metrics of one split, by the public functions.

    Calibrate on one part, measure another.
    """
    inside, other = parts == CALIBRATION, parts == part
    ties = (None, None) if tie is None else (tie[inside], tie[other])
    threshold = calibrate(
        critical_scores(nonconformity[inside], correct[inside], ties[0]), REPLAYED
    )
    sets = jax.vmap(lambda at: prediction_sets(nonconformity[other], at, ties[1]))(threshold)
    answers = jnp.broadcast_to(correct[other], (len(REPLAYED), *correct[other].shape))
    size = np.asarray(set_size(sets))
    metrics = {
        "risk": misrouted(sets, answers),
        "size": size,
        "abstention": abstains(sets),
        "avoidable_miss": avoidably_missed(sets, answers),
        "cost": np.take_along_axis(
            cost[other][None].repeat(len(REPLAYED), 0), size[..., None], axis=-1
        )[..., 0],
    }
    return threshold, {
        name: np.asarray(value, np.float64).mean(-1) for name, value in metrics.items()
    }


DESIGNS = {
    "plain": {},
    "validation": {"num_validation": 9},
    "group": {"group": np.arange(61) % 3},
    "question": {"question": np.arange(61) // 2},
    "all": {"group": np.arange(61) // 2 % 4, "question": np.arange(61) // 2, "num_validation": 5},
}
POOLS = {"ties": ("paper", 5, False), "free": ("free", 5, True), "never": ("never", 1000, False)}


@pytest.mark.parametrize(
    ("pool_name", "design_name"),
    [
        ("ties", "plain"),
        *(
            pytest.param(*names, marks=pytest.mark.long)
            for names in [
                ("free", "all"),
                ("free", "plain"),
                ("never", "plain"),
                ("free", "validation"),
                ("never", "group"),
                ("ties", "question"),
            ]
        ),
    ],
)
def test_replay(pool_name, design_name):
    null, levels, broken = POOLS[pool_name]
    total, num_trials = 61, 6
    design = {
        "num_calibration": 29 if "question" not in DESIGNS[design_name] else 15,
        **DESIGNS[design_name],
    }
    nonconformity, correct, tie = example(total, 3, levels, null, broken)
    cost = np.random.default_rng(1).normal(size=(total, 4))
    key = jax.random.key(3)
    pool = pool_steps(nonconformity, correct, tie, metrics={"cost": cost})
    got = split_trials(key, pool, alpha=REPLAYED, num_trials=num_trials, **design)
    parts = split_parts(key, np.arange(num_trials), pool, **design)
    if design_name == "plain":
        masks = split_masks(key, np.arange(num_trials), num_calibration=29, num_queries=total)
        np.testing.assert_array_equal(np.asarray(masks), parts[:, pool.order] == CALIBRATION)
    for i in range(num_trials):
        threshold, expected = measured(nonconformity, correct, tie, cost, parts[i], TEST)
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.map(lambda x, i=i: x[i], got.threshold),
            threshold,
        )
        for name in METRICS:
            np.testing.assert_allclose(getattr(got, name)[i], expected[name], rtol=1e-6)
        np.testing.assert_allclose(got.extra["cost"][i], expected["cost"], rtol=1e-5, atol=1e-6)
        if "num_validation" in design:
            _, expected = measured(nonconformity, correct, tie, cost, parts[i], VALIDATION)
            for name, value in expected.items():
                np.testing.assert_allclose(got.validation[name][i], value, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_parts_have_their_sizes_and_keep_questions_together():
    pool = pool_steps(*example(61, 3, 5, "paper", True))
    group, question = DESIGNS["all"]["group"], DESIGNS["all"]["question"]
    how = {
        "num_calibration": [4, 3, 2, 5],
        "num_validation": 6,
        "group": group,
        "question": question,
    }
    parts = split_parts(jax.random.key(0), np.arange(50), pool, **how)
    of_question = parts[:, np.unique(question, return_index=True)[1]]
    np.testing.assert_array_equal(of_question[:, question], parts)
    group_of_question = group[np.unique(question, return_index=True)[1]]
    for g, num in enumerate(how["num_calibration"]):
        assert ((of_question[:, group_of_question == g] == CALIBRATION).sum(axis=1) == num).all()
    assert ((of_question == VALIDATION).sum(axis=1) == 6).all()
    # Every question takes its turn in every part.
    assert {CALIBRATION, VALIDATION, TEST} == set(of_question[:, 0].tolist())


@pytest.mark.long
@pytest.mark.parametrize("by_kernel", [False, True])
def test_trials_do_not_depend_on_tile_chunk_or_offset(monkeypatch, by_kernel):
    if by_kernel:
        monkeypatch.setattr(trial_runs, "plain_program", lambda *_: None)
    pool = pool_steps(*example(61, 3, 1000, "paper", True))
    run = partial(split_trials, jax.random.key(5), pool, num_calibration=29, alpha=ALPHAS)
    whole = run(num_trials=40)
    jax.tree.map(
        np.testing.assert_array_equal,
        run(num_trials=9, first_trial=20),
        jax.tree.map(lambda x: x[20:29], whole),
    )
    monkeypatch.setattr(plan, "_TILE", 4)
    jax.tree.map(np.testing.assert_array_equal, run(num_trials=40), whole)


@pytest.mark.long
def test_another_alpha_does_not_compile_again(monkeypatch):
    monkeypatch.setattr(trial_runs, "plain_program", lambda *_: None)
    pool = pool_steps(*example(61, 3, 1000, "paper", True))
    run = partial(split_trials, pool=pool, num_calibration=29, num_trials=7)
    run(jax.random.key(0), alpha=[0.1, 0.2])
    before = trial_runs._compiled("cpu")._cache_size()
    run(jax.random.key(1), alpha=[0.3, 0.9])
    assert trial_runs._compiled("cpu")._cache_size() == before


@pytest.mark.long
def test_stream_equals_trials():
    nonconformity, correct, tie = example(61, 3, 1000, "paper", True)
    pool = pool_steps(
        nonconformity, correct, tie, metrics={"cost": np.linspace(0, 1, 244).reshape(61, 4)}
    )
    how = {"num_calibration": 29, "alpha": ALPHAS}
    got = split_trials(jax.random.key(5), pool, num_trials=1500, **how)
    done = []
    stream = partial(stream_trials, jax.random.key(5), pool, num_trials=1500, bins=40, **how)
    summary = stream(chunk_size=256, progress=done.append)
    assert sum(done) == 1500
    other = stream(chunk_size=700)
    for name in (*METRICS, "cost"):
        values = np.asarray(got.extra[name] if name == "cost" else getattr(got, name), np.float64)
        np.testing.assert_allclose(summary[name].mean, values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(summary[name].std, values.std(0, ddof=1), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(summary[name].minimum, values.min(0), rtol=1e-6)
        np.testing.assert_allclose(summary[name].maximum, values.max(0), rtol=1e-6)
        assert (summary[name].histogram.sum(axis=1) == 1500).all()
        for a, edges in enumerate(summary[name].edges):
            # An edge belongs to the bin below it.
            inner = np.searchsorted(edges[1:-1] + 1e-9, values[:, a])
            np.testing.assert_array_equal(
                np.bincount(inner, minlength=40), summary[name].histogram[a]
            )
        for level in (0.0, 0.05, 0.5, 0.95, 1.0):
            exact = np.quantile(values, level, axis=0, method="inverted_cdf")
            width = np.diff(summary[name].edges, axis=1)[:, 0]
            assert (np.abs(summary[name].quantile(level) - exact) <= width + 1e-7).all()
        if name != "cost":
            jax.tree.map(np.testing.assert_array_equal, summary[name], other[name])


@pytest.mark.long
def test_stream_by_question_with_validation():
    nonconformity, correct, tie = example(61, 3, 5, "paper", True)
    pool = pool_steps(nonconformity, correct, tie)
    how = {"num_calibration": 15, "alpha": ALPHAS, "num_trials": 30, **DESIGNS["all"]}
    got = split_trials(jax.random.key(5), pool, **how)
    summary = stream_trials(jax.random.key(5), pool, chunk_size=16, **how)
    for name in METRICS:
        for prefix, values in (("", getattr(got, name)), ("validation_", got.validation[name])):
            np.testing.assert_allclose(
                summary[prefix + name].mean, np.asarray(values).mean(0), rtol=1e-5, atol=1e-7
            )


class KilledError(Exception):
    pass


@pytest.mark.long
def test_a_killed_stream_goes_on_from_its_checkpoint(tmp_path):
    pool = pool_steps(*example(61, 3, 1000, "paper", True))
    how = {"num_calibration": 29, "alpha": ALPHAS, "chunk_size": 128}
    stream = partial(stream_trials, jax.random.key(5), pool, **how)
    expected = stream(num_trials=1500)
    done = []

    def kill_at_1000(num):
        done.append(num)
        if sum(done) >= 1000:
            raise KilledError

    path = tmp_path / "state.npz"
    with pytest.raises(KilledError):
        stream(num_trials=1500, progress=kill_at_1000, checkpoint=path, save_every=0.0)
    again = []
    got = stream(num_trials=1500, progress=again.append, checkpoint=path)
    assert again[0] >= 512  # what was kept
    assert sum(again) == 1500
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    # A finished stream can be made longer, and asked again for what it has.
    longer = stream(num_trials=1600, checkpoint=path)
    jax.tree.map(np.testing.assert_array_equal, longer, stream(num_trials=1600))
    with pytest.raises(ValueError, match="is of another run"):
        stream_trials(jax.random.key(6), pool, num_trials=10, checkpoint=path, **how)
    with pytest.raises(ValueError, match="holds 1600 trials"):
        stream(num_trials=10, checkpoint=path)
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match="is not the state of a stream"):
        stream(num_trials=10, checkpoint=path)
    assert list(tmp_path.iterdir()) == [path]


PROGRAM = """
import json, sys
import jax
process, num, port = (int(x) for x in sys.argv[1:])
if num:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num, process)
import numpy as np
from racer_jax import gap, tie_break
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials, stream_trials
rng = np.random.default_rng(0)
scores = rng.random((61, 3)).astype(np.float32)
nonconformity = gap(scores)
pool = pool_steps(nonconformity, rng.random((61, 3)) < .6 * scores, tie_break(jax.random.key(0), nonconformity.shape))
how = dict(num_calibration=29, alpha=[.1, .5], num_trials=37)
got = split_trials(jax.random.key(1), pool, **how)
streamed = stream_trials(jax.random.key(1), pool, **how)
# One to four rows of a question together: parts differ in length, and each is divided by its own.
question = np.repeat(np.arange(25), np.arange(25) % 4 + 1)[:61]
how |= {"num_calibration": 15, "question": question}
by_question = split_trials(jax.random.key(2), pool, **how)
print(json.dumps({
    "devices": len(jax.devices()), "processes": jax.process_count(), "size": np.asarray(got.size).tolist(),
    "threshold": np.asarray(got.threshold.value).tolist(), "mean": streamed["risk"].mean.tolist(),
    "risk": got.risk.tolist(), "abstention": got.abstention.tolist(),
    "by question": [x.tolist() for x in (by_question.risk, by_question.size, by_question.abstention)],
}))
"""


def start(process, num, num_devices, port):
    command = [sys.executable, "-c", PROGRAM, str(process), str(num), str(port)]
    root = Path(trials.__file__).parents[1]
    return subprocess.Popen(
        command,
        env=devices(num_devices),
        cwd=root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finished(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


@pytest.mark.long
def test_the_same_on_many_devices_and_processes():
    one = finished(start(0, 0, 1, 0))
    assert (one["devices"], one["processes"]) == (1, 1)
    four = finished(start(0, 0, 4, 0))
    assert four == one | {"devices": 4}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pair = [start(i, 2, 1, port) for i in range(2)]
    assert [finished(process) for process in pair] == [one | {"devices": 2, "processes": 2}] * 2


@pytest.mark.long
def test_bad_input():
    pool = pool_steps(*example(10, 2, 5, "paper", True))
    run = partial(split_trials, jax.random.key(0), pool)
    for how, error, message in [
        ({"num_calibration": 2.5}, TypeError, "num_calibration must be an integer, got 2.5"),
        ({"num_calibration": True}, TypeError, "num_calibration must be an integer, got True"),
        ({"num_calibration": 0}, ValueError, "num_calibration must be at least 1, got 0"),
        ({"num_calibration": 10}, ValueError, "must leave at least one of the 10"),
        (
            {"num_calibration": 5, "num_validation": 5},
            ValueError,
            "must leave at least one of the 10",
        ),
        (
            {"num_calibration": 5, "num_validation": -1},
            ValueError,
            "num_validation must be at least 0, got -1",
        ),
        ({"num_calibration": [5, 5]}, ValueError, "one integer for each of the 1 groups"),
        (
            {"num_calibration": [2, 2], "group": [0] * 5 + [1] * 5, "num_trials": 0},
            ValueError,
            "num_trials must be",
        ),
        (
            {"num_calibration": [2, 2, 2], "group": [0] * 5 + [1] * 5},
            ValueError,
            "one integer for each of the 2 groups",
        ),
        (
            {"num_calibration": [-2, 4], "group": [0] * 5 + [1] * 5},
            ValueError,
            "must be 0 or more for each group",
        ),
        (
            {"num_calibration": 2, "group": [0, 1]},
            ValueError,
            r"group must have shape \[N\] = \(10,\)",
        ),
        (
            {"num_calibration": 2, "question": np.zeros((10, 1))},
            ValueError,
            r"question must have shape \[N\]",
        ),
        (
            {"num_calibration": 2, "question": [0, 0, *range(8)], "group": [0, 1] + [0] * 8},
            ValueError,
            "rows of one question must be of one group, but the question of row 1",
        ),
        ({"num_calibration": 2, "alpha": 1.5}, ValueError, r"alpha must be in \(0, 1\), got 1.5"),
        (
            {"num_calibration": 2, "first_trial": 1 << 32},
            ValueError,
            r"trials are numbered below 2\*\*32",
        ),
    ]:
        with pytest.raises(error, match=message):
            run(**({"alpha": 0.1, "num_trials": 3} | how))
    with pytest.raises(TypeError, match=r"key must be jax\.random\.key"):
        split_trials(jnp.zeros(2, jnp.uint32), pool, num_calibration=2, alpha=0.1, num_trials=3)
    for how, message in [
        ({"bins": 1}, "bins must be at least 2"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            stream_trials(
                jax.random.key(0), pool, num_calibration=2, alpha=0.1, num_trials=3, **how
            )
    summary = stream_trials(jax.random.key(0), pool, num_calibration=2, alpha=0.1, num_trials=3)
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        summary["risk"].quantile(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*POOLS, "distinct"])
def test_a_million_trials_are_on_the_exact_law(name):
    null, levels, broken = POOLS.get(name, ("paper", 1000, True))
    pool = pool_steps(*example(200, 4, levels, null, broken))
    alphas = [i / 20 for i in range(1, 20)]
    num_trials = 1_000_000
    summary = stream_trials(
        jax.random.key(8),
        pool,
        num_calibration=90,
        alpha=alphas,
        num_trials=num_trials,
        chunk_size=1 << 16,
        bins=2000,
    )
    law = pool_law(pool, num_calibration=90, alpha=alphas)
    for metric in METRICS:
        mean, std = getattr(law, f"{metric}_mean"), getattr(law, f"{metric}_std")
        error = np.maximum(std, 1e-12) / np.sqrt(num_trials)
        assert (np.abs(summary[metric].mean - mean) / error)[std > 1e-9].max(initial=0) < 4.5
        np.testing.assert_allclose(summary[metric].mean[std <= 1e-9], mean[std <= 1e-9], atol=1e-9)
        # A variance varies by its kurtosis, which is large where a value is rare: there a sample
        # tells little.
        weight, value = summary[metric].histogram / num_trials, summary[metric].edges[:, 1:]
        centred = value - (weight * value).sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            kurtosis = (weight * centred**4).sum(axis=1) / (weight * centred**2).sum(axis=1) ** 2
        usual = (std > 1e-9) & (kurtosis < 10)
        assert usual.sum() >= (std > 1e-9).sum() / 4
        ratio = np.square(summary[metric].std[usual] / std[usual])
        assert (np.abs(ratio - 1) / np.sqrt((kurtosis[usual] - 1) / num_trials)).max(
            initial=0
        ) < 4.5
    # The whole law of the risk, value by value.
    for a in range(len(alphas)):
        bins = np.searchsorted(summary["risk"].edges[a], law.risk_support[a] - 1e-9) - 1
        chance = np.bincount(np.clip(bins, 0, 1999), law.risk_probability[a], 2000)
        likely = chance * num_trials > 10
        z = (summary["risk"].histogram[a] - chance * num_trials)[likely] / np.sqrt(
            chance * (1 - np.minimum(chance, 1 - 1e-9)) * num_trials
        )[likely]
        assert np.abs(z).max() < 5.5


def test_means_are_rounded_quotients():
    # 70 of 111 rows, and a reciprocal of 41 that float32 has to round: products with it would
    # differ from the quotients in every fifth place or so.
    scores = np.random.default_rng(3).random((111, 3), np.float32)
    correct = np.random.default_rng(4).random((111, 3)) < 0.6
    nonconformity = np.column_stack([1 - scores, scores.max(axis=1)])
    pool = pool_steps(nonconformity, correct)
    made = split_trials(
        jax.random.key(1),
        pool,
        num_calibration=70,
        alpha=np.arange(1, 20) / 20,
        num_trials=300,
    )
    for name in ("risk", "size", "abstention"):
        mean = getattr(made, name)
        total = np.rint(mean.astype(np.float64) * 41)
        np.testing.assert_array_equal(mean, total.astype(np.float32) / np.float32(41))
