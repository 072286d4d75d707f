"""Racer: from evaluation logs to guaranteed routing.

A router, a nonconformity and a calibration in one frozen object.

    racer = Racer.fit(key, training_table).calibrate(calibration_table, alpha=0.1)
    racer.route("What is 2 + 2?").models

Each step returns a new object; one that lacks an earlier step raises `NotCalibratedError`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax.core.nonconformity import NullMode
from racer_jax.core.risk_levels import Level, level_name
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.racer import artefact, decision, serialization
from racer_jax.racer.calibration import calibration_of
from racer_jax.racer.decision import Decision, Decisions, Groups
from racer_jax.racer.errors import CorruptError, OtherWeightsError, OverlapError
from racer_jax.racer.evaluation import TEMPERATURES, evaluate_racer
from racer_jax.racer.fingerprints import fingerprints, question_fingerprints
from racer_jax.racer.fitting import check_nonconformity, fit_scorer, label_rule, table_facts
from racer_jax.racer.processes import check_process
from racer_jax.racer.results import Evaluation
from racer_jax.racer.routing import route_scores, route_texts
from racer_jax.racer.scoring import Scorer
from racer_jax.racer.state import RacerState, fields_from, racer_parts, stated
from racer_jax.risk_control.mondrian import Fallback
from racer_jax.routers.base import Router
from racer_jax.routers.scores import Scores


@dataclass(frozen=True, eq=False, repr=False)
class Racer(RacerState):
    """A router with a calibrated threshold: each query gets a small set of models.

    The risk that none of them is right is at most alpha. Make one with `fit` (texts and labels),
    `from_router` (a router of texts you have) or `from_scores` (any scores you have), then
    `calibrate`. Its attributes are those of `RacerState`.

    Use this when you have labelled queries and want to call as few models as a risk level allows.

    >>> from racer_jax.data import RoutingTable
    >>> models, ids = ["s", "l"], list("abcdefghi")
    >>> table = RoutingTable(ids=ids, texts=[""] * 9, models=models, correct=[[0, 1]] * 9)
    >>> scores = np.tile([0.25, 0.75], (9, 1))
    >>> racer = Racer.from_scores(models).calibrate(table, 0.1, scores=scores)
    >>> racer.route_scores(np.array([[0.25, 0.75]]))[0].models
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
        nonconformity: str = "inverse_probability",
        null: NullMode = "paper",
        tie_break: bool = True,
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
          nonconformity: `"inverse_probability"`, `"gap"`, or an order learned from these questions
            alone: `"static"`, `"J"` or `"J_learned"`. Such an order is by group where the table has
            groups; `calibrate`, `route` and `evaluate` then want groups too.
          null: The null mode.
          tie_break: Whether ties are broken exactly, which gives the risk its exact law.

        Returns:
          A racer that must still be calibrated, on other questions.

        Raises:
          TypeError: If an argument is of the wrong kind.
          ValueError: If an option is unknown, or the table lacks results or texts or rows.
          ModuleNotFoundError: If the weights of MiniLM are asked for and not installed.
        """
        new = cls(models=tuple(table.models), null=null)
        check_nonconformity(nonconformity)
        if not len(table):
            raise ValueError("table must hold training questions, got none")
        check_process()
        encoder_key, router_key, tie_key = jax.random.split(key, 3)
        return replace(
            new,
            nonconformity=nonconformity,
            seed=int(jax.random.bits(tie_key)) if tie_break else None,
            scorer=fit_scorer(encoder_key, router_key, table, router, encoder, nonconformity),
            trained_on=np.unique(question_fingerprints(table)),
            label_rule=label_rule(table),
            notes=tuple(f"training: {note}" for note in table.notes),
            **table_facts(table),
        )

    @classmethod
    def from_router(
        cls,
        encoder: Encoder,
        router: Router,
        models: Sequence[str],
        *,
        trained_on: Sequence[str] = (),
        nonconformity: str = "inverse_probability",
        null: NullMode = "paper",
        seed: int | None = 0,
    ) -> "Racer":
        """A racer around an encoder and a router that exist already.

        Use this when you have a trained router that works on embeddings; `fit` trains one for you.

        Args:
          encoder: Texts to embeddings.
          router: Embeddings to scores in [0, 1].
          models: Names of the models, in the order of the scores' columns.
          trained_on: The texts it was trained on, so that calibration can refuse them.
          nonconformity: `"inverse_probability"` or `"gap"`.
          null: The null mode.
          seed: Seed of the exact tie-break; None to leave ties.

        Raises:
          ValueError: If an option is unknown.
        """
        training_questions = np.unique(fingerprints(trained_on))
        return cls(
            tuple(models),
            nonconformity,
            null,
            seed,
            scorer=Scorer(encoder, router, len(models)),
            trained_on=training_questions,
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
    ) -> "Racer":
        """A racer for a router of any kind, whose scores you pass.

        Use this when another program makes the scores; they are passed to `calibrate`,
        `route_scores` and `evaluate`.

        Args:
          models: Names of the models, in the order of the scores' columns.
          nonconformity: `"inverse_probability"` or `"gap"`.
          null: The null mode.
          seed: Seed of the exact tie-break; None to leave ties.
          trained_on: The texts that router was trained on, so that calibration can refuse them.

        Raises:
          ValueError: If an option is unknown.
        """
        return cls(
            tuple(models), nonconformity, null, seed, trained_on=np.unique(fingerprints(trained_on))
        )

    # --- calibration ------------------------------------------------------------------------------

    def calibrate(
        self,
        table: RoutingTable,
        alpha: Level,
        *,
        scores: Scores | ArrayLike | None = None,
        by_group: bool = True,
        fallback: Fallback = "all",
        delta: float | None = None,
        allow_overlap: bool = False,
    ) -> "Racer":
        """Calibrates the threshold on labelled questions the router has not seen.

        Use this when a racer is new or its queries have changed; for another alpha, use `at`.

        Args:
          table: Calibration questions, every model's result. Its models are matched by name;
            further ones are left out.
          alpha: The risk level, in (0, 1).
          scores: Their scores `[n, m]`, with, and only with, a racer made by `from_scores`.
          by_group: Where the table has groups, a threshold for each, so that the risk is at most
            alpha in each.
          fallback: What a group too small for alpha gets: `"all"` models, which keeps the promise,
            or the `"pooled"` threshold, which makes none for it.
          delta: The risk is to be at most alpha for all calibration sets but this share of them;
            None for a risk of at most alpha on average over them.
          allow_overlap: Calibrate although questions were trained on; nothing is promised then, as
            the artefact says.

        Returns:
          The calibrated racer; see its `warnings`.

        Raises:
          OverlapError: If a question was trained on.
          TypeError: If an argument is of the wrong kind.
          ValueError: If the table is of another pool, lacks results or rows, or an option is out of
            range.
        """
        level = level_name(alpha)
        check_process()
        table = self._matched(table, scores)
        questions = question_fingerprints(table)
        overlap = np.isin(questions, self.trained_on)
        if overlap.any() and not allow_overlap:
            row = int(np.argmax(overlap))
            raise OverlapError(
                f"{int(overlap.sum())} of {len(overlap)} calibration questions were trained on, "
                f"first {table.ids[row]!r}: the router knows their answers, and the risk would be "
                f"higher than promised; leave them out, or pass allow_overlap=True to do without "
                f"the promise"
            )
        model_scores = self._measured(table, scores)
        calibration = calibration_of(
            table,
            model_scores.nonconformity,
            self._ties(questions, model_scores),
            alpha=level,
            by_group=by_group,
            fallback=fallback,
            delta=delta,
            questions=questions,
            num_overlap=int(overlap.sum()),
            label_rule=label_rule(table),
        )
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
        return route_scores(self, scores, groups, ids)

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
          The `Evaluation`.

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
        encoder: Encoder | None = None,
    ) -> "Racer":
        """Reads an artefact.

        Use this when a racer was written by `save`, by you or by the command line.

        Args:
          path: The folder.
          models: Your pool, which must be the artefact's; None to take the artefact's.
          encoder: The pretrained encoder, where it is not MiniLM.

        Raises:
          ArtefactError: If it cannot be read; of its kinds, `NewerFormatError`, `CorruptError`
            (checksums), `OtherPoolError` and `OtherWeightsError`.
        """
        description, arrays = artefact.read(path, models)
        try:
            racer = cls(**fields_from(description, arrays, encoder))
            serialization.check_stated(stated(racer), description)
        except serialization.OtherEncoderError as error:
            raise OtherWeightsError(str(error), path=Path(path)) from None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CorruptError(
                f"is not an artefact of this format: {problem}", path=Path(path)
            ) from None
        return racer
