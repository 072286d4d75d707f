"""What the tests of the site read of its pages: tables of the API, blocks of code, plain text."""

import re
from html.parser import HTMLParser
from typing import NamedTuple

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Block(NamedTuple):
    """A block of code: its language, its text, and what the button copies where that differs."""

    language: str
    text: str
    copied: str | None


class Page(HTMLParser):
    """The content of a page.

    Attributes:
        rows: Each row of each table of parameters, results and so on: the title of the table,
            then the cells.
        blocks: Each block of code.
        codes: The code within sentences and tables.
        prose: Text outside code and formulas.
        anchors: Every id.
        num_quotations: Number of quotations.
    """

    def __init__(self, text: str):
        super().__init__()
        self.rows: list[tuple[str, ...]] = []
        self.blocks: list[Block] = []
        self.codes: list[str] = []
        self.anchors: set[str] = set()
        self.num_quotations = 0
        self._open: list[tuple[str, str]] = []
        self._prose, self._cell, self._code = [], [], []
        self._row: list[str] = []
        self._title = ""
        self._copied: str | None = None
        self._language = ""
        self.feed(text)
        self.prose = "".join(self._prose)

    def _inside(self, *names: str) -> bool:
        return any(tag in names or set(kind.split()) & set(names) for tag, kind in self._open)

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        kind = values.get("class", "")
        if "id" in values:
            self.anchors.add(values["id"])
        if tag in VOID:
            return
        self._open.append((tag, kind))
        if "doc-section-title" in kind:
            self._title = ""
        if tag == "blockquote":
            self.num_quotations += 1
        if tag == "tr":
            self._row = []
        if tag == "td":
            self._cell = []
        if tag == "div" and (language := re.search(r"language-([\w-]+)", kind)):
            self._language = language[1]
            self._copied = values.get("data-copy")
        if tag in ("pre", "code"):
            self._code = []

    def handle_data(self, data):
        if not self._inside("article"):
            return
        if self._inside("pre", "code"):
            self._code.append(data)
        if not self._inside("pre") and not self._inside("code", "math", "script", "style"):
            self._prose.append(data)
        if self._inside("doc-section-title"):
            self._title += data
        if self._inside("td"):
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if tag == "code" and not self._inside("pre") and self._inside("article"):
            self.codes.append("".join(self._code))
        inside = self._inside("doc-section-item") and self._inside("article")
        while self._open and self._open.pop()[0] != tag:
            pass
        if not inside and tag != "pre":
            return
        if tag == "td":
            self._row.append(re.sub(r"\s+", " ", "".join(self._cell)).strip())
        if tag == "tr":
            self.rows.append((self._title.strip(" :\n"), *self._row))
        if tag == "pre" and self._inside("article"):
            self.blocks.append(Block(self._language, "".join(self._code), self._copied))
