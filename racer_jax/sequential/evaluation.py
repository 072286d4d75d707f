"""What a policy does on logged queries at given thresholds.

Means with standard errors, and why it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from racer_jax.core.nonconformity import TieBroken
from racer_jax.reporting.verdicts import MEANINGS, NO_PROMISE, verdict
from racer_jax.risk_control.stopping import Loss, stops_at
from racer_jax.sequential.replay import Paths

# The reason `risk` in words: the number beside it is no risk, and the line above is the risk.
_SHOWN_REASONS = {"risk": "safe"}


@dataclass(frozen=True)
class PathEvaluation:
    """Means over queries at one level; each `*_error` is a standard error over queries.

    Use this when you read what `Cascade.evaluate` or `evaluate_paths` returns.

    Attributes:
      alpha: The level; 0 where the policy stops on decided votes alone.
      loss: The loss that was calibrated.
      num_queries: n, the queries evaluated.
      risk: Mean of that loss, with its error.
      calls: Mean number of models called.
      rounds: Mean number of batches of calls.
      dollars: Mean dollars a query, nan where not logged.
      accuracy: Share of right answers, nan without labels.
      full_accuracy: Share of right answers of the reference.
      regret: Share of wrong answers where the reference is right.
      differs: Share of answers that are not the reference's.
      stopped_after: Share of queries by number of calls, 1 to b.
      reasons: Share of queries by reason.
      stopped_because: By reason, the share of all queries that stop for it after 1 to b calls.
      num_calibration: Rows that the level was calibrated on; 0 where nothing was calibrated.
    """

    alpha: str
    loss: str
    num_queries: int
    risk: float
    risk_error: float
    calls: float
    calls_error: float
    rounds: float
    dollars: float
    dollars_error: float
    accuracy: float
    accuracy_error: float
    full_accuracy: float
    full_dollars: float
    difference_error: float
    regret: float
    differs: float
    abstained: float
    stopped_after: tuple[float, ...]
    reasons: dict[str, float]
    stopped_because: dict[str, tuple[float, ...]]
    num_calibration: int = 0

    @property
    def verdict(self) -> str:
        """Whether the risk fits the level: `at most alpha`, `within chance`, `higher than chance`.

        Chance acts on both samples: these queries, and those of the calibration.
        """
        if not self.num_calibration:
            return NO_PROMISE
        alpha = float(self.alpha)
        variance = alpha * (1 - alpha) / self.num_calibration
        error = 0.0 if np.isnan(self.risk_error) else self.risk_error
        return verdict(self.risk, alpha, alpha, float(np.sqrt(variance + error**2)))

    @property
    def difference(self) -> float:
        """Accuracy less that of the reference, from the same queries."""
        return self.accuracy - self.full_accuracy

    def __str__(self) -> str:
        """A few lines for a person to read."""
        most = len(self.stopped_after)
        title = f"alpha = {self.alpha} on the loss {self.loss!r}, {self.num_queries:,} queries"
        if not self.num_calibration:
            title = f"Stopping only where the vote is decided, {self.num_queries:,} queries"
        lines = [
            title,
            f"  calls     {_spread(self.calls, self.calls_error, 2)} of {most}, in "
            f"{self.rounds:.2f} rounds",
        ]
        if np.isfinite(self.dollars):
            lines.append(
                f"  dollars   {1000 * self.dollars:.3f} per 1,000 queries"
                f"  (all called: {1000 * self.full_dollars:.3f})"
            )
        if np.isfinite(self.accuracy):
            lines.append(
                f"  accuracy  {100 * self.accuracy:.1f}% (reference "
                f"{100 * self.full_accuracy:.1f}%, difference "
                f"{_spread(100 * self.difference, 100 * self.difference_error, 2, '+')} points)"
            )
        risk = f"  risk      {_spread(self.risk, self.risk_error, 4)}"
        if self.num_calibration:
            risk += f", promised at most {self.alpha}: {self.verdict}"
        if np.isfinite(self.risk):
            lines.append(risk)
        shares = ", ".join(
            f"{calls}: {100 * share:.0f}%"
            for calls, share in enumerate(self.stopped_after, start=1)
            if share > 0
        )
        lines.append(f"  stopped after {shares}")
        why = ", ".join(
            f"{_SHOWN_REASONS.get(name, name)} {100 * share:.0f}%"
            for name, share in self.reasons.items()
        )
        return "\n".join([*lines, f"  because   {why}"])


def legend(evaluations: Sequence[PathEvaluation]) -> str:
    """What the printed lines of evaluations say, of the lines that they have.

    Use this when evaluations are printed.

    Args:
      evaluations: What is printed above it.
    """
    meanings = {
        "±": ["the standard error over these queries"],
        "calls": ["models called for a query, of all; rounds: how often it waits for answers"],
        "dollars": ["what the calls cost"],
        "accuracy": [
            "share of right answers; the reference is whose answers the loss compares with"
        ],
        "risk": ["share of the queries that incur the loss"],
    }
    words = {one.verdict for one in evaluations if one.num_calibration}
    meanings |= {name: [text] for name, text in MEANINGS.items() if name in words}
    meanings |= {
        "stopped after": ["number of calls: share of the queries"],
        "because": [
            "decided: no answer to come could change the vote; safe: the chance of the loss was",
            "small enough for alpha; all called: no model was left; abstained: no answer was safe",
        ],
    }
    for name in ("dollars", "accuracy", "risk"):
        if not any(np.isfinite(getattr(one, name)) for one in evaluations):
            del meanings[name]
    width = max(map(len, meanings))
    next_line = "\n" + " " * (width + 2)
    return "\n".join(f"{name:{width}}  {next_line.join(lines)}" for name, lines in meanings.items())


def _spread(value: float, error: float, digits: int, sign: str = "") -> str:
    """A number with its standard error, where that is known."""
    text = f"{value:{sign}z.{digits}f}"  # z: what rounds to nothing has no minus
    return text if np.isnan(error) else f"{text} ± {error:.{digits}f}"


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error."""
    num = len(values)
    error = float(values.std(ddof=1) / np.sqrt(num)) if num > 1 else float("nan")
    return float(values.mean()), error


