"""A routing table as one `.npz` file: lossless, without pickle, its format version inside."""

import json
from pathlib import Path

import numpy as np

from racer_jax._files import written_whole
from racer_jax.data.errors import DataError
from racer_jax.data.formats._json import parse
from racer_jax.data.formats._npz import Archive, open_npz, packed_strings, unpacked_strings
from racer_jax.data.table import RoutingTable

VERSION = 1
# The array that marks this format among .npz files, and holds its version.
MARK = "racer_jax_table"


def save_table(table: RoutingTable, path: str | Path) -> None:
    """Writes a table; `read_table` reads it back equal, bit for bit.

    Use this when only this package will read the file; `write_long_csv` writes for people and other
    programs.

    Args:
      table: The table.
      path: Where to; the name must end in `.npz`. Written whole or not at all.

    Raises:
      ValueError: If the name does not end in `.npz`.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    rule = table.label_rule if isinstance(table.label_rule, str) else dict(table.label_rule)
    about = {"label_rule": rule, "notes": list(table.notes), "schemes": list(table.confidence)}
    arrays: dict[str, np.ndarray] = {MARK: np.array(VERSION), "correct": table.correct}
    strings: dict[str, list[str | None]] = {
        "ids": list(table.ids),
        "texts": list(table.texts),
        "models": list(table.models),
        "about": [json.dumps(about)],
    }
    if table.group is not None:
        strings["group"] = list(table.group)
    if table.answers is not None:
        strings["answers"] = list(table.answers.reshape(-1))
    for name in ("graded", "cost", "tokens", "price", "missing"):
        if (array := getattr(table, name)) is not None:
            arrays[name] = array
    # Schemes are numbered: their names need not be names of files.
    arrays |= {f"confidence.{i}": array for i, array in enumerate(table.confidence.values())}
    for name, values in strings.items():
        arrays |= {f"{name}.{part}": array for part, array in packed_strings(values).items()}
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def read_table(path: str | Path) -> RoutingTable:
    """Reads a table that `save_table` wrote.

    Use this when the file is known to be a saved table; `load` also finds that out itself.

    Args:
      path: The `.npz` file.

    Returns:
      The table, as the file holds it.

    Raises:
      DataError: If the file is not one of these, is damaged, or was written by a later version.
    """
    path = Path(path)
    with open_npz(path) as archive:
        if MARK not in archive:
            raise DataError(
                f"must hold a routing table of this package, got arrays {sorted(archive.names)}",
                path=path,
            )
        version = archive.array(MARK, "iu", 0)
        if version != VERSION:
            raise DataError(
                f"must be of format version {VERSION}, got {version}; update racer_jax", path=path
            )
        try:
            table = _table(archive)
        except DataError:
            raise
        except (ValueError, TypeError, LookupError) as error:
            raise DataError(f"must hold a valid table: {error}", path=path) from None
        if archive.unread:  # a damaged name, behind which a column would be lost in silence
            raise DataError(
                f"must hold the arrays of a table only, got {sorted(archive.unread)}", path=path
            )
        return table


def _table(archive: Archive) -> RoutingTable:
    ids, texts, models = (_strings(archive, name) for name in ("ids", "texts", "models"))
    about = parse(_strings(archive, "about")[0], archive.path)
    answers = None
    if "answers.ends" in archive:
        flat = np.array([*unpacked_strings(archive, "answers"), None], dtype=object)[:-1]
        answers = flat.reshape(len(ids), len(models))
    optional = ("graded", "cost", "tokens", "price", "missing")
    fields = {name: archive.array(name) for name in optional if name in archive}
    return RoutingTable(
        ids=ids,
        texts=texts,
        models=models,
        correct=archive.array("correct", "b"),
        group=_strings(archive, "group") if "group.ends" in archive else None,
        answers=answers,
        confidence={
            scheme: archive.array(f"confidence.{i}", "f")
            for i, scheme in enumerate(about["schemes"])
        },
        label_rule=about["label_rule"],
        notes=about["notes"],
        **fields,
    )


def _strings(archive: Archive, name: str) -> list[str]:
    values = unpacked_strings(archive, name)
    if any(value is None for value in values):
        raise DataError("must hold a string in every place", path=archive.path, field=name)
    return [str(value) for value in values]
