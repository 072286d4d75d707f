"""The choice on validation against its rule in plain Python, for tables of any content."""

from fractions import Fraction

import numpy as np
import pytest

from racer_jax.montecarlo import tuning
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.tuning import TEMPERATURES, Selections, _entries, select, select_each

NUM, MODELS, KINDS, SPLITS = 14, 2, 3, 5
BUDGETS = [-1, 0, 1, 3]  # 5 calibration queries
INFINITE = (np.inf, 9)


def study(seed=0):
    """Nonconformity with ties broken, second keys, a pool, tables and splits."""
    rng = np.random.default_rng(seed)
    entries = (rng.integers(0, 4, (NUM, MODELS + 1)) / 4).astype(np.float32)
    entries[0, 0] = np.inf  # never called
    keys = rng.integers(0, 3, entries.shape).astype(np.uint32)
    correct = rng.random((NUM, MODELS)) < 0.5
    right = rng.random((KINDS, NUM, MODELS + 1)) < 0.5
    right[2] = right[1]  # two that tie everywhere
    part = np.repeat([0, 1, 2], [5, 6, 3])
    parts = np.stack([rng.permutation(part) for _ in range(SPLITS)])
    return entries, keys, correct, right, parts


ENTRIES, KEYS, CORRECT, RIGHT, PARTS = study()
POOL = pool_steps(ENTRIES, CORRECT, KEYS)
PAIRS = [
    list(zip(*rows, strict=True)) for rows in zip(ENTRIES.tolist(), KEYS.tolist(), strict=True)
]
CRITICAL = [
    min([pair for pair, yes in zip(row, truth, strict=False) if yes] or [row[-1]])
    for row, truth in zip(PAIRS, CORRECT.tolist(), strict=True)
]


def called_at(limit):
    """Number of models called for each query."""
    return [sum(pair <= limit and pair[0] < np.inf for pair in row[:-1]) for row in PAIRS]


def chosen(part, tolerance, pooled):
    """The rule of the module's docstring, one split at a time."""
    critical = sorted(CRITICAL[i] for i in np.flatnonzero(part == 0))
    limits = [INFINITE if b < 0 else critical[len(critical) - b - 1] for b in BUDGETS]
    called = [called_at(limit) for limit in limits]
    validation = np.flatnonzero(part == 1).tolist()
    labelled = np.flatnonzero(part <= 1).tolist() if pooled else validation
    rows = {
        (a, k): [bool(RIGHT[k, i, called[a][i]]) for i in validation]
        for a in range(len(BUDGETS))
        for k in range(KINDS)
    }
    if pooled:
        for a in range(len(BUDGETS)):
            total = [sum(table[i, called[a][i]] for i in labelled) for table in RIGHT]
            for k in set(range(KINDS)) - {total.index(max(total))}:
                del rows[a, k]
    calls = [sum(called[a][i] for i in validation) for a in range(len(BUDGETS))]
    best = max(rows, key=lambda pair: (sum(rows[pair]), -calls[pair[0]], -pair[0], -pair[1]))
    good = []
    for pair, row in rows.items():
        differences = [int(x) - int(y) for x, y in zip(rows[best], row, strict=True)]
        mean = Fraction(sum(differences), len(differences))
        variance = Fraction(sum(d * d for d in differences), len(differences)) - mean**2
        if mean**2 <= Fraction(tolerance) ** 2 * variance / len(differences):
            good.append(pair)
    choice = min(good, key=lambda pair: (calls[pair[0]], -sum(rows[pair]), pair))
    num_right = [sum(RIGHT[k, i, -1] for i in labelled) for k in range(KINDS)]
    share = Fraction(sum(rows[choice]), len(validation))
    return choice, num_right.index(max(num_right)), called[choice[0]], share


@pytest.mark.long
# Splits that are looked up at once: with a rest, and all of them.
@pytest.mark.parametrize("pooled", [False, True])
def test_every_split_chooses_by_the_rule(monkeypatch, pooled):
    monkeypatch.setattr(tuning, "_BATCH", 2 + 3 * pooled)
    for tolerance in (0, 0.5, 1, 2.5):
        options = {"tolerance": tolerance, "pooled_vote": pooled}
        picked = select(PARTS, POOL, RIGHT, budget=BUDGETS, **options)
        for s, part in enumerate(PARTS):
            pair, full, called, share = chosen(part, tolerance, pooled)
            assert (int(picked.alpha[s]), int(picked.aggregation[s])) == pair
            assert int(picked.full_aggregation[s]) == full
            assert picked.num_called[s].tolist() == called
            assert picked.validation_right[s] == pytest.approx(float(share))
    # The default is one standard error, and validation alone.
    if not pooled:
        default, named = select(PARTS, POOL, RIGHT, budget=BUDGETS), options | {"tolerance": 1}
        other = select(PARTS, POOL, RIGHT, budget=BUDGETS, **named)
        np.testing.assert_array_equal(default.num_called, other.num_called)
        np.testing.assert_array_equal(default.part, PARTS)


