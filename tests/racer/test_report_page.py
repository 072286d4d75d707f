"""The report in headless Chromium.

The slider moves the numbers, they are the JSON's, and everyone can read them.
"""

import json
import os
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from racer_jax.racer.report import write_report
from racer_jax.serving.cascade import Cascade
from racer_jax.serving.cascade_report import write_cascade_report
from tests.racer.report_pages import ALPHAS, HOSTILE, calibrated, labelled

pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = (
    os.environ.get("RACER_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
pytestmark = [
    pytest.mark.extra,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium (apt-get install chromium, or RACER_CHROMIUM)"
    ),
]

CHARTS = ("risk", "saved", "accuracy", "called", "fixed", "groups")
# Text that is seen with its size, its colour and the colour behind it, as numbers.
SEEN_TEXT = """() => {
  const rgba = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return found.length === 3 ? [...found, 1] : found;
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || node.closest("script, style, noscript, .hidden, option")) continue;
    if (!node.checkVisibility({ visibilityProperty: true }) || !node.getBoundingClientRect().width) continue;
    const style = getComputedStyle(node), svg = node.namespaceURI.endsWith("svg");
    found.push({
      text: walk.currentNode.textContent.trim().slice(0, 40), size: parseFloat(style.fontSize),
      colour: rgba(svg ? style.fill : style.color), behind: behind(svg ? node.closest("div") : node),
    });
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Opens a page; at the end of the test nothing must have been logged, thrown or requested."""
    contexts, trouble = [], []

    def opened(path, width=1200, chart="chart-fixed", **how):
        context = browser.new_context(viewport={"width": width, "height": 800}, offline=True, **how)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: trouble.append(f"console {message.type}: {message.text}")
        )
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on(
            "dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        page.on(
            "request", lambda it: it.url == path.as_uri() or trouble.append(f"request: {it.url}")
        )
        page.goto(path.as_uri())
        page.wait_for_selector(f"#{chart} .main-svg")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def report(folder):
    table, scores = labelled(start=1000)
    write_report(calibrated(), table, folder / "report.html", ALPHAS, scores=scores)
    return folder / "report.html"


def data_of(page):
    return json.loads(page.locator("#report-data").text_content())


def number(text):
    """The first number of a text, a share where a percent sign follows, and half a unit of its last digit."""
    figure, decimals, percent = re.search(
        r"(-?\d+(?:\.(\d+))?)(%?)", text.replace(",", "")
    ).groups()
    scale = 0.01 if percent else 1.0
    return scale * float(figure), scale * 0.5001 * 10 ** -len(decimals or "")


def same(text, value):
    shown, half = number(text)
    return abs(shown - value) <= half


def check_numbers(page, data, group, row, aggregation="majority"):
    part = data["evaluation"]["groups"][group]
    full, single = part["baselines"][-1], part["baselines"][0]
    text = {
        i: page.locator(f"#{i}").inner_text()
        for i in page.locator("[id^=v-], [id^=n-]").evaluate_all("e => e.map(x => x.id)")
    }
    assert page.locator("#alpha-text").inner_text() == data["evaluation"]["alphas"][row]
    assert same(text["v-risk"], part["risk"][row])
    promise, *rest = re.findall(r"[\d.]+%", text["n-risk"])
    assert same(promise, part["upper"][row])
    expected, chance = rest[-2:]
    assert same(expected, part["expected"][row])
    assert same(chance, 2 * part["std"][row])
    if part["lower"][row] > 0:
        assert same(rest[0], part["lower"][row])
    assert same(text["v-size"], part["size"][row])
    assert same(text["v-saved"], part["calls_saved"][row])
    assert same(text["v-cost"].removeprefix("$"), 1000 * part["cost"][row])
    assert same(text["n-cost"], part["cost_saved"][row])
    assert same(text["v-accuracy"], part["accuracy"][aggregation][row])
    assert [
        same(figure, value)
        for figure, value in zip(
            re.findall(r"[\d.]+%", text["n-accuracy"]),
            [full["accuracy"][aggregation], single["accuracy"]["a judge picks"]],
            strict=True,
        )
    ] == [True, True]
    assert same(text["v-abstention"], part["abstention"][row])
    assert same(text["v-miss"], part["avoidable_miss"][row])
    assert page.locator("#guarantee").inner_text() == data["levels"][row]["guarantee"]
    assert page.locator("#warnings li").all_inner_texts() == data["levels"][row]["warnings"]
    bars = page.evaluate("document.getElementById('chart-called').data[0].x")
    assert sorted(bars) == sorted(called[row] for called in part["called"].values())
    point = page.evaluate("document.getElementById('chart-risk').data.at(-1)")
    assert point["x"] == [data["levels"][row]["value"]]
    assert point["y"] == [part["risk"][row]]


