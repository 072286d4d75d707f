"""The calibrated stop.

Against brute force, the NumPy reference and the sets of the running maximum.
"""

import itertools
from math import inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from racer_jax import calibrate, prediction_sets, reference, set_size
from racer_jax.core.nonconformity import TieBroken
from racer_jax.montecarlo import pool_law, split_trials
from racer_jax.risk_control import (
    calibrate_by_group,
    calibrate_weighted,
    calibrate_with_probability,
    path_nonconformity,
    path_states,
    state_features,
    stop_critical_scores,
    stop_losses,
    stopping_scores,
    stops_at,
)
from racer_jax.risk_control import stopping as module
from racer_jax.risk_control.stopping import LOSSES
from racer_jax.sequential import stopping_pool
from racer_jax.serving.monitor import RiskMonitor

N, B = 40, 5


def paths(seed, levels=4):
    """Scores that tie, losses that come and go, and second keys.

    The last score is +inf, its loss 0.
    """
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (N, B)) / np.float32(levels)
    scores = scores.astype(np.float32)
    scores[rng.random((N, B)) < 0.1] = -np.inf
    scores[:, -1] = np.inf
    losses = rng.random((N, B)) < 0.4
    losses[:, -1] = False
    tie = rng.integers(0, 3, (N, B), dtype=np.uint32)
    return scores, losses, jnp.asarray(tie)


def answers_of(seed, num=N, calls=B):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-1, 3, (num, calls))
    weights = rng.integers(0, 5, calls) / 4
    correct = (codes == rng.integers(0, 3, (num, 1))) & (codes >= 0)
    return codes, weights, correct


def pairs_of(scores, tie, i):
    """The path of a query as the reference reads it: a score of -inf has no second key."""
    return [
        (float(s), int(u) if s > -inf else 0)
        for s, u in zip(scores[i], np.asarray(tie)[i], strict=True)
    ]


# --- the state of the vote ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))]
)
def test_states_equal_the_reference(seed):
    codes, weights, _ = answers_of(seed)
    states = path_states(codes, weights.astype(np.float32))
    features = np.asarray(state_features(states))
    states = jax.tree.map(np.asarray, states)
    for i, j in itertools.product(range(N), range(B)):
        row = codes[i].tolist()
        assert int(states.leader[i, j]) == reference.stop_leader(row[: j + 1], weights[: j + 1])
        expected = reference.stop_state(row, weights.tolist(), j + 1)
        assert features[i, j, :7].tolist() == expected
        voters = [k <= j and row[k] >= 0 and row[k] == int(states.leader[i, j]) for k in range(B)]
        assert features[i, j, 7:].astype(bool).tolist() == voters
        assert bool(states.is_decided[i, j]) == reference.stop_decided(row, weights.tolist(), j + 1)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-1, 3), min_size=B, max_size=B),
    st.lists(st.integers(0, 6), min_size=B, max_size=B),
)
def test_a_decided_leader_is_the_answer_of_the_full_vote(row, weights):
    states = path_states(np.array([row]), np.array(weights, np.float32) / 2)
    decided = np.asarray(states.is_decided[0])
    assert (np.asarray(states.leader[0])[decided] == int(states.leader[0, -1])).all()
    # Once decided, decided for good.
    assert (np.diff(decided.astype(int)) >= 0).all()


def test_the_names_of_the_answers_do_not_matter():
    codes, weights, _ = answers_of(5)
    renamed = np.where(codes >= 0, np.array([7, 2, 4, -1])[codes], -1)
    one, other = path_states(codes, weights), path_states(renamed, weights)
    back = np.array([7, 2, 4, -1])[np.asarray(one.leader)]
    assert (np.asarray(other.leader) == back).all()
    for name in set(one._fields) - {"leader"}:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.long