def test_each_level_alone_keeps_its_place(monkeypatch):
    calls = []

    def recorded(*arguments, **options):
        calls.append((arguments, options))
        zero = np.zeros(SPLITS, int)
        return Selections(PARTS, zero, zero, zero, zero, zero)

    monkeypatch.setattr(tuning, "select", recorded)
    choices = select_each(PARTS, POOL, RIGHT, budget=BUDGETS)
    assert [choice.alpha.tolist() for choice in choices] == [[a] * SPLITS for a in range(4)]
    assert [options for _, options in calls] == [
        {"budget": budget, "tolerance": 0.0} for budget in BUDGETS
    ]
    # Levels are read for the number of calibration queries: floor(alpha 6) - 1.
    calls.clear()
    select_each(PARTS, POOL, RIGHT, alpha=["0.1", "0.5"])
    assert [options["budget"] for _, options in calls] == [-1, 2]


def test_positions_at_which_models_enter_are_those_of_the_pairs():
    entries = _entries(POOL, MODELS)
    # Position j is that of the j-th smallest critical pair; NUM that of the threshold +inf.
    limits = [CRITICAL[i] for i in POOL.order] + [INFINITE]
    for position, limit in enumerate(limits):
        assert (entries <= position).sum(axis=1).tolist() == called_at(limit)
    assert (np.diff(entries, axis=1) >= 0).all()
    assert entries[0].max() == NUM + 1


def picked():
    part = np.array([[0, 1, 2, 2], [2, 2, 1, 0]])
    called = np.array([[0, 1, 2, 1], [2, 0, 0, 1]])
    return Selections(part, np.array([0, 1]), np.array([1, 0]), np.array([0, 1]), called, called)


def test_what_is_measured_of_a_choice():
    choice = picked()
    assert choice.mean([1.0, 2, 4, 8]).tolist() == [6, 1.5]
    assert choice.mean([1.0, 2, 4, 8], 0).tolist() == [1, 8]
    assert choice.mean(choice.num_called, part=1).tolist() == [1, 0]
    table = np.arange(12.0).reshape(4, 3)
    assert choice.called_value(table).tolist() == [[0, 4, 8, 10], [2, 3, 6, 10]]
    right = np.zeros((2, 4, 3), bool)
    right[1, 2, 2] = right[0, 0, 2] = right[0, 1, 0] = right[1, 0, 2] = True
    assert choice.accuracy(right).tolist() == [0.5, 1]
    assert choice.full_accuracy(right).tolist() == [0, 0.5]
    with pytest.raises(ValueError, match=r"values must have shape \[n\] or \[s, n\] = \(2, 4\)"):
        choice.mean(np.ones(3))
    for wrong in (np.ones((3, 3)), np.ones((4, 2)), np.ones(4)):
        with pytest.raises(ValueError, match=r"table must have shape \[n, m \+ 1\] with n = 4"):
            choice.called_value(wrong)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"right": RIGHT.astype(float)}, TypeError, "right must be boolean"),
        ({"right": RIGHT[0]}, ValueError, r"right must have shape \[k, n, m \+ 1\]"),
        ({"right": RIGHT[:, 1:]}, ValueError, r"with the n = 14 of the pool, got \(3, 13, 3\)"),
        ({"right": RIGHT[..., :1]}, ValueError, r"right must have shape \[k, n, m \+ 1\]"),
        ({"part": PARTS.astype(float)}, TypeError, "part must hold integers"),
        ({"part": PARTS[0]}, ValueError, r"part must have shape \[s, n\] with s >= 1"),
        ({"part": PARTS[:, 1:]}, ValueError, "with s >= 1 and the n = 14 of the pool"),
        ({"part": PARTS[:0]}, ValueError, "with s >= 1"),
        ({"part": np.where(PARTS == 0, 1, PARTS)}, ValueError, "part 0 in every split, at least"),
        ({"part": np.where(PARTS == 1, 2, PARTS)}, ValueError, "part 1 in every split, at least"),
        ({"part": np.where(PARTS == 2, 0, PARTS)}, ValueError, "part 2 in every split, at least"),
        ({"part": np.stack([PARTS[0], 2 - PARTS[1]])}, ValueError, "at least one, got 3 to 5"),
        ({"tolerance": -1}, ValueError, "tolerance must be a finite number"),
        ({"tolerance": np.inf}, ValueError, "tolerance must be a finite number"),
        ({"budget": [5]}, ValueError, "budget must be"),
    ],
)
def test_errors_say_what_would_be_right(change, error, message):
    with pytest.raises(error, match=message):
        select(**({"part": PARTS, "pool": POOL, "right": RIGHT, "budget": BUDGETS} | change))


def test_temperatures_run_from_the_heaviest_voter_to_almost_a_majority():
    assert (TEMPERATURES[0], TEMPERATURES[-1], len(TEMPERATURES)) == (0.01, 10.0, 12)
    ratios = np.divide(TEMPERATURES[1:], TEMPERATURES[:-1])
    np.testing.assert_allclose(ratios, 1000 ** (1 / 11), rtol=0.01)
