"""What a calibrated racer decides on queries, and one answer of those of the called models.

A query goes one way: its scores (`scoring`), its ties (`fingerprints`), and the comparison of both
with the thresholds (`decision`).
"""

from collections.abc import Mapping, Sequence
from typing import overload

from jax.typing import ArrayLike

from racer_jax.racer import decision
from racer_jax.racer.decision import Decision, Decisions, Groups, Rule, decide
from racer_jax.racer.fingerprints import row_ties, text_ties
from racer_jax.racer.scoring import measure_scores
from racer_jax.racer.state import RacerState
from racer_jax.routers.scores import Scores


class RoutingRacer(RacerState):
    """The steps of a racer that decide.

    Use this when you look for what `Racer` does with queries; make a `Racer`.
    """

    @overload
    def route(self, texts: str, groups: Groups = None) -> Decision: ...  # type: ignore[overload-overlap]

    @overload
    def route(self, texts: Sequence[str], groups: Groups = None) -> Decisions: ...

    def route(self, texts: str | Sequence[str], groups: Groups = None) -> Decision | Decisions:
        """Which models to call for a query, or for each of several.

        Use this when the racer has a router; one made by `from_scores` needs `route_scores`.

        Args:
          texts: One question, or several.
          groups: The group of each question, or one name for all; needed where thresholds are by
            group. A question of no group or of one without calibration queries has every model
            called, with the reason `unknown group`.

        Returns:
          A `Decision` for one question, `Decisions` for several.

        Raises:
          NotCalibratedError: If it has no calibration.
          TypeError: If a text is not a string.
          ValueError: If a text is empty, there is none, groups do not fit, or it takes scores.
        """
        rule = self._rule("route")
        batch: list[str] = [texts] if isinstance(texts, str) else list(texts)
        if self.scorer is None:
            raise ValueError("this racer has no router of its own: give scores to route_scores")
        names = one_for_each(groups, len(batch))
        model_scores = self.scorer(batch, self.nonconformity, self.null, names)
        ties = None if self.seed is None else text_ties(batch, self.seed, len(self.models) + 1)
        decisions = decide(rule, model_scores, ties, names)
        return decisions[0] if isinstance(texts, str) else decisions

    def route_scores(
        self, scores: Scores | ArrayLike, groups: Groups = None, *, ids: Sequence[str] | None = None
    ) -> Decisions:
        """Which models to call for queries whose scores you have.

        Use this when the racer was made by `from_scores`, or the scores are computed already.

        Args:
          scores: s(x, m) in [0, 1], floating `[n, m]`.
          groups: As in `route`.
          ids: A name or text of each query, from which its ties are broken; its scores where None,
            so that queries of equal scores get equal decisions.

        Returns:
          The `Decisions`.

        Raises:
          NotCalibratedError: If it has no calibration.
          TypeError: If scores are not floating.
          ValueError: If shapes do not fit or a score is out of range.
        """
        rule = self._rule("route_scores")
        values = self._given(scores)
        num, num_keys = len(values), len(self.models) + 1
        if ids is not None and len(ids) != num:
            raise ValueError(f"ids must name each of the {num} queries, got {len(ids)}")
        names = one_for_each(groups, num)
        model_scores = measure_scores(values, self.nonconformity, self.null)
        ties = None
        if self.seed is not None and ids is None:
            ties = row_ties(values, self.seed, num_keys)
        elif self.seed is not None and ids is not None:
            ties = text_ties(ids, self.seed, num_keys)
        return decide(rule, model_scores, ties, names)

    def aggregate(
        self,
        routed: Decision,
        answers: Mapping[str, str | None],
        weighting: str = "majority",
        temperature: float = 1.0,
        confidence: Mapping[str, float] | None = None,
    ) -> str | None:
        """One answer, voted from the answers of the called models.

        Use this when the called models have answered one query and you need a single answer.

        Args:
          routed: The decision.
          answers: Called model -> its answer in a normal form, None where it gave none.
          weighting: `"majority"`, `"score"`, `"log_odds"`, or `"confidence"`.
          temperature: T of a weighted vote, positive.
          confidence: Called model -> how sure an evaluator is of its answer, for `"confidence"`.

        Returns:
          The answer; None where no model answered or no model was called. Ties go to the higher
          mean score.

        Raises:
          ValueError: If an answer is missing or of a model that was not called, or the weighting is
            unknown.
        """
        return decision.aggregate(routed, answers, weighting, temperature, confidence)

    # --- inside -----------------------------------------------------------------------------------

    def _rule(self, step: str) -> Rule:
        return Rule(self._calibrated(step), self.models, self.cost, self._order_by_group)


def one_for_each(groups: Groups, num: int) -> Sequence[str | None] | None:
    """The group of each of so many queries, from one name for all or one for each.

    Use this when groups come from a caller.

    Raises:
      ValueError: If there are more or fewer.
    """
    names = [groups] * num if isinstance(groups, str) else groups
    if names is not None and len(names) != num:
        raise ValueError(
            f"groups must name one group for each of the {num} queries, got {len(names)}"
        )
    return names
