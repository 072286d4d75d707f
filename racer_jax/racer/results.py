"""What an evaluation measured, as numbers and in print."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from racer_jax.data.errors import printable
from racer_jax.montecarlo.tuning import MAJORITY
from racer_jax.reporting.files import as_plain
from racer_jax.reporting.tables import text_table

# The aggregation of a perfect judge: right where one of the called models is.
JUDGE = "a judge picks"
# More groups than these do not fit a terminal.
_MAX_GROUPS = 20


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fixed choice of models, the same for every query.

    Use this when you read `GroupEvaluation.baselines`.

    Attributes:
      name: `best single`, `full ensemble`, or `static order, k models`.
      models: The models called.
      size: How many.
      avoidable_miss: Share of the queries some model answers and none of these does.
      accuracy: Aggregation -> share answered rightly; `a judge picks` counts a query as right when
        one of them is.
      cost: Mean dollars a query, None where costs are not known.
    """

    name: str
    models: tuple[str, ...]
    size: int
    avoidable_miss: float
    accuracy: Mapping[str, float]
    cost: float | None


@dataclass(frozen=True, eq=False)
class GroupEvaluation:
    """One group, or all queries together.

    Arrays are float64 `[a]`, one entry for each alpha of the `Evaluation`.

    Use this when you read `Evaluation.groups`.

    Attributes:
      group: Its name; `all` for the whole table.
      num_queries: Queries evaluated.
      num_calibration: Queries its thresholds were calibrated on.
      promised: Whether the calibration promises a risk of at most alpha for just these queries.
      beta: Share of the queries that no model answers.
      beta_low: Lower end of its 95% Clopper-Pearson interval.
      beta_high: Upper end.
      risk: Share of the queries that are misrouted.
      lower: What the expected risk is above, by the exact law; NaN where ties are not broken or
        nothing is promised.
      upper: What it is at most: alpha; NaN where nothing is promised.
      expected: The expected risk by the exact law; NaN likewise.
      std: Standard deviation of `risk` around it, over calibration and evaluated queries alike.
      size: Mean number of models called.
      calls_saved: 1 - size / m, against the full ensemble.
      cost: Mean dollars a query, None where costs are not known.
      cost_saved: Share of the full ensemble's dollars saved, None likewise.
      abstention: Share of the queries for which no model is called.
      avoidable_miss: Share that some model answers while none that does is called.
      accuracy: Aggregation -> share of the queries answered rightly, by the called models' vote;
        `a judge picks` counts a query as right when one of the called models is.
      called: Model -> share of the queries it is called for.
      baselines: The fixed choices to compare with; the last is the full ensemble.
      oracle: 1 - beta, what a perfect choice of one model reaches.
      random: Mean accuracy of the models, what a random choice of one reaches.
    """

    group: str
    num_queries: int
    num_calibration: int
    promised: bool
    beta: float
    beta_low: float
    beta_high: float
    risk: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    expected: np.ndarray
    std: np.ndarray
    size: np.ndarray
    calls_saved: np.ndarray
    cost: np.ndarray | None
    cost_saved: np.ndarray | None
    abstention: np.ndarray
    avoidable_miss: np.ndarray
    accuracy: Mapping[str, np.ndarray]
    called: Mapping[str, np.ndarray]
    baselines: tuple[Baseline, ...]
    oracle: float
    random: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a racer does on a table.

    Use this when you read what `Racer.evaluate` returns.

    Attributes:
      alpha: The racer's own risk level.
      alphas: All levels evaluated, ascending, its own among them.
      models: The pool.
      nonconformity: Name of the nonconformity score.
      null: The null mode.
      label_rule: The rule that said which answers of the table were right.
      guarantee: What is promised, in words, with its assumption.
      num_seen: Number of rows whose question the racer was trained or calibrated on; their figures
        look better than new queries will.
      groups: All queries first, then each group of the table.
      notes: What one must know to read the figures, one sentence each.
    """

    alpha: str
    alphas: tuple[str, ...]
    models: tuple[str, ...]
    nonconformity: str
    null: str
    label_rule: str
    guarantee: str
    num_seen: int
    groups: tuple[GroupEvaluation, ...]
    notes: tuple[str, ...]

    @property
    def row(self) -> int:
        """The place of the racer's own alpha among `alphas`."""
        return self.alphas.index(self.alpha)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain lists, dictionaries, numbers and strings.

        NaN and infinities are strings.

        Use this when the figures go into a file or another program.
        """
        plain: dict[str, Any] = as_plain(self)
        return plain

    def __str__(self) -> str:
        names = [name for group in self.groups for name in group.accuracy]
        aggregation = MAJORITY if MAJORITY in names else JUDGE
        whole, row = self.groups[0], self.row
        parts = [
            f"alpha = {self.alpha}, nonconformity {self.nonconformity}, null mode {self.null!r}",
            "\n".join([self._groups_table(aggregation), *self._folded()]),
            f"no model answers {whole.beta:.1%} of the queries (95%: {whole.beta_low:.1%} to "
            f"{whole.beta_high:.1%}); avoidable misses at alpha = {self.alpha}: "
            f"{whole.avoidable_miss[row]:.3f}",
            self._baselines_table(aggregation),
        ]
        sentences = [self.guarantee, *(f"note: {note}" for note in self.notes)]
        return "\n\n".join(parts) + "\n\n" + "\n".join(map(printable, sentences))

    def _shown(self) -> list[GroupEvaluation]:
        """All queries and the largest groups, as many as a terminal shows, in their order."""
        if len(self.groups) <= _MAX_GROUPS:
            return list(self.groups)
        places = range(1, len(self.groups))
        largest = sorted(places, key=lambda i: (-self.groups[i].num_queries, i))[: _MAX_GROUPS - 1]
        return [self.groups[0], *(self.groups[i] for i in sorted(largest))]

    def _folded(self) -> list[str]:
        """How many groups are not shown, and the ends of their risk; nothing where all are."""
        shown = {group.group for group in self._shown()}
        rest = [group for group in self.groups if group.group not in shown]
        if not rest:
            return []
        risks = [float(group.risk[self.row]) for group in rest]
        over = sum(r > g.upper[self.row] for r, g in zip(risks, rest, strict=True) if g.promised)
        return [
            f"and {len(rest)} smaller groups of risk {min(risks):.3f} to {max(risks):.3f}, {over} "
            f"of them above what is promised: all of them are in the JSON output"
        ]

    def _groups_table(self, aggregation: str) -> str:
        """Each group at the racer's own alpha."""
        head = ["group", "queries", "risk", "at most", "expected", "size", "calls saved"]
        head += ["abstains", "cost", aggregation]
        row, lines = self.row, []
        for group in self._shown():
            law = ["-", "-"]
            if group.promised:
                law = [f"{group.upper[row]:.3f}", f"{group.expected[row]:.3f}"]
            lines.append(
                [
                    printable(group.group),
                    str(group.num_queries),
                    f"{group.risk[row]:.3f}",
                    *law,
                    f"{group.size[row]:.2f}",
                    f"{group.calls_saved[row]:.1%}",
                    f"{group.abstention[row]:.1%}",
                    "-" if group.cost is None else f"${group.cost[row]:.3g}",
                    f"{group.accuracy[aggregation][row]:.1%}",
                ]
            )
        return text_table(head, lines)

    def _baselines_table(self, aggregation: str) -> str:
        """The fixed choices on all queries."""
        lines = []
        for line in self.groups[0].baselines:
            cost = "-" if line.cost is None else f"${line.cost:.3g}"
            accuracy = f"{line.accuracy.get(aggregation, line.accuracy[JUDGE]):.1%}"
            lines.append([line.name, str(line.size), f"{line.avoidable_miss:.3f}", cost, accuracy])
        return text_table(["fixed choice", "size", "avoidable misses", "cost", aggregation], lines)
