"""An artefact: a folder with `racer.json`, which people read, and one file of arrays that it names.

A reader always gets one whole version, whichever process writes or is killed:

- The arrays are written first, to a file named after their content; then `racer.json`, which names
  them, is replaced in one step. A new folder is filled beside its place and moved there whole.
- A writer holds a lock, so writers take turns and the last one wins. Under the lock it removes
  files that `racer.json` does not name: no other process writes, and a reader who was about to open
  such a file reads `racer.json` again. What a killed writer left is removed by the next one.
- Where there is no lock (Windows, some network disks), each version has a file name of its own,
  and a writer removes only the file that the `racer.json` it replaced had named.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from racer_jax._files import address_problem, blaming, check_folder, written_whole
from racer_jax.data.locks import locked
from racer_jax.racer.digests import named
from racer_jax.racer.errors import ArtefactError, CorruptError, NewerFormatError, OtherPoolError

if TYPE_CHECKING:
    import numpy as np

# 2 adds orders learned from training rows; 3 what calibration saw, the policy for unknown groups,
# the cap of the sets, and parts of a caller's own.
FORMAT = 3
DESCRIPTION = "racer.json"
_PREFIX, _SUFFIX = "arrays-", ".safetensors"
_ARRAYS = re.compile(r"arrays-[0-9a-f]{16}(-[0-9a-f]{12})?\.safetensors")
# Unfinished files, as `written_whole` names them.
_UNFINISHED = re.compile(r"\.(arrays-[0-9a-f-]+\.safetensors|racer\.json)\.\w+\.\w+")
_LOCK = ".lock"
# How often a reader starts again because a writer has just replaced what it was reading.
_READS = 100


def _checksum(description: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in description.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    """A file that is on the disk, whole, before anything refers to it."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def check_place(path: Path) -> None:
    """Refuses what is no place for an artefact: a file, or a folder that holds something else.

    Use this when a racer is about to be written to a folder.

    Raises:
      ArtefactError: If it is one, or an address.
      OSError: If a folder cannot be made there, or nothing can be written into it.
    """
    if problem := address_problem(path, written=True):
        raise ArtefactError(problem)
    if path.exists() and not path.is_dir():
        raise ArtefactError("must be a folder to write an artefact to, got a file", path=path)
    check_folder(path)
    if not path.is_dir() or (path / DESCRIPTION).exists():
        return
    if not all(_is_ours(entry.name) for entry in path.iterdir()):
        raise ArtefactError(
            "must be an artefact or an empty folder, got a folder with other files", path=path
        )


def _is_ours(name: str) -> bool:
    """Whether a file is one that a killed writer may have left in a folder that was empty."""
    return name == _LOCK or bool(_ARRAYS.fullmatch(name) or _UNFINISHED.fullmatch(name))


def write(
    path: str | os.PathLike[str], description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes an artefact, whole or not at all; safe beside other writers and readers of it.

    Use this when you write the parts of an object of your own; `Racer.save` does so for a racer.

    Args:
      path: The folder; it is made, or its artefact replaced.
      description: What `racer.json` shall say; plain values, `models` among them.
      arrays: Arrays by name.

    Raises:
      ArtefactError: If the path is a file, or a folder that holds something else.
      OSError: If the disk refuses, or another process holds the lock for minutes.
    """
    import numpy as np
    from safetensors.numpy import save as format_arrays

    path = Path(path)
    check_place(path)
    content = format_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    full = {
        "format": FORMAT,
        **description,
        "pool_fingerprint": named(description["models"]),
    }
    with blaming(path):
        if path.is_dir() or not _fill_new(path, full, content):
            check_place(path)
            _fill(path, full, content)


def _fill_new(path: Path, description: Mapping[str, Any], content: bytes) -> bool:
    """Fills a folder beside its place and moves it there whole; False if another was faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}.partial-"
    with locked(path.parent / f".{path.name}.lock") as alone:
        if alone:  # no other process makes this artefact, so what looks like it was left by a kill
            for entry in list(path.parent.iterdir()):
                if entry.name.startswith(prefix):
                    shutil.rmtree(entry, ignore_errors=True)
        beside = path.parent / f"{prefix}{secrets.token_hex(6)}"
        os.mkdir(beside)
        try:
            _write_version(beside, _new_name(content, unique=False), description, content)
            os.rename(beside, path)
        except OSError:
            if not path.is_dir():
                raise
            return False
        finally:
            with suppress(FileNotFoundError):
                shutil.rmtree(beside)
    return True