def test_the_keyboard_moves_the_numbers_and_they_are_the_jsons(report, visit):
    page = visit(report)
    data = data_of(page)
    own = data["evaluation"]["alphas"].index("0.2")
    check_numbers(page, data, 0, own)
    assert not page.locator("#own").is_enabled()
    page.locator("#alpha").focus()
    seen = set()
    for key, row in [
        ("ArrowRight", own + 1),
        ("ArrowLeft", own),
        ("Home", 0),
        ("End", len(ALPHAS) - 1),
    ]:
        page.keyboard.press(key)
        check_numbers(page, data, 0, row)
        seen.add(page.locator("#sentence").inner_text())
        assert (
            page.locator("#alpha").get_attribute("aria-valuetext")
            == f"alpha {data['evaluation']['alphas'][row]}"
        )
    assert len(seen) == 4
    page.locator("#own").click()
    check_numbers(page, data, 0, own)


def test_the_choices_move_the_numbers(report, visit):
    page = visit(report)
    data = data_of(page)
    row = data["evaluation"]["alphas"].index("0.2")
    names = list(data["evaluation"]["groups"][0]["accuracy"])
    assert page.locator("#aggregation option").evaluate_all("e => e.map(x => x.value)") == names
    for name in names:
        page.locator("#aggregation").select_option(name)
        check_numbers(page, data, 0, row, name)
    page.locator("#aggregation").select_option("majority")
    page.locator("#group").select_option("2")
    check_numbers(page, data, 2, row)


def test_the_tables_are_the_jsons(report, visit):
    page = visit(report)
    data = data_of(page)
    evaluation, row = data["evaluation"], data["evaluation"]["alphas"].index("0.2")
    whole = evaluation["groups"][0]

    def rows(table):
        return page.locator(f"#{table} tbody tr").evaluate_all(
            "e => e.map(r => [...r.cells].map(c => c.textContent))"
        )

    for line, alpha, *figures in zip(
        rows("table-levels"),
        evaluation["alphas"],
        whole["risk"],
        whole["upper"],
        whole["expected"],
        whole["size"],
        strict=True,
    ):
        assert line[0] == alpha
        assert all(same(line[i], figure) for i, figure in zip([1, 2, 4, 6], figures, strict=True))
    for line, group in zip(rows("table-groups"), evaluation["groups"], strict=True):
        assert line[0] == ("All queries" if group is whole else group["group"])
        assert same(line[1], group["num_queries"])
        assert same(line[2], group["risk"][row])
        assert same(line[-1], group["accuracy"]["majority"][row])
    fixed = rows("table-fixed")
    assert len(fixed) == 1 + len(whole["baselines"]) + 2
    for line, baseline in zip(fixed[1:-2], whole["baselines"], strict=True):
        assert same(line[1], baseline["size"])
        assert same(line[2], baseline["avoidable_miss"])
        assert same(line[3].removeprefix("$"), 1000 * baseline["cost"])
        assert same(line[-1], baseline["accuracy"]["a judge picks"])
    assert same(fixed[-2][-1], whole["random"])
    assert same(fixed[-1][-1], whole["oracle"])
    assert [line[0] for line in rows("table-called")] == evaluation["models"]
    beta = re.findall(r"[\d.]+%", page.locator("#beta").inner_text())
    for text, value in zip(
        [beta[0], *beta[2:]],
        [whole["beta"], whole["beta_low"], whole["beta_high"], whole["oracle"]],
        strict=True,
    ):
        assert same(text, value)


def test_the_download_is_the_json(report, visit, tmp_path):
    page = visit(report)
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "data.json")
    assert json.loads((tmp_path / "data.json").read_text(encoding="utf-8")) == data_of(page)


