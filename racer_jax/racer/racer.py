"""Racer: from evaluation logs to guaranteed routing.

A router, a nonconformity and a calibration in one frozen object.

    racer = Racer.fit(key, training_table).calibrate(calibration_table, alpha=0.1)
    racer.route("What is 2 + 2?").models

Each step returns a new object.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack, overload

import jax
from jax.typing import ArrayLike

from racer_jax.core.nonconformity import NullMode
from racer_jax.core.risk_levels import Level, level_name
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.racer import artefact, serialization
from racer_jax.racer.calibration import calibration_of
from racer_jax.racer.changes import ChangeableRacer
from racer_jax.racer.decision import Decision, Decisions, Groups
from racer_jax.racer.errors import CorruptError, OtherWeightsError
from racer_jax.racer.evaluation import TEMPERATURES, evaluate_racer
from racer_jax.racer.fingerprints import question_fingerprints
from racer_jax.racer.fitting import (
    NONCONFORMITY,
    check_nonconformity,
    check_overlap,
    fitted_fields,
    label_rule,
    matched,
    own_scorer,
    table_facts,
    training_facts,
)
from racer_jax.racer.losses import LossName, calibrated_loss
from racer_jax.racer.options import DEFAULT_OPTIONS, CalibrationOptions, check_option_names
from racer_jax.racer.own_parts import OtherPartError, check_own_nonconformity, own_parts
from racer_jax.racer.processes import check_process
from racer_jax.racer.record import CalibrationRecord
from racer_jax.racer.results import Evaluation
from racer_jax.racer.routing import route_scores, route_texts
from racer_jax.racer.score_orders import order_of_scores
from racer_jax.racer.stages import Progress
from racer_jax.racer.state import (
    earlier_guarantees_of,
    earlier_warnings_of,
    fields_from,
    racer_parts,
    stated,
)
from racer_jax.routers.scores import Scores


@dataclass(frozen=True, eq=False, repr=False)
class Racer(ChangeableRacer):
    """A router with a calibrated threshold: each query gets a small set of models.

    The risk that none of them is right although a model of the pool is, is at most alpha; the null
    mode says what counts where no model is. Make one with `fit` (texts and labels), `from_router`
    (a router of texts you have) or `from_scores` (any scores you have), then `calibrate`. Its
    attributes are those of `RacerState`.

    Use this when you have labelled queries and want to call as few models as a risk level allows.

    >>> import numpy as np
    >>> from racer_jax.data import RoutingTable
    >>> models, ids = ["s", "l"], list("abcdefghi")
    >>> table = RoutingTable(ids=ids, texts=[""] * 9, models=models, correct=[[0, 1]] * 9)
    >>> scores = np.tile([0.25, 0.75], (9, 1))
    >>> racer = Racer.from_scores(models).calibrate(table, 0.1, scores=scores)
    >>> racer.route_scores(np.array([[0.25, 0.75]]), ids=["j"])[0].models
    ('l',)
    """

    # --- how one is made --------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        key: jax.Array,
        table: RoutingTable,
        router: Any = "mlp",
        encoder: Encoder | str = "hashed",
        *,
        nonconformity: str = NONCONFORMITY,
        null: NullMode | None = None,
        tie_break: bool = True,
        cost_weight: float = 0.0,
        progress: Progress | None = None,
    ) -> "Racer":
        """Trains a router on labelled questions; deterministic for a key.

        Use this when you have labelled texts and no router yet.

        Args:
          key: A typed PRNG key.
          table: Training questions with texts, every model's result.
          router: `"mlp"`, `"knn"`, `"routerdc"`, another name of `racer_jax.routers.ROUTERS`, or a
            configuration of one.
          encoder: `"hashed"` (n-grams, no download), `"minilm"`, `"both"`, another name of
            `racer_jax.encoders.ENCODERS`, or an encoder.
          nonconformity: An order learned from these questions alone, `"J_learned"`, `"J"` or
            `"static"`; or the paper's `"inverse_probability"` (RACER-P) or `"gap"` (RACER-G). An
            order is by group where the table has groups; `calibrate`, `route` and `evaluate` then
            want groups too.
          null: The null mode; where None, `"free"` for an order and the paper's for its scores.
          tie_break: Whether ties are broken exactly, which gives the risk its exact law.
          cost_weight: How much the order `"static"` or `"J"` minds what the models cost: 0 not at
            all, 1 by the gain for each dollar. The promise is the same; sets become cheaper and
            hold more models.
          progress: Called with a `FitStage` as each stage begins, and with an empty name at the
            end; its `report` says how well the router chooses one model.

        Returns:
          A racer that must still be calibrated, on other questions.

        Raises:
          TypeError: If an argument is of the wrong kind.
          ValueError: If an option is unknown, or the table lacks results or texts or rows.
          ModuleNotFoundError: If the weights of MiniLM are asked for and not installed.
        """
        how = nonconformity, null, tie_break, cost_weight, progress
        return cls(**fitted_fields(key, table, router, encoder, *how))

    @classmethod
    def from_router(
        cls,
        encoder: Any,
        router: Any,
        models: Sequence[str],
        *,
        trained_on: Sequence[str] = (),
        training: RoutingTable | None = None,
        nonconformity: str = "inverse_probability",
        null: NullMode = "paper",
        seed: int | None = 0,
        cost_weight: float = 0.0,
    ) -> "Racer":
        """A racer around an encoder and a router that exist already, of whatever kind.

        Use this when you have a trained router that works on embeddings; `fit` trains one for you.

        Args:
          encoder: Texts to embeddings: an encoder, a function of texts, or what has `transform`,
            such as a scikit-learn pipeline.
          router: Embeddings to scores in [0, 1]: a router, a Flax module, any function, or what has
            `predict_proba`.
          models: Names of the models, in the order of the scores' columns.
          trained_on: The texts it was trained on, so that calibration can refuse them.
          training: Labelled questions from which an order of the models is learned; they count as
            trained on.
          nonconformity: As in `fit`; an order, such as `"J"` or `"static"`, needs `training`.
          null: The null mode.
          seed: Seed of the exact tie-break; None to leave ties.
          cost_weight: As in `fit`.

        Raises:
          TypeError: If the encoder or the router is of no such kind.
          ValueError: If an option is unknown, or an order is asked for without `training`.
        """
        check_nonconformity(nonconformity)
        if training is not None:
            training = matched(training, models)
        return cls(
            tuple(models),
            nonconformity,
            null,
            seed,
            scorer=own_scorer(encoder, router, models, training, nonconformity, cost_weight),
            **training_facts(models, trained_on, training),
        )

    @classmethod
    def from_scores(
        cls,
        models: Sequence[str],
        *,
        nonconformity: str = "inverse_probability",
        null: NullMode = "paper",
        seed: int | None = 0,
        trained_on: Sequence[str] = (),
        training: RoutingTable | None = None,
        training_scores: Scores | ArrayLike | None = None,
        cost_weight: float = 0.0,
    ) -> "Racer":
        """A racer for a router of any kind, whose scores you pass.

        Use this when another program makes the scores; they are passed to `calibrate`,
        `route_scores` and `evaluate`.

        Args:
          models: Names of the models, in the order of the scores' columns.
          nonconformity: `"inverse_probability"` (RACER-P), `"gap"` (RACER-G), or an order learned
            from `training`: `"static"`, or `"J"`, whose neighbours are those with like scores.
          null: The null mode.
          seed: Seed of the exact tie-break; None to leave ties.
          trained_on: The texts that router was trained on, so that calibration can refuse them.
          training: As in `from_router`.
          training_scores: The router's scores of these `[n, m]`, for `"J"`.
          cost_weight: As in `fit`.

        Raises:
          ValueError: If an option is unknown, or an order is asked for without what it needs.
        """
        check_nonconformity(nonconformity)
        learned = order_of_scores(models, nonconformity, training, training_scores, cost_weight)
        how = tuple(models), nonconformity, null, seed
        return cls(*how, scores_order=learned, **training_facts(models, trained_on, training))

    # --- calibration ------------------------------------------------------------------------------

    def calibrate(
        self,
        table: RoutingTable,
        alpha: Level,
        *,
        scores: Scores | ArrayLike | None = None,
        allow_overlap: bool = False,
        loss: LossName | None = None,
        **options: Unpack[CalibrationOptions],
    ) -> "Racer":
        """Calibrates the threshold on labelled questions the router has not seen.

        Use this when a racer is new or its queries have changed; `at` and `recalibrate` change
        alpha and the other options without data.

        Args:
          table: Calibration questions, every model's result. Its models are matched by name;
            further ones are left out.
          alpha: The risk level, in (0, 1).
          scores: Their scores `[n, m]`, with, and only with, a racer made by `from_scores`.
          allow_overlap: Calibrate although questions were trained on; nothing is promised then, as
            the artefact says.
          loss: What is to be at most alpha on average in the place of the chance of a miss, for a
            table of graded answers: `"grade"`, 1 - the best grade called, or `"shortfall"`, by how
            much that is below the best of the pool. Grades are in [0, 1]; `guarantee` says what
            counts on a question whose grades are all 0.
          **options: The fields of `CalibrationOptions`, which says what each does and its default:
            `by_group`, `fallback`, `delta`, `unknown_group`, `max_models` and `min_models`.

        Returns:
          The calibrated racer; see its `warnings`.

        Raises:
          OverlapError: If a question was trained on.
          TypeError: If an argument is of the wrong kind.
          ValueError: If the table is of another pool, lacks results or rows, or an option is out of
            range.
        """
        level = level_name(alpha)
        check_option_names(options)
        check_process()
        table = self._matched(table, scores)
        questions = question_fingerprints(table)
        num_overlap = check_overlap(table, questions, self.trained_on, allow_overlap)
        model_scores = self._measured(table, scores)
        ties = self._ties(questions, model_scores)
        calibration = calibration_of(
            CalibrationRecord.of(model_scores, table.correct, questions, table.group, table.groups),
            ties,
            {"alpha": level, **DEFAULT_OPTIONS, **options},
            num_overlap=num_overlap,
            label_rule=label_rule(table),
            loss=None if loss is None else calibrated_loss(loss, table.graded, ties),
        )
        unknown = {}
        if self.static_order is None or self.cost is None:
            facts = table_facts(table)
            unknown = {name: value for name, value in facts.items() if getattr(self, name) is None}
        return replace(self, calibration=calibration, notes=self._noted(table), **unknown)

    # --- routing ----------------------------------------------------------------------------------

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
        if isinstance(texts, str):
            return route_texts(self, [texts], groups)[0]
        return route_texts(self, list(texts), groups)

    def route_scores(
        self,
        scores: Scores | ArrayLike,
        groups: Groups = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> Decisions:
        """Which models to call for queries whose scores you have.

        Use this when the racer was made by `from_scores`, or the scores are computed already.

        Args:
          scores: s(x, m) in [0, 1], floating `[n, m]`.
          groups: As in `route`.
          ids: What calibration knew each query by: its text or, where that table has no texts, an
            id of its own (never its number in the call). Ties are broken by it as they were in
            calibration: the sets are those `evaluate` reports on. A query without one has every
            model called whose nonconformity equals the threshold. The risk is then at most that
            with ids, so the promise holds; where many scores are equal, more models are called.

        Returns:
          A decision for each query, in their order.

        Raises:
          NotCalibratedError: If it has no calibration.
          TypeError: If scores are not floating, or an id is no string.
          ValueError: If shapes do not fit, a score is out of range, an id is blank, or a query has
            none although the calibration has `max_models` or `min_models`: these draw among models
            of equal scores, and no set is safe for every draw.
        """
        return route_scores(self, scores, groups, ids)

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(
        self,
        table: RoutingTable,
        alphas: Sequence[Level] | str | None = None,
        *,
        scores: Scores | ArrayLike | None = None,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> Evaluation:
        """What the racer does on labelled queries, at its own alpha and at others.

        Use this when you want risk and set size as numbers; `write_report` makes a page of them.

        Args:
          table: Labelled queries; a note counts those that were trained or calibrated on.
          alphas: Levels beside its own, or `first:last:step`; 0.01 to 0.50 where None.
          scores: Their scores, with, and only with, a racer made by `from_scores`.
          temperatures: Temperatures of the weighted votes, where the table has answers.

        Returns:
          Risk, size and calls at each alpha, with what was promised.

        Raises:
          NotCalibratedError: If it has no calibration.
          TypeError: If an argument is of the wrong kind.
          ValueError: If the table is of another pool, lacks results or rows, or an alpha is out of
            range.
        """
        return evaluate_racer(self, table, alphas, scores, temperatures)

    # --- to disk and back -------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an artefact, whole or not at all, also beside other writers and readers of it.

        Use this when another process shall use the racer later; see `racer_jax.racer.artefact`.

        Raises:
          ArtefactError: If the path is no place for one.
          ValueError: If the router or the encoder is one that cannot be saved.
          OSError: If the files cannot be written.
        """
        artefact.write(path, *racer_parts(self))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        models: Sequence[str] | None = None,
        encoder: Any = None,
        router: Any = None,
        order: Any = None,
    ) -> "Racer":
        """Reads an artefact.

        Use this when a racer was written by `save`, by you or by the command line.

        Args:
          path: The folder.
          models: Your pool, which must be the artefact's; None to take the artefact's.
          encoder: The encoder, where the artefact names one that it does not hold and that is not
            MiniLM.
          router: The router, where it is one of your own. A Flax module comes back without it: its
            class is imported, so load such an artefact only from somebody you trust.
          order: The model of an order of your own. All three are checked against what the artefact
            says of those it was made with.

        Raises:
          ArtefactError: If it cannot be read; of its kinds, `NewerFormatError`, `CorruptError`
            (checksums), `OtherPoolError` and `OtherWeightsError`.
        """
        description, arrays = artefact.read(path, models)
        artefact.check_kind(description, None, Path(path))
        try:
            racer = cls(**fields_from(description, arrays, *own_parts(encoder, router, order)))
            older = description["format"] < artefact.FORMAT
            facts = stated(racer)
            if older:  # its sentences are in other words
                facts |= {name: description[name] for name in ("guarantee", "warnings")}
            elif description.get("guarantee") in earlier_guarantees_of(racer):
                facts["guarantee"] = description["guarantee"]
            if description.get("warnings") == earlier_warnings_of(racer):
                facts["warnings"] = description["warnings"]
            serialization.check_stated(facts, description, may_lack=older)
            check_own_nonconformity(racer.nonconformity, racer.null, racer.calibration)
        except (serialization.OtherEncoderError, OtherPartError) as error:
            raise OtherWeightsError(str(error), path=Path(path)) from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CorruptError(
                f"is not an artefact of this format: {problem}", path=Path(path)
            ) from None
        return racer