def _fill(folder: Path, description: Mapping[str, Any], content: bytes) -> None:
    """Puts a version in the place of the one a folder holds, or into an empty folder."""
    with locked(folder / _LOCK) as alone:
        before = _name_in(folder / DESCRIPTION)
        if alone and (before is not None or not (folder / DESCRIPTION).exists()):
            _remove_all_but(folder, before)
        name = _new_name(content, unique=not alone)
        try:
            _write_version(folder, name, description, content)
        except BaseException:
            if _name_in(folder / DESCRIPTION) != name:
                with suppress(OSError):
                    (folder / name).unlink()
            raise
        if alone:
            _remove_all_but(folder, name)
        elif before is not None and before != name:
            with suppress(OSError):
                (folder / before).unlink()


def _new_name(content: bytes, *, unique: bool) -> str:
    """The name of a file of arrays, after its content; where unique, no other has it."""
    suffix = f"-{secrets.token_hex(6)}" if unique else ""
    return f"{_PREFIX}{hashlib.sha256(content).hexdigest()[:16]}{suffix}{_SUFFIX}"


def _write_version(folder: Path, name: str, description: Mapping[str, Any], content: bytes) -> None:
    """The arrays first, then the description that names them."""
    arrays = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    full = {**description, "arrays": arrays}
    full["checksum"] = _checksum(full)
    text = json.dumps(full, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    _write_synced(folder / name, content)
    _write_synced(folder / DESCRIPTION, text.encode())


def _remove_all_but(folder: Path, name: str | None) -> None:
    """Removes the arrays that `racer.json` does not name, and unfinished files."""
    for entry in list(folder.iterdir()):
        if entry.name not in (name, _LOCK) and _is_ours(entry.name):
            with suppress(OSError):
                entry.unlink()


def _name_in(path: Path) -> str | None:
    """The file of arrays that a description names, None where it cannot be read."""
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["arrays"]["file"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) and _ARRAYS.fullmatch(name) else None


def read(
    path: str | os.PathLike[str], models: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads an artefact and checks every bit of it.

    Use this when you need description and arrays; `Racer.load` makes a racer of them.

    Args:
      path: The folder.
      models: The pool the caller has; None to take the artefact's.

    Returns:
      What `racer.json` says, and the arrays by name.

    Raises:
      ArtefactError: If the folder is not an artefact.
      NewerFormatError: If it was written by a newer version.
      CorruptError: If a checksum does not fit or a file is lost.
      OtherPoolError: If it is for other models, or for the same in another order.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse_arrays

    path = Path(path)
    description, content = _version(path)
    file = path / description["arrays"]["file"]
    if hashlib.sha256(content).hexdigest() != description["arrays"].get("sha256"):
        raise CorruptError("the checksum does not fit: the file is not what was written", path=file)
    try:
        arrays = parse_arrays(content)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"cannot be parsed: {error}", path=file) from None
    if models is not None and list(models) != description["models"]:
        raise OtherPoolError(
            f"was made for the models {description['models']}, got {list(models)}; scores and "
            f"thresholds hold for its own pool in its own order: train and calibrate again",
            path=path / DESCRIPTION,
        )
    return description, arrays


def _version(path: Path) -> tuple[dict[str, Any], bytes]:
    """A description and the bytes of the file it names, of one and the same version.

    Between the two reads a writer may have replaced the first and removed the second; then
    `racer.json` is another file than before, and the reader starts again.
    """
    last = None
    for _ in range(_READS):
        description, identity = _read_description(path)
        file = path / description["arrays"]["file"]
        try:
            return description, _content(file)[0]
        except FileNotFoundError:
            if identity == last:
                break
            last = identity
        except OSError as error:
            raise ArtefactError(f"cannot be read: {error.strerror or error}", path=file) from None
    raise CorruptError("file not found, though racer.json names it", path=file)


def _content(path: Path) -> tuple[bytes, tuple[int, int]]:
    """The bytes of a file and its identity; never waits for a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ArtefactError("must be a file", path=path)
        with open(handle, "rb", closefd=False) as file:
            return file.read(), (status.st_ino, status.st_mtime_ns)
    finally:
        os.close(handle)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a key that stands twice says one thing to a reader and another to us."""
    plain: dict[str, Any] = {}
    for name, value in pairs:
        if name in plain:
            raise _RepeatedKeyError(name)
        plain[name] = value
    return plain


class _RepeatedKeyError(Exception):
    """A key that stands twice in one object of JSON."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _absent(path: Path) -> str:
    """Why there is no description in what should be an artefact."""
    if path.is_dir():
        return f"not an artefact: this folder has no file {DESCRIPTION}"
    if path.exists():
        return "not an artefact: an artefact is a folder, got a file"
    return "folder not found"


def _read_description(path: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """What `racer.json` says, checked, and which file it was."""
    file = path / DESCRIPTION
    try:
        content, identity = _content(file)
    except (FileNotFoundError, NotADirectoryError):
        if problem := address_problem(path):
            raise ArtefactError(problem) from None
        raise ArtefactError(_absent(path), path=path) from None
    except OSError as error:
        raise ArtefactError(f"cannot be read: {error.strerror or error}", path=file) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptError("must be JSON in UTF-8", path=file) from None
    try:
        description = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
        checksum = _checksum(description) if isinstance(description, dict) else None
    except _RepeatedKeyError as error:
        raise CorruptError(f"states {str(error)!r} twice", path=file) from None
    except (ValueError, RecursionError):
        raise CorruptError("must be JSON: the file was cut or edited", path=file) from None
    _check_description(description, checksum, file)
    return description, identity


def description_of(path: Path) -> dict[str, Any] | None:
    """What `racer.json` of a folder says, without the arrays; None where there is none.

    Use this when you must know what an artefact is before it is replaced.

    Raises:
      ArtefactError: If it cannot be read.
    """
    return _read_description(path)[0] if (path / DESCRIPTION).exists() else None


def same_router(path: Path, other: Path) -> bool:
    """Whether two artefacts hold one router, trained on the same questions; not their calibration.

    Use this when you must know whether one replaces no more than the calibration of the other.

    Raises:
      ArtefactError: If one of them cannot be read.
    """
    import numpy as np

    if other.exists() and path.samefile(other):
        return True
    (first, first_arrays), (second, second_arrays) = read(path), read(other)
    same = all(first.get(name) == second.get(name) for name in ("kind", "router", "encoder"))
    return same and np.array_equal(first_arrays["trained_on"], second_arrays["trained_on"])


def checked_description(path: Path, kind: str | None) -> dict[str, Any]:
    """What `racer.json` says of an artefact of a kind; the arrays are not read.

    Use this when a wrong artefact shall be refused before anything is computed.

    Args:
      path: The folder.
      kind: None for a racer, `cascade` for a cascade.

    Raises:
      ArtefactError: If the folder is not an artefact, or one of another kind.
    """
    description = _read_description(path)[0]
    check_kind(description, kind, path)
    return description


def kind_of(path: Path) -> str | None:
    """What an artefact is of: `cascade`, or None for a racer.

    Use this when a command takes artefacts of either kind.

    Raises:
      ArtefactError: If the folder is not an artefact.
    """
    kind = _read_description(path)[0].get("kind")
    return None if kind is None else str(kind)


def check_kind(description: Mapping[str, Any], kind: str | None, path: Path) -> None:
    """Refuses the artefact of something else: of a cascade, or of a racer where `kind` says so.

    Use this when a folder is about to be read as an artefact.

    Raises:
      ArtefactError: If it is.
    """
    if description.get("kind") == kind:
        return
    if kind is None:
        name = str(description["kind"])
        raise ArtefactError(
            f"the artefact of a {name.capitalize()}, not of a Racer: load it with "
            f"{name.capitalize()}.load",
            path=path,
        )
    raise ArtefactError(
        f"the artefact of a Racer, not of a {kind.capitalize()}: load it with Racer.load",
        path=path,
    )


def _check_description(description: Any, checksum: str | None, file: Path) -> None:
    """Refuses a description that is not whole, of a newer format, or of another pool."""
    if not isinstance(description, dict) or type(description.get("format")) is not int:
        raise CorruptError("must be the description of an artefact, with a format", path=file)
    if description["format"] < 1:
        raise CorruptError(f"format must be at least 1, got {description['format']}", path=file)
    if description["format"] > FORMAT:
        raise NewerFormatError(
            f"has format {description['format']}; this version of racer_jax reads formats up to "
            f"{FORMAT}: update racer_jax",
            path=file,
        )
    models = description.get("models")
    if not isinstance(models, list) or named(models) != description.get("pool_fingerprint"):
        raise OtherPoolError(
            "the pool was changed after the artefact was made: scores and thresholds hold for the "
            "models it was trained and calibrated with; train and calibrate again",
            path=file,
        )
    if description.get("checksum") != checksum:
        raise CorruptError("the checksum does not fit: racer.json was edited or damaged", path=file)
    arrays = description.get("arrays")
    name = arrays.get("file") if isinstance(arrays, dict) else None
    if not isinstance(name, str) or not _ARRAYS.fullmatch(name):
        raise CorruptError(
            f"arrays.file must name a file beside it, arrays-<16 digits>.safetensors, got {name!r}",
            path=file,
        )
