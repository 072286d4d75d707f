"""An evaluation on a terminal: tables, a verdict beside each risk, and what each column means."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from racer_jax.data.errors import printable
from racer_jax.montecarlo.tuning import MAJORITY
from racer_jax.racer.promises import WORDING
from racer_jax.racer.wording import ORDERED_BY
from racer_jax.reporting.tables import text_table
from racer_jax.reporting.verdicts import MEANINGS, verdict

if TYPE_CHECKING:
    from racer_jax.racer.results import Evaluation, GroupEvaluation

# The aggregation of a perfect judge: right where one of the called models is.
JUDGE = "a judge picks"
# What a null mode says of the questions that no model can answer.
_NULL = {
    "free": "a question that no model can answer is no miss",
    "never": "a question that no model can answer is a miss",
    "paper": "a question that no model can answer is a miss unless its set holds the null model",
}
# Orders whose sets are made so that one model is right, which a vote may not follow.
_FOR_A_JUDGE = ("J_learned", "J", "static")
# More groups than a terminal shows are left to the JSON output.
MAX_GROUPS = 20


def evaluation_text(evaluation: Evaluation) -> str:
    """The figures of an evaluation for a person to read: at its own alpha and those asked for.

    Use this when you are below `Evaluation`; `str(evaluation)` is the same.
    """
    whole, row = evaluation.groups[0], evaluation.row
    aggregation = MAJORITY if MAJORITY in whole.accuracy else JUDGE
    shown = _largest(evaluation)
    lines = [(printable(group.group), group, row) for group in shown]
    parts = [
        f"alpha = {evaluation.alpha}, {_order(evaluation.nonconformity)}; null mode "
        f"{evaluation.null!r}: {_NULL[evaluation.null]}",
        "\n".join([_table("group", lines, aggregation), *_folded(evaluation, shown)]),
    ]
    if evaluation.has_chosen_levels:
        at_levels = [(name, whole, i) for i, name in enumerate(evaluation.alphas)]
        title = "All queries, at each alpha:"
        if len(evaluation.groups) > 1:
            title = "All queries, at each alpha (each group: in the JSON output):"
        parts.append(f"{title}\n{_table('alpha', at_levels, aggregation)}")
        lines += at_levels
    parts += [
        _legend(evaluation, lines, aggregation),
        f"No model answers {whole.beta:.1%} of the queries (95% interval: {whole.beta_low:.1%} to "
        f"{whole.beta_high:.1%}). Avoidable misses at alpha = {evaluation.alpha}: "
        f"{whole.avoidable_miss[row]:.3f}.",
        _baselines(whole, aggregation),
    ]
    sentences = [evaluation.guarantee, *(f"note: {note}" for note in evaluation.notes)]
    return "\n\n".join(parts) + "\n\n" + "\n".join(map(printable, sentences))


def _order(nonconformity: str) -> str:
    """What orders the models, in words where it is of this package."""
    meaning = ORDERED_BY.get(nonconformity)
    name = f"models ordered by {nonconformity!r}"
    return name if meaning is None else f"{name}: {meaning}"


def _largest(evaluation: Evaluation) -> list[GroupEvaluation]:
    """All queries and the largest groups, as many as a terminal shows, in their order."""
    groups = evaluation.groups
    if len(groups) <= MAX_GROUPS:
        return list(groups)
    largest = sorted(range(1, len(groups)), key=lambda i: (-groups[i].num_queries, i))
    return [groups[0], *(groups[i] for i in sorted(largest[: MAX_GROUPS - 1]))]


def _folded(evaluation: Evaluation, shown: Sequence[GroupEvaluation]) -> list[str]:
    """How many groups are not shown, and the ends of their risk; nothing where all are."""
    names = {group.group for group in shown}
    rest = [group for group in evaluation.groups if group.group not in names]
    if not rest:
        return []
    risks = [float(group.risk[evaluation.row]) for group in rest]
    above = sum(
        risk > group.upper[evaluation.row]
        for risk, group in zip(risks, rest, strict=True)
        if group.promised
    )
    return [
        f"and {len(rest)} smaller groups of risk {min(risks):.3f} to {max(risks):.3f}, {above} "
        f"of them above what is promised: all of them are in the JSON output"
    ]


def _bounds(group: GroupEvaluation, row: int) -> tuple[float, float, float]:
    """What is promised, the expected risk, and the deviation around it; NaN where not known."""
    if not group.promised:
        return (float("nan"),) * 3
    return float(group.upper[row]), float(group.expected[row]), float(group.std[row])


def _verdict(group: GroupEvaluation, row: int) -> str:
    return verdict(float(group.risk[row]), *_bounds(group, row))


def _table(first: str, lines: Sequence[tuple[str, GroupEvaluation, int]], aggregation: str) -> str:
    """Rows of names, groups and levels."""
    costs = any(group.cost is not None for _, group, _ in lines)
    head = [first, "queries", "risk", "at most", "expected", "verdict", "models", "saved"]
    head += ["abstains", *["cost"][: int(costs)], aggregation]
    rows = []
    for name, group, row in lines:
        at_most, expected, deviation = _bounds(group, row)
        spread = "-" if isnan(expected) else f"{expected:.3f} ± {2 * deviation:.3f}"
        cost = "-" if group.cost is None else f"${group.cost[row]:.3g}"
        rows.append(
            [
                name,
                str(group.num_queries),
                f"{group.risk[row]:.3f}",
                "-" if isnan(at_most) else f"{at_most:.3f}",
                spread,
                _verdict(group, row),
                f"{group.size[row]:.2f}",
                f"{group.calls_saved[row]:.1%}",
                f"{group.abstention[row]:.1%}",
                *[cost][: int(costs)],
                f"{group.accuracy[aggregation][row]:.1%}",
            ]
        )
    return text_table(head, rows)


def _legend(
    evaluation: Evaluation, lines: Sequence[tuple[str, GroupEvaluation, int]], aggregation: str
) -> str:
    """What each column says, of the columns and verdicts that are shown."""
    voted = "by a majority vote of the called models; no model called: not right"
    if aggregation == JUDGE:
        voted = "if a judge picks the right one of the called models' answers; no model called: "
        voted += "not right"
    meanings = {
        "risk": f"share of the queries in which {WORDING.misses[evaluation.null]}",
        "at most": "the risk that is promised, as the sentence at the end says",
        "expected": "the risk to expect if the promise holds, ± two standard deviations",
        "models": f"called for a query on average, of {len(evaluation.models)}",
        "saved": "share of the calls, against calling all models",
        "abstains": "share of the queries for which no model is called",
        "cost": "dollars for a query on average",
        aggregation: f"share of the queries answered rightly {voted}",
    }
    if not any(group.cost is not None for _, group, _ in lines):
        del meanings["cost"]
    words = {_verdict(group, row) for _, group, row in lines}
    meanings |= {name: text for name, text in MEANINGS.items() if name in words}
    bounds = [_bounds(group, row) for _, group, row in lines]
    if any(isnan(value) for values in bounds for value in values):
        meanings["-"] = "nothing is promised there, or it is not known"
    width = max(map(len, meanings))
    lines_of_text = [f"{name:{width}}  {text}" for name, text in meanings.items()]
    if aggregation == MAJORITY and evaluation.nonconformity in _FOR_A_JUDGE:
        place = list(meanings).index(aggregation) + 1
        lines_of_text.insert(
            place,
            f"{'':{width}}  (sets of {evaluation.nonconformity!r} are made for a judge who finds "
            "the right answer; for a vote see racer-jax cascade)",
        )
    return "\n".join(lines_of_text)


def _baselines(whole: GroupEvaluation, aggregation: str) -> str:
    """The fixed choices on all queries."""
    costs = any(line.cost is not None for line in whole.baselines)
    rows = []
    for line in whole.baselines:
        cost = "-" if line.cost is None else f"${line.cost:.3g}"
        accuracy = f"{line.accuracy.get(aggregation, line.accuracy[JUDGE]):.1%}"
        missed = f"{line.avoidable_miss:.3f}"
        rows.append([line.name, str(line.size), missed, *[cost][: int(costs)], accuracy])
    head = ["fixed choice", "models", "avoidable misses", *["cost"][: int(costs)], aggregation]
    return (
        f"The same models for every query, to compare with:\n{text_table(head, rows)}\n"
        "best single       the model that was right most often on the calibration questions\n"
        "static order      the models in one order for all queries, by what each adds to those "
        "before it\n"
        "avoidable misses  share of the queries that some model answers rightly and no called one"
    )
