"""Blocks of code: copied without prompts and output, and no wider than the page where they can be.

The rows of a table in an output are kept whole, since a row that is wrapped cannot be read: the
block scrolls in its own box. Every other line is wrapped; what a legend says of a word is wrapped
below itself.
"""

import html
import re
from typing import Any

_FENCE = re.compile(r"^( *)```python\n(?=\1>>> )", re.MULTILINE)
_BLOCK = re.compile(
    r'<div class="(?:language-(?P<language>[\w-]+) )?highlight">(?P<code>.*?)</div>', re.DOTALL
)
_TAG = re.compile(r"<[^>]*>")
_PROMPT = {"pycon": re.compile(r"(?:>>>|\.\.\.)(?: |$)"), "console": re.compile(r"\$ ")}
_COLUMNS = re.compile(r"\S {2,}\S")
# A row of a legend: a word or two, then what they mean.
_LEGEND = re.compile(
    r" *[^\W\d](?:[\w-]| (?! )){0,24} {2,}(?P<words>(?:\S+ ){3,}(?:\S+ )*\S+)", re.ASCII
)
# An option or a name in running text: it is not broken at its hyphens.
_SHORT = re.compile(r"<code>([^<>\s]{1,24})</code>")
# An option within longer code likewise: --loss, -e.
_LONG = re.compile(r"<code>([^<>]*\s[^<>]*)</code>")
_OPTION = re.compile(r"(<[^>]*>)|(?<![\w&;-])(--?[a-zA-Z][\w-]{0,30})(?!\w)")
# A number of a table, its error and its unit stay on one line: 1.93 (-0.13 ± 0.27), 33 ms.
_CELL = re.compile(r"<td[^>]*>[^<]*\d[^<]*</td>")
# A short cell stays on one line; one of many words gets a wider column where its table scrolls.
_WHOLE_CELL = re.compile(
    r"<(?P<tag>t[dh])(?P<attributes>\b[^>]*)>(?P<inside>.*?)</(?P=tag)>", re.DOTALL
)
_SHORT_CELL, _WORDS_CELL = 20, 60
# A name in the title of a page or in its contents, and where such a name may be broken.
_NAME = re.compile(r"((?:<h1[^>]*>|<td[^>]*><autoref[^>]*>)<code[^>]*>)([\w.]+)(?=</code>)")
_JOINT = re.compile(r"(?<=\w)([_.])(?=[a-zA-Z])")
# Spaces that put the comments of several lines below each other: a phone leaves them out.
_ALIGNMENT = re.compile(r"  ( +)(?=(?:</span>)?<span class=\"c1\">#)")
_WITHIN_NUMBER = re.compile(
    r"(?<=\d) (?=\([^)]*±)| (?=± ?\d)|(?<=±) |(?<=\d) (?=(?:us|ms|s|MB|MiB|GB)\b)"
)
# Characters of a line that fit beside the contents at 1280 pixels; see docs/assets/site.css.
_WIDTH = 100


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Names what is an interactive session one, so that prompts and output are coloured as such."""
    return _FENCE.sub(r"\1```pycon\n", markdown)


def typed(language: str, text: str) -> str | None:
    """What a reader types of a block with prompts; None where it has none."""
    prompt = _PROMPT.get(language)
    if prompt is None:
        return None
    lines = [line for line in text.splitlines() if prompt.match(line)]
    return "\n".join(prompt.sub("", line, count=1) for line in lines)


def is_row(language: str, line: str) -> bool:
    """Whether a line is one of a table: of an output, with columns."""
    prompt = _PROMPT.get(language)
    printed = language == "text" if prompt is None else not prompt.match(line)
    return printed and _COLUMNS.search(line) is not None


def rows_of(language: str, lines: list[str]) -> list[bool]:
    """For each line, whether it is of a table: a row, or the rest of the cell of the row above."""
    found: list[bool] = []
    for line in lines:
        rest = bool(found) and found[-1] and re.match(r" {4,}\S", line) is not None
        found.append(is_row(language, line) or rest)
    return found


def places_of_words(lines: list[str], are_rows: list[bool]) -> list[int]:
    """For each line, the column at which what a legend says of a word begins; 0 in other lines."""
    found: list[int] = []
    for line, is_of_row in zip(lines, are_rows, strict=True):
        legend = _LEGEND.fullmatch(line) if is_of_row else None
        rest = is_of_row and bool(found) and found[-1] > 0
        if legend is not None:
            found.append(legend.start("words"))
        elif rest and len(line) - len(line.lstrip()) == found[-1]:
            found.append(found[-1])
        else:
            found.append(0)
    return found


def with_alignment(line: str) -> str:
    """A line of code with a mark on the spaces that align its comment, if code stands before it."""

    def marked(match: re.Match[str]) -> str:
        before = _TAG.sub("", line[: match.start()])
        return f'  <span class="alignment">{match[1]}</span>' if before.strip() else match[0]

    return _ALIGNMENT.sub(marked, line)


def wrapped_line(line: str) -> str:
    """A line of code that is broken where it does not fit."""
    return f'<span class="wrapped">{line}</span>'


def legend_line(line: str, place: int) -> str:
    """A line of a legend that is broken where it does not fit, and goes on below its words."""
    return f'<span class="legend" style="--place: {place}ch">{line}</span>'


def marked_cell(match: re.Match[str]) -> str:
    """A cell of a table with the class of its length, by which a phone sets its width."""
    attributes, inside = match["attributes"], match["inside"]
    length = len(html.unescape(_TAG.sub("", inside)).strip())
    if "class=" in attributes or not length:
        return match[0]
    name = "short" if length <= _SHORT_CELL else "words" if length > _WORDS_CELL else "long"
    tag = match["tag"]
    return f'<{tag} class="{name}"{attributes}>{inside}</{tag}>'


def whole_options(code: str) -> str:
    """Code as HTML, with each option in a mark that keeps it on one line."""

    def whole(match: re.Match[str]) -> str:
        return match[1] or f'<span class="option">{match[2]}</span>'

    return _OPTION.sub(whole, code)


def with_joints(match: re.Match[str]) -> str:
    """A name that is broken after a dot or an underscore, where it does not fit."""
    return match[1] + _JOINT.sub(r"\1<wbr>", match[2])


def on_page_content(content: str, **_: Any) -> str:
    """Marks every block with what is copied of it and its wrapped lines.

    Short code and the numbers of tables are kept whole too.
    """

    def marked(match: re.Match[str]) -> str:
        language = match["language"] or "text"
        before, opening, rest = match["code"].partition("<code>")
        inner, closing, after = rest.partition("</code>")
        inner = inner.replace("&lt;BLANKLINE&gt;", "")
        plain = [html.unescape(_TAG.sub("", line)) for line in inner.split("\n")]
        are_rows = rows_of(language, plain)
        places = places_of_words(plain, are_rows)
        kinds = list(zip(plain, are_rows, places, strict=True))
        rows = [text for text, row, place in kinds if row and not place]
        kept = whole_options if language in ("bash", "console") else str
        lines = [
            legend_line(line, place)
            if place
            else line
            if row or not text
            else wrapped_line(kept(with_alignment(line)))
            for line, (text, row, place) in zip(inner.split("\n"), kinds, strict=True)
        ]
        copied = typed(language, "\n".join(plain))
        attribute = "" if copied is None else f' data-copy="{html.escape(copied)}"'
        wide = " wide-table" if rows and max(map(len, rows)) > _WIDTH else ""
        code = before + opening + "\n".join(lines) + closing + after
        return f'<div class="language-{language} highlight{wide}"{attribute}>{code}</div>'

    content = _CELL.sub(lambda cell: _WITHIN_NUMBER.sub("\u00a0", cell[0]), content)
    content = _WHOLE_CELL.sub(marked_cell, content)
    content = _SHORT.sub(r'<code class="short">\1</code>', _BLOCK.sub(marked, content))
    content = _NAME.sub(with_joints, content)
    return _LONG.sub(lambda code: f"<code>{whole_options(code[1])}</code>", content)
