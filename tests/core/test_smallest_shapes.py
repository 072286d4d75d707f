"""The smallest shape that each function takes, and those just below it; nothing is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.core.aggregation import (
    answer_codes,
    log_odds,
    majority_vote,
    model_order,
    prefix_answers,
    voted_right,
    weighted_vote,
)
from racer_jax.core.calibration import calibrate, critical_scores, threshold_at_budget
from racer_jax.core.conformal_training import soft_threshold
from racer_jax.core.loss_calibration import calibrate_loss
from racer_jax.core.losses import grade_loss, loss_at, weighted_loss
from racer_jax.core.nonconformity import augment, augmented_truth, gap, null_score, value_and_tie
from racer_jax.core.prediction_sets import abstains, misrouted, prediction_sets, set_size
from racer_jax.core.risk_levels import budget_of
from racer_jax.risk_control import path_states, stop_critical_scores
from racer_jax.risk_control.costs import cap_models

F, I, B = jnp.float32, jnp.int32, jnp.bool_  # noqa: E741
# Function of arrays, the arrays that are just large enough, and those that are not.
CASES = {
    "scores": (null_score, [((1,), F)], [[((), F)], [((0,), F)], [((3, 0), F)]]),
    "augment": (augment, [((1,), F)], [[((), F)], [((2, 0), F)]]),
    "gap": (gap, [((2, 1), F)], [[((), F)]]),
    "log odds": (log_odds, [((1,), F)], [[((0,), F)]]),
    "truth": (augmented_truth, [((1,), B)], [[((), B)], [((2, 0), B)]]),
    "value": (lambda x: value_and_tie("x", x)[0], [((1,), F)], [[((), F)], [((2, 0), F)]]),
    "order": (model_order, [((2,), F)], [[((), F)], [((1,), F)], [((3, 1), F)]]),
    "sets": (set_size, [((2,), B)], [[((), B)], [((1,), B)]]),
    "abstains": (abstains, [((1, 2), B)], [[((1,), B)]]),
    "misrouted": (
        misrouted,
        [((2,), B), ((1,), B)],
        [[((2,), B), ((), B)], [((2,), B), ((2,), B)], [((1,), B), ((0,), B)]],
    ),
    "broadcast": (misrouted, [((3, 2), B), ((1,), B)], [[((3, 2), B), ((4, 1), B)]]),
    "critical": (
        critical_scores,
        [((2,), F), ((1,), B)],
        [
            [((1,), F), ((), B)],
            [((1,), F), ((0,), B)],
            [((2,), F), ((2,), B)],
            [((3, 2), F), ((2, 1), B)],
        ],
    ),
    "prediction": (
        lambda e, t: prediction_sets(e, t),
        [((2,), F), ((), F)],
        [[((), F), ((), F)], [((1,), F), ((), F)]],
    ),
    "calibrate": (lambda c: calibrate(c, 0.5), [((1,), F)], [[((), F)], [((0,), F)]]),
    "mask": (
        lambda c, m: calibrate(c, 0.5, m),
        [((1,), F), ((1,), B)],
        [[((1,), F), ((), B)], [((2,), F), ((1,), B)]],
    ),
    "masks": (
        lambda c, m: calibrate(c, [0.5, 0.6], m),
        [((4,), F), ((3, 4), B)],
        [[((4,), F), ((4, 3), B)], [((4,), F), ((0, 3), B)]],
    ),
    "level": (
        lambda c, a: calibrate(c, a),
        [((3,), F), ((2,), F)],
        [[((3,), F), ((2, 2), F)]],
    ),
    "budget": (lambda c, b: threshold_at_budget(c, b), [((3,), F), ((), I)], [[((), F), ((), I)]]),
    "soft": (lambda c: soft_threshold(c, 0.5, 0.1), [((1,), F)], []),
    "grades": (
        lambda e, g: grade_loss(e, g).start,
        [((1, 2), F), ((1, 1), F)],
        [
            [((2,), F), ((1,), F)],
            [((1, 1), F), ((1, 0), F)],
            [((0, 2), F), ((0, 1), F)],
            [((1, 2), F), ((1, 2), F)],
        ],
    ),
    "prefixes": (
        prefix_answers,
        [((1,), I), ((1,), I), ((1,), F)],
        [
            [((), I), ((1,), I), ((1,), F)],
            [((2,), I), ((1,), I), ((1,), F)],
            [((1,), I), ((), I), ((1,), F)],
            [((1,), I), ((2,), I), ((1,), F)],
            [((1,), I), ((1,), I), ((), F)],
        ],
    ),
    "weights": (
        lambda s, a, p, w: weighted_vote(s, a, p, w, 1.0),
        [((2,), B), ((1,), I), ((1,), F), ((1,), F)],
        [
            [((2,), B), ((1,), I), ((1,), F), ((), F)],
            [((2,), B), ((1,), I), ((1,), F), ((2,), F)],
        ],
    ),
    "majority": (
        majority_vote,
        [((2,), B), ((1,), I), ((1,), F)],
        [[((), B), ((1,), I), ((1,), F)], [((1,), B), ((1,), I), ((1,), F)]],
    ),
    "many sets": (
        majority_vote,
        [((5, 1, 3), B), ((4, 2), I), ((2,), F)],
        [[((5, 3), B), ((4, 2), I), ((2,), F)]],
    ),
    "voted": (
        voted_right,
        [((), I), ((1,), I), ((1,), B)],
        [[((), I), ((), I), ((), B)], [((), I), ((1,), I), ((2,), B)]],
    ),
    "cap": (lambda e: cap_models(e, 1), [((2,), F)], [[((), F)], [((1,), F)]]),
    "path": (
        path_states,
        [((1,), I), ((1,), F)],
        [
            [((), I), ((1,), F)],
            [((1,), I), ((), F)],
            [((0,), I), ((0,), F)],
            [((2,), I), ((1,), F)],
        ],
    ),
    "stops": (
        stop_critical_scores,
        [((1,), F), ((1,), B)],
        [[((), F), ((), B)], [((0,), F), ((0,), B)], [((2,), F), ((1,), B)]],
    ),
}
SHAPES = {
    "broadcast": (3,),
    "masks": (3, 2),
    "level": (2,),
    "many sets": (5, 4),
    "prefixes": (2,),
    "order": (1,),
    "augment": (2,),
    "truth": (2,),
    "gap": (2, 2),
    "critical": (),
    "grades": (1,),
    "soft": (),
}


def structs(arrays):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in arrays]


@pytest.mark.parametrize("name", CASES)
def test_the_smallest_shape_is_taken_and_less_is_named(name):
    function, good, bad = CASES[name]
    result = jax.eval_shape(function, *structs(good))
    if name in SHAPES:
        assert result.shape == SHAPES[name]
    for arrays in bad:
        with pytest.raises(ValueError, match=r"shape|\[|last axis|at least one call"):
            jax.eval_shape(function, *structs(arrays))


def test_losses_of_a_batch_of_pools_keep_their_axes():
    """Two pools of three queries with four models each, two levels, and three masks."""

    def everything(entries, grades, weights, masks):
        loss = grade_loss(entries, grades)
        weighted = weighted_loss(loss, weights, 10)
        return (
            loss,
            weighted,
            loss_at(loss, 0.5),
            loss.full,
            calibrate_loss(loss, [0.3, 0.5]),
            calibrate_loss(jax.tree.map(lambda x: x[:1], loss), [0.3, 0.5], masks),
        )

    arrays = [((2, 3, 5), F), ((2, 3, 4), F), ((2, 3), F), ((6, 3), B)]
    loss, weighted, at, full, levels, masked = jax.eval_shape(everything, *structs(arrays))
    for part in (loss, weighted):
        assert (part.start.shape, at.shape, full.shape) == ((2, 3),) * 3
        assert part.step.shape == part.drop.shape == part.model.shape == (2, 3, 5)
        assert part.start.dtype == part.drop.dtype == jnp.int32
    assert levels.shape == (2, 2)
    assert masked.shape == (6, 2)


def test_shapes_that_are_of_the_host():
    for answers in ([], ["a"], [[["a"]]]):
        with pytest.raises(ValueError, match=r"answers must have shape \[n, m\]"):
            answer_codes(answers)
    assert answer_codes([[None]]).tolist() == [[-1]]
    for budget in ([[1]], [], 1.0, "1"):
        with pytest.raises(TypeError, match="budget must be an integer or integers"):
            budget_of(None, 9, budget)
    assert budget_of(None, 9, np.int8([-1, 8])).tolist() == [-1, 8]
    for budget in (-2, 9, [0, 9]):
        with pytest.raises(ValueError, match="budget must be from -1 to n - 1 = 8"):
            budget_of(None, 9, budget)
    for alpha, budget in ((None, None), (0.1, 3)):
        with pytest.raises(TypeError, match="one of alpha and budget must be given"):
            budget_of(alpha, 9, budget)


def test_values_at_the_ends_of_what_is_allowed():
    ends = np.float32([[0.0, 1.0]])
    assert np.isfinite(np.asarray(log_odds(ends))).all()
    for margin in (0.0, 0.5, -0.1):
        with pytest.raises(ValueError, match=r"margin must be in \(0, 0.5\)"):
            log_odds(ends, margin)
    critical = np.float32([0.1, 0.2, 0.3])
    assert jax.eval_shape(lambda c: soft_threshold(c, 0.25, 0.1), critical).shape == ()
    for alpha in (0.2499, 0.0, 1.0):
        with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\) and at least 1 / \(n \+"):
            soft_threshold(critical, alpha, 0.1)
    for temperature in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            soft_threshold(critical, 0.5, temperature)
        with pytest.raises(ValueError, match="temperature must be positive"):
            prefix_answers([0, 1], [0, 1], ends[0], ends[0], temperature)
    for code in (-2, -3):
        with pytest.raises(ValueError, match=f"or -1 for none, got {code}"):
            prefix_answers([0, 1], [code, -1], ends[0])
    with pytest.raises(ValueError, match=r"got inf at \[1\]"):
        prefix_answers([0, 1], [0, 1], ends[0], np.float32([0, np.inf]))
    for order in ([0, 0], [1, 2], [-1, 0]):
        with pytest.raises(ValueError, match=r"order must hold permutations of 0 ... m - 1, got"):
            prefix_answers([[0, 1], order], [0, 1], ends[0])
