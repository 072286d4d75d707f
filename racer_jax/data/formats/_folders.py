"""Folders of files: which are read, and a note on every other."""

from collections.abc import Iterable
from pathlib import Path

from racer_jax.data.errors import DataError

_COMPRESSED = (".gz", ".bz2", ".xz")
# A note names this many files and counts the others.
_NAMED = 50


def bare_name(path: Path) -> str:
    """A file's name without the ending of a compression."""
    return path.name.removesuffix(path.suffix) if path.suffix in _COMPRESSED else path.name


def walked(path: Path, *endings: str, deep: bool = True) -> list[Path]:
    """The files of a folder whose names end so, compressed or not, in order.

    Hidden files and folders are none of them: systems and editors leave copies there that look like
    what they were made from (`._a.json`, `.ipynb_checkpoints/a.json`).

    Args:
      path: The folder.
      *endings: How names end.
      deep: Whether files of folders within it are meant as well.

    Returns:
      The files.
    """
    places = path.rglob("*") if deep else path.iterdir()
    return sorted(
        place
        for place in places
        if bare_name(place).endswith(endings) and not _is_hidden(place, path) and place.is_file()
    )


def _is_hidden(place: Path, path: Path) -> bool:
    """Whether a file, or a folder it is in, has a name that begins with a point."""
    return any(part.startswith(".") for part in place.relative_to(path).parts)


def compressed_or_not(path: Path) -> Path:
    """The file itself, or that with the ending of a compression where that one is there alone."""
    if path.exists():
        return path
    others = (path.with_name(path.name + ending) for ending in _COMPRESSED)
    return next((other for other in others if other.exists()), path)


def files_of(path: Path, ending: str) -> list[Path]:
    """The file, or the files of a folder whose names end so, compressed or not.

    Raises:
      DataError: If the folder holds none.
    """
    if not path.is_dir():
        return [path]
    files = walked(path, ending, deep=False)
    if not files:
        raise DataError(f"must hold {ending} files, got none", path=path)
    return files


def unread(path: Path, files: Iterable[Path], deep: bool = False) -> list[str]:
    """A note on the files of a folder that were not read; none where all were.

    Args:
      path: The folder; a file has nothing beside it.
      files: The files that were read.
      deep: Whether files of folders within it are meant as well.

    Returns:
      The note.
    """
    if not path.is_dir():
        return []
    file_set = set(files)
    places = path.rglob("*") if deep else path.iterdir()
    names = [
        f"{place.relative_to(path)}{'/' if place.is_dir() else ''}"
        for place in sorted(places)
        if place not in file_set and not (deep and place.is_dir()) and not _is_hidden(place, path)
    ]
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"not read: {', '.join(names[:_NAMED])}{more}"]
