"""What a racer is made of: its fields, what they say, and how they are written to disk.

`racer_jax.racer.racer.Racer` adds the steps that use them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from racer_jax._distribution import __version__
from racer_jax.core.nonconformity import NullMode, check_null
from racer_jax.data.checks import strings
from racer_jax.data.labels import GIVEN
from racer_jax.data.table import RoutingTable
from racer_jax.encoders.base import Encoder
from racer_jax.encoders.registry import encoder_from, encoder_parts
from racer_jax.orders.model_orders import ORDERS, Order
from racer_jax.racer import serialization
from racer_jax.racer.calibration import Calibration
from racer_jax.racer.earlier_promises import earlier_guarantees
from racer_jax.racer.errors import NotCalibratedError
from racer_jax.racer.fingerprints import question_ties
from racer_jax.racer.fitting import check_nonconformity, matched
from racer_jax.racer.own_parts import Reading, Writing
from racer_jax.racer.processes import check_process
from racer_jax.racer.promises import warnings_of
from racer_jax.racer.score_orders import measure_by, named_columns
from racer_jax.racer.scoring import ModelScores, Scorer
from racer_jax.racer.unknown_groups import unknown_sentence
from racer_jax.racer.usage import Usage, usage
from racer_jax.routers.base import Router
from racer_jax.routers.registry import router_from, router_parts
from racer_jax.routers.scores import Scores

# What the notes of a calibration begin with.
_CALIBRATION = "calibration: "


@dataclass(frozen=True, eq=False, repr=False)
class RacerState:
    """A router, a nonconformity and a calibration.

    Attributes:
      models: The pool, in the order of the scores' columns.
      nonconformity: `"inverse_probability"` (RACER-P), `"gap"` (RACER-G), or an order learned from
        the training rows: `"static"`, `"J"` (RACER-J) or `"J_learned"`, see
        `racer_jax.orders.model_orders`.
      null: The null mode, see `racer_jax.core.nonconformity`.
      seed: Seed of the exact tie-break; None where ties are not broken.
      scorer: Texts to scores; None where scores come from outside.
      scores_order: The order of the models that was learned from scores, where they come from
        outside and the nonconformity is such an order; else None.
      trained_on: Fingerprints of the training questions, uint64, sorted.
      static_order: The models by how much each adds to those before it on the training (else
        calibration) queries.
      cost: Mean dollars of an answer of each model there, float64 `[m]`; None where not known.
      label_rule: The rule that said which answers were right in training.
      normal_form: Name of the form in which answers are compared in use, see
        `racer_jax.sequential.normal_forms`; None where it is not said.
      view: Which text of a conversation the queries are, `last_user`, `all_user` or a template;
        None likewise.
      calibration: The calibration; None before `calibrate`.
      notes: What training and calibration left out or read loosely, one sentence each.

    Raises:
      ValueError: If an option is unknown.

    Use this when you need to know what a `Racer` holds.
    """

    models: tuple[str, ...]
    nonconformity: str = "inverse_probability"
    null: NullMode = "paper"
    seed: int | None = 0
    scorer: Scorer | None = None
    scores_order: Order | None = None
    trained_on: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    static_order: tuple[int, ...] | None = None
    cost: np.ndarray | None = None
    label_rule: str = GIVEN
    normal_form: str | None = None
    view: str | None = None
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_null(self.null)
        check_nonconformity(self.nonconformity)
        kind = None if self._order is None else self._order.kind
        if (self.nonconformity in ORDERS or kind is not None) and kind != self.nonconformity:
            raise ValueError(
                f"nonconformity {self.nonconformity!r} must be that of the order learned from "
                f"training rows, {'of which there is none' if kind is None else repr(kind)}: use "
                f"Racer.fit(nonconformity=...), or training= of from_router and from_scores"
            )
        object.__setattr__(self, "models", tuple(self.models))
        if not self.models or len(set(self.models)) != len(self.models):
            raise ValueError(f"models must hold at least one name, each once, got {self.models}")

    def __repr__(self) -> str:
        state = "not calibrated"
        if self.calibration is not None:
            num = int(self.calibration.num_queries.sum())
            state = f"alpha = {self.calibration.alpha}, calibrated on {num} queries"
        return (
            f"Racer({len(self.models)} models, {self.nonconformity}, null mode {self.null!r}, "
            f"{state})"
        )

    @property
    def alpha(self) -> str:
        """The risk level in use.

        Use this when you want to read the risk level; `at` changes it.

        Raises:
          NotCalibratedError: If it has no calibration.
        """
        return self._calibrated("alpha").alpha

    def warnings(self) -> tuple[str, ...]:
        """What a user must know before trusting it, one sentence each; empty without a reason.

        Use this when a racer has just been calibrated or loaded, before you rely on it.
        """
        if self.calibration is None:
            return ()
        sentences = self.calibration.warnings()
        if self.calibration.label_rule != self.label_rule and self.scorer is not None:
            sentences += (
                f"trained under the label rule {self.label_rule!r}, calibrated under "
                f"{self.calibration.label_rule!r}: the promise is about the latter",
            )
        return sentences

    def guarantee(self) -> str:
        """What is promised, in a sentence, with its assumption.

        Use this when you want to print or store the promise together with the results.
        """
        return self._calibrated("guarantee").guarantee(self.null)

    def score(self, table: RoutingTable, scores: Scores | ArrayLike | None = None) -> ModelScores:
        """Scores and nonconformity of a table's queries, as calibration and evaluation see them.

        Use this when you want the scores themselves, for an analysis of your own; `route` gives
        decisions and `evaluate` gives risk and set sizes.

        Args:
          table: Queries of the pool.
          scores: Their scores, with, and only with, a racer made by `from_scores`.

        Raises:
          TypeError: If scores are not floating.
          ValueError: If the table is of another pool or lacks results or rows, or scores do not
            fit.
        """
        table = self._matched(table, scores)
        return self._measured(table, scores)

    def refused_group(self, group: str | None) -> str | None:
        """What is wrong with a query's group where unknown groups are an error; else None.

        Use this when queries come one by one and a refused one shall not stop the others.
        """
        calibration = self.calibration
        if calibration is None or calibration.unknown_group != "error":
            return None
        known = calibration.groups
        if (known is None or group in known) and not (self._order_by_group and group is None):
            return None
        return unknown_sentence(group, known or ())

    def unseen(self, table: RoutingTable, *, calibrated: bool = True) -> RoutingTable:
        """The rows of a table whose question was neither trained nor calibrated on.

        Use this when you have one table and need rows fit for calibration or evaluation.

        Args:
          table: A table.
          calibrated: Whether the questions it was calibrated on are left out too. For a new
            calibration, which takes the place of the old one, they need not be.
        """
        return table.select(self._usage(table).unseen(calibrated))

    def unseen_notes(self, table: RoutingTable, *, recalibrating: bool = False) -> list[str]:
        """What `unseen` leaves out of a table, in words; nothing where that is nothing.

        Use this when rows are left out and a user shall know which.

        Args:
          table: The table before rows are left out.
          recalibrating: Whether the questions of the old calibration stay in.
        """
        return self._usage(table).notes(recalibrating)

    def _usage(self, table: RoutingTable) -> Usage:
        """Which questions of a table it was trained or calibrated on."""
        calibration = self.calibration
        return usage(table, self.trained_on, None if calibration is None else calibration.questions)

    # --- inside -----------------------------------------------------------------------------------

    def _noted(self, table: RoutingTable) -> tuple[str, ...]:
        """The notes of the racer after its calibration on a table."""
        return (
            *(note for note in self.notes if not note.startswith(_CALIBRATION)),
            *(_CALIBRATION + note for note in table.notes),
        )

    @property
    def _order_by_group(self) -> bool:
        return self._order is not None and self._order.by_group

    @property
    def _order(self) -> Order | None:
        """The order of the models, whether it reads embeddings or scores."""
        return self.scores_order if self.scorer is None else self.scorer.order

    def _calibrated(self, step: str) -> Calibration:
        if self.calibration is None:
            raise NotCalibratedError(step)
        return self.calibration

    def _matched(self, table: RoutingTable, scores: Scores | ArrayLike | None) -> RoutingTable:
        """The table with its models in the order of the pool, complete."""
        by_place = scores is not None and not isinstance(scores, Scores)
        if by_place and tuple(table.models) != self.models:
            raise ValueError(
                f"table must be of the models {self.models}, in that order, where scores are "
                f"columns without names, got {tuple(table.models)}: pass racer_jax.routers.Scores, "
                f"which names them, or bring the table into that order (RoutingTable.aligned)"
            )
        return matched(table, self.models)

    def _given(self, scores: Scores | ArrayLike) -> np.ndarray:
        """Scores from outside `[n, m]`, by name where they have names."""
        return named_columns(scores, self.models)

    def _measured(self, table: RoutingTable, scores: Scores | ArrayLike | None) -> ModelScores:
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
            order = self.scores_order
            return measure_by(order, values, self.nonconformity, self.null, table.group)
        if scores is not None:
            raise ValueError(
                "this racer has a router of its own; scores= is for one made by Racer.from_scores"
            )
        if self._order_by_group and table.group is None:
            raise ValueError(
                f"table must have groups: the order {self.nonconformity!r} was learned by group, "
                f"and a query has to say which it is of"
            )
        return self.scorer(table.texts, self.nonconformity, self.null, table.group)

    def _ties(self, questions: np.ndarray, model_scores: ModelScores) -> np.ndarray | None:
        if self.seed is None:
            return None
        return question_ties(questions, self.seed, model_scores.nonconformity.shape[1])


def earlier_guarantees_of(racer: RacerState) -> tuple[str, ...]:
    """The promise in the words of each version before; none without a calibration.

    Use this when an artefact states its promise in those words.
    """
    if racer.calibration is None:
        return ()
    return earlier_guarantees(racer.calibration, racer.null)


def earlier_warnings_of(racer: RacerState) -> list[str]:
    """The warnings in the words of the version before; none without a calibration.

    Use this when an artefact states its warnings in those words.
    """
    if racer.calibration is None:
        return []
    of_racer = racer.warnings()[len(racer.calibration.warnings()) :]
    return [*warnings_of(racer.calibration, with_advice=False), *of_racer]


def stated(racer: RacerState) -> dict[str, Any]:
    """What an artefact says of the racer itself, without the arrays it computes with.

    Use this when you want the description of a racer without its arrays.
    """
    guarantee = calibration = order = None
    if racer.calibration is not None:
        guarantee, calibration = racer.guarantee(), racer.calibration.to_parts()[0]
    if racer.static_order is not None:
        order = [racer.models[j] for j in racer.static_order]
    serving = {"normal_form": racer.normal_form, "view": racer.view}
    serving = {name: value for name, value in serving.items() if value is not None}
    more: dict[str, Any] = {"serving": serving} if serving else {}
    if racer.notes:
        more["notes"] = list(racer.notes)
    return {
        **more,
        "guarantee": guarantee,
        "warnings": list(racer.warnings()),
        "models": list(racer.models),
        "nonconformity": racer.nonconformity,
        "null": racer.null,
        "tie_break": "none" if racer.seed is None else "exact",
        "seed": racer.seed,
        "calibration": calibration,
        "training": {"num_questions": len(racer.trained_on), "label_rule": racer.label_rule},
        "static_order": order,
    }


def racer_parts(racer: RacerState) -> tuple[dict[str, Any], serialization.Arrays]:
    """A racer in pieces: what `racer.json` says of it, and arrays by name.

    Use this when a racer is written; `Racer.save` does it for you.
    """
    arrays: serialization.Arrays = {"trained_on": racer.trained_on}
    routing: dict[str, Any] = {"router": None, "encoder": None}
    parts: dict[str, Any] = {}
    if racer.scorer is not None:
        writer = Writing(racer.scorer.encoder)
        parts = {
            "router": router_parts(racer.scorer.router, own_part=writer.router),
            "encoder": encoder_parts(racer.scorer.encoder, own_part=writer.encoder),
        }
        if racer.scorer.order is not None:
            parts["order"] = racer.scorer.order.to_parts(own_part=writer.order)
    elif racer.scores_order is not None:
        parts["order"] = racer.scores_order.to_parts()
    for name, (description, own_arrays) in parts.items():
        arrays |= own_arrays
        fingerprint = serialization.digest(description, own_arrays)
        routing[name] = {"fingerprint": fingerprint, **description}
    if racer.cost is not None:
        arrays["cost"] = racer.cost
    if racer.calibration is not None:
        arrays |= racer.calibration.to_parts()[1]
    versions = {
        "racer_jax": __version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
    }
    return {**stated(racer), **routing, "versions": versions}, arrays


def fields_from(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    encoder: Encoder | None = None,
    router: Router | None = None,
    order: Any = None,
) -> dict[str, Any]:
    """The fields of the racer of a description and its arrays, and of parts that were passed.

    Use this when a racer is read; `Racer.load` does it for you.

    Raises:
      OtherPartError: If a part is passed that the artefact does not want, or is another one.
    """
    reader = Reading(arrays, encoder, router, order)
    models, scorer, scores_order = tuple(description["models"]), None, None
    if description["router"] is not None:
        check_process()
        parts = ("router", "encoder", *(("order",) if "order" in description else ()))
        loaded = encoder_from(description["encoder"], arrays, encoder, own_part=reader.encoder)
        reader.with_encoder(loaded)
        routing = router_from(description["router"], arrays, own_part=reader.router)
        ordering = None
        if "order" in parts:
            ordering = Order.from_parts(description["order"], arrays, own_part=reader.order)
        for name in parts:
            serialization.check_fingerprint(name, description[name], arrays)
        scorer = Scorer(loaded, routing, len(models), ordering)
    elif "order" in description:
        scores_order = Order.from_parts(description["order"], arrays)
        serialization.check_fingerprint("order", description["order"], arrays)
    reader.check_all_used()
    calibration, static_order = None, description["static_order"]
    if static_order is not None:
        static_order = tuple(map(models.index, static_order))
    if description["calibration"] is not None:
        calibration = Calibration.from_parts(description["calibration"], arrays)
    serving = description.get("serving") or {}
    return dict(
        normal_form=serving.get("normal_form"),
        view=serving.get("view"),
        models=models,
        nonconformity=description["nonconformity"],
        null=description["null"],
        seed=description["seed"],
        scorer=scorer,
        scores_order=scores_order,
        trained_on=arrays["trained_on"],
        static_order=static_order,
        cost=arrays.get("cost"),
        label_rule=description["training"]["label_rule"],
        calibration=calibration,
        notes=strings("notes", description.get("notes", ())),
    )
