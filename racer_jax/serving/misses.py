"""Whether a decision was a miss, from the labels of its models; and feedback from both."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from racer_jax.core.nonconformity import NONCONFORMITIES
from racer_jax.data.errors import DataError
from racer_jax.data.table import RoutingTable
from racer_jax.racer.decision import Decision, Reason
from racer_jax.racer.promises import unpromised, unpromised_to_all
from racer_jax.racer.racer import Racer
from racer_jax.racer.scoring import measure_scores
from racer_jax.serving.line_input import is_error, record_of


def miss_of(
    content: Mapping[str, Any], decided: set[str], pool: set[str], null_in_set: bool, null: str
) -> bool | None:
    """Whether a decision was a miss, by a label; None where the label does not say it.

    Use this when a decision has got its label; `labelled_feedback` does it for many.

    Args:
      content: The label: `correct` by model, or `missed`.
      decided: The set.
      pool: All models that were scored.
      null_in_set: Whether the null model is in the set.
      null: The null mode.

    >>> miss_of({"correct": {"a": 0, "b": 1}}, {"a"}, {"a", "b"}, False, "paper")
    True
    >>> miss_of({"correct": {"a": 0, "b": 0}}, {"a"}, {"a", "b"}, False, "free")
    False
    """
    correct = content.get("correct")
    if correct is None:
        missed = content.get("missed")
        return None if missed is None else bool(missed)
    if not pool <= set(correct):
        return None
    if any(correct[model] for model in decided):
        return False
    if any(correct[model] for model in pool):
        return True
    if null == "never":
        return True
    return null == "paper" and not null_in_set


@dataclass
class LabelledFeedback:
    """Feedback lines that decisions and labels give.

    Use this when you read what `labelled_feedback` returns.

    Attributes:
      lines: One for each decision with a label, in their order: lines of JSON with `missed` and
        `position`, the line of the decision.
      num_unlabelled: Decisions without a label of every model, which are left out.
      num_errors: Lines that hold the error of a query in place of its decision, left out.
      num_unpromised: Decisions for which nothing was promised, left out: those of an unknown group
        by the threshold of all groups, or of a group in which alpha is out of reach.
      alpha: The risk level of the decisions.
      first_lacking: Of the first query whose label lacks some models, what it lacks, in words;
        empty where there is none.
    """

    alpha: str
    lines: list[bytes] = field(default_factory=list)
    num_unlabelled: int = 0
    num_errors: int = 0
    first_lacking: str = ""
    num_unpromised: int = 0

    def notes(self) -> list[str]:
        """What was left out, a sentence for each reason. Use this when feedback is counted."""
        notes = []
        if self.num_unlabelled:
            first = f"; first: {self.first_lacking}" if self.first_lacking else ""
            notes.append(
                f"{self.num_unlabelled:,} decisions without a label of every model left out{first}"
            )
        if self.num_unpromised:
            notes.append(
                f"{self.num_unpromised:,} decisions for which nothing was promised left out"
            )
        if self.num_errors:
            notes.append(f"{self.num_errors:,} lines with an 'error' and no decision left out")
        return notes


def labelled_feedback(
    lines: Iterable[bytes], name: str, labels: RoutingTable, racer: Racer | None = None
) -> LabelledFeedback:
    """What a monitor of the risk counts, from decisions and a table of labels.

    A decision belongs to the label whose id or text is the decision's id. What counts as a miss is
    what the racer promised; without it, an avoidable miss: a model could answer, and no called one
    did. An avoidable miss is a miss in each null mode, so the monitor raises no more false alarms.

    Use this when decisions were logged and labels came later.

    Args:
      lines: Decisions as `racer-jax route` writes them, each with an `id`.
      name: Their file, for errors.
      labels: Which model was right on which query; results of some models may be missing.
      racer: Who decided; None where that is not known.

    Raises:
      DataError: If a line is not such a decision, two alphas are mixed, or no decision has a label.
    """
    rows = {text: row for row, text in enumerate(labels.texts)}
    rows |= {text: row for row, text in enumerate(labels.ids)}
    result: LabelledFeedback | None = None
    num_errors = 0
    for line, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        plain = record_of(raw, name, line, plain=False)
        if is_error(plain):
            num_errors += 1
            continue
        query, decision = _decision(plain, name, line)
        if result is None:
            result, is_promised = LabelledFeedback(decision.alpha), _promises(racer, decision.alpha)
        if decision.alpha != result.alpha:
            problem = (
                f"must be of one alpha, got {decision.alpha} after {result.alpha}: name the "
                "decisions of each alpha in a file of its own"
            )
            raise DataError(problem, path=name, line=line)
        if decision.reason is Reason.POOLED_GROUP or not is_promised(decision.group):
            result.num_unpromised += 1
            continue
        missed = None
        if query in rows:
            label = _label(labels, rows[query])
            missed = _missed(decision, label, racer)
            if missed is None and not result.first_lacking:
                result.first_lacking = _lacking(query, decision, label)
        if missed is None:
            result.num_unlabelled += 1
            continue
        entry = {"missed": int(missed), "position": line}
        result.lines.append(json.dumps(entry).encode())
    if result is None:
        got = f"{num_errors:,} lines with an 'error'" if num_errors else "no line"
        raise DataError(f"is empty: it must hold at least one decision, got {got}", path=name)
    result.num_errors = num_errors
    if not result.lines and not result.num_unlabelled:
        raise DataError(
            f"holds {result.num_unpromised:,} decisions, and nothing was promised for any of them",
            path=name,
        )
    if not result.lines and result.first_lacking:
        raise DataError(result.first_lacking, path=name)
    if not result.lines:
        raise DataError(
            f"holds {result.num_unlabelled:,} decisions, and none of them has a label of every "
            "model: their 'id' must be the id or the text of a query of the labels",
            path=name,
        )
    return result


def _promises(racer: Racer | None, alpha: str) -> Callable[[str | None], bool]:
    """Whether a miss of a query of a group says something against a promise.

    All do where none is promised for any query, since questions were trained on: who tests such a
    racer wants to know its risk.
    """
    calibration = None if racer is None else racer.calibration
    if racer is None or calibration is None or calibration.num_overlap:
        return lambda group: True
    calibration = calibration.at(alpha)
    reasons = unpromised(calibration, racer.null)
    if calibration.groups is None:
        return lambda group: not reasons[0]
    of_group = {name: not why for name, why in zip(calibration.groups, reasons, strict=True)}
    calls_all = calibration.max_models is None and not unpromised_to_all(calibration, racer.null)
    return lambda group: calls_all if group is None else of_group.get(group, calls_all)


def _lacking(query: str, decision: Decision, label: Mapping[str, Any]) -> str:
    """Which models of a decision a label says nothing of."""
    absent = [model for model in decision.scores if model not in label["correct"]]
    return (
        f"query {query!r} has no label for {', '.join(absent)}: what counts a miss needs the "
        f"labels of all {len(decision.scores)} models"
    )


def _decision(plain: dict[str, Any], name: str, line: int) -> tuple[str, Decision]:
    """The name of the query and the decision of a line."""
    query = plain.pop("id", None)
    if query is None:
        raise DataError(
            "must have an 'id', which says whose label it gets: give 'id' to 'racer-jax route'",
            path=name,
            line=line,
        )
    try:
        return str(query), Decision.from_dict(plain)
    except ValueError as error:
        raise DataError(str(error), path=name, line=line) from None


def _label(labels: RoutingTable, row: int) -> dict[str, Any]:
    """Which models are right on a query, of those that have a result."""
    known = np.ones(len(labels.models), bool)
    if labels.missing is not None:
        known = ~labels.missing[row]
    pairs = zip(labels.models, labels.correct[row], known, strict=True)
    return {"correct": {model: bool(right) for model, right, is_known in pairs if is_known}}


def _missed(decision: Decision, label: Mapping[str, Any], racer: Racer | None) -> bool | None:
    null = "free" if racer is None else racer.null
    in_set = null == "paper" and racer is not None and _null_in_set(decision, racer)
    pool = set(decision.scores)
    return miss_of(label, set(decision.models), pool, in_set, null)


def _null_in_set(decision: Decision, racer: Racer) -> bool:
    """Whether the null model is in the set; where it cannot be known, yes: no miss is invented."""
    if racer.nonconformity not in NONCONFORMITIES or set(racer.models) != set(decision.scores):
        return True
    scores = np.array([[decision.scores[model] for model in racer.models]], np.float32)
    nonconformity = measure_scores(scores, racer.nonconformity, racer.null).nonconformity
    return bool(nonconformity[0, -1] <= decision.threshold)