def test_states_under_jit_and_vmap(transform):
    codes, weights, _ = answers_of(6)
    one = path_states(codes, weights.astype(np.float32))
    other = transform(lambda a: path_states(a, jnp.asarray(weights, jnp.float32)))(codes)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_no_answer_equals_no_other():
    states = path_states([[-1, -1, 0]], jnp.array([4.0, 4.0, 1.0]))
    assert states.leader.tolist() == [[-1, -1, 0]]
    assert states.missing.tolist() == [[1, 2, 2]]
    assert not states.is_decided[0, 0]


@pytest.mark.parametrize(
    ("answers", "weights", "message"),
    [
        ([0.5, 1.0], [1.0, 1.0], "answers must be integer codes"),
        ([0, 1], [1.0], "must have the same last axis"),
        ([0, -2], [1.0, 1.0], "codes >= 0, or -1"),
        ([0, 1], [1.0, -1.0], "at least 0 and finite, got -1"),
        ([0, 1], [1, 1], "weights must be floating"),
    ],
)
def test_bad_states_are_refused(answers, weights, message):
    with pytest.raises((TypeError, ValueError), match=message):
        path_states(np.array(answers), np.array(weights))


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_equal_the_reference(loss):
    codes, weights, correct = answers_of(8)
    states = path_states(codes, weights.astype(np.float32))
    lost = np.asarray(stop_losses(loss, states.leader, codes, states.leader[:, -1], correct))
    for i, j in itertools.product(range(N), range(B)):
        arguments = (codes[i].tolist(), weights.tolist(), correct[i].tolist())
        assert lost[i, j] == reference.stop_loss(loss, *arguments, j + 1)


def test_differs_needs_no_labels_and_the_others_do():
    codes, weights, correct = answers_of(8)
    leader = path_states(codes, weights.astype(np.float32)).leader
    with_labels = stop_losses("differs", leader, codes, leader[:, -1], correct)
    assert (with_labels == stop_losses("differs", leader, codes, leader[:, -1])).all()
    with pytest.raises(ValueError, match="'regret' needs correct"):
        stop_losses("regret", leader, codes, leader[:, -1])
    with pytest.raises(ValueError, match="loss must be one of"):
        stop_losses("regrets", leader, codes, leader[:, -1])


def test_scores_are_settled_where_stopping_cannot_lose():
    codes, weights, _ = answers_of(9)
    states = path_states(codes, weights.astype(np.float32))
    table, offset = jnp.ones((B, 8 + B)), jnp.zeros(N)
    ends = jnp.array([False, True, False, True, True])
    vote, last, never = (
        np.asarray(stopping_scores(states, table, offset, ends, settled))
        for settled in ("vote", "last", "never")
    )
    assert (vote[:, ~np.asarray(ends)] == -inf).all()
    silent = np.asarray(states.leader)[:, np.asarray(ends)] < 0
    assert (np.isfinite(never[:, np.asarray(ends)]) == ~silent).all()
    assert (last[:, -1] == inf).all()
    settled = np.asarray(states.is_decided) & np.asarray(ends)
    assert (np.isposinf(vote[:, :-1]) == settled[:, :-1]).all()


# --- the envelope ---------------------------------------------------------------------------------


