"""The report without a browser.

What is in the page, that nothing else can get in, and how it is written.
"""

import base64
import hashlib
import json
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from racer_jax.racer.errors import NotCalibratedError
from racer_jax.racer.racer import Racer
from racer_jax.racer.report import (
    embedded_json,
    report_data,
    report_html,
    sequential_data,
    write_report,
)
from tests.racer.report_pages import ALPHAS, HOSTILE, MODELS, calibrated, labelled

pytest.importorskip("plotly")
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """Elements of a page, checked to be closed in order, and the text of its scripts and headings."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.scripts, self.text = [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = attributes, before + text
        elif self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + text

    @property
    def data(self):
        return json.loads(
            next(text for attributes, text in self.scripts if attributes.get("id") == "report-data")
        )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    racer = calibrated()
    table, scores = labelled(start=1000)
    path = tmp_path_factory.mktemp("report") / "report.html"
    evaluation = write_report(racer, table, path, ALPHAS, scores=scores, title="Maths & law <2026>")
    return racer, table, scores, evaluation, path.read_text(encoding="utf-8")


@pytest.mark.long
def test_the_json_is_what_evaluate_gives(written):
    racer, table, scores, evaluation, text = written
    data = Page(text).data
    again = racer.evaluate(table, ALPHAS, scores=scores)
    assert data["evaluation"] == again.to_dict() == evaluation.to_dict()
    assert [level["value"] for level in data["levels"]] == [float(alpha) for alpha in again.alphas]
    assert data["levels"][again.row]["guarantee"] == again.guarantee
    for alpha, level in zip(again.alphas, data["levels"], strict=True):
        assert level["guarantee"] == racer.at(alpha).guarantee()
        assert level["warnings"] == list(racer.at(alpha).warnings())
    assert data["calibration"]["num_queries"] == 60
    assert data["calibration"]["groups"] == ["maths", "law"]


def test_the_page_is_html_whose_title_is_escaped(written):
    page = Page(written[-1])
    assert page.text["title"] == page.text["h1"] == "Maths & law <2026>"
    named = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(named) == len(set(named))
    for tag, attributes in page.elements:
        if tag == "label" and "for" in attributes:
            assert attributes["for"] in named
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in named
    labelled_inputs = {attributes.get("for") for tag, attributes in page.elements if tag == "label"}
    assert {"alpha", "group", "aggregation"} <= labelled_inputs


def test_nothing_is_asked_of_a_network(written):
    for tag, attributes in Page(written[-1]).elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
        assert "refresh" not in attributes.get("http-equiv", "").lower()
    style = Page(written[-1]).text["style"]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_the_two_scripts_and_no_more(written):
    page = Page(written[-1])
    policy = next(
        a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    scripts = [text for attributes, text in page.scripts if "type" not in attributes]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert rules["script-src"] == " ".join(f"'sha256-{value}'" for value in hashes)
    assert len(scripts) == 2
    assert rules["default-src"] == "'none'"
    assert set(rules) == {
        "default-src",
        "script-src",
        "style-src",
        "img-src",
        "base-uri",
        "form-action",
    }


def test_hostile_names_stay_data(tmp_path):
    groups = ("</script><i>", "<!--<script>")
    racer = calibrated(models=HOSTILE, groups=groups)
    table, scores = labelled(models=HOSTILE, start=500, groups=groups)
    evaluation = write_report(
        racer,
        table,
        tmp_path / "r.html",
        ["0.3"],
        scores=scores,
        title="</title><script>x</script>",
    )
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.data["evaluation"] == evaluation.to_dict()
    assert tuple(page.data["evaluation"]["models"]) == HOSTILE
    assert page.text["title"] == "</title><script>x</script>"
    assert len(page.scripts) == 3
    assert not any(tag in {"b", "i", "img"} for tag, _ in page.elements)
    raw = next(text for attributes, text in page.scripts if attributes.get("id") == "report-data")
    assert not set("<>&\u2028") & set(raw)


def test_embedded_json_is_json_and_takes_no_nan():
    value = {"<!--": ["&", "é", "\u2029", 1.5, None, True]}
    assert json.loads(embedded_json(value)) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json({"x": float("nan")})


@pytest.mark.parametrize(
    "how",
    [
        {"groups": None},
        {"cost": False},
        {"answers": False},
        {"groups": None, "cost": False, "answers": False},
    ],
)
def test_what_a_table_lacks_is_absent_from_the_data(how):
    racer = calibrated(**how)
    table, scores = labelled(start=300, **how)
    data = report_data(racer, racer.evaluate(table, ["0.1"], scores=scores))["evaluation"]
    whole = data["groups"][0]
    assert len(data["groups"]) == (1 if "groups" in how else 3)
    assert (whole["cost"] is None) == ("cost" in how)
    assert ("majority" in whole["accuracy"]) == ("answers" not in how)


def test_an_infeasible_alpha_is_said_so():
    racer = calibrated(30, alpha="0.05")
    table, scores = labelled(start=300)
    data = report_data(racer, racer.evaluate(table, ["0.3"], scores=scores))
    few, enough = data["levels"]
    assert any("takes at least 19 calibration queries" in warning for warning in few["warnings"])
    assert enough["warnings"] == []
    assert data["evaluation"]["groups"][0]["size"][0] == len(MODELS)


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    racer, (table, scores) = calibrated(), labelled(start=300)
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(
        "racer_jax._files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        write_report(racer, table, path, ["0.3"], scores=scores)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_without_plotly_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[report\]'"):
        report_html({"title": "x"})


def test_a_racer_without_calibration_has_no_report(tmp_path):
    table, scores = labelled()
    racer = Racer.from_scores(MODELS)
    with pytest.raises(NotCalibratedError, match="evaluate needs a threshold"):
        write_report(racer, table, tmp_path / "r.html", scores=scores)
    evaluation = calibrated().evaluate(table, ["0.3"], scores=scores)
    with pytest.raises(NotCalibratedError, match="a report needs a threshold"):
        report_data(racer, evaluation)
    assert list(tmp_path.iterdir()) == []


def test_the_json_has_no_nan_where_nothing_is_promised():
    racer = calibrated(by_group=False)
    table, scores = labelled(start=300)
    data = report_data(racer, racer.evaluate(table, ["0.3"], scores=scores))
    assert set(data["evaluation"]["groups"][1]["upper"]) == {"nan"}
    assert np.isfinite(data["evaluation"]["groups"][0]["upper"]).all()
    json.loads(embedded_json(data))


class Stops:
    """What a report reads of a cascade: two levels, of which one takes more rows than there are."""

    class policy:
        calls, reference = ("medium", "small", "org/large"), "vote"

    def __init__(self, alpha="0.01"):
        self.calibration = type("C", (), {"alpha": alpha})

    def at(self, alpha):
        if float(alpha) < 0.01:
            raise ValueError("too few")
        return Stops(alpha)

    def guarantee(self):
        return f"at most {self.calibration.alpha}"

    def unseen(self, table):
        return table.select(slice(1, None))

    def evaluate(self, table, alphas):
        def level(alpha, calls):
            return {"alpha": alpha, "calls": calls, "dollars": float("nan")}

        return [level("0", 2.5), *(level(alpha, 1.5) for alpha in alphas)]


def test_a_cascade_beside_sets():
    table, _ = labelled()
    shown = sequential_data(Stops(), table, ["0.005", "0.1"])
    assert [level["value"] for level in shown["levels"]] == [0, 0.01, 0.1]
    assert [level["calls"] for level in shown["levels"]] == [2.5, 1.5, 1.5]
    assert {level["dollars"] for level in shown["levels"]} == {None}
    assert shown["levels"][2]["guarantee"] == "at most 0.1"
    assert (shown["own"], shown["num_seen"], shown["reference"]) == (1, 1, None)
    bare = Stops()
    bare.calibration = None
    shown = sequential_data(bare, table)
    assert (shown["own"], len(shown["levels"])) == (0, 1)
    assert "no answer to come can change the vote" in shown["levels"][0]["guarantee"]
