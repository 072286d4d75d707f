"""C code that is compiled where it is used: kept whole, made anew, and done without."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from racer_jax import _c_code
from racer_jax._c_code import c_compiler, c_library, processor

needs_compiler = pytest.mark.skipif(c_compiler() is None, reason="no C compiler")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "seven.c"
    path.write_text("int seven(void) { return NUMBER; }\n")
    return path


@pytest.fixture
def made(monkeypatch):
    """How often the compiler was called."""
    calls, run = [], subprocess.run

    def counted(command, **options):
        calls.append(command)
        return run(command, **options)

    monkeypatch.setattr(_c_code.subprocess, "run", counted)
    return calls


@needs_compiler
def test_code_is_kept_and_read_again(source, made, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    for _ in range(3):
        assert c_library(source, ["-DNUMBER=7"], ["seven"], folder).seven() == 7
    assert len(made) == 1
    assert (
        c_library(source, ["-DNUMBER=8"], ["seven"], folder).seven() == 8
    )  # other options, other code
    source.write_text("int seven(void) { return NUMBER + 1; }\n")
    assert c_library(source, ["-DNUMBER=8"], ["seven"], folder).seven() == 9
    assert len(made) == 3
    assert all(path.name.startswith("racer_jax-") for path in folder.iterdir())
    assert len(list(folder.iterdir())) == 3


@needs_compiler
def test_without_a_folder_each_call_makes_it_and_leaves_nothing(
    source, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(_c_code.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    libraries = [c_library(source, ["-DNUMBER=7"], ["seven"], None) for _ in range(2)]
    assert [library.seven() for library in libraries] == [7, 7]
    assert len(made) == 2
    assert list((tmp_path / "temporary").iterdir()) == []


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "text", "folder", "pipe"])
def test_what_is_damaged_is_made_anew(source, made, tmp_path, damage):
    folder = tmp_path / "kept"
    folder.mkdir()
    c_library(source, ["-DNUMBER=7"], ["seven"], folder)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.unlink()  # the library that is loaded stays as it is
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    else:
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(
            {"cut": content[:middle], "changed": changed, "empty": b"", "text": b"no code"}[damage]
        )
    assert c_library(source, ["-DNUMBER=7"], ["seven"], folder).seven() == 7
    assert len(made) == 2
    assert path.read_bytes() == content


@needs_compiler
def test_where_nothing_can_be_kept_it_says_so_and_goes_on(source, tmp_path):
    with pytest.warns(RuntimeWarning, match="compiled code cannot be kept in .*: each process"):
        assert c_library(source, ["-DNUMBER=7"], ["seven"], tmp_path / "absent").seven() == 7


@needs_compiler
def test_a_compiler_that_fails_is_named(source):
    with pytest.warns(RuntimeWarning, match=r"cannot compile seven.c, so JAX .*RACER_JAX_CC=none"):
        assert c_library(source, ["-DNUMBER=nothing"], ["seven"], None) is None


def compiler_at(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@needs_compiler
def test_what_lacks_a_function_is_no_code_and_is_not_kept(source, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    with pytest.warns(RuntimeWarning, match="has no eight and no nine"):
        assert c_library(source, ["-DNUMBER=7"], ["seven", "eight", "nine"], folder) is None
    assert list(folder.iterdir()) == []
    # Nor is it read, were it there.
    assert c_library(source, ["-DNUMBER=7"], ["seven"], folder).seven() == 7
    with pytest.warns(RuntimeWarning, match="has no eight"):
        assert c_library(source, ["-DNUMBER=7"], ["eight"], folder) is None


def test_a_file_that_is_not_there_is_no_code(tmp_path):
    with pytest.warns(RuntimeWarning, match=r"cannot compile absent.c, .*No such file"):
        assert c_library(tmp_path / "absent.c", [], ["seven"], None) is None


def test_the_compiler_is_the_one_that_is_named(source, tmp_path, monkeypatch):
    named = compiler_at(tmp_path / "my-cc", "echo out of order >&2; exit 1")
    monkeypatch.setenv("RACER_JAX_CC", named)
    assert c_compiler() == named
    with pytest.warns(RuntimeWarning, match=r"my-cc cannot compile .*\(out of order\)"):
        assert c_library(source, ["-DNUMBER=7"], ["seven"], None) is None
    compiler_at(tmp_path / "my-cc", r"printf '\374ber\n' >&2; exit 1")  # not UTF-8
    with pytest.warns(RuntimeWarning, match=r"my-cc cannot compile .*\(.ber\)"):
        assert c_library(source, ["-DNUMBER=7"], ["seven"], None) is None
    monkeypatch.setattr(_c_code, "_SECONDS", 0.2)
    compiler_at(tmp_path / "my-cc", "exec sleep 30")
    with pytest.warns(RuntimeWarning, match="timed out"):
        assert c_library(source, ["-DNUMBER=7"], ["seven"], None) is None


@needs_compiler
def test_a_compiler_that_does_not_know_the_options_of_gcc(source, tmp_path, monkeypatch):
    real = c_compiler()
    choosy = f'case "$*" in *-fpeel-loops*) echo unknown >&2; exit 1;; esac; exec {real} "$@"'
    monkeypatch.setenv("RACER_JAX_CC", compiler_at(tmp_path / "clang", choosy))
    assert c_library(source, ["-DNUMBER=7"], ["seven"], None).seven() == 7


@pytest.mark.parametrize("name", ["none", "no-such-compiler-is-here"])
def test_without_a_compiler_there_is_no_code_and_no_warning(source, tmp_path, monkeypatch, name):
    monkeypatch.setenv("RACER_JAX_CC", name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert c_compiler() is None
        assert c_library(source, ["-DNUMBER=7"], ["seven"], tmp_path) is None


@needs_compiler
def test_kept_code_needs_no_compiler_and_none_means_none(source, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    folder.mkdir()
    c_library(source, ["-DNUMBER=7"], ["seven"], folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda _: None)
        assert c_compiler() is None
        assert c_library(source, ["-DNUMBER=7"], ["seven"], folder).seven() == 7
    # What another compiler was asked for is no longer this one's.
    monkeypatch.setenv("RACER_JAX_CC", "no-such-compiler-is-here")
    assert c_library(source, ["-DNUMBER=7"], ["seven"], folder) is None
    monkeypatch.setenv("RACER_JAX_CC", "none")
    assert c_library(source, ["-DNUMBER=7"], ["seven"], folder) is None


def test_compilers_are_looked_for_by_name(monkeypatch):
    monkeypatch.delenv("RACER_JAX_CC", raising=False)
    asked = []
    monkeypatch.setattr(shutil, "which", lambda name: asked.append(name))
    assert c_compiler() is None
    assert asked == ["cc", "gcc", "clang"]
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name == "gcc" else None)
    assert c_compiler() == "/bin/gcc"


@needs_compiler
def test_a_library_that_cannot_be_loaded_is_no_library(source, monkeypatch):
    def refused(path):
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "CDLL", refused)
    with pytest.warns(RuntimeWarning, match="failed to map segment"):
        assert c_library(source, ["-DNUMBER=7"], ["seven"], None) is None


def test_processors(monkeypatch):
    text = (
        "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nflags\t\t: fpu avx2 bmi2\n\n"
        "processor\t: 1\nflags\t\t: other\n\n"
    )
    processor.cache_clear()
    opened = []

    class File:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _):
            return text

    monkeypatch.setattr("builtins.open", lambda path, **_: opened.append(path) or File())
    found = processor()
    monkeypatch.undo()
    assert opened == ["/proc/cpuinfo"]
    assert found == (frozenset({"fpu", "avx2", "bmi2"}), "AuthenticAMD", 25)
    processor.cache_clear()

    def absent(path, **_):
        raise FileNotFoundError(path)

    monkeypatch.setattr("builtins.open", absent)
    nothing = processor()
    monkeypatch.undo()
    processor.cache_clear()
    assert nothing == (frozenset(), "", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="for Linux")
def test_this_processor():
    flags, _, family = processor()
    assert isinstance(family, int)
    assert flags == frozenset(
        next(
            (
                line.partition(":")[2].split()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("flags")
            ),
            [],
        )
    )
