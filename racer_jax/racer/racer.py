"""Racer: from evaluation logs to guaranteed routing. A router, a nonconformity and a calibration in one frozen object.

    racer = Racer.fit(key, training_table).calibrate(calibration_table, alpha=0.1)
    racer.route("What is 2 + 2?").models

Each step returns a new object. What a step needs of an earlier one that was not taken is a
`NotCalibratedError`.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax._version import __version__
from racer_jax.core.aggregation import (
    NO_ANSWER,
    answer_codes,
    log_odds,
    majority_vote,
    weighted_vote,
)
from racer_jax.core.nonconformity import NullMode, check_null
from racer_jax.core.risk_levels import Level, exact_alpha, level_name, parse_alphas
from racer_jax.core.sort_keys import NEVER, entry_keys
from racer_jax.data.labels import GIVEN
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.encoders.compound import JoinedEncoder, ReducedEncoder
from racer_jax.orders.coverage_gain import static_order
from racer_jax.orders.model_orders import ORDERS, fit_order
from racer_jax.racer import artefact, decision
from racer_jax.racer import serialization as parts
from racer_jax.racer.calibration import Calibration
from racer_jax.racer.decision import Decision, Decisions
from racer_jax.racer.errors import CorruptError, NotCalibratedError, OtherWeightsError, OverlapError
from racer_jax.racer.evaluation import TEMPERATURES, Evaluation, evaluate
from racer_jax.racer.fingerprints import (
    fingerprints,
    question_fingerprints,
    question_ties,
    row_fingerprints,
)
from racer_jax.racer.scoring import (
    NONCONFORMITIES,
    Measured,
    Scorer,
    check_given_scores,
    measure_scores,
)
from racer_jax.risk_control.mondrian import Fallback
from racer_jax.routers.base import Router
from racer_jax.routers.scores import Scores

ROUTERS = ("mlp", "knn", "routerdc")
ENCODERS = ("hashed", "minilm", "both")
# The levels evaluated beside the racer's own.
ALPHAS = "0.01:0.5:0.01"

Groups = Sequence[str | None] | str | None


@dataclass(frozen=True, eq=False)
class Racer:
    """A router made safe: each query gets a small set of models, and the risk that none is right is at most alpha.

    Make one with `fit` (texts and labels), `from_router` (a router of texts you have) or
    `from_scores` (any scores you have), then `calibrate`.

    Attributes:
      models: The pool, in the order of the scores' columns.
      nonconformity: `"inverse_probability"` (RACER-P), `"gap"` (RACER-G), or an order learned from
        the training rows: `"static"`, `"J"` (RACER-J) or `"J_learned"`, see
        `racer_jax.orders.model_orders`.
      null: The null mode, see `racer_jax.core.nonconformity`.
      seed: Of the exact tie-break; None where ties are not broken.
      scorer: Texts to scores; None where scores come from outside.
      trained_on: Fingerprints of the training questions, uint64, sorted.
      static_order: The models by how much each adds to those before it on the training (else
        calibration) queries.
      cost: Mean dollars of an answer of each model there, float64 `[m]`; None where not known.
      label_rule: How right and wrong were told apart in training.
      calibration: The calibration; None before `calibrate`.

    Raises:
      ValueError: If an option is unknown.

    >>> from racer_jax.data import RoutingTable
    >>> table = RoutingTable(ids=list("abcdefghi"), texts=[""] * 9, models=["s", "l"], correct=[[0, 1]] * 9)
    >>> racer = Racer.from_scores(["s", "l"]).calibrate(table, 0.1, scores=np.tile([0.25, 0.75], (9, 1)))
    >>> racer.route_scores(np.array([[0.25, 0.75]]))[0].models
    ('l',)
    """

    models: tuple[str, ...]
    nonconformity: str = "inverse_probability"
    null: NullMode = "paper"
    seed: int | None = 0
    scorer: Scorer | None = None
    trained_on: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    static_order: tuple[int, ...] | None = None
    cost: np.ndarray | None = None
    label_rule: str = GIVEN
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        check_null(self.null)
        _check_nonconformity(self.nonconformity)
        order = None if self.scorer is None else self.scorer.order
        if (self.nonconformity in ORDERS or order is not None) and getattr(
            order, "kind", ""
        ) != self.nonconformity:
            raise ValueError(
                f"nonconformity {self.nonconformity!r} must be that of the order learned from training rows, "
                f"{'of which there is none' if order is None else repr(order.kind)}: use Racer.fit(nonconformity=...)"
            )
        object.__setattr__(self, "models", tuple(self.models))
        if not self.models or len(set(self.models)) != len(self.models):
            raise ValueError(f"models must hold at least one name, each once, got {self.models}")

    def __repr__(self) -> str:
        state = "not calibrated"
        if self.calibration is not None:
            num = int(self.calibration.num_queries.sum())
            state = f"alpha = {self.calibration.alpha}, calibrated on {num} queries"
        return f"Racer({len(self.models)} models, {self.nonconformity}, null mode {self.null!r}, {state})"

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

        Args:
          key: A typed PRNG key.
          table: Training questions with texts, every model's result.
          router: `"mlp"`, `"knn"`, `"routerdc"`, or a configuration of one.
          encoder: `"hashed"` (n-grams, no download), `"minilm"`, `"both"`, or an encoder.
          nonconformity: `"inverse_probability"`, `"gap"`, or an order learned from these questions
            alone: `"static"`, `"J"` or `"J_learned"`. Such an order is by group where the table has
            groups; `calibrate`, `route` and `evaluate` then want groups too.
          null: The null mode.
          tie_break: Whether ties are broken exactly, which gives the risk its exact law.

        Returns:
          A racer that wants to be calibrated, on other questions.

        Raises:
          TypeError: If an argument is of the wrong kind.
          ValueError: If an option is unknown, or the table lacks results or texts or rows.
          ModuleNotFoundError: If the weights of MiniLM are asked for and not installed.
        """
        from racer_jax.routers.fit import fit

        new = cls(models=tuple(table.models), null=null)
        _check_nonconformity(nonconformity)
        if not len(table):
            raise ValueError("table must hold training questions, got none")
        encoder_key, router_key, tie_key = jax.random.split(key, 3)
        chosen = _encoder(encoder_key, encoder, table)
        once = _EncodedOnce(chosen)
        fitted = fit(router_key, table, _config(router, len(table)), once)
        order = None
        if nonconformity in ORDERS:
            order = fit_order(nonconformity, once.encode(table.texts), table.correct, table.group)
        seed = int(jax.random.bits(tie_key)) if tie_break else None
        return replace(
            new,
            nonconformity=nonconformity,
            seed=seed,
            scorer=Scorer(chosen, fitted.router.router, len(new.models), order),
            trained_on=np.unique(question_fingerprints(table)),
            label_rule=_rule(table),
            **_learned(table),
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
        """A racer around an encoder and a router that are there already.

        Args:
          encoder: Texts to embeddings.
          router: Embeddings to scores in [0, 1].
          models: Names of the models, in the order of the scores' columns.
          trained_on: The texts it was trained on, so that calibration can refuse them.
          nonconformity: `"inverse_probability"` or `"gap"`.
          null: The null mode.
          seed: Of the exact tie-break; None to leave ties.

        Raises:
          ValueError: If an option is unknown.
        """
        seen = np.unique(fingerprints(trained_on))
        return cls(
            tuple(models),
            nonconformity,
            null,
            seed,
            scorer=Scorer(encoder, router, len(models)),
            trained_on=seen,
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
        """A racer for any black box: the scores of every query are given to `calibrate`, `route_scores`, `evaluate`.

        Args:
          models: Names of the models, in the order of the scores' columns.
          nonconformity: `"inverse_probability"` or `"gap"`.
          null: The null mode.
          seed: Of the exact tie-break; None to leave ties.
          trained_on: The texts the black box was trained on, so that calibration can refuse them.

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

        Args:
          table: Calibration questions, every model's result.
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
        self._check_table(table)
        questions = question_fingerprints(table)
        overlap = np.isin(questions, self.trained_on)
        if overlap.any() and not allow_overlap:
            row = int(np.argmax(overlap))
            raise OverlapError(
                f"{int(overlap.sum())} of {len(overlap)} calibration questions were trained on, first "
                f"{table.ids[row]!r}: the router knows their answers, and the risk would be higher than promised; "
                f"leave them out, or pass allow_overlap=True to do without the promise"
            )
        measured = self._measured(table, scores)
        ties = self._ties(questions, measured)
        keys = entry_keys(measured.nonconformity, ties)
        truth = np.concatenate([table.correct, ~table.correct.any(axis=1, keepdims=True)], axis=1)
        rows = np.arange(len(table))
        critical = np.where(truth, keys, NEVER).argmin(axis=1)
        # A row whose truth is in no set has the key NEVER in every column that counts; its null
        # column says so.
        critical = np.where(truth[rows, critical], critical, truth.argmax(axis=1))
        groups = tuple(table.groups) if by_group and table.group is not None else None
        place = {name: i for i, name in enumerate(groups or ())}
        code = np.array(
            [place[name] for name in table.group or ()] if groups else np.zeros(len(rows)), np.int32
        )
        order = np.lexsort((keys[rows, critical], code))
        value = measured.nonconformity[rows, critical][order]
        calibration = Calibration(
            alpha=level,
            value=value,
            tie=None if ties is None else ties[rows, critical][order],
            code=code[order],
            groups=groups,
            delta=delta,
            fallback=fallback,
            accuracy=np.stack(
                [table.correct[code == i].mean(axis=0) for i in range(len(groups or ("",)))]
            ),
            questions=np.unique(questions),
            label_rule=_rule(table),
            num_overlap=int(overlap.sum()),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        learned = {
            name: value for name, value in _learned(table).items() if getattr(self, name) is None
        }
        return replace(self, calibration=calibration, **learned)

    def at(self, alpha: Level) -> "Racer":
        """The same racer at another alpha, from the critical scores it keeps; no data is needed.

        Choosing the best looking of several alphas on the calibration queries themselves breaks the
        promise of the chosen one; choose on other queries, or beforehand.

        Raises:
          NotCalibratedError: If it has no calibration.
          ValueError: If alpha is outside (0, 1).
        """
        return replace(self, calibration=self._calibrated("at").at(alpha))

    @property
    def alpha(self) -> str:
        """The risk level in use.

        Raises:
          NotCalibratedError: If it has no calibration.
        """
        return self._calibrated("alpha").alpha

    def warnings(self) -> tuple[str, ...]:
        """What a user must know before trusting it, one sentence each; empty where there is nothing."""
        found = () if self.calibration is None else self.calibration.warnings()
        if (
            self.calibration is not None
            and self.calibration.label_rule != self.label_rule
            and self.scorer is not None
        ):
            found += (
                f"trained under the label rule {self.label_rule!r}, calibrated under {self.calibration.label_rule!r}: "
                f"the promise is about the latter",
            )
        return found

    def guarantee(self) -> str:
        """What is promised, in a sentence, with its assumption."""
        calibration = self._calibrated("guarantee")
        counted = {
            "paper": "no called model answers rightly (where none of the pool does: that the null model is left out)",
            "free": "some model of the pool answers rightly and none that is called does",
            "never": "no called model answers rightly",
        }[self.null]
        num = calibration.num_queries
        if calibration.groups is None:
            who, where = f"the {int(num.sum())} calibration queries", ""
        else:
            sizes = ", ".join(
                f"{name} {count}"
                for name, count in zip(calibration.groups, num.tolist(), strict=True)
            )
            who, where = f"the calibration queries of their group ({sizes})", ", in each group"
        how = (
            "on average over calibration sets"
            if calibration.delta is None
            else f"for all calibration sets but a share of {calibration.delta}"
        )
        if calibration.num_overlap:
            return (
                f"Nothing is promised: {calibration.num_overlap} calibration questions were trained on. The threshold "
                f"was set for a chance of at most {calibration.alpha} that {counted}."
            )
        return (
            f"If the queries to come are exchangeable with {who}, the chance that {counted} is at most "
            f"{calibration.alpha}{where}, {how}."
        )

    # --- routing ----------------------------------------------------------------------------------

    @overload
    def route(self, texts: str, groups: Groups = None) -> Decision: ...  # type: ignore[overload-overlap]

    @overload
    def route(self, texts: Sequence[str], groups: Groups = None) -> Decisions: ...

    def route(self, texts: str | Sequence[str], groups: Groups = None) -> Decision | Decisions:
        """Which models to call for a query, or for each of several.

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
          ValueError: If a text is empty, there is none, groups do not fit, or the racer takes
            scores.
        """
        calibration = self._calibrated("route")
        single = isinstance(texts, str)
        batch: list[str] = [texts] if isinstance(texts, str) else list(texts)
        if self.scorer is None:
            raise ValueError("this racer has no router of its own: give scores to route_scores")
        named = [groups] * len(batch) if isinstance(groups, str) else groups
        if named is not None and len(named) != len(batch):
            raise ValueError(
                f"groups must name one group for each of the {len(batch)} queries, got {len(named)}"
            )
        measured = self.scorer(batch, self.nonconformity, self.null, named)
        questions = fingerprints(batch) if self.seed is not None else None
        decisions = self._decide(calibration, measured, questions, groups)
        return decisions[0] if single else decisions

    def route_scores(
        self, scores: Scores | ArrayLike, groups: Groups = None, *, ids: Sequence[str] | None = None
    ) -> Decisions:
        """Which models to call for queries whose scores you have.

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
        questions = None if self.seed is None else _names(ids, measured.scores)
        return self._decide(calibration, measured, questions, groups)

    def _decide(
        self,
        calibration: Calibration,
        measured: Measured,
        questions: np.ndarray | None,
        groups: Groups,
    ) -> Decisions:
        num = len(measured.scores)
        named = [groups] * num if isinstance(groups, str) else groups
        if named is not None and len(named) != num:
            raise ValueError(
                f"groups must name one group for each of the {num} queries, got {len(named)}"
            )
        code = calibration.codes(named, num)
        # whoever does not say its group is as unknown as one nobody calibrated on
        if self._order_by_group:
            absent = (
                np.ones(num, bool) if named is None else np.array([name is None for name in named])
            )
            code = np.where(absent, len(calibration.threshold), code)
        ties = (
            None
            if questions is None or self.seed is None
            else question_ties(questions, self.seed, len(self.models) + 1)
        )
        keys = entry_keys(measured.nonconformity, ties)
        sets = keys <= calibration.threshold_key[code][:, None]
        threshold = np.append(calibration.threshold, np.float32(inf))[code]
        return Decisions(
            pool=self.models,
            scores=measured.scores,
            nonconformity=measured.nonconformity,
            sets=sets,
            order=np.argsort(keys[:, :-1], axis=1, kind="stable"),
            threshold=threshold,
            reasons=decision.reasons(sets, threshold == inf, code == len(calibration.threshold)),
            alpha=calibration.alpha,
            groups=named,
            cost=self.cost,
        )

    def aggregate(
        self,
        routed: Decision,
        answers: Mapping[str, str | None],
        weighting: str = "majority",
        temperature: float = 1.0,
        confidence: Mapping[str, float] | None = None,
    ) -> str | None:
        """One answer of those the called models gave.

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
        if set(answers) != set(routed.models):
            raise ValueError(
                f"answers must be of the called models {routed.models}, got {tuple(answers)}"
            )
        if weighting not in ("majority", "score", "log_odds", "confidence"):
            raise ValueError(
                f"weighting must be majority, score, log_odds or confidence, got {weighting!r}"
            )
        if not routed.models:
            return None
        given = [answers[model] for model in routed.models]
        codes = answer_codes([given])[0]
        scores = np.array([routed.scores[model] for model in routed.models], np.float32)
        everyone = np.append(np.ones(len(given), bool), False)
        if weighting == "majority":
            voted = int(majority_vote(everyone, codes, scores))
        else:
            weights: ArrayLike = scores if weighting == "score" else log_odds(scores)
            if weighting == "confidence":
                if confidence is None or set(confidence) != set(routed.models):
                    raise ValueError(
                        f"confidence must be of the called models {routed.models}, got {confidence}"
                    )
                weights = np.array([confidence[model] for model in routed.models], np.float32)
            voted = int(weighted_vote(everyone, codes, scores, weights, temperature))
        return None if voted == NO_ANSWER else given[codes.tolist().index(voted)]

    # --- evaluation -------------------------------------------------------------------------------

    def evaluate(
        self,
        table: RoutingTable,
        alphas: Sequence[Level] | str | None = None,
        *,
        scores: Scores | ArrayLike | None = None,
        temperatures: Sequence[float] = TEMPERATURES,
    ) -> Evaluation:
        """What the racer does on labelled queries, at its own alpha and at others, from the same step functions.

        Args:
          table: Labelled queries; rows whose question was trained or calibrated on are counted in a
            note.
          alphas: Levels beside its own, or `first:last:step`; 0.01 to 0.50 where None.
          scores: Their scores, with, and only with, a racer made by `from_scores`.
          temperatures: Of the weighted votes, where the table has answers.

        Returns:
          The `Evaluation`.

        Raises:
          NotCalibratedError: If it has no calibration.
          TypeError: If an argument is of the wrong kind.
          ValueError: If the table is of another pool, lacks results or rows, or an alpha is out of
            range.
        """
        calibration = self._calibrated("evaluate")
        self._check_table(table)
        given = ALPHAS if alphas is None else alphas
        others = (
            parse_alphas(given)
            if isinstance(given, str)
            else tuple(level_name(alpha) for alpha in given)
        )
        # Two ways to write one number are one level; that of the racer is written as it is there.
        by_value = {exact_alpha(alpha): alpha for alpha in (*others, calibration.alpha)}
        levels = tuple(by_value[value] for value in sorted(by_value))
        measured = self._measured(table, scores)
        questions = question_fingerprints(table)
        seen = np.isin(questions, self.trained_on) | np.isin(questions, calibration.questions)
        notes = [*self.warnings(), *table.notes]
        if seen.any():
            notes.insert(
                0,
                f"{int(seen.sum())} of {len(seen)} questions were trained or calibrated on: too "
                "good to be true",
            )
        if _rule(table) != calibration.label_rule:
            notes.append(
                f"calibrated under the label rule {calibration.label_rule!r}, evaluated under "
                f"{_rule(table)!r}"
            )
        groups = evaluate(
            table,
            measured,
            self._ties(questions, measured),
            calibration,
            levels,
            static_order=self.static_order or tuple(range(len(self.models))),
            mean_cost=self.cost,
            temperatures=temperatures,
        )
        return Evaluation(
            alpha=calibration.alpha,
            alphas=levels,
            models=self.models,
            nonconformity=self.nonconformity,
            null=self.null,
            label_rule=_rule(table),
            guarantee=self.guarantee(),
            num_seen=int(seen.sum()),
            groups=groups,
            notes=tuple(notes),
        )

    def score(self, table: RoutingTable, scores: Scores | ArrayLike | None = None) -> Measured:
        """Scores and nonconformity of a table's queries, as calibration and evaluation see them.

        Args:
          table: Queries of the pool.
          scores: Their scores, with, and only with, a racer made by `from_scores`.

        Raises:
          TypeError: If scores are not floating.
          ValueError: If the table is of another pool or lacks results or rows, or scores do not
            fit.
        """
        self._check_table(table)
        return self._measured(table, scores)

    def unseen(self, table: RoutingTable) -> RoutingTable:
        """The rows of a table whose question was neither trained nor calibrated on."""
        questions = question_fingerprints(table)
        seen = np.isin(questions, self.trained_on)
        if self.calibration is not None:
            seen |= np.isin(questions, self.calibration.questions)
        return table.select(~seen)

    # --- to disk and back -------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an artefact, whole or not at all; see `racer_jax.racer.artefact`.

        Raises:
          ArtefactError: If the path is no place for one.
          ValueError: If the router or the encoder is one that cannot be saved.
          OSError: If the disk refuses.
        """
        description, arrays = self._to_parts()
        artefact.write(path, description, arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        models: Sequence[str] | None = None,
        encoder: Encoder | None = None,
    ) -> "Racer":
        """Reads an artefact.

        Args:
          path: The folder.
          models: The pool you have, to be sure that it is the artefact's; None to take the
            artefact's.
          encoder: The pretrained encoder, where it is not MiniLM.

        Raises:
          ArtefactError: If it cannot be read; of its kinds, `NewerFormatError`, `CorruptError`
            (checksums), `OtherPoolError` and `OtherWeightsError`.
        """
        description, arrays = artefact.read(path, models)
        try:
            return cls._from_parts(description, arrays, encoder)
        except parts.OtherEncoderError as error:
            raise OtherWeightsError(str(error), path=Path(path)) from None
        except (KeyError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise CorruptError(
                f"is not an artefact of this format: {problem}", path=Path(path)
            ) from None

    def _to_parts(self) -> tuple[dict[str, Any], parts.Arrays]:
        arrays: parts.Arrays = {"trained_on": self.trained_on}
        routing: dict[str, Any] = {"router": None, "encoder": None}
        if self.scorer is not None:
            encoder, encoder_arrays = parts.encoder_parts(self.scorer.encoder)
            router, router_arrays = parts.router_parts(self.scorer.router)
            arrays |= encoder_arrays | router_arrays
            routing = {
                "router": {**router, "fingerprint": parts.digest(router, router_arrays)},
                "encoder": {"fingerprint": parts.digest(encoder, encoder_arrays), **encoder},
            }
            if self.scorer.order is not None:
                order, order_arrays = parts.order_parts(self.scorer.order)
                arrays |= order_arrays
                routing["order"] = {**order, "fingerprint": parts.digest(order, order_arrays)}
        if self.cost is not None:
            arrays["cost"] = self.cost
        calibrated, calibration_arrays = _calibration_parts(self.calibration)
        arrays |= calibration_arrays
        description = {
            "guarantee": None if self.calibration is None else self.guarantee(),
            "warnings": list(self.warnings()),
            "models": list(self.models),
            "nonconformity": self.nonconformity,
            "null": self.null,
            "tie_break": "none" if self.seed is None else "exact",
            "seed": self.seed,
            "calibration": calibrated,
            "training": {"num_questions": len(self.trained_on), "label_rule": self.label_rule},
            "static_order": None
            if self.static_order is None
            else [self.models[j] for j in self.static_order],
            **routing,
            "versions": {
                "racer_jax": __version__,
                "jax": jax.__version__,
                "numpy": np.__version__,
            },
        }
        return description, arrays

    @classmethod
    def _from_parts(
        cls, description: Mapping[str, Any], arrays: Mapping[str, np.ndarray], given: Encoder | None
    ) -> "Racer":
        models = tuple(description["models"])
        scorer = None
        if description["router"] is not None:
            encoder = parts.encoder_from(description["encoder"], arrays, given)
            learned = (
                parts.order_from(description["order"], arrays) if "order" in description else None
            )
            scorer = Scorer(
                encoder, parts.router_from(description["router"], arrays), len(models), learned
            )
        order = description["static_order"]
        return cls(
            models=models,
            nonconformity=description["nonconformity"],
            null=description["null"],
            seed=description["seed"],
            scorer=scorer,
            trained_on=arrays["trained_on"],
            static_order=None if order is None else tuple(models.index(model) for model in order),
            cost=arrays.get("cost"),
            label_rule=description["training"]["label_rule"],
            calibration=_calibration_from(description["calibration"], arrays),
        )

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _order_by_group(self) -> bool:
        return (
            self.scorer is not None and self.scorer.order is not None and self.scorer.order.by_group
        )

    def _calibrated(self, step: str) -> Calibration:
        if self.calibration is None:
            raise NotCalibratedError(step)
        return self.calibration

    def _check_table(self, table: RoutingTable) -> None:
        if tuple(table.models) != self.models:
            raise ValueError(
                f"table must be of the models {self.models}, in that order (RoutingTable.select), got "
                f"{tuple(table.models)}"
            )
        if not len(table):
            raise ValueError("table must hold at least one query, got none")
        if table.missing is not None:
            raise ValueError(
                "table must have a result of every model for every query; see RoutingTable.complete"
            )

    def _given(self, scores: Scores | ArrayLike) -> np.ndarray:
        if isinstance(scores, Scores):
            if tuple(scores.models) != self.models:
                raise ValueError(
                    f"scores must be of the models {self.models}, got {tuple(scores.models)}"
                )
            scores = scores.values
        return check_given_scores(np.asarray(scores), len(self.models))

    def _measured(self, table: RoutingTable, scores: Scores | ArrayLike | None) -> Measured:
        if self.scorer is None:
            if scores is None:
                raise ValueError(
                    "this racer has no router of its own: pass scores=, one row for each query of "
                    "the table"
                )
            values = self._given(scores)
            if len(values) != len(table):
                raise ValueError(
                    f"scores must have a row for each of the {len(table)} queries, got "
                    f"{len(values)}"
                )
            return measure_scores(values, self.nonconformity, self.null)
        if scores is not None:
            raise ValueError(
                "this racer has a router of its own; scores= is for one made by Racer.from_scores"
            )
        if self._order_by_group and table.group is None:
            raise ValueError(
                f"table must have groups: the order {self.nonconformity!r} was learned by group, and a query has to "
                f"say which it is of"
            )
        return self.scorer(table.texts, self.nonconformity, self.null, table.group)

    def _ties(self, questions: np.ndarray, measured: Measured) -> np.ndarray | None:
        return (
            None
            if self.seed is None
            else question_ties(questions, self.seed, measured.nonconformity.shape[1])
        )


class _EncodedOnce:
    """An encoder that remembers the texts it encoded last: training texts are wanted twice."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._last: tuple[tuple[str, ...], np.ndarray] | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self._last is None or self._last[0] != tuple(texts):
            self._last = tuple(texts), self._encoder.encode(texts)
        return self._last[1]


def _check_nonconformity(name: str) -> None:
    if name not in (known := (*NONCONFORMITIES, *ORDERS)):
        raise ValueError(f"nonconformity must be one of {known}, got {name!r}")


def _names(ids: Sequence[str] | None, scores: np.ndarray) -> np.ndarray:
    return row_fingerprints(scores) if ids is None else fingerprints(ids)


def _rule(table: RoutingTable) -> str:
    rules = table.rules
    return (
        next(iter(rules.values()))
        if len(set(rules.values())) == 1
        else "; ".join(f"{g}: {r}" for g, r in rules.items())
    )


def _learned(table: RoutingTable) -> dict[str, Any]:
    """What any labelled table teaches: the static order and the mean costs."""
    order = np.argsort(np.asarray(static_order(table.correct))[:-1], kind="stable")
    cost = None
    if table.cost is not None and np.isfinite(table.cost).any(axis=0).all():
        cost = np.nanmean(table.cost, axis=0)
    return {"static_order": tuple(int(j) for j in order), "cost": cost}


def _config(router: Any, num_rows: int) -> Any:
    """The configuration of a router by name."""
    if not isinstance(router, str):
        return router
    if router not in ROUTERS:
        raise ValueError(f"router must be one of {ROUTERS} or a configuration, got {router!r}")
    if router == "knn":
        from racer_jax.routers.knn import KNNConfig

        return KNNConfig(k=min(KNNConfig.k, max(1, num_rows // 2)))
    if router == "mlp":
        from racer_jax.routers.mlp import MLPConfig

        return MLPConfig(batch_size=min(MLPConfig.batch_size, max(1, num_rows // 4)))
    from racer_jax.routers.routerdc import RouterDCConfig

    return RouterDCConfig(batch_size=min(RouterDCConfig.batch_size, max(1, num_rows // 4)))


def _encoder(key: jax.Array, encoder: Encoder | str, table: RoutingTable) -> Encoder:
    """An encoder by name, fitted on the texts where it is one that is."""
    if not isinstance(encoder, str):
        return encoder
    if encoder not in ENCODERS:
        raise ValueError(f"encoder must be one of {ENCODERS} or an encoder, got {encoder!r}")
    if encoder == "hashed":
        return ReducedEncoder.fit(key, table.texts)
    from racer_jax.encoders.text import minilm

    return (
        minilm()
        if encoder == "minilm"
        else JoinedEncoder((minilm(), ReducedEncoder.fit(key, table.texts)))
    )


def _calibration_parts(
    calibration: Calibration | None,
) -> tuple[dict[str, Any] | None, parts.Arrays]:
    if calibration is None:
        return None, {}
    arrays = {
        "calibration.value": calibration.value,
        "calibration.code": calibration.code,
        "calibration.accuracy": calibration.accuracy,
        "calibration.questions": calibration.questions,
    }
    if calibration.tie is not None:
        arrays["calibration.tie"] = calibration.tie
    tie = calibration.threshold_tie
    thresholds = []
    for i, (num, value) in enumerate(
        zip(calibration.num_queries.tolist(), calibration.threshold.tolist(), strict=True)
    ):
        name = None if calibration.groups is None else calibration.groups[i]
        plain = value if np.isfinite(value) else str(value)
        thresholds.append(
            {
                "group": name,
                "n": num,
                "threshold": plain,
                "tie": None if tie is None else int(tie[i]),
            }
        )
    description = {
        "alpha": calibration.alpha,
        "n": int(calibration.num_queries.sum()),
        "thresholds": thresholds,
        "groups": None if calibration.groups is None else list(calibration.groups),
        "delta": calibration.delta,
        "fallback": calibration.fallback,
        "label_rule": calibration.label_rule,
        "num_overlap": calibration.num_overlap,
        "fingerprint": parts.digest(None, arrays),
        "date": calibration.date,
    }
    return description, arrays


def _calibration_from(
    description: Mapping[str, Any] | None, arrays: Mapping[str, np.ndarray]
) -> Calibration | None:
    if description is None:
        return None
    return Calibration(
        alpha=description["alpha"],
        value=arrays["calibration.value"],
        tie=arrays.get("calibration.tie"),
        code=arrays["calibration.code"],
        groups=None if description["groups"] is None else tuple(description["groups"]),
        delta=description["delta"],
        fallback=description["fallback"],
        accuracy=arrays["calibration.accuracy"],
        questions=arrays["calibration.questions"],
        label_rule=description["label_rule"],
        num_overlap=description["num_overlap"],
        date=description["date"],
    )