def levels_of(scores, tie):
    """All thresholds that could matter, and those around them."""
    values = np.unique(scores)
    keys = np.unique(np.asarray(tie))
    return [(float(v), int(u)) for v in values for u in (0, *keys, 9)]


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_the_theorem_by_brute_force_over_all_thresholds(seed):
    scores, losses, tie = paths(seed)
    critical = stop_critical_scores(scores, losses, tie)
    result = list(zip(critical.value.tolist(), critical.tie.tolist(), strict=True))
    for i in range(N):
        path, lost = pairs_of(scores, tie, i), losses[i].tolist()
        for level in levels_of(scores, tie):
            expected = reference.stop_envelope(path, lost, level)
            assert (result[i] > level) == expected
            stop = reference.stop_call(path, level)
            assert not lost[stop - 1] or expected  # the loss is below its envelope


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_the_models_called_are_the_sets_of_the_running_maximum(seed):
    scores, _, tie = paths(seed)
    scores[: N // 2, -1] = 0.3  # these may abstain
    pair = path_nonconformity(scores, tie)
    for level in levels_of(scores, tie)[::3]:
        threshold = TieBroken(jnp.float32(level[0]), jnp.uint32(level[1]))
        sets = prediction_sets(pair.value, threshold, pair.tie)
        stops = stops_at(scores, threshold, tie)
        assert (set_size(sets) == stops.calls).all()
        assert (sets[:, -1] == ~stops.has_stop).all()
        for i in range(N):
            call = reference.stop_call(pairs_of(scores, tie, i), level)
            assert (int(stops.calls[i]), bool(stops.has_stop[i])) == (call or B, call is not None)
    plain = path_nonconformity(scores)
    sets, stops = prediction_sets(plain, 0.5), stops_at(scores, 0.5)
    assert (set_size(sets) == stops.calls).all()


@pytest.mark.long
def test_critical_scores_under_jit_and_vmap(transform):
    scores, losses, tie = paths(3)
    one = stop_critical_scores(scores, losses, tie)
    other = transform(lambda s, x, u: stop_critical_scores(s, x, u))(scores, losses, tie)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.long
def test_many_thresholds_at_once():
    scores, _, tie = paths(3)
    value, key = jnp.array([0.0, 0.5, inf]), jnp.array([0, 1, 7], jnp.uint32)
    calls = stops_at(scores, TieBroken(value, key), tie).calls
    assert calls.shape == (3, N)
    for row in range(3):
        one = stops_at(scores, TieBroken(value[row], key[row]), tie).calls
        assert (calls[row] == one).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.5]], [[2]]), "losses must be 0/1"),
        (([[0.5]], [[0, 1]]), "losses must have the shape"),
        (([[np.nan]], [[0]]), "scores must not be NaN"),
    ],
)
def test_bad_paths_are_refused(arguments, message):
    scores, losses = np.array(arguments[0], np.float32), np.array(arguments[1])
    with pytest.raises(ValueError, match=message):
        stop_critical_scores(scores, losses)
    with pytest.raises(ValueError, match="threshold and tie_break go together"):
        stops_at(np.ones((1, 2), np.float32), TieBroken(jnp.float32(0), jnp.uint32(0)))


# --- the rest of the package takes these critical scores as they are ------------------------------


