"""Feedback in a file or a stream: counted once, by one process at a time, and on disk in time."""

import io
import json
import threading
import time

import pytest

from racer_jax.data import DataError
from racer_jax.serving.feedback import Entries, MonitorOptions, count, open_monitor
from racer_jax.serving.monitor import ExchangeabilityMonitor, RiskMonitor
from racer_jax.serving.state_file import StateKeeper, alone_with, is_regular


def entries(monitor, *lines, resume=False):
    return Entries(monitor, io.BytesIO("\n".join(lines).encode()), "f", resume=resume)


def counted(monitor, *lines, resume=False):
    for entry in entries(monitor, *lines, resume=resume):
        monitor = count(monitor, entry)
    return monitor


def test_lines_that_were_counted_are_left_out():
    lines = [json.dumps({"missed": i % 2, "position": 10 * (i + 1)}) for i in range(6)]
    half = counted(RiskMonitor(0.1), *lines[:3])
    assert (half.num, half.misses, half.position) == (3, 1, 30)
    again = entries(half, *lines)
    whole = half.update([e.value for e in again])
    assert (again.skipped, again.position, whole.num) == (3, 60, 6)
    assert counted(half, *lines) == counted(RiskMonitor(0.1), *lines)


def test_a_file_that_grows_is_counted_from_where_it_ended():
    lines = ["1", "", "0", '{"missed": 1}']
    half = counted(RiskMonitor(0.1), *lines[:3], resume=True)
    assert (half.num, half.position) == (2, 3)
    assert counted(half, *lines, resume=True).num == 3
    with pytest.raises(DataError, match="line 1: carries a position of its own"):
        counted(half, '{"missed": 0, "position": 5}', resume=True)


def test_without_positions_everything_counts():
    assert counted(counted(RiskMonitor(0.1), "0", "1"), "0", "1").num == 4


@pytest.mark.parametrize("position", ["0", "-1", "1.5", "true", '"7"', str(2**63), "1" + "0" * 200])
def test_positions_that_are_none(position):
    with pytest.raises(DataError, match="line 1: 'position' must be a whole number"):
        counted(RiskMonitor(0.1), f'{{"missed": 0, "position": {position}}}')


@pytest.mark.parametrize(
    "line", ["1" + "0" * 400, "1" + "0" * 5000, "[" * 100_000, '{"a": ' * 50_000, '"\\ud800"']
)
@pytest.mark.parametrize("monitor", [RiskMonitor(0.1), ExchangeabilityMonitor((0.5,))])
def test_lines_that_are_none_are_data_errors(monitor, line):
    with pytest.raises(DataError, match="f, line 1: ") as error:
        counted(monitor, line)
    assert len(str(error.value)) < 300


def eventually(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def test_the_state_is_never_far_behind(tmp_path):
    state = tmp_path / "state.json"
    monitor = RiskMonitor(0.1)
    with StateKeeper(state, monitor, seconds=0.02, queries=10) as keeper:
        keeper.count(keeper.monitor.update([0]))
        assert eventually(lambda: state.exists() and RiskMonitor.load(state).num == 1)
        for _ in range(25):
            keeper.count(keeper.monitor.update([0]))
            assert keeper.monitor.num - RiskMonitor.load(state).num < 10
        # the stream says nothing for a while
        assert eventually(lambda: RiskMonitor.load(state).num == 26)
        keeper.count(keeper.monitor.update([1]))
    assert RiskMonitor.load(state) == keeper.monitor


def test_whatever_ends_the_stream_is_no_loss(tmp_path):
    state = tmp_path / "state.json"

    def stream():
        with StateKeeper(state, RiskMonitor(0.1), seconds=60) as keeper:
            keeper.count(keeper.monitor.update([0, 1]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream()
    assert RiskMonitor.load(state).num == 2


def test_a_disk_that_is_full_is_said_at_the_next_query(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    def stream():
        with StateKeeper(tmp_path / "s.json", RiskMonitor(0.1), seconds=0.01) as keeper:
            keeper.count(keeper.monitor.update([0]))
            with monkeypatch.context() as patch:
                patch.setattr(RiskMonitor, "save", full)
                keeper.monitor = keeper.monitor.update([0])
                assert eventually(lambda: keeper._error is not None)
            keeper.count(keeper.monitor.update([0]))

    with pytest.raises(OSError, match="No space left"):
        stream()
    assert RiskMonitor.load(tmp_path / "s.json").num == 3  # saved once more at the end


def test_writers_of_one_state_wait_for_each_other(tmp_path):
    state, start = tmp_path / "state.json", MonitorOptions(alpha="0.1")

    def writer():
        for _ in range(5):
            with alone_with(state):
                monitor = open_monitor(state, start)
                monitor.update([0] * 7).save(state)

    threads = [threading.Thread(target=writer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert RiskMonitor.load(state).num == 4 * 5 * 7
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    with (
        alone_with(state),
        pytest.raises(DataError, match="in use by another monitor"),
    ):
        alone_with(state, patience=0.01).__enter__()


def test_what_is_a_file_that_ends(tmp_path):
    import os

    (tmp_path / "f").write_bytes(b"1\n")
    with (tmp_path / "f").open("rb") as file:
        assert is_regular(file)
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert not is_regular(pipe)
    assert not is_regular(io.BytesIO())
