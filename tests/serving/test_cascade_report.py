"""The report of a cascade alone: its figures are those of `evaluate`, and the page stands alone."""

import json
import re
import sys

import jax
import numpy as np
import pytest

from racer_jax import Cascade, RoutingTable
from racer_jax.cli.main import main
from racer_jax.data.formats.table_npz import save_table
from racer_jax.racer.errors import NotCalibratedError
from racer_jax.serving.cascade_report import cascade_report_data, write_cascade_report
from tests.sequential.pools import answered_table


def test_without_plotly_nothing_is_computed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[report\]'"):
        write_cascade_report(None, None, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def cascades():
    table = answered_table(500, seed=4, groups=True)
    fitted = Cascade.fit(jax.random.key(3), table.select(slice(0, 200)), reference="vote")
    return fitted, fitted.calibrate(table.select(slice(200, 400)), "0.05")


@pytest.fixture(scope="module")
def rest():
    return answered_table(500, seed=4, groups=True).select(slice(400, 500))


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL).group(1))


@pytest.mark.long
def test_the_figures_are_those_of_evaluate(cascades, rest, tmp_path):
    pytest.importorskip("plotly")
    _, cascade = cascades
    shown = write_cascade_report(cascade, rest, tmp_path / "r.html", "0.02,0.1", title="<Mine>")
    assert data_of(tmp_path / "r.html") == json.loads(json.dumps(shown))
    assert "<h1>&lt;Mine&gt;</h1>" in (tmp_path / "r.html").read_text()
    levels = shown["sequential"]["levels"]
    assert [level["alpha"] for level in levels] == ["0", "0.02", "0.05", "0.1"]
    assert levels[shown["sequential"]["own"]]["alpha"] == cascade.calibration.alpha
    for level, evaluation in zip(
        levels, cascade.evaluate(rest, ["0.02", 0.05, "0.1"]), strict=True
    ):
        assert (level["calls"], level["dollars"]) == (evaluation.calls, evaluation.dollars)
        assert level["stopped_after"] == list(evaluation.stopped_after)
        by_reason = [level["stopped_because"][reason] for reason in evaluation.reasons]
        np.testing.assert_allclose(np.sum(by_reason, axis=0), level["stopped_after"])
    assert shown["sequential"]["num_seen"] == 0
    assert shown["cascade"]["num_queries"] == 200


@pytest.mark.long
def test_without_calibration_there_is_one_level_and_it_says_so(cascades, rest):
    fitted, cascade = cascades
    data = cascade_report_data(fitted, rest)
    (level,) = data["sequential"]["levels"]
    assert level["guarantee"] == fitted.guarantee()
    assert level["guarantee"].startswith("Not calibrated")
    assert data["cascade"]["alpha"] is None
    with pytest.raises(NotCalibratedError):
        cascade_report_data(fitted, rest, "0.1")
    with pytest.raises(ValueError, match="takes at least 9999 calibration rows, there are 200"):
        cascade_report_data(cascade, rest, "0.0001")


@pytest.mark.long
def test_the_command_takes_a_cascade_alone(cascades, rest, tmp_path, capsys):
    pytest.importorskip("plotly")
    _, cascade = cascades
    cascade.save(tmp_path / "my.cascade")
    save_table(rest, tmp_path / "logs.npz")
    words = [f"{tmp_path}/my.cascade", f"--data={tmp_path}/logs.npz"]
    pages = []
    for number, command in enumerate(
        (["report", *words], ["report", *words, "--sequential"], ["cascade", "report", *words])
    ):
        path = tmp_path / f"{number}.html"
        assert main([*command, "--output", str(path)]) == 0
        assert f"{path}: open it in a browser" in capsys.readouterr().out
        pages.append(data_of(path)["sequential"])
    assert pages[0] == pages[1] == pages[2]
    assert pages[0]["order"] == list(cascade.policy.calls)
    both = ["report", *words, "--sequential", f"{tmp_path}/my.cascade"]
    assert main(both) == 1
    assert "name the artefact of a Racer first" in capsys.readouterr().err
    without = RoutingTable(rest.ids, rest.texts, rest.models, rest.correct)
    save_table(without, tmp_path / "labels.npz")
    assert main(["report", words[0], f"--data={tmp_path}/labels.npz"]) == 1
    assert "must hold the answer of every model" in capsys.readouterr().err
