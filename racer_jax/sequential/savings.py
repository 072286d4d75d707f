"""What calling one model after another would save, estimated from one table of logged answers."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import budget_of
from racer_jax.data.table import RoutingTable
from racer_jax.montecarlo import pool_law
from racer_jax.sequential.evaluation import evaluate_paths
from racer_jax.sequential.policy import fit_policy
from racer_jax.sequential.replay import replay

# Weights learned from few rows are rough, and the calls may then be half as many again;
# a large pool would take minutes, so it gets fewer rows.
_MOST_ROWS, _ROWS_OF_LARGE_POOLS, _MOST_CELLS = 2000, 800, 14_000
_MOST_MODELS, _FEWEST_ROWS = 32, 40
_LEVELS = ("0.01", "0.02", "0.05")


@dataclass(frozen=True)
class Savings:
    """Mean calls and accuracy of calling one after another, on questions it did not learn from.

    Use this when you read what calling in turn saves.

    Attributes:
      num_models: Size of the pool.
      num_questions: Questions these are means over.
      reference: What the answers are compared with: `the full vote`, or the name of a model.
      full_accuracy: Share of right answers of the reference.
      decided_calls: Mean calls where it stops on decided votes alone: the reference's answers.
      alpha: The level of the next two; None where the questions are too few for any.
      calls: Mean calls, calibrated so that the loss `regret` has a chance of at most alpha.
      accuracy: Share of right answers then.
    """

    num_models: int
    num_questions: int
    reference: str
    full_accuracy: float
    decided_calls: float
    alpha: str | None = None
    calls: float | None = None
    accuracy: float | None = None

    def __str__(self) -> str:
        """A few sentences for a person to read."""
        right = f"{self.full_accuracy:.1%} right"
        if self.reference != "the full vote":
            return (
                f"call {self.reference} alone: 1 call, right as often as the vote of all "
                f"{self.num_models} models ({right})."
            )
        text = (
            f"call one model after another. Stop when the vote is decided: "
            f"{self.decided_calls:.2f} calls, the same answers as all {self.num_models} ({right})."
        )
        if self.alpha is not None:
            text += (
                f" Stop earlier: {self.calls:.2f} calls, {self.accuracy:.1%} right; at most "
                f"{100 * float(self.alpha):g}% of the questions become wrong by that."
            )
        return text


def _halves(key: jax.Array, table: RoutingTable) -> tuple[RoutingTable, RoutingTable]:
    """Two random parts of some of the questions, no question in both."""
    questions = table.question_ids
    most = min(_MOST_ROWS, max(_ROWS_OF_LARGE_POOLS, _MOST_CELLS // len(table.models)))
    order = np.asarray(jax.random.permutation(key, int(questions.max()) + 1))[:most]
    half = len(order) // 2
    first, second = (np.isin(questions, part) for part in (order[:half], order[half:]))
    return table.select(first), table.select(second)


def estimated_savings(key: jax.Array, table: RoutingTable) -> Savings | None:
    """Learns an order on half of the questions and measures its calls on the other half.

    Use this when you want to know, before anything is trained for it, whether calling one model
    after another is worth it.

    Args:
      key: A typed PRNG key, which halves the questions.
      table: Labelled questions with the answer of every model; of a small pool 2,000 of them are
        used, of a large one 800.

    Returns:
      The `Savings`; None where the table has no answers, holds fewer than 40 questions, one model
      or more than 32, or where no model answered any.
    """
    if table.answers is None or table.missing is not None:
        return None
    if len(table) < _FEWEST_ROWS or not 1 < len(table.models) <= _MOST_MODELS:
        return None
    split_key, fit_key, tie_key = jax.random.split(key, 3)
    learn, rest = _halves(split_key, table)
    if len(rest) < 2 or all(answer is None for answer in learn.answers.ravel()):  # type: ignore[union-attr]
        return None
    policy = fit_policy(fit_key, learn)
    paths = replay(policy, rest)
    ties = jax.random.bits(tie_key, paths.leader.shape, "uint32")
    num = len(rest)
    never = TieBroken(jnp.full(num, jnp.inf), jnp.full(num, 0xFFFFFFFF, jnp.uint32))
    lossless = evaluate_paths(paths, never, np.asarray(ties), "regret", "0")
    reference = "the full vote" if policy.reference == "vote" else policy.calls[-1]
    # A single model is called alone where nothing is calibrated.
    calls = lossless.calls if policy.reference == "vote" else 1.0
    level = next((alpha for alpha in _LEVELS if budget_of(alpha, num // 2) >= 0), None)
    early: dict[str, float] = {}
    if level is not None:
        law = pool_law(paths.pool("regret", ties), num_calibration=num // 2, alpha=level)
        early = {name: float(law.extra_mean[name][0]) for name in ("calls", "accuracy")}
    return Savings(
        num_models=len(table.models),
        num_questions=num,
        reference=reference,
        full_accuracy=lossless.full_accuracy,
        decided_calls=calls,
        alpha=level,
        **early,
    )
