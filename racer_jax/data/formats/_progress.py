"""A bar on the terminal for what takes long to read."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Seconds before a bar appears: what is read sooner needs none.
_DELAY = 2.0


@contextmanager
def progress(path: Path, total: int, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """A bar on the terminal for what takes longer than two seconds; nothing where there is none.

    Args:
      path: The file, whose name the bar shows.
      total: How much there is.
      unit: Of what.

    Yields:
      What to call with how much more was read.
    """
    if sys.stderr is None or sys.stderr.closed or not sys.stderr.isatty():
        yield int
        return
    from tqdm import tqdm  # takes long to import

    scale = unit == "B"
    with tqdm(
        total=total,
        unit=unit,
        unit_scale=scale,
        desc=path.name[:40],
        delay=_DELAY,
        disable=None,
        leave=False,
    ) as bar:
        yield bar.update