def evaluate_paths(
    paths: Paths, threshold: TieBroken, tie_break: np.ndarray, loss: Loss, alpha: str
) -> PathEvaluation:
    """What the policy does on logged queries.

    Use this when you have thresholds of your own; `Cascade.evaluate` takes those of its
    calibration.

    Args:
      paths: From `replay`.
      threshold: The threshold of each query, a pair of `[n]`.
      tie_break: Second keys of the scores, uint32 `[n, b]`.
      loss: The loss that was calibrated.
      alpha: The level, as it was written.
    """
    num, num_calls = paths.leader.shape
    scores = paths.scores(loss)
    stops = stops_at(scores[:, None], threshold, jnp.asarray(tie_break)[:, None])
    calls, has_stop = np.asarray(stops.calls)[:, 0], np.asarray(stops.has_stop)[:, 0]
    rows = np.arange(num)
    place = np.where(has_stop, calls - 1, num_calls)
    values = {name: table[rows, place] for name, table in paths.metrics.items()}
    nothing = np.full(num, np.nan)
    has_labels = paths.correct is not None
    losses = np.asarray(paths.losses(loss)) if has_labels or loss == "differs" else None
    losses_of_paths = nothing
    if losses is not None:
        losses_of_paths = np.where(has_stop, losses[rows, np.minimum(place, num_calls - 1)], False)
    full, full_dollars = nothing, float("nan")
    if has_labels:
        full = paths.right(paths.reference[:, None])[:, 0].astype(np.float64)
    if "dollars" in values:
        full_dollars = float(paths.metrics["dollars"][:, -1].mean())
    is_decided = np.asarray(paths.states.is_decided)[rows, calls - 1]
    is_decided &= paths.policy.settled(loss) == "vote"
    last = calls == num_calls
    why = {
        "decided": is_decided & ~last,
        "risk": has_stop & ~is_decided & ~last,
        "all called": has_stop & last,
        "abstained": ~has_stop,
    }
    risk, risk_error = _mean(losses_of_paths.astype(np.float64))
    mean_calls, calls_error = _mean(values["calls"])
    dollars, dollars_error = _mean(values.get("dollars", nothing))
    accuracy, accuracy_error = _mean(values.get("accuracy", nothing))
    difference_error = _mean(values.get("accuracy", nothing) - full)[1]
    shares = np.bincount(calls, minlength=num_calls + 1)[1:] / num
    return PathEvaluation(
        alpha=alpha,
        loss=loss,
        num_queries=num,
        risk=risk,
        risk_error=risk_error,
        calls=mean_calls,
        calls_error=calls_error,
        rounds=float(values["rounds"].mean()),
        dollars=dollars,
        dollars_error=dollars_error,
        accuracy=accuracy,
        accuracy_error=accuracy_error,
        full_accuracy=float(full.mean()),
        full_dollars=full_dollars,
        difference_error=difference_error,
        regret=float(values.get("regret", nothing).mean()),
        differs=float(values["differs"].mean()),
        abstained=float(values["abstained"].mean()),
        stopped_after=tuple(shares.tolist()),
        reasons={name: float(mask.mean()) for name, mask in why.items()},
        stopped_because={
            name: tuple((np.bincount(calls[mask], minlength=num_calls + 1)[1:] / num).tolist())
            for name, mask in why.items()
        },
    )
