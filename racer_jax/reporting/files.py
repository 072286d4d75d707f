"""How an experiment meets its reader.

Options from a dataclass, tables as text, files written whole or not at all.
"""

import csv
import dataclasses
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from racer_jax._distribution import __version__
from racer_jax._files import address_problem, written_whole


def as_plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays as lists, NaN and infinities as strings.

    Use this when you write results with a JSON writer of your own; `write_json` calls it for you.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return as_plain(value._asdict())
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        is_plain = array.dtype.kind in "biuf" and np.isfinite(array).all()
        return array.tolist() if is_plain else as_plain(array.tolist())
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, np.generic):
        return as_plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return str(value) if isinstance(value, Path) else value


def write_json(path: str | Path, results: Any) -> None:
    """Writes results as JSON: arrays as lists, named tuples and dataclasses as objects.

    NaN and infinities become strings, since JSON has neither.

    Use this when results are nested, such as arrays by name; for plain rows use `write_csv`.
    """
    with written_whole(path) as temporary:
        temporary.write_text(
            json.dumps(as_plain(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line for each row; the columns are the keys of the first.

    Use this when results are rows with the same fields; for nested results use `write_json`.
    """
    with (
        written_whole(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_figure(
    path: str | Path, figure: Any, pack: Callable[[Callable[[], None]], object] | None = None
) -> None:
    """Writes a matplotlib figure in the format that the name ends on: `.png`, `.pdf` or `.svg`.

    Use this when you save a figure: a file of this name is then complete, never half written.

    Args:
      path: The file.
      figure: The figure.
      pack: Called with what packs and writes a PNG that is drawn: a fifth of its time, in which
        another thread can run Python. By default it is done before this returns.
    """
    from matplotlib import rc_context  # takes long to import
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    for axis in (axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)):
        # Matplotlib lays out all ticks once more to place a label, even one that is not there.
        if not axis.get_label_text():
            axis.set_label_coords(0.5, 0.0)
    kind = Path(path).suffix.removeprefix(".")
    dpi = 150 if figure.get_figwidth() > 7 else 200
    if kind == "png":  # `savefig` would lay it out once without drawing, and once more to draw
        figure.set_dpi(dpi)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = canvas.buffer_rgba()

        def write_png() -> None:
            with written_whole(path) as temporary:
                imsave(temporary, pixels, format="png", dpi=dpi)

        if pack is None:
            write_png()
        else:
            pack(write_png)
        return
    # Type 42 fonts are those that publishers take, and text stays text in both.
    with written_whole(path) as temporary, rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(temporary, format=kind, dpi=dpi)


def environment() -> dict[str, str]:
    """The versions, the machine and the devices, on which results depend besides the code.

    Use this when you save results, so that a reader can see which versions and devices made them.
    """
    devices = jax.devices()
    return {
        "racer_jax": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


def finish(write: Callable[[Path], None], output: str | Path) -> Path:
    """Makes the output folder, calls `write` to fill it, and returns it.

    Use this when a command writes several files into one folder, so that a folder that cannot be
    written to ends it with one line and no traceback.

    Raises:
      SystemExit: If the folder cannot be written to, with the reason in one line.
    """
    folder = Path(output)
    if problem := address_problem(folder, written=True):
        raise SystemExit(problem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
    except OSError as error:
        raise SystemExit(f"cannot write to {folder}: {error.strerror or error}") from None
    return folder
