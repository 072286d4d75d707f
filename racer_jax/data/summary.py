"""What a table holds, group by group, before anything is calibrated on it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from racer_jax.core.proportions import clopper_pearson

if TYPE_CHECKING:
    from racer_jax.data.table import RoutingTable

ALL = "all"


@dataclass(frozen=True)
class GroupSummary:
    """One group of a table, or all of it.

    Attributes:
      group: Its name.
      num_queries: Rows.
      num_duplicates: Rows that repeat a question of the group.
      num_missing: Pairs nobody evaluated.
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
    """A table in figures; prints as a table.

    Attributes:
      groups: One for each group, and one for the whole where there is more than one group.
      confidence: Level of the Clopper-Pearson intervals.
      notes: The notes of the table.
    """

    groups: tuple[GroupSummary, ...]
    confidence: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain lists, dictionaries, numbers and strings."""
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
        rows = [
            [
                g.group,
                str(g.num_queries),
                str(g.num_duplicates),
                str(g.num_missing),
                g.best_single,
                f"{g.accuracies[g.best_single]:.4f}",
                f"{g.all_wrong:.4f}",
                f"{g.all_wrong_low:.4f} - {g.all_wrong_high:.4f}",
                g.label_rule,
            ]
            for g in self.groups
        ]
        models = list(self.groups[0].accuracies)
        accuracies = [
            [model, *(f"{g.accuracies[model]:.4f}" for g in self.groups)] for model in models
        ]
        parts = [
            _aligned(head, rows),
            _aligned(["accuracy", *(g.group for g in self.groups)], accuracies),
        ]
        if self.notes:
            parts.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(parts)


def summarize(table: "RoutingTable", confidence: float = 0.95) -> Summary:
    """Single-model accuracies, all-wrong rates, duplicates and missing cells of a table, by group.

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


def _group(table: "RoutingTable", name: str, confidence: float) -> GroupSummary:
    seen = np.ones(table.correct.shape, bool) if table.missing is None else ~table.missing
    evaluated = seen.sum(axis=0)
    accuracies = np.where(
        evaluated > 0, table.correct.sum(axis=0) / np.maximum(evaluated, 1), np.nan
    )
    whole = seen.all(axis=1)
    wrong, n = int((~table.correct.any(axis=1) & whole).sum()), int(whole.sum())
    low, high = clopper_pearson(wrong, n, confidence)
    best = 0 if np.isnan(accuracies).all() else int(np.nanargmax(accuracies))
    return GroupSummary(
        group=name,
        num_queries=len(table),
        num_duplicates=len(table) - len(np.unique(table.question_ids)),
        num_missing=int((~seen).sum()),
        accuracies=dict(zip(table.models, accuracies.tolist(), strict=True)),
        best_single=table.models[best],
        all_wrong=wrong / n if n else float("nan"),
        all_wrong_low=low,
        all_wrong_high=high,
        label_rule=", ".join(dict.fromkeys(table.rules.values())),
    )


def _aligned(head: list[str], rows: list[list[str]]) -> str:
    """Columns of text: those of numbers to the right."""
    table = [head, *rows]
    widths = [max(len(row[j]) for row in table) for j in range(len(head))]
    right = [all(row[j][:1].isdigit() or row[j] == "nan" for row in rows) for j in range(len(head))]
    lines = [
        "  ".join(
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