def luminance(colour):
    channels = [c / 255 for c in colour[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def until(page, holds):
    """Waits for it; Playwright's own waiting evaluates strings, which the page forbids."""
    for _ in range(250):
        if holds():
            return
        page.wait_for_timeout(20)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("width", [400, 1200])
def test_everything_can_be_read_in_light_and_in_dark(report, visit, width):
    page = visit(report, width, color_scheme="light")
    page.locator("details").evaluate_all("e => e.forEach(d => { d.open = true; })")
    ink = "document.getElementById('chart-groups').layout.font.color"
    light = page.evaluate(ink)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        until(page, lambda: (page.evaluate(ink) == light) == (scheme == "light"))  # noqa: B023
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if width == 400:
            wide = "e => e.filter(x => x.scrollWidth > x.clientWidth + 1).map(x => x.className)"
            assert page.locator(".scroll, .card, .tile, table").evaluate_all(wide) == []
        seen = page.evaluate(SEEN_TEXT)
        assert len(seen) > 100
        assert min(it["size"] for it in seen) >= 12
        back = luminance(seen[0]["behind"])
        assert (back < 0.05) if scheme == "dark" else (back > 0.8)
        for it in seen:
            low, high = sorted([luminance(it["colour"]), luminance(it["behind"])])
            assert (high + 0.05) / (low + 0.05) >= 4.5, it


def test_paper_is_light(report, visit):
    page = visit(report, color_scheme="dark")
    ink = "document.getElementById('chart-groups').layout.font.color"
    before = page.evaluate(ink)
    page.emulate_media(media="print")
    until(page, lambda: page.evaluate(ink) != before)
    assert not page.locator("#alpha").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    widths = "document.querySelectorAll('.chart .main-svg')"
    assert (
        page.evaluate(f"Math.max(...[...{widths}].map(x => x.getBoundingClientRect().width))")
        <= 640
    )


BARE = {"groups": None, "cost": False, "answers": False}


# What the labelled queries have, and how the racer is made.
CASES = {
    "bare": (BARE, {}),
    "one group": ({"groups": ("law",)}, {}),
    "one model": ({"models": ("only",)}, {}),
    "infeasible": ({}, {"num": 30, "alpha": "0.05"}),
    "no promise in groups": ({}, {"by_group": False}),
    "pooled": ({}, {"num": 30, "alpha": "0.05", "fallback": "pooled"}),
    "never": (BARE, {"null": "never", "alpha": "0.02"}),
    "hostile": ({"models": HOSTILE, "groups": ("<b>g</b>", "</script>")}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_whatever_a_table_lacks_the_page_stands(name, folder, visit):
    queries, options = CASES[name]
    racer = calibrated(**options, **queries)
    table, scores = labelled(start=2000, **queries)
    path = folder / f"{name.replace(' ', '-')}.html"
    write_report(racer, table, path, ["0.3"], scores=scores)
    page = visit(path, 400)
    data = data_of(page)
    text = page.locator("body").inner_text()
    assert not re.search(
        r"NaN|undefined|null\b(?! mode)|Infinity|\bnan\b|\[object", text.replace("null model", "")
    ), text
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    grouped = len(data["evaluation"]["groups"]) > 2
    assert page.locator("#groups").is_visible() == page.locator("#group").is_visible() == grouped
    costs = data["evaluation"]["groups"][0]["cost"] is not None
    assert (
        page.locator("#tile-cost").is_visible()
        == page.locator("#axis-control").is_visible()
        == costs
    )
    for chart in CHARTS:
        if chart != "groups" or grouped:
            assert page.locator(f"#chart-{chart} .main-svg").count() > 0
            assert len(page.locator(f"#chart-{chart}").get_attribute("aria-label")) > 20
    assert page.locator("b, i, img").count() == 0
    if name == "hostile":
        shown = page.locator("#table-called tbody th").all_text_contents()
        assert shown == list(HOSTILE)
        assert "</script><b>bold" in page.locator("#chart-called").text_content()
    if name == "infeasible":
        assert "every model is called" in page.locator("#warnings").inner_text()
        assert page.locator("#v-size").inner_text() == "3.00"
    if costs:
        page.locator("input[value=cost]").check()
        assert "dollars" in page.locator("#chart-fixed").inner_text()


def test_one_model_after_another_beside_sets(folder, report, visit):
    rows, _ = labelled(num=320, start=2000)
    cascade = Cascade.fit(jax.random.key(0), rows.select(slice(0, 120)), reference="vote")
    cascade = cascade.calibrate(rows.select(slice(120, 320)), 0.05)
    table, scores = labelled(start=1000)
    path = folder / "stops.html"
    write_report(calibrated(), table, path, ALPHAS, scores=scores, cascade=cascade)
    page = visit(path)
    stops = data_of(page)["sequential"]
    assert page.locator("#stop-level").input_value() == str(stops["own"])
    assert stops["levels"][stops["own"]]["alpha"] == "0.05"
    for place, level in enumerate(stops["levels"]):
        page.locator("#stop-level").select_option(str(place))
        bars = page.evaluate("document.getElementById('chart-stops-after').data.map(t => t.y)")
        assert [sum(column) for column in zip(*bars, strict=True)] == pytest.approx(
            level["stopped_after"]
        )
        assert (
            f"takes {level['calls']:.2f} of 3 calls" in page.locator("#stops-sentence").inner_text()
        )
        assert page.locator("#stops-promise").inner_text().startswith(level["guarantee"])
        now = page.evaluate("document.getElementById('chart-stops-calls').data.at(-1)")
        assert (now["x"], now["y"]) == ([level["value"]], [level["calls"]])
    page.locator("input[name=axis][value=cost]").check()
    now = page.evaluate("document.getElementById('chart-stops-calls').data.at(-1)")
    assert now["y"] == [pytest.approx(1000 * stops["levels"][-1]["dollars"])]
    assert visit(report).locator("#stops").is_hidden()


def test_a_cascade_alone(folder, visit):
    rows, _ = labelled(num=320, start=2000, models=HOSTILE)
    fitted = Cascade.fit(jax.random.key(0), rows.select(slice(0, 120)), reference="vote")
    cascade = fitted.calibrate(rows.select(slice(120, 320)), 0.05)
    table, _ = labelled(start=1000, models=HOSTILE)
    path = folder / "cascade.html"
    levels = write_cascade_report(cascade, table, path)["sequential"]["levels"]
    page = visit(path, chart="chart-calls")
    page.locator("#alpha").focus()
    page.keyboard.press("Home")
    for level in levels:
        assert page.locator("#v-calls").inner_text() == f"{level['calls']:.2f}"
        assert same(page.locator("#v-accuracy").inner_text(), level["accuracy"])
        assert same(page.locator("#v-cost").inner_text().removeprefix("$"), 1000 * level["dollars"])
        assert page.locator("#guarantee").inner_text() == level["guarantee"]
        column = page.locator("#table-why tbody td:nth-child(2)").all_inner_texts()
        for text, stopped in zip(column, level["stopped_after"], strict=True):
            assert same(text, stopped)
        bars = page.evaluate("document.getElementById('chart-stops-after').data.map(t => t.y)")
        assert [sum(shares) for shares in zip(*bars, strict=True)] == pytest.approx(
            level["stopped_after"]
        )
        for chart in ("calls", "accuracy", "cost", "risk"):
            now = page.evaluate(f"document.getElementById('chart-{chart}').data.at(-1).x")
            assert now == [level["value"]]
        page.keyboard.press("ArrowRight")
    names = page.locator("#table-order tbody td:nth-child(2)").all_text_contents()
    assert tuple(names) == cascade.policy.calls
    assert page.locator("b, i, img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    narrow = visit(path, 390, "chart-calls")
    assert narrow.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # A number keeps its error beside it.
    errors = [text for text in narrow.locator("tbody td").all_text_contents() if "±" in text]
    assert errors
    assert all("\u00a0±\u00a0" in text for text in errors)


def test_a_cascade_without_labels_dollars_and_calibration(folder, visit):
    rows, _ = labelled(num=160, start=2000, cost=False)
    fitted = Cascade.fit(jax.random.key(0), rows.select(slice(0, 120)), reference="vote")
    table = rows.select(slice(120, 160))
    nothing = np.zeros(table.correct.shape, bool)
    blind = replace(table, correct=nothing, missing=~nothing)
    path = folder / "blind.html"
    write_cascade_report(fitted, blind, path)
    page = visit(path, chart="chart-calls")
    for part in ("card-accuracy", "card-cost", "card-risk", "tile-cost", "tile-accuracy"):
        assert page.locator(f"#{part}").is_hidden()
    assert "have no labels" in page.locator("#sentence").inner_text()
    assert "NaN" not in page.locator("main").inner_text()
