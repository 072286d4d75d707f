"""Pages show the digits that their commands print: those that do not depend on the processor."""

import re
from pathlib import Path

from experiments import beyond

PAGE = Path(__file__).parents[2] / "docs" / "beyond.md"
NAMES = {*beyond.TRAINED, *beyond.DRAWN, beyond.ORACLE}


def wrong_digits(page: str) -> tuple[int, list[str]]:
    """How many sizes the tables of a page hold, and those that the command prints otherwise."""
    rows = [line.strip("|\n ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    sizes = [
        (row[1], cell) for row in rows if row[1:] and row[1].strip() in NAMES for cell in row[2:]
    ]
    sizes = [(name, cell) for name, cell in sizes if re.fullmatch(r"\d+\.\d+", cell)]
    return len(sizes), [
        f"{name}: {cell}" for name, cell in sizes if cell != beyond.shown_size(name, float(cell))
    ]


def test_sizes_of_trained_scores_end_where_rounding_begins():
    page = PAGE.read_text(encoding="utf-8")
    num, wrong = wrong_digits(page)
    assert num > 300
    assert not wrong
    # Changes are printed in whole percents.
    assert not re.findall(r"[+-]\d+\.\d+ ± ", page)


def test_a_digit_too_many_or_too_few_is_found():
    table = "| MMLU | P, MLP | 6.65 | 6.4 |\n| MMLU | static | 4.7 | 3.49 |\n| MMLU | x | 1 |\n"
    assert wrong_digits(table) == (4, ["P, MLP: 6.65", "static: 4.7"])


def test_what_rounds_to_nothing_has_no_minus():
    """The format `z` where it is printed; the sign of a margin says inside or outside the set."""
    root = PAGE.parents[1]
    sources = [*(root / "experiments").glob("*.py"), *(root / "racer_jax").rglob("*.py")]
    signed = re.compile(r"\{[^{}\n]+:\+(?!z)[^{}\n]*\}")
    bare = {path.name for path in sources if signed.search(path.read_text(encoding="utf-8"))}
    assert bare == {"decision.py"}
    pages = [root / "README.md", root / "experiments/README.md", *(root / "docs").rglob("*.md")]
    nothing = re.compile(r"(?<![\d.])[-−]0(\.0+)?%? ±")
    assert not [path.name for path in pages if nothing.search(path.read_text(encoding="utf-8"))]
    assert nothing.search("1.00 (-0.00 ± 0.00)")
