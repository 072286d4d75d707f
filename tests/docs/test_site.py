"""The site as its readers meet it: the API's tables, what is copied, what fits the screen."""

import ast
import functools
import http.server
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

from tests.docs.site_pages import Page

ROOT = Path(__file__).parents[2]
CHROMIUM = (
    os.environ.get("RACER_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
IMPORT = re.compile(r"from (racer_jax[\w.]*) import ([\w, ]+)")
MARKDOWN = re.compile(r"`|\*\*[a-z]\w*\*\*|\]\(|\]\[|^\s*#+ |^\s*\|.*\|", re.MULTILINE)


def hook(name: str):
    """A module of docs/.hooks, which is no package."""
    spec = importlib.util.spec_from_file_location(f"_hook_{name}", ROOT / f"docs/.hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built from this checkout: by .ci/run, which names it, or here."""
    if folder := os.environ.get("RACER_JAX_TEST_SITE"):
        assert (Path(folder) / "index.html").is_file(), f"no site in {folder}"
        return Path(folder)
    for module in ("mkdocs", "mkdocstrings", "material"):
        pytest.importorskip(module, reason="extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet"]
    names = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT,
        env=names,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Every page by its path."""
    paths = sorted(site.rglob("index.html"))
    return {
        path.parent.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in paths
    }


def fault_of_row(title: str, cells: tuple[str, ...]) -> str | None:
    """What is wrong with a row of a table of the API."""
    *names, description = cells[:-1] if title == "Parameters" else cells
    if any("`" in cell for cell in cells):
        return "has a backtick"
    if title in ("Parameters", "Attributes"):
        if not re.fullmatch(r"\*{0,2}[A-Za-z_]\w*", names[0]):
            return "has no name"
        names = names[1:]
        if not any(names):
            return "has no type"
    if not description:
        return "has no description"
    if re.fullmatch(r"\w\.", description):
        return "has a letter for a description"
    if title in ("Returns", "Yields") and re.fullmatch(r"(The|Its|An?) \w+\.", description):
        return "says what the type says"
    for text in filter(None, names):
        try:
            parsed = ast.parse(text, mode="eval").body
        except SyntaxError:
            return f"has no type, but {text!r}"
        if not isinstance(
            parsed, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.Constant)
        ):
            return f"has no type, but {text!r}"
    if title in ("Returns", "Yields", "Raises") and not names[0]:
        return "has no type"
    return None


def test_a_garbled_row_is_found():
    good = ("Returns", ("Array | TieBroken", "The threshold; of 1/(n + 1): none."))
    assert fault_of_row(*good) is None
    assert fault_of_row("Parameters", ("**spec", "Unpack[Spec]", "As there.", "{}")) is None
    for title, cells in (
        ("Returns", ("1/(n + 1", "no threshold is safe.")),
        ("Returns", ("The size", "it has room.")),
        ("Returns", ("int64 `[n]`", "a column.")),
        ("Yields", ("cannot be made there", "then others.")),
        ("Parameters", ("a name of two", "int", "Words.", "required")),
        ("Raises", ("", "If it is wrong.")),
        ("Returns", ("SetLoss", "The SetLoss.")),
        ("Raises", ("ValueError", "")),
        ("Attributes", ("num_models", "int", "M.")),
        ("Attributes", ("num_models", "", "Number of models.")),
    ):
        assert fault_of_row(title, cells) is not None, cells


@pytest.mark.long
@pytest.mark.extra
def test_no_table_of_the_api_is_garbled(pages):
    rows = [(name, row) for name, page in pages.items() for row in page.rows]
    titles = {row[0] for _, row in rows}
    assert {"Parameters", "Attributes", "Returns", "Yields", "Raises"} <= titles
    assert len(rows) > 1500
    faults = [
        f"{name}: {row} {fault}"
        for name, row in rows
        if (fault := fault_of_row(row[0], row[1:])) is not None
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.long
@pytest.mark.extra
def test_no_page_shows_markdown(pages):
    found = {name: MARKDOWN.findall(page.prose) for name, page in pages.items()}
    assert not {name: hits for name, hits in found.items() if hits}


@pytest.mark.long
@pytest.mark.extra
def test_the_reference_lists_the_public_names_and_no_others(pages):
    api = hook("api")
    shown = {name.removeprefix("api/") for name in pages if name.startswith("api/")}
    assert not [name for name in shown if "._" in name]
    for name in shown - set(api.ALONE):
        package = importlib.import_module(name)
        homes = {
            public: module
            for module, names in next(p for p in api.packages() if p.name == name).homes.items()
            for public in names
        }
        beside = {n for names in api.BESIDE.get(name, {}).values() for n in names}
        assert set(homes) == set(package.__all__) | beside
        if name == "racer_jax":
            continue  # a table of links to the packages' own pages
        anchors = pages[f"api/{name}"].anchors
        assert {f"{module}.{public}" for public, module in homes.items()} <= anchors
        modules = set(homes.values())
        entries = {
            anchor.removeprefix(f"{module}.")
            for module in modules
            for anchor in anchors
            if anchor.startswith(f"{module}.")
        }
        entries = {entry for entry in entries if "." not in entry}
        assert entries == set(homes), f"{name} lists more than its __all__"


def methods_of(cls):
    """The public methods and properties of a class that this package wrote, inherited ones too.

    Those of a base that has an entry are described there.
    """
    entries = hook("api").entries()
    for base in cls.__mro__:
        has_entry = base is not cls and f"{base.__module__}.{base.__qualname__}" in entries
        if base.__module__.startswith("racer_jax") and not has_entry:
            kinds = (types.FunctionType, classmethod, property, functools.cached_property)
            for name, member in vars(base).items():
                if name[0] != "_" and isinstance(member, kinds) and member.__doc__:
                    yield name


@pytest.mark.long
@pytest.mark.extra
def test_the_reference_describes_every_method_of_a_class(pages):
    api, missing = hook("api"), []
    for package in api.packages():
        anchors = pages[f"api/{package.name}"].anchors
        homes = {} if package.name == "racer_jax" else package.homes
        for module, names in homes.items():
            for name in names:
                public = getattr(importlib.import_module(module), name)
                inside = methods_of(public) if isinstance(public, type) else ()
                listed = [f"{module}.{name}.{method}" for method in inside]
                missing += [entry for entry in listed if entry not in anchors]
    assert "racer_jax.racer.racer.Racer.at" in pages["api/racer_jax.racer"].anchors
    assert not missing


@pytest.mark.long
@pytest.mark.extra
def test_the_reference_shows_nothing_private_and_nothing_garbled(pages):
    private = re.compile(r"(?<![\w.*])_[A-Za-z]\w+")
    for name, page in pages.items():
        if not name.startswith("api/"):
            continue
        signatures = [block.text for block in page.blocks if block.language == "python"]
        assert not [text for text in signatures if private.search(text)], name
        # A formula that is broken at "> b" would be a quotation.
        assert page.num_quotations == 0, name
        assert not re.findall(r"^ *[A-Za-z]\. *$", page.prose, re.MULTILINE), name


@pytest.mark.long
@pytest.mark.extra
def test_what_a_page_imports_is_in_the_reference(pages):
    entries = set().union(*(page.anchors for name, page in pages.items() if name[:4] == "api/"))
    names = {entry.rpartition(".")[2] for entry in entries}
    missing = [
        f"{page.name}: {module}.{word.strip()}"
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for module, imported in IMPORT.findall(page.read_text(encoding="utf-8"))
        for word in imported.split(",")
        if word.strip() not in names and f"api/racer_jax.{word.strip()}" not in pages
    ]
    assert not missing


def test_what_is_copied_is_what_is_typed():
    blocks = hook("blocks")
    session = ">>> for a in b:\n...     print(a)\n...\n1  2\n>>> c\n'>>> d'"
    assert blocks.typed("pycon", session) == "for a in b:\n    print(a)\n\nc"
    assert blocks.typed("console", "$ racer-jax demo\n$ 5\nout") == "racer-jax demo\n5"
    assert blocks.typed("python", ">>> a") is None
    assert blocks.is_row("pycon", "risk  0.1")
    assert not blocks.is_row("pycon", ">>> risk  # a")
    assert not blocks.is_row("bash", "racer-jax demo    # shows")
    assert not blocks.is_row("text", "a sentence of words")


@pytest.mark.long
@pytest.mark.extra
def test_an_example_ends_at_an_empty_line_and_not_at_an_indented_one():
    pytest.importorskip("griffe", reason="extra docs")
    doctests = hook("doctests")
    docstring = "A sum.\n\n>>> print(table)\nalpha  risk\n  0.1  0.10\n\nUse this when.\n"
    shown = doctests._EXAMPLE.sub(doctests.SiteDocstrings._fenced, docstring)
    assert "```pycon\n>>> print(table)\nalpha  risk\n  0.1  0.10\n```" in shown
    assert shown.endswith("Use this when.\n")
    formula = "It is\n\n  c = max a,\n\nwith a.\n\nArgs:\n  a: A.\n\n  b of a."
    assert doctests.with_formulas(formula) == formula.replace("  c", "```text\nc").replace(
        "a,", "a,\n```"
    )


@pytest.mark.long
@pytest.mark.extra
def test_a_class_shows_how_it_is_called_where_readers_call_it(pages):
    def shown(name, package):
        blocks = [block.text for block in pages[f"api/racer_jax.{package}"].blocks]
        return [text for text in blocks if text.startswith(f"{name}(")]

    assert "resume: bool = False" in shown("Entries", "serving")[0]
    assert "dim: int = 4096" in shown("HashedNgrams", "encoders")[0]
    assert "optimizer: OptimizerConfig = OptimizerConfig(" in shown("MLPConfig", "routers")[0]
    assert "log_wealth: tuple[float, ...] = ...," in shown("RiskMonitor", "serving")[0]
    assert "seed: int = 0" in shown("VoteConfig", "studies")[0]
    assert "graded: ArrayLike | None = None" in shown("FinetuneData", "routers")[0]
    assert "passed: bool = True" in shown("Report", "studies")[0]
    assert "server: Server = Server()" in shown("Settings", "serving.gateway")[0]
    assert "keys: dict[str, Key] = dict()" in shown("Settings", "serving.gateway")[0]
    assert 'qualities: Mapping[str, float] = {"weak": 0.2,' in " ".join(
        shown("simulated_pool", "data")[0].split()
    ).replace("{ ", "{")
    assert "temperatures: tuple[float, ...] = ...," in shown("vote_tables", "montecarlo")[0]
    assert shown("Model", "serving.gateway")[0].startswith("Model(\n    *,\n    base_url: str,")
    for name, package in (
        ("BoundCheck", "montecarlo"),
        ("Trials", "montecarlo"),
        ("Racer", "racer"),
        ("Calibration", "racer"),
        ("Evaluation", "racer"),
        ("ArtefactError", "racer"),
        ("DataError", "data"),
        ("SetLoss", "core"),
        ("Cascade", "serving"),
    ):
        assert not shown(name, package), name


@pytest.mark.long
@pytest.mark.extra
def test_options_have_the_words_of_the_command(pages):
    rows = pages["api/racer_jax.studies"].rows
    assert ("Attributes", "seed", "int", "Seed of everything.") in rows
    assert rows.count(("Attributes", "seed", "int", "Seed of everything.")) == 2
    types = [row[2] for page in pages.values() for row in page.rows if len(row) > 2]
    assert not [cell for cell in types if cell.startswith("Annotated[")]


def test_a_base_without_an_entry_is_not_shown():
    pytest.importorskip("mkdocs", reason="extra docs")
    api = hook("api")
    page = (
        '<p class="doc doc-class-bases">\n  Bases: '
        '<code><autoref identifier="{}" optional hover>A</autoref></code></p>'
    )
    assert api.on_page_content(page.format("racer_jax.racer.changes.ChangeableRacer")) == ""
    assert api.on_page_content(page.format("racer_jax.batch.columns._Batch")) == ""
    for known in ("typing.NamedTuple", "racer_jax.data.errors.DataError"):
        assert known in api.on_page_content(page.format(known))


def defined_names():
    """Every class of the package, and every name of a module in capital letters, with its module."""
    for path in sorted((ROOT / "racer_jax").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield module, node.name
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                is_variable = (
                    ast.unparse(node.value).startswith("TypeVar(") if node.value else False
                )
                if not is_variable and re.fullmatch(r"[A-Z]\w+", ast.unparse(target)):
                    yield module, ast.unparse(target)


@pytest.mark.long
@pytest.mark.extra
def test_every_name_of_the_reference_can_be_looked_up(site, pages):
    """Types, defaults and bases are links, and what the words name has an entry."""
    entries = hook("api").entries()
    of_reference = set(importlib.import_module("racer_jax.reference").__dict__)
    known = {entry.rpartition(".")[2] for entry in entries} | of_reference
    defined = list(defined_names())
    unknown = {name for _, name in defined} - known
    paths = {f"{module}.{name}" for module, name in defined}
    assert {"ChangeableRacer", "CalibrationFacts", "RacerState", "TICKS"} <= unknown
    faults = []
    for name, page in pages.items():
        if not name.startswith("api/"):
            continue
        text = (site / name / "index.html").read_text(encoding="utf-8")
        faults += [
            f"{name}: {path} is no link"
            for path in re.findall(r'<span title="(racer_jax[\w.]*)">', text)
            if path in paths
        ]
        words = [block.text for block in page.blocks if block.language == "python"] + page.codes
        faults += [
            f"{name}: {word} has no entry"
            for text in words
            for word in re.findall(r"(?<![\w.\"'/-])[A-Z]\w+", text)
            if word in unknown and not is_of_others(word)
        ]
    assert not faults, "\n".join(sorted(set(faults)))


def is_of_others(word):
    """Whether other packages have a public name like this one: then it is theirs that is meant."""
    return word in ("Module",)


def test_an_option_is_not_broken_at_its_hyphens():
    blocks = hook("blocks")
    whole = '<span class="option">{}</span>'.format
    page = "<p><code>pip install -e '.[serve]'</code> <code>a - b</code> <code>x --null-mode free</code></p>"
    assert blocks.on_page_content(page) == (
        f"<p><code>pip install {whole('-e')} '.[serve]'</code> <code>a - b</code> "
        f"<code>x {whole('--null-mode')} free</code></p>"
    )
    block = '<div class="language-bash highlight"><pre><code>train -o a\nb--c</code></pre></div>'
    content = blocks.on_page_content(block)
    assert f'<span class="wrapped">train {whole("-o")} a</span>' in content
    assert '<span class="wrapped">b--c</span>' in content


def test_a_long_name_is_broken_at_its_joints():
    blocks = hook("blocks")
    page = '<h1 id="a"><code>a_b.risk_law</code></h1><p><code>a_b</code></p>'
    shown = blocks.on_page_content(page)
    assert '<code class="short">a_<wbr>b.<wbr>risk_<wbr>law</code>' in shown
    assert "<p><code class" in shown
    assert ">a_b</code></p>" in shown


def test_a_number_of_a_table_is_not_broken():
    blocks = hook("blocks")
    page = "<td>1.93 (-0.13 ± 0.27)</td><td>33 ms of 2 rows</td><p>1 ± 2</p>"
    space = "\u00a0"
    assert blocks.on_page_content(page) == (
        f'<td class="short">1.93{space}(-0.13{space}±{space}0.27)</td>'
        f'<td class="short">33{space}ms of 2 rows</td><p>1 ± 2</p>'
    )


def test_a_cell_has_the_class_of_its_length():
    blocks = hook("blocks")
    page = '<td><code>J</code> learned</td><td style="x">{}</td><td></td><td class="a">b</td>'
    marked = blocks.on_page_content(page.format("one word after another " * 3))
    assert marked.startswith('<td class="short"><code class="short">J</code> learned</td>')
    assert '<td class="words" style="x">' in marked
    assert blocks.on_page_content("<thead><tr><th>n</th></tr></thead>").startswith("<thead>")
    assert marked.endswith('<td></td><td class="a">b</td>')
    assert '<td class="long" style="x">' in blocks.on_page_content(
        page.format("more than twenty letters")
    )


def test_what_belongs_to_a_row_is_kept_with_it():
    blocks = hook("blocks")
    lines = ["risk      what is", "          promised here", "A sentence.", "    a quote"]
    assert blocks.rows_of("text", lines) == [True, True, False, False]


def test_a_legend_is_wrapped_below_its_words():
    blocks = hook("blocks")
    lines = [
        "at most    the risk that is promised, as said",
        "           at the end",
        "all    1300  0.055    0.050  within chance",
        "1300       the risk that is promised",
        "alpha      0.1",
    ]
    assert blocks.places_of_words(lines, [True] * 5) == [11, 11, 0, 0, 0]
    assert blocks.places_of_words(lines, [False] * 5) == [0] * 5


def test_only_spaces_before_the_comment_of_a_line_of_code_are_alignment():
    blocks = hook("blocks")
    comment = '<span class="c1"># why</span>'
    assert blocks.with_alignment(f"a = 1      {comment}") == (
        f'a = 1  <span class="alignment">    </span>{comment}'
    )
    spaces = f'<span class="w">     </span>{comment}'
    assert blocks.with_alignment(f"b{spaces}") == (
        f'b<span class="w">  <span class="alignment">   </span></span>{comment}'
    )
    assert blocks.with_alignment(spaces) == spaces


@pytest.mark.long
@pytest.mark.extra
def test_each_public_name_of_the_reference_says_what_it_does():
    pytest.importorskip("mkdocs", reason="extra docs")
    api = hook("api")
    for package in api.packages():
        for row in api._contents(package).splitlines()[2:]:
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
            assert len(cells) == 2, row
            assert all(cells), row


@pytest.mark.long
@pytest.mark.extra
def test_a_picture_for_the_dark_is_shown_there_only():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    page = hook("site")._at_home("README.md", text)
    assert "(calls.png#only-light)" in page
    assert "(calls-dark.png#only-dark)" in page
    assert "<picture>" not in page


@pytest.mark.long
@pytest.mark.extra
def test_no_prompt_is_copied(pages):
    sessions = [block for page in pages.values() for block in page.blocks if ">>> " in block.text]
    assert len(sessions) > 100
    for block in sessions:
        assert block.language == "pycon", block.text[:80]
        ast.parse(block.copied)
        assert block.copied.strip()
    commands = [
        block for page in pages.values() for block in page.blocks if block.text.startswith("$ ")
    ]
    assert commands
    for block in commands:
        assert block.copied.startswith("racer-jax"), block.text[:80]
        assert "$ " not in block.copied


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served while the tests run."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser():
    """A browser, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="extra browser")
    if CHROMIUM is None:
        pytest.skip("no chromium (apt-get install chromium, or RACER_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


MEASURE = """() => ({
  page: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  blocks: [...document.querySelectorAll(".md-content .highlight:not(.wide-table) pre > code")]
    .filter((code) => code.scrollWidth > code.clientWidth + 1)
    .map((code) => code.innerText.slice(0, 60)),
  tables: [...document.querySelectorAll(".md-content table:not([class])")]
    .filter((table) => !table.closest(".md-typeset__scrollwrap")).length,
  reference: [...document.querySelectorAll(".md-typeset__scrollwrap:has(.doc-section-item)")]
    .filter((box) => box.scrollWidth > box.clientWidth)
    .map((box) => box.innerText.slice(0, 60)),
  narrow: [...document.querySelectorAll(".doc-section-item > td:has(> .doc-md-description)")]
    .filter((cell) => cell.clientWidth < 200 && cell.innerText.length > 20)
    .map((cell) => cell.innerText.slice(0, 60)),
  legends: [...document.querySelectorAll(".highlight .legend")]
    .filter((line) => line.scrollWidth > line.closest("code").clientWidth)
    .map((line) => line.innerText.slice(0, 60)),
})"""


@pytest.mark.long
@pytest.mark.extra
@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 400])
def test_nothing_runs_out_of_the_page(site, address, browser, width):
    view = browser.new_page(viewport={"width": width, "height": 900})
    for path in sorted(site.rglob("index.html")):
        name = path.parent.relative_to(site).as_posix()
        view.goto(f"{address}/{name}/", wait_until="load")
        seen = view.evaluate(MEASURE)
        assert seen["page"] <= 0, f"{name} is wider than {width} pixels"
        assert seen["tables"] == 0, f"{name}: a table has no box to scroll in"
        assert not seen["narrow"], f"{name}: words have no room beside a type: {seen['narrow']}"
        assert not seen["legends"], f"{name}: a legend is not wrapped: {seen['legends']}"
        if width == 400:
            assert not seen["reference"], f"{name}: a table scrolls: {seen['reference']}"
        else:
            assert not seen["blocks"], f"{name}: code runs out of its box: {seen['blocks']}"
    view.close()


# Text with less contrast to what lies behind it than WCAG AA asks: 4.5 to 1, 3 for large text.
PALE = """() => {
  const channels = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (front, back) => [0, 1, 2].map((i) => front[i] * front[3] + back[i] * (1 - front[3]));
  const light = (colour) => colour.slice(0, 3)
    .map((value) => value / 255)
    .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    if (element === null) return [255, 255, 255];
    const colour = channels(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour : over(colour, behind(element.parentElement));
  };
  const found = {};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || element.closest("svg, script, style") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), back = behind(element), front = channels(style.color);
    for (let at = element; at; at = at.parentElement) front[3] *= getComputedStyle(at).opacity;
    if (front[3] === 0) continue;
    const [low, high] = [light(over(front, back)), light(back)].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), isBold = style.fontWeight >= 700;
    const asked = size >= 24 || (isBold && size >= 18.66) ? 3 : 4.5;
    if ((high + 0.05) / (low + 0.05) < asked - 0.01) found[element.className || element.tagName] = text;
  }
  return found;
}"""


@pytest.mark.long
@pytest.mark.extra
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_readers_need(address, browser, scheme):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    view = context.new_page()
    for name in ("", "tutorial/", "gateway/", "guides/containers/", "api/racer_jax.data/"):
        view.goto(f"{address}/{name}", wait_until="load")
        assert view.evaluate(PALE) == {}, name
    context.close()


@pytest.mark.long
@pytest.mark.extra
def test_the_button_copies_what_is_typed(address, browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    view = context.new_page()
    view.goto(f"{address}/tutorial/", wait_until="load")
    block = view.locator(".language-pycon").first
    block.hover()
    block.locator("button.md-code__button").first.click()
    copied = view.evaluate("() => navigator.clipboard.readText()")
    assert ">>>" in block.inner_text()
    assert ">>>" not in copied
    assert copied.startswith("import jax\n")
    context.close()
