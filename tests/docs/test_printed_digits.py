"""Pages show the digits that their commands print: those that do not depend on the processor."""

import re
from pathlib import Path

from experiments import beyond, sequential

PAGE = Path(__file__).parents[2] / "docs" / "beyond.md"
SEQUENTIAL = PAGE.with_name("sequential.md")
EXPERIMENTS = PAGE.parents[1] / "experiments" / "README.md"
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


def rows_below(page: str, head: str) -> list[str]:
    """The rows of the first table that begins with `head`."""
    lines = page.split(head, 1)[1].split("\n\n", 1)[0].splitlines()
    return [line for line in lines[2:] if line.startswith("| ")]


def test_the_cases_of_the_check_are_those_of_the_tables():
    """Every way at every level in every pool; in dollars where they are logged."""
    page = SEQUENTIAL.read_text(encoding="utf-8")
    pools = rows_below(page, "| pool | models | reference right |")
    priced = rows_below(page, "| pool | full vote | best single |")
    assert len(pools) == 6
    assert len(priced) == 3
    num_alphas = len(sequential.Config.alphas.split(","))
    num_ways = len(sequential.WAYS)
    cases = num_alphas * (num_ways * len(pools) - (len(pools) - len(priced)))
    assert re.findall(r"In (\d+) cases \(way, pool and alpha\)", page) == [str(cases)]


def test_an_output_is_shown_line_by_line():
    """What a run took is printed on a line of its own, and shown so."""
    page = EXPERIMENTS.read_text(encoding="utf-8")
    outputs = re.findall(r"^```\w*\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    lines = [line for output in outputs for line in output.splitlines() if "In all " in line]
    assert len(lines) == 3
    assert not [line for line in lines if not line.startswith("In all ")]


def test_what_sets_of_trained_routers_save_is_left_out():
    """It depends on the processor in its last digit; the calls say it with one digit less."""
    page = EXPERIMENTS.read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.count("|") == 8]
    trained = [row for row in rows if re.match(r"(MLPR|RouterDC) \+ RACER", row[0])]
    assert len(trained) == 32
    assert {tuple(row[5:]) for row in trained} == {("...", "...")}
