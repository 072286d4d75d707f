"""Draws the pictures of the pages on results from the tables of these pages.

    python docs/pictures.py [RESULTS]

A figure so never says anything else than its table. They are written to docs/pictures. RESULTS is
the folder with what the experiments wrote (`results`, by default of theirs): their figures that
pages show are then drawn again there too, as wide as the others and small enough for the
repository.
"""

import math
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from racer_jax.plotting.styles import style_of, styles_of

# Inches: narrow enough that type of 10 points can be read on a phone of 400 pixels.
WIDTH = 5.4
# Sharp before it is made small.
DPI = 200
DOCS = Path(__file__).parent
EXPERIMENTS_FOLDER = DOCS.parent / "experiments"
# Pictures of pages that an experiment draws, by its figure in the folder of results.
EXPERIMENTS = {
    "accuracy": "accuracy_table/accuracy.png",
    "dollars": "dollars/dollars.png",
    "set_size": "set_size/size.png",
    "stops": "sequential/sequential.png",
}
# Sharp on a page of 680 pixels, and under 100 KB each in the repository.
_PIXELS, _COLORS = 720, 96


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table of a page after a line that holds some words, without rule."""
    text = (DOCS / page).read_text(encoding="utf-8")
    lines = text[text.index(heading) :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        if not re.fullmatch(r"[|\s:-]+", line):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def number(cell: str) -> float:
    """The number that a cell begins with."""
    match = re.match(r"[-+]?[\d,.]+", cell)
    if match is None:
        raise ValueError(f"a cell must begin with a number, got {cell!r}")
    return float(match[0].replace(",", ""))


def _figure(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """An empty figure as wide as a page shows it, so that its labels keep their size."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True).ravel()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    return figure, list(axes)


def growth() -> Figure:
    """Time against what is doubled, from the table of docs/benchmarks.md."""
    figure, (axis,) = _figure(3.6)
    _, *rows = table("benchmarks.md", "## Growth")
    styles = styles_of([row[0] for row in rows])
    times_of = [[number(cell.split(": ")[1]) for cell in row[1:-1]] for row in rows]
    for row, times in zip(rows, times_of, strict=True):
        factors = [2.0**step for step in range(len(times))]
        label = f"{row[0]}, power {row[-1]}"
        axis.plot(factors, times, **styles[row[0]].marked(label=label))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    axis.set_xticks(factors, [f"x {factor:g}" for factor in factors])
    least, most = math.log2(min(map(min, times_of))), math.log2(max(map(max, times_of)))
    ticks = [2**power for power in range(math.floor(least), math.ceil(most) + 1)]
    axis.set_yticks(ticks, [f"{tick}" for tick in ticks])
    axis.set_xlabel("what is doubled, from the smallest of its row")
    axis.set_ylabel("milliseconds")
    axis.legend(frameon=False)
    return figure


def sequential() -> Figure:
    """Calls a question of each way, from the first table of docs/findings.md."""
    figure, (axis,) = _figure(3.4)
    head, *rows = table("findings.md", "prints, among others")
    ways = {1: "all models", 4: "RACER-P", 2: "majority decided", 3: "RACER"}  # by their column
    for place, (way, name) in enumerate(ways.items()):
        calls = [number(row[way]) for row in rows]
        places = [i + (place - 1.5) * 0.24 for i in range(len(rows))]
        bars = axis.bar(places, calls, 0.23, color=style_of(name).color, label=head[way])
        axis.bar_label(bars, [row[way].split()[0] for row in rows], fontsize=8.5, padding=1)
    axis.grid(visible=False, axis="x")
    axis.set_xticks(range(len(rows)), [row[0] for row in rows])
    axis.set_ylabel("models called for a question")
    axis.legend(frameon=False, ncols=2, loc="upper left", fontsize=9)
    axis.set_ylim(0, 14)
    return figure


def sizes() -> Figure:
    """Models called against alpha by method, from the table of docs/beyond.md."""
    head, *rows = table("beyond.md", "## Sizes at the same risk")
    pools = list(dict.fromkeys(row[0] for row in rows))
    figure, axes = _figure(4.8, -(-len(pools) // 2), 2)
    alphas = [float(cell) for cell in head[2:]]
    for axis, pool in zip(axes, pools, strict=True):
        methods = [row for row in rows if row[0] == pool]
        styles = styles_of([row[1] for row in methods])
        for row in methods:
            values = [number(cell) for cell in row[2:]]
            axis.plot(alphas, values, **styles[row[1]].marked(markersize=4, label=row[1]))
        axis.set_title(pool, fontsize=11)
    figure.supxlabel("alpha, the risk allowed", fontsize=10)
    figure.supylabel("models called for a question", fontsize=10)
    axes[pools.index("GSM8K")].legend(frameon=False, fontsize=9)  # where all lines lie low
    return figure


FIGURES = {"growth": growth, "sequential": sequential, "sizes": sizes}


def shrink(source: Path, target: Path) -> None:
    """Writes a picture as wide as a page needs it, in few colours."""
    with Image.open(source) as picture:
        size = (_PIXELS, round(picture.height * _PIXELS / picture.width))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    # The coverage of colours, and not their frequency: a line that is thin keeps its colour.
    way = Image.Quantize.MAXCOVERAGE
    colors = small.quantize(_COLORS, way, kmeans=1, dither=Image.Dither.NONE)
    colors.save(target, optimize=True)


def drawn_again(results: Path, source: str, folder: Path) -> Path:
    """A figure of an experiment, drawn again from its results as wide as the pages need it."""
    name = Path(source).parts[0]
    command = [sys.executable, EXPERIMENTS_FOLDER / f"{name}.py", "--redraw", results / name]
    options = ["--width", f"{WIDTH}", "--output", folder / name]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return folder / source


def main(results: Path | None = None, folder: Path = DOCS / "pictures") -> int:
    """Writes every picture; those of the experiments where their results are named."""
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory() as scratch:
        for name, draw in FIGURES.items():
            large = Path(scratch) / f"{name}.png"
            draw().savefig(large, dpi=DPI)
            shrink(large, folder / f"{name}.png")
        for name, source in EXPERIMENTS.items():
            if results is not None:
                again = drawn_again(results, source, Path(scratch))
                shrink(again, folder / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
