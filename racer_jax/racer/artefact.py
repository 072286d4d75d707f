"""An artefact: a folder with `racer.json`, which people read, and one file of arrays that it names.

`racer.json` is the only door: the arrays lie in a file named after their content, written first;
then `racer.json` is replaced in one step; then arrays nobody names are swept out. Whoever is killed
at whatever moment leaves the old artefact or the new one. A new folder is filled beside its place
and moved there whole.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_arrays
from safetensors.numpy import save as format_arrays

from racer_jax.data.files import blaming, written_whole
from racer_jax.racer.errors import ArtefactError, CorruptError, NewerFormatError, OtherPoolError
from racer_jax.racer.serialization import named

# 2 adds orders learned from training rows; what has none is still written as 1, for older versions
# to read.
FORMAT = 2
DESCRIPTION = "racer.json"
_PREFIX, _SUFFIX = "arrays-", ".safetensors"


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

    Raises:
      ArtefactError: If it is one.
    """
    if path.exists() and not path.is_dir():
        raise ArtefactError("must be a folder to write an artefact to, got a file", path=path)
    if path.is_dir() and not (path / DESCRIPTION).exists() and any(path.iterdir()):
        raise ArtefactError(
            "must be an artefact or an empty folder, got a folder with other files", path=path
        )


def write(
    path: str | os.PathLike[str], description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """Writes an artefact, whole or not at all.

    Args:
      path: The folder; it is made, or its artefact replaced.
      description: What `racer.json` shall say; plain values, `models` among them.
      arrays: Arrays by name.

    Raises:
      ArtefactError: If the path is a file, or a folder that holds something else.
      OSError: If the disk refuses.
    """
    path = Path(path)
    check_place(path)
    content = format_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    checksum = hashlib.sha256(content).hexdigest()
    full = {
        "format": FORMAT if "order" in description else 1,
        **description,
        "pool_fingerprint": named(description["models"]),
        "arrays": {"file": f"{_PREFIX}{checksum[:16]}{_SUFFIX}", "sha256": checksum},
    }
    full["checksum"] = _checksum(full)
    text = (json.dumps(full, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with blaming(path):
        if path.is_dir():
            _fill(path, full["arrays"]["file"], content, text)
        else:
            _fill_new(path, full["arrays"]["file"], content, text)


def _fill_new(path: Path, name: str, content: bytes, text: bytes) -> None:
    """A folder that is filled beside its place and moved there whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o777 & ~mask)
        _fill(beside, name, content, text)
        os.rename(beside, path)
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(beside)


def _fill(folder: Path, name: str, content: bytes, text: bytes) -> None:
    """Arrays first, then the door, then the sweep."""
    try:
        _write_synced(folder / name, content)
        _write_synced(folder / DESCRIPTION, text)
    except BaseException:
        if not _named_by(folder / DESCRIPTION, name):
            with suppress(OSError):
                (folder / name).unlink()
        raise
    for old in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        if old.name != name:
            with suppress(OSError):
                old.unlink()


def _named_by(description: Path, name: str) -> bool:
    try:
        return bool(json.loads(description.read_text(encoding="utf-8"))["arrays"]["file"] == name)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read(
    path: str | os.PathLike[str], models: Sequence[str] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads an artefact and checks every bit of it.

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
    path = Path(path)
    for _ in range(3):
        description = _read_description(path)
        name = str(description["arrays"]["file"])
        try:
            content = (path / name).read_bytes()
            break
        except FileNotFoundError:
            continue  # somebody has just saved: the door leads elsewhere now
        except OSError as error:
            raise ArtefactError(
                f"cannot be read: {error.strerror or error}", path=path / name
            ) from None
    else:
        raise CorruptError("the file of arrays that racer.json names is lost", path=path / name)
    if hashlib.sha256(content).hexdigest() != description["arrays"]["sha256"]:
        raise CorruptError(
            "the checksum does not fit: the file is not what was written", path=path / name
        )
    try:
        arrays = parse_arrays(content)
    except SafetensorError as error:
        raise CorruptError(f"cannot be parsed: {error}", path=path / name) from None
    if models is not None and list(models) != description["models"]:
        raise OtherPoolError(
            f"was made for the models {description['models']}, got {list(models)}; scores and thresholds hold for its "
            f"own pool in its own order: train and calibrate again",
            path=path / DESCRIPTION,
        )
    return description, arrays


def _read_description(path: Path) -> dict[str, Any]:
    door = path / DESCRIPTION
    try:
        text = door.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        problem = (
            "is no artefact: there is no racer.json"
            if path.is_dir()
            else "is no artefact: there is no such folder"
        )
        raise ArtefactError(problem, path=path) from None
    except UnicodeDecodeError:
        raise CorruptError("must be JSON in UTF-8", path=door) from None
    except OSError as error:
        raise ArtefactError(f"cannot be read: {error.strerror or error}", path=door) from None
    try:
        description = json.loads(text)
    except ValueError:
        raise CorruptError("must be JSON: the file was cut or edited", path=door) from None
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise CorruptError("must be the description of an artefact, with a format", path=door)
    if description["format"] > FORMAT:
        raise NewerFormatError(
            f"is of format {description['format']}, this version reads up to {FORMAT}: install a "
            "newer racer-jax",
            path=door,
        )
    models = description.get("models")
    if not isinstance(models, list) or named(models) != description.get("pool_fingerprint"):
        raise OtherPoolError(
            "the pool was changed after the artefact was made: scores and thresholds hold for the models it was "
            "trained and calibrated with; train and calibrate again",
            path=door,
        )
    if description.get("checksum") != _checksum(description):
        raise CorruptError("the checksum does not fit: racer.json was edited or damaged", path=door)
    return description
