"""More groups than a terminal shows: the largest are printed, all of them are in the figures."""

import numpy as np

from racer_jax.data import RoutingTable
from racer_jax.racer.racer import Racer


def test_an_evaluation_of_57_groups_is_folded_in_print():
    rng = np.random.default_rng(0)
    sizes = [2 + i % 7 for i in range(57)]
    group = [f"subject {i}" for i, size in enumerate(sizes) for _ in range(size)]
    num = len(group)
    scores = rng.random((num, 2)).astype(np.float32)
    table = RoutingTable(
        ids=[f"q{i}" for i in range(num)],
        texts=[f"{i}?" for i in range(num)],
        models=["x", "y"],
        correct=rng.random((num, 2)) < scores,
        group=group,
    )
    racer = Racer.from_scores(["x", "y"]).calibrate(table, 0.3, scores=scores, by_group=False)
    evaluation = racer.evaluate(table, ["0.3"], scores=scores)
    assert len(evaluation.to_dict()["groups"]) == 58
    printed = str(evaluation).split("\n\nAll queries, at each alpha")[0]
    shown = [line.split("  ")[0].strip() for line in printed.splitlines() if "subject " in line]
    assert len(shown) == 19
    sizes_shown = [sizes[int(line.split("subject ")[1].split()[0])] for line in shown]
    assert min(sizes_shown) >= sorted(sizes)[-19]
    (folded,) = [line for line in printed.splitlines() if line.startswith("and ")]
    rest = [g for g in evaluation.groups[1:] if g.group not in set(shown)]
    assert folded.startswith(f"and {len(rest)} smaller groups of risk ")
    assert f"to {max(g.risk[0] for g in rest):.3f}, 0 of them above" in folded
    rows = [i for i, name in enumerate(group) if name in ("subject 3", "subject 4")]
    few = racer.evaluate(table.select(rows), ["0.3"], scores=scores[rows])
    assert "smaller groups" not in str(few)


def small(tie_break: int | None):
    rng = np.random.default_rng(1)
    scores = rng.random((120, 2)).astype(np.float32)
    table = RoutingTable(
        ids=[f"q{i}" for i in range(120)],
        texts=[f"{i}?" for i in range(120)],
        models=["x", "y"],
        correct=rng.random((120, 2)) < scores,
    )
    racer = Racer.from_scores(["x", "y"], seed=tie_break)
    return racer.calibrate(table.select(range(60)), 0.3, scores=scores[:60]), table, scores


def rows_of_figures(printed: str) -> list[list[str]]:
    lines = [line.split() for line in printed.splitlines() if " ± " in line]
    return [cells for cells in lines if cells[1].isdigit()]


def test_every_level_that_is_asked_for_is_printed_with_a_verdict():
    """Each shown risk stands beside what is promised and what chance does, and no number is NaN."""
    racer, table, scores = small(0)
    rest = table.select(range(60, 120))
    evaluation = racer.evaluate(rest, "0.1,0.2,0.4", scores=scores[60:])
    printed = str(evaluation)
    rows = {cells[0]: cells for cells in rows_of_figures(printed)}
    assert [name for name in rows if name != "all"] == ["0.1", "0.2", "0.3", "0.4"]
    whole = evaluation.groups[0]
    for i, name in enumerate(evaluation.alphas):
        risk, at_most, expected, _, spread, *words = rows[name][2:]
        figures = (whole.risk[i], whole.upper[i], whole.expected[i], 2 * whole.std[i])
        assert [risk, at_most, expected, spread] == [f"{value:.3f}" for value in figures]
        said = " ".join(words)
        inside = whole.risk[i] <= whole.expected[i] + 2 * whole.std[i]
        if whole.risk[i] <= whole.upper[i]:
            assert said.startswith("at most alpha")
        else:
            assert said.startswith("within chance" if inside else "higher than chance")
    assert "nan" not in printed.lower()
    by_default = str(racer.evaluate(rest, scores=scores[60:]))
    assert "at each alpha" not in by_default
    assert len(rows_of_figures(by_default)) == 1


def test_what_is_not_known_is_a_dash_that_the_legend_explains():
    racer, table, scores = small(None)
    printed = str(racer.evaluate(table, [0.3], scores=scores))
    assert "nan" not in printed.lower()
    assert "\n-  " in printed
