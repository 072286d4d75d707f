"""Files that are written whole or not at all, and by whom."""

import ast
import errno
import os
from pathlib import Path

import pytest

import racer_jax
from racer_jax._files import check_folder, make_way, read_kept, written_whole
from racer_jax.montecarlo.summaries import Checkpoint

PACKAGE = Path(racer_jax.__file__).parent
# Who moves a file or a folder into place by hand, and why: nobody who could ask `written_whole`.
BY_HAND = {
    "_files.py": "does it for all",
    "racer/artefact.py": "moves a whole folder",
    "data/download.py": "goes on with the part of an earlier attempt",
}


def moves(path):
    """Whether a file calls `os.replace`, `os.rename` or the methods of a path of these names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # The `replace` of a string takes two arguments, that of a path one. A variable of Flax
            # has it too.
            holder, name = ast.unparse(node.func.value), node.func.attr
            of_a_path = len(node.args) == 1 and not node.keywords and holder != "variable"
            if name in ("rename", "replace") and (holder == "os" or of_a_path):
                return True
    return False


def test_files_are_moved_into_place_by_one_function():
    moving = {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if moves(p)}
    assert moving == set(BY_HAND)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("before")

    def write():
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file.json", "before")]


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("racer_jax.montecarlo.summaries.os.fsync", full)
    with pytest.raises(OSError, match="No space") as raised:
        Checkpoint(tmp_path / "state.npz", 1.0, "run").save({})
    assert raised.value.filename == str(tmp_path / "state.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    from racer_jax.racer import signatures

    class Full:
        def __enter__(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(signatures, "open", lambda *_: Full(), raising=False)
    with pytest.raises(OSError, match="No space"):
        signatures.new_signing_key(tmp_path / "key.pem")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkdir(tmp_path / "folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "folder", "loop", "absent"):
        with pytest.raises(OSError, match=name):
            read_kept(tmp_path / name)
    (tmp_path / "file").write_bytes(b"content")
    assert read_kept(tmp_path / "file") == b"content"
    for name in ("pipe", "folder", "file", "absent"):
        make_way(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "loop", "file"}


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("s3://bucket/x", "is an address"),
        ("file", "must be a folder to write to, got a file"),
        ("file/x/y", "must be a folder to write to, got a file"),
        ("pipe", "must be a folder to write to, got a pipe"),
        ("nowhere", "got a link that leads nowhere"),
        ("to_file", "got a link to a file"),
    ],
)
def test_what_is_no_place_for_a_folder(place, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    os.mkfifo("pipe")
    Path("nowhere").symlink_to("absent")
    Path("to_file").symlink_to("file")
    for written in (True, False):
        with pytest.raises(OSError, match=problem):
            check_folder(place, written=written)


def test_a_folder_that_cannot_be_written_to_may_be_read(tmp_path, monkeypatch):
    check_folder(tmp_path / "new" / "folder")
    allowed = os.access
    monkeypatch.setattr(  # for root every folder is writable
        os, "access", lambda path, mode: not mode & os.W_OK and allowed(path, mode)
    )
    for folder in (tmp_path, tmp_path / "new" / "folder"):
        check_folder(folder, written=False)
        with pytest.raises(PermissionError, match="cannot be written to") as refused:
            check_folder(folder)
        assert refused.value.filename == str(tmp_path)
