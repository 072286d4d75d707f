"""Streams whose trials are known beforehand: what is summed, when it is saved, and where it goes on.

Nothing is compiled: in the place of the kernel stand numbers that depend on the trial alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.montecarlo import plan as plans
from racer_jax.montecarlo import trial_runs, trials, value_counts
from racer_jax.montecarlo.step_functions import pool_steps
from racer_jax.montecarlo.trials import split_trials, stream_trials

LEVELS = [0.2, 0.5]
KEY = jax.random.key(0)


def pool():
    rng = np.random.default_rng(0)
    entries = rng.integers(0, 5, (12, 3)).astype(np.float32)
    return pool_steps(entries, rng.random((12, 2)) < 0.5)


POOL = pool()
# What is chosen by the kind of device is tested for a CPU wherever the tests run.
CPU = jax.devices("cpu")


def totals(numbers, varying):
    """Totals of counts and of a metric that is no count, and rows that may vary, by trial."""
    numbers = np.asarray(numbers, np.int64)
    counts = np.stack([numbers * 7 % 11, numbers * 5 % 13]).astype(np.int32)
    rows = np.full((1, 1), 4)
    if varying:
        rows = (3 + numbers % 3)[None]
    floats = (counts / np.float32(8)).astype(np.float32)
    return {"risk": counts, "dollars": floats, "rows": rows}


@pytest.fixture
def known(monkeypatch):
    """The trials of the kernel are `totals`, and one more than was asked for."""
    asked = []

    def chunk(self, first, num):
        asked.append((int(first), num))
        test = totals(np.arange(first, first + num + 1), known.varying)
        if known.varying:
            other = totals(np.arange(first, first + num + 1) + 1, False)
            return {"test": test, "validation": other}
        return {"test": test}

    known.varying = False
    monkeypatch.setattr(trial_runs, "plain_program", lambda *_: None)
    monkeypatch.setattr(trial_runs.KernelTrials, "chunk", chunk)
    monkeypatch.setattr(trials, "_PILOT", 8)
    known.asked = asked
    return known


def stream(num_trials, **options):
    return stream_trials(
        KEY, POOL, **({"num_calibration": 5, "alpha": LEVELS, "num_trials": num_trials} | options)
    )


def expected(numbers, name, varying=False):
    known_totals = totals(numbers, varying)
    return known_totals[name] / known_totals["rows"]


@pytest.mark.parametrize("num", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("chunk_size", [1, 3, 8, 9, 100])
def test_the_sums_are_those_of_all_trials_however_they_are_cut(known, num, chunk_size):
    done = []
    summary = stream(num, chunk_size=chunk_size, first_trial=5, progress=done.append)
    assert set(summary) == {"risk", "dollars"}
    for name, part in summary.items():
        values = expected(range(5, 5 + num), name)
        np.testing.assert_allclose(part.mean, values.mean(1), rtol=1e-6)
        np.testing.assert_allclose(part.minimum, values.min(1), rtol=1e-6)
        np.testing.assert_allclose(part.maximum, values.max(1), rtol=1e-6)
        deviation = values.std(1, ddof=1) if num > 1 else np.zeros(2)
        np.testing.assert_allclose(part.std, deviation, rtol=1e-5, atol=1e-9)
        assert (part.histogram.sum(axis=1) == num).all()
        # The bins are those that the first eight trials ask for, however long the first chunk is.
        pilot = values[:, :8]
        half = 8 * np.maximum(pilot.std(1), np.abs(pilot.mean(1)) * 1e-3)
        width = np.diff(part.edges, axis=1)[:, 0]
        unit = 1 / 4 if name == "risk" else 0.0
        asked = 2 * half / part.histogram.shape[1]
        assert (width >= asked * (1 - 1e-6)).all()
        assert (width <= np.maximum(asked * (1 + 1e-6), asked + unit)).all()
    # The first chunk has eight trials or all there are; then as many as a chunk holds.
    first = min(max(chunk_size, 8), num)
    rest = [min(chunk_size, num - at) for at in range(first, num, chunk_size)]
    assert done == [first, *rest]
    starts = np.cumsum([0, *done[:-1]]) + 5
    assert known.asked == [(int(at), max(done)) for at in starts]


@pytest.mark.parametrize("width", [1 << 13, 8])
def test_totals_that_an_accelerator_counts_have_the_same_summary(known, monkeypatch, width):
    expected, asked = stream(30, chunk_size=9), []

    def counted(totals, num):
        asked.append(int(num))
        return value_counts.value_counts(totals, num, width=width)

    monkeypatch.setattr(trial_runs, "value_counts", counted)
    assert stream(30, chunk_size=9, devices=CPU).keys() == expected.keys()
    assert asked == []  # a CPU leaves them to the host

    monkeypatch.setattr(trial_runs.KernelTrials, "counts_totals", True)
    got = stream(30, chunk_size=9)
    assert asked == [9, 9, 9, 3]  # only the metric that counts
    for name, summary in expected.items():
        for a, b in zip(summary, got[name], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_rows_that_vary_and_a_validation_part(known):
    known.varying = True
    summary = stream(20, chunk_size=6, num_calibration=1, question=np.arange(12) // 5)
    assert set(summary) == {"risk", "dollars", "validation_risk", "validation_dollars"}
    for name in ("risk", "dollars"):
        values = expected(range(20), name, True)
        np.testing.assert_allclose(summary[name].mean, values.mean(1), rtol=1e-6)
        np.testing.assert_allclose(summary[name].maximum, values.max(1), rtol=1e-6)
        other = expected(range(1, 21), name)
        np.testing.assert_allclose(summary[f"validation_{name}"].mean, other.mean(1), rtol=1e-6)


def test_rows_that_vary_only_later_count_as_they_are():
    """The first chunk has parts of one size, by chance: its trials are means all the same."""
    sums, totals_of = {}, {}
    for numbers in ([0, 3, 6], [1, 2, 3]):
        totals_of = {"test": totals(numbers, True)}
        trials._add(sums, trial_runs.Chunk(3, totals_of, {}), 16, even=False)
    for name in ("risk", "dollars"):
        values = expected([0, 3, 6, 1, 2, 3], name, True)
        np.testing.assert_allclose(sums[name].summary().mean, values.mean(1), rtol=1e-6)
        np.testing.assert_allclose(sums[name].summary().maximum, values.max(1), rtol=1e-6)


def test_parts_are_even_where_every_unit_has_as_many_rows():
    order = np.random.default_rng(0).permutation(12)
    for question, even in ((None, True), (np.arange(12) // 2, True), (np.arange(12) // 5, False)):
        design = trials.split_design(order, num_calibration=1, question=question)
        assert design.even == even
    group = np.arange(12) // 2 % 2
    question = np.arange(12) // 2
    assert trials.split_design(order, 2, 0, group, question).even
    question[:2] = 6, 7
    assert not trials.split_design(order, 2, 0, group, question).even


def test_a_stream_goes_on_from_its_file(known, tmp_path, monkeypatch):
    whole = stream(30, chunk_size=4)
    path, reports, again = tmp_path / "state.npz", [], []

    class StoppedError(Exception):
        pass

    def stop_at_20(num):
        reports.append(num)
        if sum(reports) >= 20:
            raise StoppedError

    with pytest.raises(StoppedError):
        stream(30, chunk_size=4, progress=stop_at_20, checkpoint=path, save_every=-1.0)
    assert reports == [8, 4, 4, 4]
    known.asked.clear()
    summary = stream(30, chunk_size=4, progress=again.append, checkpoint=str(path))
    # What was kept is reported at once; trial 16 is the first that was not.
    assert again == [16, 4, 4, 4, 2]
    assert known.asked == [(at, 4) for at in (16, 20, 24, 28)]
    jax.tree.map(np.testing.assert_array_equal, summary, whole)
    # Nothing is left to do: the file stays as it is.
    written = path.stat().st_mtime_ns
    jax.tree.map(np.testing.assert_array_equal, stream(30, checkpoint=path), whole)
    assert path.stat().st_mtime_ns == written
    # One that is longer is saved at its end, whenever the last save was.
    longer = stream(31, chunk_size=4, checkpoint=path)
    jax.tree.map(np.testing.assert_array_equal, longer, stream(31, chunk_size=4))
    known.asked.clear()
    stream(31, checkpoint=path)
    assert known.asked == []
    with pytest.raises(ValueError, match="holds 31 trials, more than the 30 asked for"):
        stream(30, checkpoint=path)
    for other in ({"first_trial": 1}, {"bins": 10}):
        with pytest.raises(ValueError, match="is of another run"):
            stream(40, checkpoint=path, **other)
    with pytest.raises(ValueError, match="is of another run"):
        stream_trials(
            jax.random.key(1), POOL, num_calibration=5, alpha=LEVELS, num_trials=40, checkpoint=path
        )


def test_defaults(known):
    summary = stream(9)
    assert summary["risk"].histogram.shape == (2, 200)
    # 512 trials a device, in four tiles.
    known.asked.clear()
    stream(1200, devices=CPU)
    assert known.asked == [(at, 512) for at in (0, 512, 1024)]


def test_each_trial_by_itself(known, monkeypatch):
    def chunk(self, first, num):
        names = ("risk", "size", "abstention", "avoidable_miss", "dollars")
        rows = np.arange(first, first + num + 2)
        totals = {
            name: jnp.stack([rows + i, rows - i]).astype(np.float32) * 4
            for i, name in enumerate(names)
        }
        # a number of rows that differs from trial to trial: their means do not
        size = 1 + rows % 3
        test = {name: total * size[None] for name, total in totals.items()}
        return {"threshold": totals["risk"] / 8, "test": {**test, "rows": jnp.array([size * 4])}}

    monkeypatch.setattr(trial_runs, "plain_program", lambda *_: None)
    monkeypatch.setattr(trial_runs.KernelTrials, "chunk", chunk)
    result = split_trials(KEY, POOL, num_calibration=5, alpha=LEVELS, num_trials=3, first_trial=4)
    assert result.risk.tolist() == [[4, 4], [5, 5], [6, 6]]
    assert result.threshold.tolist() == [[2, 2], [2.5, 2.5], [3, 3]]
    assert result.avoidable_miss.tolist() == [[7, 1], [8, 2], [9, 3]]
    assert list(result.extra) == ["dollars"]
    assert result.extra["dollars"].tolist() == [[8, 0], [9, 1], [10, 2]]
    assert result.validation == {}


# 300 trials are two tiles, of which one device has the most it may have at once.
@pytest.mark.parametrize(
    ("num", "devices", "tile", "num_tiles"),
    [
        (1, 1, 1, 1),
        (8, 1, 8, 1),
        (9, 1, 8, 2),
        (17, 1, 8, 3),
        (9, 2, 5, 1),
        (16, 2, 8, 1),
        (17, 2, 8, 2),
    ],
)
def test_a_chunk_is_whole_tiles_on_every_device(monkeypatch, num, devices, tile, num_tiles):
    calls = []
    monkeypatch.setattr(trial_runs, "run_kept", lambda *args, **_: calls.append(args[1:]))
    monkeypatch.setattr(plans, "_TILE", 8)
    design = trials.split_design(POOL.order, num_calibration=5)
    budgets = design.budgets(LEVELS)
    plan, shape = plans.trial_plan(POOL, design, budgets, means=True)
    monkeypatch.setattr(trial_runs, "plain_program", lambda *_: None)
    usual = trial_runs.trial_runner(KEY, POOL, design, budgets, means=True, devices=None)
    assert usual.devices == jax.devices()
    runner = trial_runs.KernelTrials(np.zeros(2, np.uint32), plan, shape, CPU)
    assert runner.tile == plans.usual_tile(plan, "cpu", len(CPU))
    runner.tile = 8
    assert runner.mesh.axis_names == ("trials",)
    runner.devices = runner.devices[:1] * devices
    runner.chunk(3, num)
    (_, _, first), static = calls[0]
    assert first == 3
    assert (static["tile"], static["num_tiles"]) == (tile, num_tiles)
    assert static["gather"] is False


def test_a_tile_is_what_cache_devices_and_indices_allow(monkeypatch):
    monkeypatch.setattr(plans, "_TILE", 8)
    design = trials.split_design(POOL.order, num_calibration=5)
    plan, _ = plans.trial_plan(POOL, design, design.budgets(LEVELS), means=True)
    places, _, num_blocks = plan.planes.order.row.shape
    for size, expected in ((2 * places * num_blocks * 8, 8), (2 * places * num_blocks * 8 - 1, 4)):
        monkeypatch.setattr(plans, "_CACHE", size)
        assert plans.usual_tile(plan, "cpu", 2) == expected
        assert plans.usual_tile(plan, "cpu", 1) == 2 * expected  # each of its kernels has threads
    assert plans.usual_tile(plan, "gpu", 1) == plans.usual_tile(plan, "gpu", 8) == 1 << 16
    monkeypatch.setattr(plans, "most_lanes", lambda plan: 5)
    assert plans.usual_tile(plan, "cpu", 1) == plans.usual_tile(plan, "gpu", 1) == 5


def test_numbers_of_trials_at_their_limits(known):
    stream(3, first_trial=2**32 - 3)
    stream(1, first_trial=0)
    for num, first, message in (
        (4, 2**32 - 3, r"trials are numbered below 2\*\*32, got first_trial 4294967293"),
        (0, 0, "num_trials must be at least 1, got 0"),
        (1, -1, "first_trial must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            stream(num, first_trial=first)
        with pytest.raises(ValueError, match=message):
            split_trials(KEY, POOL, num_calibration=5, alpha=0.5, num_trials=num, first_trial=first)
    for options, message in (
        ({"bins": 1}, "bins must be at least 2, got 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            stream(3, **options)
    assert stream(3, bins=2, chunk_size=1)["risk"].histogram.shape == (2, 2)
