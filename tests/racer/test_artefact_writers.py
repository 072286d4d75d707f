"""Writers of one artefact: with the lock and without it, with a rival, and where the disk refuses."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from racer_jax.racer import artefact
from racer_jax.racer.errors import ArtefactError, CorruptError


def save(path, number=1, size=4):
    artefact.write(path, {"models": ["a"], "number": number}, {"x": np.full(size, number)})


def names(path):
    return {entry.name for entry in path.iterdir()} - {".lock"}


def number_in(path):
    description, arrays = artefact.read(path)
    assert (arrays["x"] == description["number"]).all()
    return description["number"]


def without_lock(monkeypatch):
    """Another process holds the lock, or the file system has none."""

    @contextmanager
    def locked(path):
        yield False

    monkeypatch.setattr(artefact, "locked", locked)


LEFT = (
    "arrays-0123456789abcdef.safetensors",
    "arrays-0123456789abcdef-0123456789ab.safetensors",
    ".racer.json.12.tmp",
    ".arrays-0123456789abcdef.safetensors.12.tmp",
)
OTHERS = (
    "arrays-0123456789abcdef.safetensors.bak",
    "arrays-0.safetensors",
    "notes.txt",
    "racer.js",
)


def test_with_the_lock_what_no_description_names_is_removed_and_the_rest_kept(tmp_path):
    path = tmp_path / "a"
    save(path)
    for name in (*LEFT, *OTHERS):
        (path / name).write_text("x")
    save(path, 2)
    assert names(path) - set(OTHERS) == {"racer.json", json_of(path)["arrays"]["file"]}
    assert names(path) >= set(OTHERS)
    assert number_in(path) == 2


def json_of(path):
    return json.loads((path / "racer.json").read_text())


def test_without_the_lock_only_the_arrays_replaced_are_removed(tmp_path, monkeypatch):
    path = tmp_path / "a"
    save(path)
    before = json_of(path)["arrays"]["file"]
    (path / LEFT[0]).write_text("of another writer")
    without_lock(monkeypatch)
    save(path, 2)
    after = json_of(path)["arrays"]["file"]
    assert names(path) == {"racer.json", after, LEFT[0]}
    assert before != after
    assert number_in(path) == 2
    # The same content twice has two names, so that none removes what the other has written.
    save(path, 2)
    assert json_of(path)["arrays"]["file"] != after
    assert number_in(path) == 2


def test_with_the_lock_a_file_is_named_after_its_content_alone(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b")
    one, other = (json_of(tmp_path / name)["arrays"]["file"] for name in "ab")
    assert one == other
    assert len(one) == len("arrays-0123456789abcdef.safetensors")
    written = os.stat(tmp_path / "a" / one).st_mtime_ns
    save(tmp_path / "a")
    assert json_of(tmp_path / "a")["arrays"]["file"] == one
    assert written <= os.stat(tmp_path / "a" / one).st_mtime_ns
    assert number_in(tmp_path / "a") == 1


def test_a_description_that_cannot_be_read_loses_no_arrays(tmp_path):
    path = tmp_path / "a"
    save(path)
    arrays = json_of(path)["arrays"]["file"]
    (path / "racer.json").write_text("{")
    save(path, 2)  # it may have been right a moment ago: its arrays go only once they are replaced
    assert number_in(path) == 2
    assert arrays not in names(path)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("refused", ["racer.json", "arrays"])
def test_where_the_disk_refuses_the_old_version_stays(tmp_path, monkeypatch, is_new, refused):
    path, real = tmp_path / "a", artefact._write_synced
    if not is_new:
        save(path)
    before = None if is_new else names(path)

    def write(file, content):
        if file.name.startswith(refused):
            raise OSError(28, "No space left on device")
        real(file, content)

    monkeypatch.setattr(artefact, "_write_synced", write)
    with pytest.raises(OSError, match="No space left"):
        save(path, 2)
    if is_new:
        assert not path.exists()
        assert {entry.name for entry in tmp_path.iterdir()} <= {".a.lock"}
    else:
        assert names(path) == before
        assert number_in(path) == 1


def test_a_failure_after_the_description_stands_keeps_the_arrays_it_names(tmp_path, monkeypatch):
    path, real = tmp_path / "a", artefact._write_synced
    save(path)

    def write(file, content):
        real(file, content)
        if file.name == "racer.json":
            raise KeyboardInterrupt

    monkeypatch.setattr(artefact, "_write_synced", write)
    with pytest.raises(KeyboardInterrupt):
        save(path, 2)
    assert number_in(path) == 2


def test_a_rival_that_was_faster_is_replaced(tmp_path, monkeypatch):
    path, real = tmp_path / "a", os.rename
    save(tmp_path / "rival", 7)

    def rename(source, target):
        real(tmp_path / "rival", target)  # on a file system without locks
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    save(path, 2)
    assert number_in(path) == 2
    assert {entry.name for entry in tmp_path.iterdir()} <= {"a", ".a.lock", ".rival.lock"}


def test_a_folder_that_cannot_be_moved_is_said(tmp_path, monkeypatch):
    def rename(source, target):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="not permitted"):
        save(tmp_path / "a")
    assert {entry.name for entry in tmp_path.iterdir()} <= {".a.lock"}


def test_without_the_lock_a_rivals_unfinished_folder_stays(tmp_path, monkeypatch):
    (tmp_path / ".a.partial-0").mkdir()
    without_lock(monkeypatch)
    save(tmp_path / "a")
    assert (tmp_path / ".a.partial-0").is_dir()
    assert number_in(tmp_path / "a") == 1


def test_places(tmp_path):
    deep = tmp_path / "x" / "y" / "a"
    save(deep)
    assert number_in(deep) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    save(empty)
    assert number_in(empty) == 1
    killed = tmp_path / "killed"  # what a kill leaves in a folder that was empty
    killed.mkdir()
    for name in (*LEFT, ".lock"):
        (killed / name).write_text("x")
    save(killed)
    assert number_in(killed) == 1
    for name in OTHERS:
        other = tmp_path / f"with-{name}"
        other.mkdir()
        (other / name).write_text("x")
        with pytest.raises(ArtefactError, match="got a folder with other files"):
            save(other)
        assert names(other) == {name}
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="must be a folder to write an artefact to, got a file"):
        save(tmp_path / "file")


# --- readers --------------------------------------------------------------------------------------


def test_a_reader_starts_again_while_writers_replace_what_it_reads(tmp_path, monkeypatch):
    path, real, times = tmp_path / "a", artefact._content, []
    save(path)

    def content(file):
        times.append(file.name)
        if file.name != "racer.json" and len(times) < 7:
            save(path, len(times))  # between the two reads
            raise FileNotFoundError(2, "No such file")
        return real(file)

    monkeypatch.setattr(artefact, "_content", content)
    assert number_in(path) == 6
    assert len(times) == 8


@pytest.mark.parametrize(("reads", "is_read"), [(3, False), (4, True)])
def test_a_reader_gives_up_in_the_end(tmp_path, monkeypatch, reads, is_read):
    path, real, lost = tmp_path / "a", artefact._content, []
    save(path)
    monkeypatch.setattr(artefact, "_READS", reads)

    def content(file):
        if file.name != "racer.json" and len(lost) < 3:
            lost.append(file.name)
            save(path, len(lost) + 1)
            raise FileNotFoundError(2, "No such file")
        return real(file)

    monkeypatch.setattr(artefact, "_content", content)
    if is_read:
        assert number_in(path) == 4
    else:
        with pytest.raises(CorruptError, match=r"arrays-.*: file not found"):
            artefact.read(path)


def test_a_file_of_arrays_that_is_lost_or_none(tmp_path):
    path = tmp_path / "a"
    save(path)
    arrays = path / json_of(path)["arrays"]["file"]
    content = arrays.read_bytes()
    arrays.unlink()
    with pytest.raises(CorruptError, match=r"arrays-.*: file not found"):
        artefact.read(path)
    os.mkfifo(arrays)  # nobody waits for it
    with pytest.raises(ArtefactError, match="must be a file"):
        artefact.read(path)
    arrays.unlink()
    arrays.write_bytes(content + b"x")
    with pytest.raises(CorruptError, match="the checksum does not fit: the file is not what was"):
        artefact.read(path)


def rewritten(path, **changes):
    """A description with other content and a checksum that fits."""
    full = {**json_of(path), **changes}
    full["checksum"] = artefact._checksum(full)
    (path / "racer.json").write_text(json.dumps(full))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 0}, "format must be at least 1, got 0"),
        ({"format": True}, "must be the description of an artefact, with a format"),
        ({"format": 3.0}, "must be the description of an artefact, with a format"),
        (
            {"format": artefact.FORMAT + 1},
            "has format 4; this version of racer_jax reads formats up to 3",
        ),
        ({"models": "a"}, "the pool was changed after the artefact was made"),
        ({"models": ["b"]}, "the pool was changed after the artefact was made"),
        ({"arrays": None}, "arrays.file must name a file beside it"),
        ({"arrays": {"file": 3}}, "arrays.file must name a file beside it"),
        ({"arrays": {"file": "../arrays-0123456789abcdef.safetensors"}}, "must name a file beside"),
        ({"arrays": {"file": "arrays-0123456789abcdef.safetensors\n"}}, "must name a file beside"),
    ],
)
def test_descriptions_that_fit_their_checksum_and_nothing_else(tmp_path, changes, message):
    save(tmp_path / "a")
    rewritten(tmp_path / "a", **changes)
    with pytest.raises(ArtefactError, match=message):
        artefact.read(tmp_path / "a")


@pytest.mark.parametrize("form", [1, 2, artefact.FORMAT])
def test_older_formats_are_read(tmp_path, form):
    save(tmp_path / "a")
    rewritten(tmp_path / "a", format=form)
    assert number_in(tmp_path / "a") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "must be JSON in UTF-8"),
        (b"{", "must be JSON: the file was cut or edited"),
        (b"[" * 100_000, "must be JSON: the file was cut or edited"),
        (b'{"format": NaN}', "must be JSON: the file was cut or edited"),
        (b'{"a": {"b": 1, "b": 1}}', "states 'b' twice"),
        (b"[1]", "must be the description of an artefact, with a format"),
        (b"3", "must be the description of an artefact, with a format"),
    ],
)
def test_texts_that_are_no_description(tmp_path, text, message):
    save(tmp_path / "a")
    (tmp_path / "a" / "racer.json").write_bytes(text)
    with pytest.raises(CorruptError, match=message):
        artefact.read(tmp_path / "a")
    assert artefact._name_in(tmp_path / "a" / "racer.json") is None


def test_folders_that_are_no_artefact(tmp_path):
    with pytest.raises(ArtefactError, match="folder not found"):
        artefact.read(tmp_path / "none")
    with pytest.raises(ArtefactError, match=r"racer\.json"):
        artefact.read(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtefactError, match="folder"):
        artefact.read(tmp_path / "file")
    (tmp_path / "racer.json").mkdir()
    with pytest.raises(ArtefactError, match=r"must be a file|cannot be read"):
        artefact.read(tmp_path)


def test_an_artefact_of_another_kind_is_named():
    artefact.check_kind({}, None, Path("a"))
    artefact.check_kind({"kind": "cascade"}, "cascade", Path("a"))
    with pytest.raises(
        ArtefactError, match=r"of a Cascade, not of a Racer: load it with Cascade\.load"
    ):
        artefact.check_kind({"kind": "cascade"}, None, Path("a"))
    with pytest.raises(
        ArtefactError, match=r"of a Racer, not of a Cascade: load it with Racer\.load"
    ):
        artefact.check_kind({}, "cascade", Path("a"))