@pytest.mark.long
def test_every_kind_of_calibration_takes_them():
    scores, losses, tie = paths(11, levels=1000)
    critical = stop_critical_scores(scores, losses, tie)
    rows = sorted(zip(critical.value.tolist(), critical.tie.tolist(), strict=True))
    threshold = calibrate(critical, 0.2)
    assert (float(threshold.value), int(threshold.tie)) == reference.threshold(rows, 0.2)
    surely = calibrate_with_probability(critical, 0.3, 0.1)
    assert (float(surely.value), int(surely.tie)) >= reference.threshold(rows, 0.3)
    groups = ["a", "b"] * (N // 2)
    grouped = calibrate_by_group(critical, groups, 0.2)
    everyone = zip(critical.value.tolist(), critical.tie.tolist(), strict=True)
    of_b = [pair for pair, name in zip(everyone, groups, strict=True) if name == "b"]
    value, key = grouped.of(["b"])
    assert (float(value[0]), int(key[0])) == reference.threshold(sorted(of_b), 0.2)
    weighted = calibrate_weighted(stop_critical_scores(scores, losses), np.ones(N), 0.2)
    plain = calibrate(stop_critical_scores(scores, losses), 0.2)
    assert weighted.threshold([1.0]).tolist() == [float(plain)]
    stops = stops_at(scores, threshold, tie)
    lost = losses[np.arange(N), np.asarray(stops.calls) - 1]
    assert RiskMonitor(alpha=0.2).update(lost).misses == lost.sum() <= 0.2 * N


def measures(scores, losses):
    """Tables of calls, dollars and the loss itself by the call a path stops after; the last entry.

    Abstained.
    """
    num = len(scores)
    calls = np.tile(np.append(np.arange(1.0, B + 1), B), (num, 1))
    dollars = calls * np.linspace(0.1, 0.9, num)[:, None]
    return {"calls": calls, "dollars": dollars, "loss": np.column_stack([losses, np.zeros(num)])}


def enumerated(scores, losses, tie, num, alpha):
    """Means of every metric over all splits, one query at a time."""
    tables, total = measures(scores, losses), len(scores)
    path = [pairs_of(scores, tie, i) for i in range(total)]
    lost = losses.tolist()
    critical = []
    for i in range(total):
        losing = [
            p for k, p in enumerate(path[i]) if lost[i][k] and p > max([(-inf, 0), *path[i][:k]])
        ]
        critical.append(max([(-inf, 0), *losing]))
    rows = []
    for split in itertools.combinations(range(total), num):
        level = reference.threshold([critical[i] for i in split], alpha)
        rest = set(range(total)) - set(split)
        stops = {i: reference.stop_call(path[i], level) for i in rest}
        places = {i: B if j is None else j - 1 for i, j in stops.items()}
        envelope = [reference.stop_envelope(path[i], lost[i], level) for i in rest]
        means = [np.mean([table[i, places[i]] for i in rest]) for table in tables.values()]
        rows.append([np.mean(envelope), *means])
    return dict(zip(("risk", *tables), np.mean(rows, axis=0), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("finite", [False, True])
def test_the_exact_law_equals_enumeration_of_all_splits(finite):
    scores, losses, tie = (x[:9] for x in paths(12))
    if finite:  # the loss `wrong`: the last score is finite, its loss counts, and it may abstain
        scores[:, -1] = np.linspace(0, 1, 9)
        losses[::2, -1] = True
    pool = stopping_pool(scores, losses, measures(scores, losses), tie)
    law = pool_law(pool, num_calibration=5, alpha=[0.34, 0.5])
    for column, alpha in enumerate((0.34, 0.5)):
        expected = enumerated(scores, losses, tie, 5, alpha)
        assert law.risk_mean[column] == pytest.approx(expected.pop("risk"), abs=1e-12)
        for name, value in expected.items():
            assert law.extra_mean[name][column] == pytest.approx(value, abs=1e-12)


@pytest.mark.long
def test_the_mean_risk_of_the_envelope_is_the_law_and_the_monte_carlo_agrees():
    rng = np.random.default_rng(13)
    scores = np.concatenate([rng.random((N, B - 1)), np.full((N, 1), np.inf)], 1)
    scores = scores.astype(np.float32)
    losses = np.concatenate([rng.random((N, B - 1)) < 0.6, np.zeros((N, 1), bool)], 1)
    tie = jnp.asarray(rng.integers(0, 2**32, (N, B), dtype=np.uint32))
    pool = stopping_pool(scores, losses, measures(scores, losses), tie)
    num, alpha = 19, 0.2
    law = pool_law(pool, num_calibration=num, alpha=alpha)
    assert law.risk_mean[0] == pytest.approx(4 / 20)  # floor(alpha (n + 1)) / (n + 1)
    assert law.extra_mean["loss"][0] <= law.risk_mean[0]
    trials = split_trials(
        jax.random.key(1), pool, num_calibration=num, alpha=alpha, num_trials=2000
    )
    for name, mean in (("loss", law.extra_mean["loss"]), ("calls", law.extra_mean["calls"])):
        drawn = trials.extra[name][:, 0]
        assert abs(drawn.mean() - mean[0]) < 5 * drawn.std() / np.sqrt(len(drawn))


def test_one_trace_serves_every_value():
    codes, weights, _ = answers_of(20)
    path_states(codes, weights.astype(np.float32))
    states = path_states(codes[::-1], weights.astype(np.float32) + 1)
    before = module._stop_losses._cache_size()
    for _ in range(2):
        stop_losses("differs", states.leader, codes, states.leader[:, -1])
    assert module._stop_losses._cache_size() <= before + 1
