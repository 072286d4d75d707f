"""Ctrl-C at any moment of a real process: one line, status 130, nothing half written."""

import gc
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from racer_jax import __main__ as entry
from racer_jax.data import save
from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.racer import Racer
from racer_jax.routers import KNNConfig
from tests.racer.test_racer import table_of

LINE = b"racer-jax: interrupted\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a table and a calibrated artefact."""
    folder = tmp_path_factory.mktemp("interrupts")
    rng = np.random.default_rng(4)
    train, calibration = table_of(rng, 80).table, table_of(rng, 80, start=500).table
    save(train, folder / "train.npz")
    encoder = ReducedEncoder.fit(jax.random.key(0), train.texts, 8, HashedNgrams(dim=64))
    Racer.fit(jax.random.key(1), train, KNNConfig(k=7), encoder).calibrate(calibration, 0.3).save(
        folder / "my.racer"
    )
    return folder


@pytest.fixture
def started():
    """Starts the command as a shell does; ends what is left of it."""
    processes = []

    def start(*words, options=(), **more):
        before = signal.getsignal(signal.SIGINT)
        # Where these tests run in the background of a script, the signal is ignored, and children
        # would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            more = {
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **more,
            }
            processes.append(
                subprocess.Popen(
                    [sys.executable, *options, "-m", "racer_jax", *map(str, words)], **more
                )
            )
        finally:
            signal.signal(signal.SIGINT, before)
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def interrupted(process):
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


@pytest.mark.long
def test_while_it_waits_for_input(made, started):
    process = started("route", made / "my.racer", "--input", "-", "--batch", "1")
    process.stdin.write(b'{"text": "first?", "group": "a"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["group"] == "a"  # it streams
    time.sleep(0.05)
    assert interrupted(process) == (130, LINE)


@pytest.mark.long
@pytest.mark.parametrize("module", ["argparse", "numpy", "jax", "flax.nnx"])
def test_while_it_imports(made, started, module, tmp_path):
    """Python tells when an import is done.

    The first of ours, two in the middle, and one that `train` adds.
    """
    folder = tmp_path / "new.racer"
    process = started("train", made / "train.npz", "-o", folder, options=["-X", "importtime"])
    for line in process.stderr:
        if re.fullmatch(rb"import time: .*\|\s+" + re.escape(module.encode()), line.rstrip()):
            break
    else:
        pytest.fail(f"{module} was never imported")
    status, told = interrupted(process)
    left = [line for line in told.splitlines(keepends=True) if not line.startswith(b"import time:")]
    assert (status, b"".join(left)) == (130, LINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_while_it_trains(made, started, tmp_path):
    """At moments that fall where they fall: either nothing was done, or all of it."""
    for delay in (0.3, 1.5):
        process = started("train", made / "train.npz", "-o", tmp_path / "new.racer")
        time.sleep(delay)
        status, told = interrupted(process)
        left = [path.name for path in tmp_path.iterdir()]
        assert (status, told, left) in [(130, LINE, []), (0, b"", ["new.racer"])]


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full(made, started):
    with open("/dev/full", "wb") as full:
        _, told = started("data", "summary", made / "train.npz", stdout=full).communicate(
            timeout=60
        )
    assert told.startswith(b"racer-jax: No space left on device\n")


def test_an_interrupt_lost_in_a_callback_comes_again():
    """Python prints an exception in a finalizer and goes on.

    The second time it is raised where it can be passed on.
    """
    code = """
import signal, sys, time
from racer_jax import __main__ as entry

class Callback:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, entry._raise)
sys.unraisablehook = entry._unraisable
try:
    Callback()
    for _ in range(500):
        time.sleep(0.01)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.fixture
def handlers(monkeypatch):
    """The entry in this process; the handlers are put back."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(entry, "_state", entry._State())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    gc.enable()
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_became_another_error(handlers, monkeypatch, capfd):
    def garbles(imported):
        imported()
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)  # at once: the same Ctrl-C
            raise RuntimeError("made of it by a library") from None

    ended = []
    monkeypatch.setattr("racer_jax.cli.main.main", garbles)
    monkeypatch.setattr("os._exit", ended.append)
    entry.main()
    assert ended == [130]
    assert capfd.readouterr().err == LINE.decode()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_errors_and_statuses_are_left_alone(handlers, monkeypatch):
    def fails(imported):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("racer_jax.cli.main.main", fails)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        entry.main()
    monkeypatch.setattr("racer_jax.cli.main.main", lambda imported: 3)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert entry.main() == 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


@pytest.mark.long
@pytest.mark.parametrize("module", ["argparse", "jax", "uvicorn"])
def test_a_server_is_not_ended_by_what_asks_it_to_reload(made, started, module, tmp_path):
    """Python tells when an import is done; any other command ends by SIGHUP, as it should."""
    config = tmp_path / "gateway.toml"
    config.write_text(
        f"""
[models.small]
base_url = "http://127.0.0.1:1/v1"
[models.medium]
base_url = "http://127.0.0.1:1/v1"
[models.large]
base_url = "http://127.0.0.1:1/v1"
[routes.my]
artefact = "{made / "my.racer"}"
judge = "large"
[server]
port = 0
admin_port = 0
"""
    )
    process = started("serve", config, options=["-X", "importtime"])
    for line in process.stderr:
        if re.fullmatch(rb"import time: .*\|\s+" + re.escape(module.encode()), line.rstrip()):
            process.send_signal(signal.SIGHUP)
            break
    else:
        pytest.fail(f"{module} was never imported")
    drained = threading.Thread(target=process.stderr.read)
    drained.start()
    assert process.stdout.readline().startswith(b"ready: ")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    drained.join()


@pytest.mark.parametrize(
    ("words", "is_held"),
    [
        (["serve", "gateway.toml"], True),
        (["--verbose", "serve"], True),
        (["route", "my.racer", "serve"], False),
        ([], False),
    ],
)
def test_only_a_server_outlives_the_end_of_its_terminal(words, is_held, monkeypatch):
    before = signal.getsignal(signal.SIGHUP)
    monkeypatch.setattr(sys, "argv", ["racer-jax", *words])
    try:
        entry._hold_reloads()
        assert (signal.getsignal(signal.SIGHUP) is entry._read_later) == is_held
    finally:
        signal.signal(signal.SIGHUP, before)
