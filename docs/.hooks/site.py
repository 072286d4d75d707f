"""What the site needs beyond its Markdown.

Pages of the repository's root, and formulas as MathML.

Formulas become MathML while the site is built, so that a page needs no script and no network to
show them.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Files outside docs/ that are pages of the site; those that do not exist are left out.
COPIED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "experiments/README.md": "experiments.md",
}
# A page of the site by docs/.hooks/notebook.py.
NOTEBOOK = "docs/notebooks/quickstart.ipynb"
# A picture of README.md that differs in the dark; the site has both, and shows the one that fits.
_PICTURE = re.compile(
    r'<picture>\s*<source[^>]* srcset="([^"]+)">\s*<img src="([^"]+)"[^>]* alt="([^"]+)">\s*'
    r"</picture>"
)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def _at_home(source: str, text: str) -> str:
    """The links of a page that moves to the top of the site.

    Relative to there, or as text where it lacks them. A picture for each of both palettes, with
    the marks by which the theme shows one of them.
    """
    text = _PICTURE.sub(r"![\3](\2#only-light)\n![\3](\1#only-dark)", text)

    def moved(match: re.Match[str]) -> str:
        path, _, anchor = match[1].partition("#")
        target = (ROOT / source).parent.joinpath(path).resolve().relative_to(ROOT).as_posix()
        home = {**COPIED, NOTEBOOK: "notebooks/quickstart.md"}.get(target) or (
            target.removeprefix("docs/") if target.startswith("docs/") else None
        )
        if home is None:
            return f"] (`{target}`)"
        if (ROOT / target).is_dir():
            home += "/README.md"
        return f"]({home}{'#' + anchor if anchor else ''})"

    return _LINK.sub(moved, text)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that do not stand in docs/."""
    for source, page in COPIED.items():
        if (ROOT / source).exists():
            text = _at_home(source, (ROOT / source).read_text(encoding="utf-8"))
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page that stands alone in its section has no list of neighbours beside it."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Turns formulas into MathML."""

    def formula(match: re.Match[str]) -> str:
        mathml = convert(
            html.unescape(match[2]), display="block" if match[1] == "div" else "inline"
        )
        return f'<div class="formula">{mathml}</div>' if match[1] == "div" else str(mathml)

    return _FORMULA.sub(formula, content)
