"""Results come back from JSON as they went, and options of figures are read."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pytest

from racer_jax import reporting
from racer_jax.reporting import DrawingOptions


class Inner(NamedTuple):
    edges: np.ndarray
    mean: float


class Outer(NamedTuple):
    names: tuple[str, ...]
    cells: list[Inner]
    by_name: dict[str, dict[str, float]]
    by_size: dict[int, Inner | None]
    level: float | None
    pair: tuple[str, int]
    free: dict[str, object]


@dataclasses.dataclass(frozen=True)
class Options:
    path: Annotated[Path | None, "a path"] = None
    kind: Annotated[Literal["a", "b"], "a kind"] = "a"
    number: Annotated[int, "a number"] = 3
    output: Annotated[Path, "a folder"] = Path("out")


def test_what_was_written_is_read_back(tmp_path):
    odd = Inner(np.array([[0.1, np.nan], [np.inf, -np.inf]]), float("nan"))
    whole = Inner(np.array([1, 2]), 1 / 3)
    value = Outer(
        ("x", "y"),
        [odd, whole],
        {"a": {"b": float("inf")}},
        {5: None, 7: whole},
        None,
        ("p", 2),
        {"any": [1]},
    )
    reporting.write_json(
        tmp_path / "results.json", {"config": Options(Path("z")), "results": value}
    )
    record = reporting.read_results(tmp_path / "results.json")
    assert reporting.as_typed(Options, record["config"]) == Options(Path("z"))
    again = reporting.as_typed(Outer, record["results"])
    np.testing.assert_array_equal(again.cells[0].edges, odd.edges)
    assert np.isnan(again.cells[0].mean)
    np.testing.assert_array_equal(again.by_size[7].edges, whole.edges)
    assert again.by_size[7].mean == 1 / 3
    assert again.by_size[5] is None
    others = again._replace(cells=[], by_size={})
    assert others == value._replace(cells=[], by_size={})
    assert isinstance(again.pair, tuple)
    assert reporting.as_plain(again) == reporting.as_plain(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not the results of a run"), ("[1]", "lacks 'config' or 'results'"), ("{}", "lacks")],
)
def test_what_is_no_results_file_is_named(text, message, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        reporting.read_results(tmp_path / "results.json")


def test_a_field_that_is_missing_is_named():
    with pytest.raises(ValueError, match="Inner lacks 'mean'"):
        reporting.as_typed(list[Inner], [{"edges": [1]}])


def test_widths_and_formats():
    assert DrawingOptions().inches == 6.9
    assert DrawingOptions(width="panels").inches is None
    assert DrawingOptions(width="page").inches == 6.9
    assert DrawingOptions(width="5.5").inches == 5.5
    assert DrawingOptions(figures="pdf, SVG,pdf").formats == ("pdf", "svg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"figures": "jpg"}, "figures must be among png, pdf, svg, got 'jpg'"),
        ({"width": "wide"}, "width must be column, page, panels, or 2 to 60 inches, got 'wide'"),
        ({"width": "1"}, "got '1'"),
        ({"width": "nan"}, "got 'nan'"),
    ],
)
def test_other_widths_and_formats_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DrawingOptions(**options)


def test_a_command_line_of_two_classes_says_what_it_named():
    arguments = ["--number", "3", "--width", "column"]
    (options, drawing), named = reporting.parse_configs(
        (Options, DrawingOptions), "does", arguments
    )
    assert options == Options()
    assert drawing == DrawingOptions(width="column")
    assert named == {"number", "width"}


def test_a_png_may_be_packed_later_and_is_the_same(tmp_path):
    from matplotlib.figure import Figure

    figure, waiting = Figure(figsize=(2, 1)), []
    figure.add_subplot().plot([1, 2, 4])
    reporting.write_figure(tmp_path / "now.png", figure)
    reporting.write_figure(tmp_path / "later.png", figure, waiting.append)
    assert not (tmp_path / "later.png").exists()
    del figure
    waiting.pop()()
    assert (tmp_path / "later.png").read_bytes() == (tmp_path / "now.png").read_bytes()


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_figure_is_written_in_the_format_of_its_name(kind, tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, "some words")
    reporting.write_figure(tmp_path / f"one.{kind}", figure)
    begins = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    content = (tmp_path / f"one.{kind}").read_bytes()
    assert content.startswith(begins[kind])
    if kind == "svg":
        assert b"some words" in content  # text, not outlines
    if kind == "pdf":
        assert b"/Type3" not in content
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == f'["one.{kind}"]'
