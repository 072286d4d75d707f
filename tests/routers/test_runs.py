"""Long runs: checkpoints that resume bit for bit after a kill, streams, several devices, divergence."""

import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from racer_jax.routers.report import TrainingDivergedError
from racer_jax.routers.runs import Resident, Rounds, Streamed, train
from tests.devices import devices

pytestmark = pytest.mark.long

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = (X @ [1.0, -2.0, 0.5]).astype(np.float32)
OPTIMIZER = optax.adam(0.05)


def loss(params, batch, key):
    x, y = batch
    noise = 0.01 * jax.random.normal(key, y.shape)
    return ((x @ params["w"] + params["b"] - y + noise) ** 2).mean()


def run(folder=None, num_steps=30, batches=None, evaluate=None, **options):
    params = {"w": jnp.zeros(3), "b": jnp.zeros(())}
    batches = batches or Resident((jnp.asarray(X), jnp.asarray(Y)), 8)
    options = {"steps_per_round": 10} | options
    return train(
        jax.random.key(0),
        params,
        loss,
        OPTIMIZER,
        batches,
        Rounds(num_steps, folder=folder, **options),
        evaluate,
    )


@pytest.fixture(scope="module")
def plain():
    return run()


def test_learns_and_records_every_loss(plain):
    assert plain.losses.shape == (30,)
    assert np.isfinite(plain.losses).all()
    assert plain.losses[-5:].mean() < 0.5 * plain.losses[:5].mean()
    assert plain.resumed_at == 0
    assert np.isnan(plain.best_value)


def test_checkpoints_change_nothing_and_the_newest_are_kept(plain, tmp_path):
    checked = run(tmp_path)
    np.testing.assert_array_equal(checked.params["w"], plain.params["w"])
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"step-{s:09d}.safetensors" for s in (20, 30)
    ]
    finished = run(tmp_path)
    assert finished.resumed_at == 30
    np.testing.assert_array_equal(finished.params["w"], plain.params["w"])
    np.testing.assert_array_equal(finished.losses, plain.losses)


def test_a_damaged_checkpoint_costs_one_round(plain, tmp_path, caplog):
    run(tmp_path)
    newest = tmp_path / "step-000000030.safetensors"
    newest.write_bytes(newest.read_bytes()[:50])
    again = run(tmp_path)
    assert again.resumed_at == 20
    assert "step-000000030.safetensors cannot be read and is passed over" in caplog.text
    np.testing.assert_array_equal(again.params["w"], plain.params["w"])
    np.testing.assert_array_equal(again.losses, plain.losses)


def test_checkpoints_of_another_run_are_refused(tmp_path):
    run(tmp_path, settings={"rate": 1})
    for change in ({"settings": {"rate": 2}}, {"settings": {"rate": 1}, "num_steps": 40}):
        with pytest.raises(ValueError, match="is the checkpoint of another run"):
            run(tmp_path, **change)


def test_stream_of_batches_equals_resident_data(plain):
    from racer_jax.routers.training import batch_indices

    indices = np.asarray(batch_indices(jax.random.split(jax.random.key(0))[0], 40, 8, 0, 30))
    streamed = run(batches=Streamed(lambda step: (X[indices[step]], Y[indices[step]]), 8))
    np.testing.assert_allclose(streamed.params["w"], plain.params["w"], atol=1e-6)
    np.testing.assert_allclose(streamed.losses, plain.losses, atol=1e-6)


def test_the_best_parameters_are_kept():
    # A held-out loss that is lowest after the second of three rounds, while w[0] still grows.
    trace = []
    for steps in (10, 20, 30):
        trace.append(float(run(num_steps=steps).params["w"][0]))
    target = trace[1]
    best = run(evaluate=lambda params: jnp.abs(params["w"][0] - target))
    assert float(best.params["w"][0]) == pytest.approx(target, abs=1e-6)
    assert best.best_value == pytest.approx(0, abs=1e-6)


def test_divergence_keeps_the_last_good_checkpoint(plain, tmp_path):
    from racer_jax.routers.training import batch_indices

    indices = np.asarray(batch_indices(jax.random.split(jax.random.key(0))[0], 40, 8, 0, 30))

    def batch(step):
        return X[indices[step]], np.full(8, np.nan if step == 17 else 1, np.float32)

    with pytest.raises(
        TrainingDivergedError, match="not finite at step 17; the last good checkpoint is"
    ) as error:
        run(tmp_path, batches=Streamed(batch, 8))
    assert error.value.step == 17
    assert error.value.checkpoint == str(tmp_path / "step-000000010.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000010.safetensors"]
    with pytest.raises(TrainingDivergedError, match="at step 17; no checkpoint was written"):
        run(batches=Streamed(batch, 8))


CODE = """
import sys
import numpy as np
sys.path.insert(0, ".")
from tests.routers.test_runs import run
result = run(sys.argv[1], num_steps=400, steps_per_round=2)
np.savez(sys.argv[2], losses=result.losses, resumed_at=result.resumed_at, **result.params)
"""


def start(folder, out):
    return subprocess.Popen([sys.executable, "-c", CODE, str(folder), str(out)])


@pytest.mark.long
def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    folder = tmp_path / "run"
    for expected in (20, 90):
        process = start(folder, tmp_path / "never.npz")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if folder.is_dir() and any(
                int(path.stem[5:]) >= expected for path in folder.glob("step-*.safetensors")
            ):
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(folder, tmp_path / "resumed.npz").wait() == 0
    resumed = np.load(tmp_path / "resumed.npz")
    assert 90 <= resumed["resumed_at"] < 400
    whole = run(num_steps=400, steps_per_round=2)
    for name in ("w", "b"):
        np.testing.assert_array_equal(resumed[name], whole.params[name])
    np.testing.assert_array_equal(resumed["losses"], whole.losses)


@pytest.mark.long
def test_four_devices_equal_one(plain, tmp_path):
    code = f"""
import sys
import numpy as np
sys.path.insert(0, ".")
import jax
from racer_jax.encoders.text import data_mesh
from tests.routers.test_runs import run
assert jax.local_device_count() == 4
result = run(mesh=data_mesh())
np.savez({str(tmp_path / "out.npz")!r}, losses=result.losses, **result.params)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=devices(4))
    out = np.load(tmp_path / "out.npz")
    for name in ("w", "b"):
        np.testing.assert_allclose(out[name], plain.params[name], atol=1e-5)
    np.testing.assert_allclose(out["losses"], plain.losses, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"steps_per_round": 0}, "steps_per_round must be at least 1, got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)
