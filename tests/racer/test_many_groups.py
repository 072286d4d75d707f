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
    printed = str(evaluation).split("no model answers")[0]
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
