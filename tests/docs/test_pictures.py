"""The pictures of the pages on results show the tables of these pages, and stay small."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+\.png)\)")


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("_pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_growth_shows_its_table(pictures):
    lines = pictures.growth().axes[0].lines
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    row = re.search(r"^\| queries N \|(.*)\|.*\|$", text, re.MULTILINE)[1]
    times = [float(cell) for cell in re.findall(r": ([\d.]+) ms", row)]
    drawn = {line.get_label().partition(",")[0]: list(line.get_ydata()) for line in lines}
    assert drawn["queries N"] == times
    assert set(drawn) == {"splits S", "alphas A", "queries N", "models M"}


def test_calls_show_their_table(pictures):
    axis = pictures.sequential().axes[0]
    heights = [[bar.get_height() for bar in group] for group in axis.containers]
    row = pictures.table("findings.md", "prints, among others")[1]
    assert [group[0] for group in heights] == [float(row[i].split()[0]) for i in (1, 4, 2, 3)]


def test_sizes_show_their_table(pictures):
    figure = pictures.sizes()
    rows = pictures.table("beyond.md", "## Sizes at the same risk")[1:]
    lines = [line for axis in figure.axes for line in axis.lines]
    assert [list(line.get_ydata()) for line in lines] == [
        [float(cell) for cell in row[2:]] for row in rows
    ]


def test_a_cell_without_a_number_is_refused(pictures):
    with pytest.raises(ValueError, match="begin with a number"):
        pictures.number("none")
    assert pictures.number("1.93 (-0.17 +- 0.29)") == 1.93


def test_a_picture_of_an_experiment_is_made_small(pictures, tmp_path):
    image = pictures.Image.new("RGB", (2070, 1000), "white")
    for shade in range(200):  # common grays, and a mark of a rare colour
        image.paste((shade, shade, shade), (10 * shade, 0, 10 * shade + 10, 900))
    image.paste((187, 85, 102), (500, 920, 520, 940))
    image.save(tmp_path / "large.png")
    pictures.shrink(tmp_path / "large.png", tmp_path / "small.png")
    with pictures.Image.open(tmp_path / "small.png") as small:
        assert small.size == (720, 348)
        red, green, blue = small.convert("RGB").getpixel((177, 323))
    assert red > 150 > 120 > green
    assert blue < 130


def test_pictures_are_there_small_and_described():
    for page in (*ROOT.glob("docs/**/*.md"), ROOT / "experiments" / "README.md"):
        for words, path in PICTURE.findall(page.read_text(encoding="utf-8")):
            picture = page.parent / path
            assert picture.stat().st_size < 100_000, f"{picture.name} is large"
            assert words, f"{page.name}: {path} is not described"
