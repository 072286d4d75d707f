"""What a table holds, group by group, before anything is calibrated on it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from racer_jax.data.errors import printable, short
from racer_jax.data.table import RoutingTable

ALL = "all"
# More groups than these do not fit a terminal: in the first table one row each, in the second one
# column each.
_MAX_ROWS, _MAX_COLUMNS = 20, 6


@dataclass(frozen=True)
class GroupSummary:
    """One group of a table, or all of it.

    Use this when you read `Summary.groups`.

    Attributes:
      group: Its name.
      num_queries: Rows.
      num_duplicates: Rows that repeat a question of the group.
      num_missing: Pairs that were not evaluated.
      accuracies: Model -> share of its evaluated queries it answers rightly; NaN where there are
        none.
      best_single: The model with the highest accuracy; of equals the first.
      all_wrong: Share of the queries, evaluated on every model, that no model answers; beta.
      all_wrong_low: Lower end of the Clopper-Pearson interval of beta.
      all_wrong_high: Upper end.
      label_rule: How the labels were made.
    """

    group: str
    num_queries: int
    num_duplicates: int
    num_missing: int
    accuracies: dict[str, float]
    best_single: str
    all_wrong: float
    all_wrong_low: float
    all_wrong_high: float
    label_rule: str


@dataclass(frozen=True)
class Summary:
    """The figures of a routing table; `print` shows them as rows and columns.

    Use this when you read what `summarize` returns.

    Attributes:
      groups: Figures of each group, and of the whole table unless it has exactly one group.
      confidence: Level of the Clopper-Pearson intervals.
      notes: The notes of the table.
    """

    groups: tuple[GroupSummary, ...]
    confidence: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain lists, dictionaries, numbers and strings.

        Use this when the figures go into a file or another program.
        """
        return asdict(self)

    def __str__(self) -> str:
        level = f"{100 * self.confidence:g}% interval"
        head = [
            "group",
            "queries",
            "duplicates",
            "missing",
            "best single",
            "accuracy",
            "all wrong",
            level,
            "label rule",
        ]
        groups = _folded(self.groups, _MAX_ROWS)
        rows = [
            [
                printable(g.group),
                str(g.num_queries),
                str(g.num_duplicates),
                str(g.num_missing),
                printable(g.best_single),
                f"{g.accuracies[g.best_single]:.4f}",
                f"{g.all_wrong:.4f}",
                f"{g.all_wrong_low:.4f} - {g.all_wrong_high:.4f}",
                printable(g.label_rule),
            ]
            for g in groups
        ]
        parts = [_aligned(head, rows), self._accuracies(), _LEGEND]
        if len(groups) < len(self.groups):
            left_out = len(self.groups) - len(groups)
            parts.insert(1, f"and {left_out} smaller groups, all of them in the JSON output")
        if self.notes:
            parts.append("\n".join(f"note: {printable(note)}" for note in self.notes))
        return "\n\n".join(parts)

    def _accuracies(self) -> str:
        """The accuracy of each model in each group; the range over groups where there are many."""
        groups = self.groups if len(self.groups) <= _MAX_COLUMNS else self.groups[-1:]
        head = ["accuracy", *(printable(g.group) for g in groups)]
        has_rest = len(groups) < len(self.groups)
        rows = []
        for model in self.groups[0].accuracies:
            cells = [printable(model), *(f"{g.accuracies[model]:.4f}" for g in groups)]
            if has_rest:
                cells += _ends(model, self.groups[:-1])
            rows.append(cells)
        return _aligned([*head, "lowest", "in", "highest", "in"] if has_rest else head, rows)


_LEGEND = """\
duplicates   queries whose text stands in an earlier row too
missing      results that the table lacks, of all queries and models
best single  the model that is right most often there; accuracy: its share of right answers
all wrong    share of the queries that no model answers rightly: no set of models can; with its
             interval, in which the true share probably lies
label rule   when an answer counts as right"""


