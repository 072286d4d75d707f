"""Files are locked by one at a time, and nothing is left of a lock."""

import os
import stat
import threading

import pytest

from racer_jax._files import written_whole
from racer_jax.data import locks
from racer_jax.data.locks import locked

fcntl = pytest.importorskip("fcntl", reason="the system has no lock")


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path):
    path, inside, most = tmp_path / "lock", [], []

    def work():
        for _ in range(30):
            with locked(path) as alone:
                inside.append(alone)
                most.append(len(inside))
                inside.pop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most == [1] * 120
    assert not path.exists()


def test_who_waited_for_a_lock_that_was_removed_takes_the_new_one(tmp_path, monkeypatch):
    path, real, calls = tmp_path / "lock", fcntl.flock, []

    def flock(handle, operation):
        calls.append(operation)
        if len(calls) == 1:  # its holder removes the file just before it is locked here
            path.unlink()
        real(handle, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(path) as alone:
        assert alone
        assert path.exists()
    assert len(calls) == 3


def test_a_lock_that_is_held_for_too_long_is_reported(tmp_path):
    with (
        locked(tmp_path / "lock"),
        pytest.raises(TimeoutError, match=r"has held the lock for 0\.01 s.*lock"),
        locked(tmp_path / "lock", patience=0.01),
    ):
        pass


def test_where_there_can_be_no_lock_the_work_goes_on(tmp_path, monkeypatch):
    with locked(tmp_path / "missing" / "lock") as alone:
        assert not alone
    monkeypatch.setattr(locks, "fcntl", None)
    with locked(tmp_path / "lock") as alone:
        assert not alone
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_new_files_have_the_mode_of_the_umask_which_is_not_touched(tmp_path, monkeypatch, mask):
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            with written_whole(tmp_path / "a.txt") as file:
                file.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~mask
