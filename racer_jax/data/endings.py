"""How the names of tables end that are written; said before anything is imported that writes."""

from pathlib import Path

ENDINGS = (".npz", ".csv", ".parquet")


def check_output(path: str | Path) -> None:
    """Refuses a path that `save` cannot write to, before anything is read.

    Use this when a table is to be written that has not been read yet.

    Raises:
      ValueError: If its name ends in none of the formats that are written.
    """
    if Path(path).suffix not in ENDINGS:
        raise ValueError(f"path must end in .npz, .csv or .parquet, got {path}")
