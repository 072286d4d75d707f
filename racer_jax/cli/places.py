"""Where a command writes: said before the work is done, so that nothing else is lost."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from racer_jax._files import address_problem, check_folder
from racer_jax.cli.output import print_notes
from racer_jax.data.errors import DataError

# What a browser opens.
PAGES = (".html", ".htm")


def check_file(path: Path, *endings: str, inputs: Iterable[str | Path] = ()) -> None:
    """A file is written beside its place and moved there: no device, no folder, no input.

    Use this when a command will write a file: an error comes before the work.

    Args:
      path: The file.
      endings: What its name may end in, the usual one first; without any, every name does.
      inputs: Files that the command reads.

    Raises:
      DataError: If the path cannot be written that way.
      OSError: If nothing can be written into its folder.
      ValueError: If its name ends in something else.
    """
    if problem := address_problem(path, written=True):
        raise DataError(problem)
    if path.exists() and not path.is_file():
        raise DataError("must be a file to write to", path=path)
    if not path.absolute().parent.is_dir():
        raise DataError("must be in a folder that exists", path=path)
    check_folder(path.absolute().parent)
    if any(_is_read(path, Path(name)) for name in inputs):
        raise DataError("is read by this command: write to another file", path=path)
    if endings and path.suffix.lower() not in endings:
        raise ValueError(
            f"output must end in {' or '.join(endings)}, such as "
            f"{path.with_suffix(endings[0])}, got {path}"
        )


def _is_read(path: Path, source: Path) -> bool:
    """Whether a file that exists is the source, or a file of it where that is a folder."""
    if not (path.exists() and source.exists()):
        return False
    return path.samefile(source) or source.resolve() in path.resolve().parents


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The option by which another artefact may be lost.

    Use this when a command writes an artefact that is not the one that it reads.
    """
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write even where another calibrated artefact is, which is then lost",
    )


def check_artefact(path: Path, *, overwrite: bool, changed: Path | None = None) -> None:
    """Refuses a place for an artefact where another one would be lost.

    What is not calibrated is replaced, and a note says so: training makes it again.

    Use this when a command will write an artefact: an error comes before the work.

    Args:
      path: Its folder.
      overwrite: Whether what is there may be lost.
      changed: The artefact that the command reads and changes. It may be written in place, or over
        another calibration of the same router.

    Raises:
      ArtefactError: If the path is a file, a folder of something else, or holds an artefact that
        is calibrated or of a newer version.
    """
    from racer_jax.racer.artefact import check_place, description_of, same_router
    from racer_jax.racer.errors import ArtefactError, CorruptError, NewerFormatError

    check_place(path)
    if overwrite or (changed is not None and path.resolve() == changed.resolve()):
        return
    try:
        description = description_of(path)
    except CorruptError:
        print_notes([f"{path}: the artefact that is there is damaged, and will be replaced"])
        return
    except NewerFormatError:
        content = "an artefact that a newer version wrote"
    else:
        if description is None or (changed is not None and same_router(path, changed)):
            return
        kind, num_models = description.get("kind") or "router", len(description["models"])
        content = f"a {kind} of {num_models} models" if num_models > 1 else f"a {kind} of 1 model"
        calibration = description["calibration"]
        if calibration is None:
            print_notes([f"{path}: {content}, not calibrated, is there and will be replaced"])
            return
        content += f", calibrated at alpha = {calibration['alpha']} on {calibration['n']:,} queries"
    raise ArtefactError(
        f"holds {content}, which would be lost: name another folder, or pass --overwrite", path=path
    )