def summarize(table: RoutingTable, confidence: float = 0.95) -> Summary:
    """Single-model accuracies, all-wrong rates, duplicates and missing cells of a table, by group.

    Use this when a table has just been read: it shows whether models, groups and labels are as you
    expect, and the share of queries that no set of models can answer rightly.

    Args:
      table: The table, of at least one query.
      confidence: Level of the Clopper-Pearson intervals, in (0, 1).

    Returns:
      The summary; `print` shows it as a table.

    Raises:
      ValueError: If the table has no query or the level is not in (0, 1).
    """
    if not len(table):
        raise ValueError("table must hold at least one query, got none")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    groups = [_group(table.select(group=name), name, confidence) for name in table.groups]
    if len(groups) != 1:
        groups.append(_group(table, ALL, confidence))
    return Summary(tuple(groups), confidence, tuple(table.notes))


def exact_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the exact interval of a proportion (Clopper and Pearson 1934), by SciPy.

    Use this when an accuracy is shown with its uncertainty.

    Args:
      successes: Number of successes, 0 to `n`.
      n: Number of trials.
      confidence: Its level, in (0, 1).

    Returns:
      Its ends; (0, 1) where there is no trial.

    >>> low, high = exact_interval(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.special import betainccinv, betaincinv  # takes a fifth of a second to import

    tail, failures = (1 - confidence) / 2, n - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(betainccinv(successes + 1, failures, tail)) if failures else 1.0
    return low, high


def _group(table: RoutingTable, name: str, confidence: float) -> GroupSummary:
    has_label = np.ones(table.correct.shape, bool) if table.missing is None else ~table.missing
    num_labels = has_label.sum(axis=0)
    accuracies = np.where(
        num_labels > 0, table.correct.sum(axis=0) / np.maximum(num_labels, 1), np.nan
    )
    whole = has_label.all(axis=1)
    wrong, n = int((~table.correct.any(axis=1) & whole).sum()), int(whole.sum())
    low, high = exact_interval(wrong, n, confidence)
    best = 0 if np.isnan(accuracies).all() else int(np.nanargmax(accuracies))
    return GroupSummary(
        group=name,
        num_queries=len(table),
        num_duplicates=len(table) - len(np.unique(table.question_ids)),
        num_missing=int((~has_label).sum()),
        accuracies=dict(zip(table.models, accuracies.tolist(), strict=True)),
        best_single=table.models[best],
        all_wrong=wrong / n if n else float("nan"),
        all_wrong_low=low,
        all_wrong_high=high,
        label_rule=", ".join(dict.fromkeys(table.rules.values())),
    )


def _folded(groups: Sequence[GroupSummary], most: int) -> list[GroupSummary]:
    """The largest groups in their order, and the last, which is the whole."""
    if len(groups) <= most:
        return list(groups)
    order = sorted(range(len(groups) - 1), key=lambda i: (-groups[i].num_queries, i))
    return [groups[i] for i in sorted(order[: most - 1])] + [groups[-1]]


def _ends(model: str, groups: Sequence[GroupSummary]) -> list[str]:
    """The lowest and the highest accuracy of a model over groups, and where they are."""
    with_accuracy = [g for g in groups if not np.isnan(g.accuracies[model])]
    if not with_accuracy:
        return ["nan", "", "nan", ""]
    low = min(with_accuracy, key=lambda g: g.accuracies[model])
    high = max(with_accuracy, key=lambda g: g.accuracies[model])
    ends = []
    for group in (low, high):
        ends += [f"{group.accuracies[model]:.4f}", printable(group.group)]
    return ends


def _aligned(head: list[str], rows: list[list[str]]) -> str:
    """Columns of text: those of numbers to the right."""
    table = [[short(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[j]) for row in table) for j in range(len(head))]
    right = [all(row[j][:1].isdigit() or row[j] == "nan" for row in rows) for j in range(len(head))]
    lines = [
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
