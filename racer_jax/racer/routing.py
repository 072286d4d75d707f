"""What a calibrated racer decides on queries, and one answer of those of the called models."""

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from jax.typing import ArrayLike

from racer_jax.racer import decision
from racer_jax.racer.calibration import Calibration
from racer_jax.racer.decision import Decision, Decisions, Groups, decide, group_names
from racer_jax.racer.fingerprints import fingerprints, row_fingerprints
from racer_jax.racer.scoring import Measured, measure_scores
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
            group. A question of no group or of one nobody calibrated on has every model called,
            with the reason `unknown group`.

        Returns:
          A `Decision` for one question, `Decisions` for several.

        Raises:
          NotCalibratedError: If it has no calibration.
          TypeError: If a text is not a string.
          ValueError: If a text is empty, there is none, groups do not fit, or it takes scores.
        """
        calibration = self._calibrated("route")
        single = isinstance(texts, str)
        batch: list[str] = [texts] if isinstance(texts, str) else list(texts)
        if self.scorer is None:
            raise ValueError("this racer has no router of its own: give scores to route_scores")
        names = group_names(groups, len(batch))
        measured = self.scorer(batch, self.nonconformity, self.null, names)
        questions = fingerprints(batch) if self.seed is not None else None
        decisions = self._decide(calibration, measured, questions, names)
        return decisions[0] if single else decisions

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
        calibration = self._calibrated("route_scores")
        measured = measure_scores(self._given(scores), self.nonconformity, self.null)
        if ids is not None and len(ids) != len(measured.scores):
            raise ValueError(
                f"ids must name each of the {len(measured.scores)} queries, got {len(ids)}"
            )
        questions = None
        if self.seed is not None:
            questions = row_fingerprints(measured.scores) if ids is None else fingerprints(ids)
        names = group_names(groups, len(measured.scores))
        return self._decide(calibration, measured, questions, names)

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
          The answer; None where nobody answered or no model was called. Ties go to the higher mean
          score.

        Raises:
          ValueError: If an answer is missing or of a model that was not called, or the weighting is
            unknown.
        """
        return decision.aggregate(routed, answers, weighting, temperature, confidence)

    # --- inside -----------------------------------------------------------------------------------

    def _decide(
        self,
        calibration: Calibration,
        measured: Measured,
        questions: np.ndarray | None,
        groups: Sequence[str | None] | None,
    ) -> Decisions:
        return decide(
            calibration,
            measured,
            groups,
            pool=self.models,
            seed=self.seed,
            questions=questions,
            group_is_needed=self._order_by_group,
            cost=self.cost,
        )
