"""What changes of a racer without data: its alpha, the options of its calibration, its pool.

All of it from what calibration saw (`racer_jax.racer.record`), so the promise is that of a
calibration on the same queries, whatever is changed and how often.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, Unpack

import jax
import numpy as np

from racer_jax.core.risk_levels import Level, level_name
from racer_jax.core.scalar_checks import check_count
from racer_jax.data.table import RoutingTable
from racer_jax.racer import decision
from racer_jax.racer.calibration import Calibration, calibration_of
from racer_jax.racer.decision import Decision
from racer_jax.racer.errors import NoRecordError
from racer_jax.racer.options import CalibrationOptions, check_option_names
from racer_jax.racer.pool_names import places_without
from racer_jax.racer.record import CalibrationRecord
from racer_jax.racer.score_orders import measure_by, of_columns
from racer_jax.racer.scoring import ModelScores
from racer_jax.racer.state import RacerState


class ChangeableRacer(RacerState):
    """The steps of a racer that need no data.

    Use this when you look for what `Racer` can do once it is calibrated; make a `Racer`.
    """

    def at(self, alpha: Level) -> Self:
        """The same racer at another alpha, from the critical scores it keeps; no data is needed.

        Choosing the best looking of several alphas on the calibration queries themselves breaks the
        promise of the chosen one; choose on other queries, or beforehand.

        Use this when you want another risk level and have already calibrated; `recalibrate` changes
        other options too.

        Raises:
          NotCalibratedError: If it has no calibration.
          ValueError: If alpha is outside (0, 1).
        """
        return replace(self, calibration=self._calibrated("at").at(alpha))

    def recalibrate(
        self, alpha: Level | None = None, **options: Unpack[CalibrationOptions]
    ) -> Self:
        """The same racer calibrated with other options on the queries it was calibrated on.

        It is what `calibrate` would give on their table, which need not be there. What is not
        named stays as it is. As with `at`, choosing what looks best breaks the promise.

        Use this when delta, the groups, the policy for unknown groups or the cap shall change and
        the labelled queries are elsewhere.

        Args:
          alpha: The risk level; None for its own.
          **options: The fields of `CalibrationOptions`: `by_group`, `fallback`, `delta`,
            `unknown_group`, `max_models` and `min_models`.

        Raises:
          NotCalibratedError: If it has no calibration.
          NoRecordError: If `by_group` or the number of models is to change and it was loaded from
            an artefact that does not keep the queries.
          TypeError: If an option is unknown.
          ValueError: If one is out of range.
        """
        calibration = self._calibrated("recalibrate")
        check_option_names(options)
        level = calibration.alpha if alpha is None else level_name(alpha)
        if not {"by_group", "max_models", "min_models"} & set(
            options
        ):  # the critical scores stay what they are
            same_scores: dict[str, Any] = dict(options)
            return replace(self, calibration=replace(calibration, alpha=level, **same_scores))
        record = _record_of(calibration, "recalibrate")
        chosen = calibration.options() | dict(options)
        chosen["alpha"] = level
        return replace(self, calibration=self._again(calibration, record, chosen))

    def without(self, *models: str) -> Self:
        """The racer of the pool without some of its models; no data is needed.

        Its threshold is the one that calibrating the remaining pool on the same queries gives, so
        the risk is at most alpha again: the chance that no called model is right although one of
        those that are left is. The old threshold promises nothing for them. The router and its
        scores stay as they are; the order of RACER-J and the static order is made anew from the
        training rows.

        The promise takes for granted that who is left out does not depend on the query. If a model
        is down on hard queries, say, those of that time are not like the calibration queries, and
        nothing is promised for them alone.

        Use this when a model is retired, too dear or down; routing around it by hand breaks the
        promise.

        Args:
          *models: Names of the models to leave out.

        Raises:
          NoRecordError: If it is calibrated and was loaded from an artefact that does not keep the
            queries.
          ValueError: If a model is not of the pool, none is named, or none would be left.
        """
        columns = places_without(self.models, models)
        fields: dict[str, Any] = {"models": tuple(self.models[j] for j in columns)}
        if self.static_order is not None:
            places = [columns.index(j) for j in self.static_order if j in columns]
            fields["static_order"] = tuple(places)
        if self.scorer is not None:
            fields["scorer"] = self.scorer.of_models(columns)
        if self.scores_order is not None:
            fields["scores_order"] = of_columns(self.scores_order, columns)
        if self.cost is not None:
            fields["cost"] = self.cost[columns]
        fields["notes"] = (*self.notes, f"taken out of the pool: {', '.join(models)}")
        smaller = replace(self, **fields, calibration=None)
        if self.calibration is None:
            return smaller
        before = _record_of(self.calibration, "without")
        record = before.narrowed(columns, smaller._measured_again(before, columns))
        options = {"alpha": self.calibration.alpha, **self.calibration.options()}
        return replace(smaller, calibration=smaller._again(self.calibration, record, options))

    def added_models(self) -> float | None:
        """How many models a query calls more than without `min_models`, on the calibration queries.

        Some queries call a model more. Where that model is right, the threshold of all others may
        be lower for the same risk, which gives some of it back.

        Use this when you decide whether an answer to every query is worth its price.

        Returns:
          The difference of the mean set sizes; None where the calibration does not keep its
          queries.

        Raises:
          NotCalibratedError: If it has no calibration.
        """
        calibration = self._calibrated("added_models")
        record = calibration.record
        if record is None:
            return None
        model_scores = ModelScores(record.scores, record.nonconformity)
        ties = self._ties(record.questions, model_scores)
        sizes = [
            decision.decide(
                decision.Rule(at, self.models, self.cost, self._order_by_group),
                model_scores,
                ties,
                record.group,
            )
            .called.sum(axis=1)
            .mean()
            for at in (calibration, self.recalibrate(min_models=0)._calibrated("added_models"))
        ]
        return float(sizes[0] - sizes[1])

    def extended(self, key: jax.Array, table: RoutingTable, router: Any = None) -> Self:
        """The racer of a pool with further models, trained and calibrated on the same questions.

        What it needs are results of the new models, and of the old ones, on the questions this
        racer was trained on and on those it was calibrated on. The rows are told apart by their
        questions, the encoder stays, and the calibration has the same options, so the promise is
        that of `calibrate` for the larger pool.

        Use this when a model joins the pool; `without` takes one out and needs no data.

        Args:
          key: A typed PRNG key, for the training of the router.
          table: Results of every model, old and new, on those questions; further rows are left out.
          router: As in `Racer.fit`; None for one like this racer's.

        Raises:
          NotCalibratedError: If it has no calibration.
          ValueError: If no model is new, a question it has seen or a result is missing, or the
            router was not trained here and none is named.
        """
        from racer_jax.racer.extension import extended  # which makes a `Racer`

        larger: Self = extended(self, key, table, router)
        return larger

    def warm_up(self, *batches: int) -> Self:
        """Compiles what queries need, so that the first of them does not wait for it.

        Batches are padded to powers of two and cut at 1,024 queries, so `warm_up(1, 1024)` serves
        single queries and large batches.

        Use this when a server starts, before it takes queries.

        Args:
          *batches: Numbers of queries that will come at once; 1 where none is named.

        Returns:
          The racer itself.

        Raises:
          TypeError: If a number is not an integer.
          ValueError: If it is below 1.
        """
        for batch in batches or (1,):
            num = check_count("batches", batch)
            if self.scorer is None:
                scores = np.full((num, len(self.models)), 0.5, np.float32)
                groups = [None] * num
                measure_by(self.scores_order, scores, self.nonconformity, self.null, groups)
            else:
                self.scorer(["warm up"] * num, self.nonconformity, self.null, [None] * num)
        return self

    def aggregate(
        self,
        routed_query: Decision,
        answers: Mapping[str, str | None],
        weighting: str = "majority",
        temperature: float = 1.0,
        confidence: Mapping[str, float] | None = None,
    ) -> str | None:
        """One answer, voted from the answers of the called models.

        Use this when the called models have answered one query and you need a single answer.

        Args:
          routed_query: The decision.
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
        return decision.aggregate(routed_query, answers, weighting, temperature, confidence)

    # --- inside -----------------------------------------------------------------------------------

    def _measured_again(self, record: CalibrationRecord, columns: list[int]) -> ModelScores:
        """The queries of a record of the larger pool, measured as this racer measures them."""
        scores = np.ascontiguousarray(record.scores[:, columns])
        if self.scorer is None or self.scorer.order is None:
            order, groups = self.scores_order, record.group
            return measure_by(order, scores, self.nonconformity, self.null, groups)
        order = self.scorer.order
        read = scores if record.embeddings is None else record.embeddings
        return ModelScores(scores, order(read, record.group, self.null), record.embeddings)

    def _again(
        self, before: Calibration, record: CalibrationRecord, options: dict[str, Any]
    ) -> Calibration:
        """A calibration of the queries of a record, with what is known of them from before."""
        ties = self._ties(record.questions, ModelScores(record.scores, record.nonconformity))
        return calibration_of(
            record,
            ties,
            options,
            num_overlap=before.num_overlap,
            label_rule=before.label_rule,
        )


def _record_of(calibration: Calibration, step: str) -> CalibrationRecord:
    """What a calibration saw.

    Raises:
      NoRecordError: If it was read from an artefact of an older format.
    """
    if calibration.record is None:
        raise NoRecordError(step)
    if calibration.loss is not None:
        raise ValueError(
            f"a calibration for the loss {calibration.loss.name!r} cannot be changed without data: "
            "calibrate again on the table"
        )
    return calibration.record
