"""Every public function of arrays under the settings and on the meshes of a caller.

The default tests trace: strict promotion and the types of meshes are minded while a function
is traced, which takes milliseconds, and so a mesh of two devices needs no devices.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from racer_jax import core, montecarlo, risk_control
from racer_jax.core import aggregation
from racer_jax.core.nonconformity import TieBroken

RNG = np.random.default_rng(0)
NUM, MODELS = 80, 3


TABLES = {
    "entries": (RNG.integers(0, 11, (NUM, MODELS + 1)) / 10).astype(np.float32),
    "scores": (RNG.integers(0, 11, (NUM, MODELS)) / 10).astype(np.float32),
    "correct": RNG.random((NUM, MODELS)) < 0.5,
    "ties": RNG.integers(0, 2**32, (NUM, MODELS + 1), dtype=np.uint32),
    "answers": RNG.integers(-1, 3, (NUM, MODELS)).astype(np.int32),
    "order": np.argsort(RNG.random((NUM, MODELS)), axis=1).astype(np.int32),
    "sets": RNG.random((NUM, MODELS + 1)) < 0.5,
    "critical": (RNG.integers(0, 11, NUM) / 10).astype(np.float32),
    "second": RNG.integers(0, 2**32, NUM, dtype=np.uint32),
    "weights": (RNG.random(NUM) + 0.5).astype(np.float32),
    "mask": RNG.random(NUM) < 0.7,
    "voted": RNG.integers(-1, 3, NUM).astype(np.int32),
    "limits": np.float32([0.3, 0.5]),
    "limit_ties": RNG.integers(0, 2**32, 2, dtype=np.uint32),
    "limit": np.float32(0.5),
    "table": np.full((MODELS, 8 + MODELS), 0.1, np.float32),
    "ends": np.ones(MODELS, bool),
}


def of(function, *names, **named):
    """A call of a function on some of the tables."""
    return lambda t: function(*(t[x] for x in names), **{k: t[x] for k, x in named.items()})


def graded(t):
    return core.grade_loss(t["entries"], t["scores"], t["ties"])


def one_wrong(sets):
    return (~sets[..., :-1].any(-1)).astype(jnp.float32)


def limit_pair(t):
    return TieBroken(t["limits"], t["limit_ties"])


ROW_WISE = {
    "critical_scores": of(core.critical_scores, "entries", "correct"),
    "critical_scores, ties": of(core.critical_scores, "entries", "correct", "ties"),
    "grade_loss": graded,
    "grade_loss, pool": lambda t: core.grade_loss(t["entries"], t["scores"], against="pool"),
    "weighted_loss": lambda t: core.weighted_loss(graded(t), t["weights"], 2),
    "loss_at": lambda t: core.loss_at(core.grade_loss(t["entries"], t["scores"]), t["limit"]),
    "loss_at, own": lambda t: core.loss_at(
        core.grade_loss(t["entries"], t["scores"]), t["critical"]
    ),
    "full": lambda t: graded(t).full,
    "null_score": of(core.null_score, "scores"),
    "augment": of(core.augment, "scores"),
    "augment, free": lambda t: core.augment(t["scores"], "free"),
    "gap": of(core.gap, "scores"),
    "inverse_probability": of(core.inverse_probability, "scores"),
    "augmented_truth": of(core.augmented_truth, "correct"),
    "prediction_sets": of(core.prediction_sets, "entries", "limit"),
    "prediction_sets, several": of(core.prediction_sets, "entries", "limits"),
    "prediction_sets, ties": lambda t: core.prediction_sets(t["entries"], limit_pair(t), t["ties"]),
    "set_size": of(core.set_size, "sets"),
    "abstains": of(core.abstains, "sets"),
    "misrouted": of(core.misrouted, "sets", "correct"),
    "avoidably_missed": of(core.avoidably_missed, "sets", "correct"),
    "soft_set_size": lambda t: core.soft_set_size(t["entries"], t["limit"], 0.1),
    "log_odds": of(aggregation.log_odds, "scores"),
    "model_order": of(aggregation.model_order, "entries", "ties"),
    "prefix_answers": of(core.prefix_answers, "order", "answers", "scores"),
    "majority_vote": of(core.majority_vote, "sets", "answers", "scores"),
    "weighted_vote": of(core.weighted_vote, "sets", "answers", "scores", "scores", "limit"),
    "voted_right": of(core.voted_right, "voted", "answers", "correct"),
    "cap_models": lambda t: risk_control.cap_models(t["entries"], 2, t["ties"]),
    "call_at_least": lambda t: risk_control.call_at_least(t["entries"], 1, t["ties"]),
    "stop_losses": lambda t: risk_control.stop_losses(
        "regret", t["answers"], t["answers"], t["voted"], t["correct"]
    ),
    "path_nonconformity": of(risk_control.path_nonconformity, "entries", "ties"),
    "stop_critical_scores": of(risk_control.stop_critical_scores, "entries", "sets", "ties"),
    "stops_at": of(risk_control.stops_at, "entries", "limit"),
    "path_states": of(risk_control.path_states, "answers", "scores"),
    "stopping_scores": lambda t: risk_control.stopping_scores(
        risk_control.path_states(t["answers"], t["scores"]), t["table"], t["weights"], t["ends"]
    ),
}
THRESHOLDS = {
    "calibrate": lambda t: core.calibrate(t["critical"], [0.1, 0.3]),
    "calibrate, ties": lambda t: core.calibrate(t["critical"], 0.1, t["mask"], t["second"]),
    "calibrate, many": lambda t: core.calibrate(t["critical"], np.arange(1, 12) / 13, t["mask"]),
    "calibrate, weights": lambda t: core.calibrate(
        t["critical"], 0.1, t["mask"], t["second"], weights=t["weights"], query_weight=t["limit"]
    ),
    "threshold_at_budget": lambda t: core.threshold_at_budget(t["critical"], 3, t["mask"]),
    "calibrate_loss": lambda t: core.calibrate_loss(graded(t), 0.3, t["mask"]),
    "soft_threshold": lambda t: core.soft_threshold(t["critical"], 0.3, 0.1, t["mask"]),
    "with_probability": lambda t: risk_control.calibrate_with_probability(t["critical"], 0.3, 0.1),
    "uniform": lambda t: risk_control.calibrate_uniform(t["critical"], 0.5, 0.1),
}
TRACED = ROW_WISE | THRESHOLDS | {"set_loss": lambda t: core.set_loss(one_wrong, t["entries"])}


def trials(t):
    """Monte Carlo draws of a pool of its own."""
    pool = montecarlo.pool_steps(t["entries"], t["correct"], t["ties"])
    how = {"num_calibration": 20, "num_trials": 4}
    return montecarlo.split_trials(jax.random.key(0), pool, alpha=0.3, **how)


HOST = {
    "split_trials": trials,
    "attainable_alpha": of(risk_control.attainable_alpha, "critical"),
    "by_group": lambda t: (
        risk_control.calibrate_by_group(
            TieBroken(t["critical"], t["second"]), ["a", "b"] * (NUM // 2), 0.1
        ).threshold
    ),
}


@pytest.mark.parametrize("name", TRACED)
def test_strict_promotion(name):
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        results = jax.eval_shape(TRACED[name], TABLES)
    assert jax.tree.leaves(results)


MESH = AbstractMesh((2,), ("d",), axis_types=(AxisType.Explicit,))


def on_mesh(values):
    """The type of an array whose queries are spread over two devices."""
    spec = PartitionSpec("d") if values.shape[:1] == (NUM,) else PartitionSpec()
    return jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=NamedSharding(MESH, spec))


# The others are traced in the same way; all of them take seconds.
EVER = ("calibrate", "calibrate, weights", "grade_loss", "majority_vote", "cap_models")


@pytest.mark.parametrize(
    "name", [x if x in EVER else pytest.param(x, marks=pytest.mark.long) for x in TRACED]
)
def test_explicit_axes(name):
    with jax.sharding.use_abstract_mesh(MESH):
        results = jax.tree.leaves(
            jax.eval_shape(TRACED[name], {k: on_mesh(v) for k, v in TABLES.items()})
        )
    assert results
    for result in results:
        is_spread = result.shape[:1] == (NUM,)
        assert (result.sharding.spec[:1] == ("d",)) == is_spread, result


# --- what compiles ------------------------------------------------------------------------------


def bits(tree):
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in leaves]


SETTINGS = {
    "checking_leaks": jax.checking_leaks,
    "debug_nans": lambda: jax.debug_nans(True),
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "x64": lambda: jax.enable_x64(True),
}
# A loss of the caller's own is the caller's code.
NAMES = ("calibrate, ties", "loss_at", "gap", "prediction_sets", "weighted_vote", "stops_at")
EAGER = {name: (TRACED | HOST)[name] for name in (*NAMES, *HOST)}


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS)
def test_results_are_the_same_under_a_setting(setting):
    arrays = jax.device_put(TABLES)
    for name, call in EAGER.items():
        if setting == "transfer_guard" and name == "split_trials":
            continue  # makes a key
        expected = bits(call(arrays))
        with SETTINGS[setting]():
            assert bits(call(arrays)) == expected, name


@pytest.mark.long
def test_few_lengths_are_compiled_and_no_bit_is_changed(monkeypatch):
    compiled = []

    def listen(name, seconds, **more):
        if name.endswith("backend_compile_duration"):
            compiled.append(more)

    def some(num):
        return {k: v[:num] if v.shape[:1] == (NUM,) else v for k, v in TABLES.items()}

    for name in (*NAMES, "calibrate, weights", "grade_loss", "stopping_scores"):
        call = TRACED[name]
        call(some(79))
        compiled.clear()
        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            padded = [bits(call(some(num))) for num in (76, 78)]
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
        assert not compiled, name
        with monkeypatch.context() as patch:
            patch.setattr("racer_jax.core.padding.padded_size", lambda size: size)
            assert bits(call(some(78))) == padded[1], name
