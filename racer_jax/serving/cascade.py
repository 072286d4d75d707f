r"""`Cascade`: one model after another, until stopping is safe.

It is frozen, saved and loaded like a `Racer`. `start` says which models to call for a query, `tell`
takes their answers and says which to call next, or gives the answer and why it is enough.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from racer_jax._distribution import __version__
from racer_jax.core.keys import two_keys
from racer_jax.core.nonconformity import TieBroken
from racer_jax.core.risk_levels import Level, level_name
from racer_jax.data.table import RoutingTable
from racer_jax.racer import artefact
from racer_jax.racer.errors import CorruptError, NotCalibratedError, OverlapError
from racer_jax.racer.fingerprints import fingerprint, question_fingerprints, question_ties
from racer_jax.racer.usage import Usage, usage
from racer_jax.risk_control.stopping import LOSSES, Loss
from racer_jax.sequential.calibration import StopCalibration
from racer_jax.sequential.caller import Caller, CallState
from racer_jax.sequential.evaluation import PathEvaluation, evaluate_paths
from racer_jax.sequential.logged_tables import check_labels
from racer_jax.sequential.normal_forms import NormalForm, normal_form
from racer_jax.sequential.parts import (
    calibration_from,
    calibration_parts,
    notes_from,
    policy_from,
    policy_parts,
    rules_in_one,
)
from racer_jax.sequential.policy import Policy, PolicyOptions, fit_policy
from racer_jax.sequential.replay import Paths, replay
from racer_jax.sequential.wording import promise

_TOP = 0xFFFFFFFF
KIND = "cascade"


@dataclass(frozen=True, eq=False, repr=False)
class Cascade:
    """Calls one model after another and stops when that is safe.

    Without a calibration it stops where the vote is decided: its answers are then those of the full
    vote, with fewer calls. Calibrated, it stops earlier, and the chance of the chosen loss is at
    most alpha. Make one with `fit`, then `calibrate` it.

    Use this when an early answer may save later calls; a `Racer` chooses all its models at once.

    Attributes:
      policy: Order, weights, reference and risk models, learned from training rows.
      seed: Seed of the tie-break of the stopping scores.
      form: Name of the normal form of answers; see `normal_form`.
      trained_on: Fingerprints of the training questions, uint64, sorted.
      label_rule: The rule that said which answers were right in training.
      calibration: The critical scores and the level in use, or None.
      forms: The caller's own normal forms by name; they are not saved.
      notes: What was left out in training and calibration.

    Raises:
      UnknownFormError: If the normal form has no name here.
    """

    policy: Policy
    seed: int
    form: str
    trained_on: np.ndarray
    label_rule: str
    calibration: StopCalibration | None = None
    forms: Mapping[str, NormalForm] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        normal_form(self.form, self.forms)

    def __repr__(self) -> str:
        state = "stops where the vote is decided"
        if self.calibration is not None:
            state = f"alpha = {self.calibration.alpha} on {self.calibration.loss!r}"
        return f"Cascade({' > '.join(self.policy.calls)}; {state})"

    # --- how one is made --------------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        key: jax.Array,
        table: RoutingTable,
        *,
        form: str = "text",
        forms: Mapping[str, NormalForm] | None = None,
        **options: Unpack[PolicyOptions],
    ) -> "Cascade":
        """Learns whom to call when, and how the answers vote; deterministic for a key.

        Use this when the answers of every model to some hundred labelled queries are logged.

        Args:
          key: A typed PRNG key.
          table: Training rows with `answers` in normal form, every model's result; without any
            label for the loss `differs`.
          form: Normal form of answers: `text`, `letter`, `number`, `json:FIELD` or one of `forms`.
          forms: Functions of your own from a response to its normal form, by name.
          **options: Those of `fit_policy`: `loss`, what stopping early shall not incur (`regret`,
            `differs`, `covers`, `wrong`); `reference` (`auto`, `vote`, `best`); `objective`, what
            the order saves (`calls`, `dollars`); `batches`, sizes of the first batches of calls
            made at once, such as `(2, 2)`; `alpha`, the level you mean to calibrate for, 0 if you
            will not.

        Returns:
          A cascade that stops where the vote is decided; calibrate it to stop earlier.

        Raises:
          TypeError: If an argument is of the wrong kind, or there is no option of a name.
          ValueError: If an option's value is unknown, or the table lacks answers, results or rows.
        """
        if unknown := set(options) - set(PolicyOptions.__annotations__):
            known = ", ".join(PolicyOptions.__annotations__)
            raise TypeError(
                f"Cascade.fit has no option {min(unknown)!r}: it has form, forms, {known}"
            )
        normal_form(form, forms)
        fit_key, tie_key = two_keys(key)
        policy = fit_policy(fit_key, table, **options)
        return cls(
            policy=policy,
            seed=int(jax.random.bits(tie_key)),
            form=form,
            trained_on=np.unique(question_fingerprints(table)),
            label_rule=rules_in_one(table),
            forms=forms,
            notes=tuple(f"training: {note}" for note in table.notes),
        )

    def calibrate(
        self,
        table: RoutingTable,
        alpha: Level = 0.01,
        *,
        loss: Loss | None = None,
        by_group: bool = False,
        delta: float | None = None,
        allow_overlap: bool = False,
    ) -> "Cascade":
        """Calibrates the stop on queries it was not trained on.

        Use this when it shall stop before the vote is decided; for another alpha, `at` is enough.

        Args:
          table: Rows with the answer of every model. Labels are not read where the loss is
            `differs`: unlabelled queries that all models answered are enough.
          alpha: The level, in (0, 1).
          loss: What shall have a chance of at most alpha; that of `fit` where None.
          by_group: A threshold for each group, so that the chance is at most alpha in each.
          delta: The risk is to be at most alpha with confidence 1 - delta;
            None for a risk of at most alpha on average over calibration sets.
          allow_overlap: Calibrate although questions were trained on; nothing is promised then.

        Returns:
          The calibrated cascade.

        Raises:
          OverlapError: If a question was trained on.
          ValueError: If the table is of another pool, lacks answers, labels or groups where they
            are needed, or has too few rows for alpha.
        """
        name = loss or self.policy.loss
        if name not in LOSSES:
            raise ValueError(f"loss must be one of {LOSSES}, got {name!r}")
        level = level_name(alpha)
        if name != "differs":
            check_labels(table)
        paths = replay(self.policy, table)
        questions = question_fingerprints(table)
        overlap = np.isin(questions, self.trained_on)
        if overlap.any() and not allow_overlap:
            row = int(np.argmax(overlap))
            raise OverlapError(
                f"{int(overlap.sum())} of {len(overlap)} calibration questions were trained on, "
                f"first {table.ids[row]!r}: the order and the weights know them, and the risk "
                "would be higher than promised; leave them out, or pass allow_overlap=True to do "
                "without the promise"
            )
        if by_group and table.group is None:
            raise ValueError("by_group needs a table with groups, got none")
        critical = paths.critical(name, jnp.asarray(self._ties(questions)))
        groups = tuple(table.groups) if by_group else None
        place = {group: i for i, group in enumerate(groups or ())}
        code = np.zeros(len(table), np.int32)
        if groups is not None:
            code = np.array([place[group] for group in table.group or ()], np.int32)
        calibration = StopCalibration(
            alpha=level,
            loss=name,
            value=np.asarray(critical.value),
            tie=np.asarray(critical.tie),
            code=code,
            groups=groups,
            delta=delta,
            questions=np.unique(questions),
            num_overlap=int(overlap.sum()),
            label_rule=rules_in_one(table),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        notes = [note for note in self.notes if note.startswith("training: ")]
        notes += [f"calibration: {note}" for note in table.notes]
        return replace(self, calibration=calibration, notes=tuple(notes))

    def at(self, alpha: Level) -> "Cascade":
        """The same cascade at another level, from the critical scores it keeps; no data is needed.

        Use this when you want another level; a new loss or new rows need `calibrate`.

        Raises:
          NotCalibratedError: If it has no calibration.
          ValueError: If alpha is outside (0, 1), or the calibration rows too few for it.
        """
        if self.calibration is None:
            raise NotCalibratedError("at")
        return replace(self, calibration=self.calibration.at(alpha))

    @property
    def models(self) -> tuple[str, ...]:
        """The pool. Use this when you need the names of the models a table must have."""
        return self.policy.models

    @property
    def loss(self) -> Loss:
        """The loss of calibration, else of `fit`. Use this when you state what alpha bounds."""
        return self.policy.loss if self.calibration is None else self.calibration.loss

    def guarantee(self) -> str:
        """The promise and its assumption. Use this when you state the promise beside answers."""
        return promise(self.policy, self.calibration)

    # --- one query --------------------------------------------------------------------------------

    @cached_property
    def _caller(self) -> Caller:
        return Caller(self.policy, self.calibration, normal_form(self.form, self.forms))

    def start(self, query: str, group: str | None = None) -> CallState:
        """The models to call first for a query.

        Use this when a new query comes in; every later step is `tell`.

        Args:
          query: Its text.
          group: Its group, where calibration was by group or the policy learned from groups.

        Returns:
          A `CallState`; give it to `tell` with the answers of `call`.

        Raises:
          TypeError: If the query or the group is not a string.
        """
        for name, value in (("query", query), ("group", "" if group is None else group)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, got {value!r}")
        return self._caller.start(self._ties(np.array([fingerprint(query)], np.uint64))[0], group)

    def tell(
        self,
        state: CallState,
        answers: Mapping[str, str | None],
        dollars: Mapping[str, float] | None = None,
    ) -> CallState:
        """The next models to call, or the answer, after hearing from some or all that were called.

        Pass None for a model that was late, refused or failed: it then has no answer, and None
        equals no other answer.

        Use this when models of `state.call` have answered, failed or taken too long.

        Args:
          state: From `start` or `tell`; it is not changed.
          answers: What models of `state.call` wrote, or None; they are put in normal form here.
          dollars: What these calls cost, by model.

        Returns:
          The new `CallState`.

        Raises:
          TypeError: If an answer is neither a string nor None.
          ValueError: If a model was not asked, or has answered already, or no answer is due.
        """
        return self._caller.tell(state, answers, dollars)

    # --- logs -------------------------------------------------------------------------------------

    def _ties(self, questions: np.ndarray) -> np.ndarray:
        return question_ties(questions, self.seed, len(self.policy.order))

    def replay(self, table: RoutingTable) -> Paths:
        """The paths of the logged queries of a table: its scores, losses and metrics by call.

        Use this when you need every single query; `evaluate` gives means over them.

        Raises:
          ValueError: If the table has no answers or is of other models.
        """
        return replay(self.policy, table)

    def tie_break(self, table: RoutingTable) -> np.ndarray:
        """The second keys of the stopping scores of a table's queries, uint32 `[n, b]`.

        Use this when scores of `replay` shall stop exactly where `start` and `tell` stop.
        """
        return self._ties(question_fingerprints(table))

    def evaluate(
        self, table: RoutingTable, alphas: Sequence[Level] | None = None
    ) -> tuple[PathEvaluation, ...]:
        """What it does on logged queries: calls, dollars, accuracy, risk, and why it stopped.

        Use this when you want to know, from logged answers, what the cascade saves and risks.

        Args:
          table: Rows with the answer of every model.
          alphas: Levels to evaluate at; its own where None.

        Returns:
          One `PathEvaluation` a level; that of decided votes alone (`alpha` 0) comes first.

        Raises:
          NotCalibratedError: If it has no calibration, and levels are named.
          ValueError: If the table has no answers or is of other models, or the calibration rows are
            too few for a level.
        """
        if alphas and self.calibration is None:
            raise NotCalibratedError("evaluating at a level")
        paths = replay(self.policy, table)
        ties = self.tie_break(table)
        num = len(table)
        never = TieBroken(jnp.full(num, inf), jnp.full(num, _TOP, jnp.uint32))
        # A decided vote incurs neither of these; the other losses know no decided vote.
        loss: Loss = "differs" if self.loss == "differs" else "regret"
        evaluations = [evaluate_paths(paths, never, ties, loss, "0")]
        if self.calibration is not None:
            levels = [self.calibration.alpha] if alphas is None else [level_name(a) for a in alphas]
            for level in levels:
                at = self.calibration.at(level)
                threshold = at.thresholds(table.group if at.groups else None, num)
                one = evaluate_paths(paths, threshold, ties, self.loss, level)
                evaluations.append(replace(one, num_calibration=len(at.value)))
        return tuple(evaluations)

    def unseen(self, table: RoutingTable, *, calibrated: bool = True) -> RoutingTable:
        """The rows of a table whose question was neither trained nor, if asked, calibrated on.

        Use this when you have one table and need rows fit for calibration or evaluation.
        """
        return table.select(self.usage(table).unseen(calibrated))

    def usage(self, table: RoutingTable) -> Usage:
        """Which questions of a table it was trained or calibrated on.

        Use this when you want to say what `unseen` leaves out.
        """
        calibration = self.calibration
        return usage(table, self.trained_on, None if calibration is None else calibration.questions)

    # --- to disk and back -------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an artefact, whole or not at all; see `racer_jax.racer.artefact`.

        Use this when another process or the command line shall use the cascade later.

        Raises:
          ArtefactError: If the path is no place for one.
          OSError: If the files cannot be written.
        """
        policy, arrays = policy_parts(self.policy)
        calibration, calibration_arrays = calibration_parts(self.calibration)
        description = {
            "kind": KIND,
            "guarantee": self.guarantee(),
            "models": list(self.models),
            "order": list(self.policy.calls),
            "policy": policy,
            "seed": self.seed,
            "normal_form": self.form,
            "training": {"num_questions": len(self.trained_on), "label_rule": self.label_rule},
            "calibration": calibration,
            "notes": list(self.notes),
            "versions": {
                "racer_jax": __version__,
                "jax": jax.__version__,
                "numpy": np.__version__,
            },
        }
        arrays = {**arrays, **calibration_arrays, "trained_on": self.trained_on}
        artefact.write(path, description, arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        models: Sequence[str] | None = None,
        forms: Mapping[str, NormalForm] | None = None,
    ) -> "Cascade":
        """Reads an artefact.

        Use this when a cascade was written by `save`; `Racer.load` reads a racer.

        Args:
          path: The folder.
          models: Your pool, which must be the artefact's; None to take the artefact's.
          forms: Your own normal forms by name, where the artefact uses one.

        Raises:
          ArtefactError: If it cannot be read, or is not of a cascade.
          UnknownFormError: If it uses a normal form that is not among `forms`.
        """
        description, arrays = artefact.read(path, models)
        artefact.check_kind(description, KIND, Path(path))
        form = description.get("normal_form")
        if isinstance(form, str):
            normal_form(form, forms)
        try:
            return cls(
                policy=policy_from(
                    tuple(description["models"]),
                    description["order"],
                    description["policy"],
                    arrays,
                ),
                seed=description["seed"],
                form=description["normal_form"],
                trained_on=arrays["trained_on"],
                label_rule=description["training"]["label_rule"],
                calibration=calibration_from(description["calibration"], arrays),
                forms=forms,
                notes=notes_from(description),
            )
        except (KeyError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            problem = f"is not a cascade of this format: {problem}"
            raise CorruptError(problem, path=Path(path)) from None
