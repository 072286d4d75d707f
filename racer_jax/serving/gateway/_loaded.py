"""Artefacts in use: loaded, checked against the configuration, warmed, and cut to what is alive."""

import json
import shutil
import tempfile
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from racer_jax.core.risk_levels import level_name
from racer_jax.data.errors import DataError
from racer_jax.racer import artefact
from racer_jax.racer.calibration import Calibration
from racer_jax.racer.errors import NoRecordError, NotCalibratedError
from racer_jax.racer.live_pool import without_for_now
from racer_jax.racer.racer import Racer
from racer_jax.racer.signatures import check_installed, check_signature
from racer_jax.sequential.normal_forms import (
    OTHERS,
    NormalForm,
    UnknownFormError,
    forms_by_group,
    normal_form,
)
from racer_jax.serving.cascade import KIND, Cascade
from racer_jax.serving.gateway.settings import Mode, Route

# Nonconformity scores whose sets suit a vote; the orders learned for coverage suit a judge.
_FOR_VOTES = frozenset({"inverse_probability", "gap"})
# What an artefact without a judge needs, in the words of the command that makes one.
_FOR_A_VOTE = "train with --nonconformity gap (or inverse_probability)"
_CHECKSUM_DIGITS = 12
_TRIES = 3
# Thresholds of live pools that are kept: one takes milliseconds, so more would save little.
_MOST_POOLS = 64


@dataclass(frozen=True, eq=False)
class Loaded:
    """An artefact in use.

    Use this when you read what a route of a gateway answers with.

    Attributes:
      path: Its folder.
      checksum: 12 digits of the checksum of its content.
      models: Its pool.
      alpha: Its level.
      guarantee: Its promise, in a sentence.
      warnings: What a user must know, one sentence each.
      promises: Whether anything is promised.
      racers: The racer by level: its own and those that the route publishes; empty for a cascade.
      cascade: The cascade; None for a racer.
      form: Name of the normal form of answers; None where there is none.
      mode: How several answers become one, unless a request says otherwise.
    """

    path: str
    checksum: str
    models: tuple[str, ...]
    alpha: str
    guarantee: str
    warnings: tuple[str, ...]
    promises: bool
    racers: Mapping[str, Racer]
    cascade: Cascade | None
    form: str | None
    mode: Mode
    _pools: OrderedDict[tuple[str, frozenset[str]], Racer | None] = field(
        default_factory=OrderedDict
    )

    @cached_property
    def _forms(self) -> dict[str, NormalForm]:
        """Normal forms by group; `*` for all others."""
        names = {} if self.form is None else forms_by_group(self.form)
        return {group: normal_form(name) for group, name in names.items()}

    def normal_form(self, group: str | None) -> NormalForm | None:
        """From what a model wrote to the answer that is compared; None where there is none.

        Args:
          group: The group of the query; one without a form of its own has that of all others, else
            the text as it is.
        """
        if self.form is None:
            return None
        others = self._forms.get(OTHERS) or normal_form("text")
        return self._forms.get(group or OTHERS, others)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The groups calibrated on; None for one threshold for all."""
        if self.cascade is not None:
            calibration = self.cascade.calibration
            return None if calibration is None else calibration.groups
        return calibration_of(self.racers[self.alpha]).groups

    def smallest_alpha(self, group: str | None) -> float | None:
        """About the smallest level with a finite threshold for a group, to three digits."""
        calibration = calibration_of(self.racers[self.alpha])
        place = 0 if calibration.groups is None else calibration.groups.index(group or "")
        thousandths = range(1, 1000)

        def feasible(k: int) -> bool:  # and all above it
            return bool(calibration.thresholds([level_name(k / 1000)])[0][place, 0] < inf)

        first = bisect_left(thousandths, True, key=feasible)
        return thousandths[first] / 1000 if first < len(thousandths) else None

    def live(self, alpha: str, dead: frozenset[str]) -> tuple[bool, Racer | None]:
        """The racer of the models that are alive, with their own threshold.

        Returns:
          Whether it was looked for yet, and the racer; None where the artefact cannot give one.
        """
        key = (alpha, dead)
        if key not in self._pools:
            return False, None
        self._pools.move_to_end(key)
        return True, self._pools[key]

    def keep_live(self, alpha: str, dead: frozenset[str], racer: Racer | None) -> None:
        """Keeps the racer of the models that are alive; the one unused for longest goes first."""
        self._pools[alpha, dead] = racer
        if len(self._pools) > _MOST_POOLS:
            self._pools.popitem(last=False)

    def calibrate_live(self, alpha: str, dead: frozenset[str]) -> Racer | None:
        """The racer of the models that are alive; None where the artefact keeps no queries."""
        try:
            return without_for_now(self.racers[alpha], *sorted(dead))
        except NoRecordError:
            return None

    def prepare(self) -> None:
        """Compiles what decisions of any live pool need beside what the whole pool has."""
        if not self.racers or len(self.models) == 1:
            return
        racer = self.calibrate_live(self.alpha, frozenset(self.models[:1]))
        if racer is not None:
            warm(racer, (1,))


def calibration_of(racer: Racer) -> Calibration:
    """The calibration of a racer that has one."""
    if racer.calibration is None:
        raise NotCalibratedError("the gateway")
    return racer.calibration


def load(route: Route, trusted_keys: Sequence[str] = ()) -> Loaded:
    """Loads the artefact of a route.

    Args:
      route: The route.
      trusted_keys: Public keys, one of which must have signed the artefact; none where empty.

    Raises:
      DataError: If it cannot be read, has no calibration, its own level is infeasible, it does not
        fit the route, or nobody who is trusted signed it.
      ModuleNotFoundError: If the package that checks signatures is missing.
    """
    if not trusted_keys:
        return _load(route)
    check_installed()
    # What was checked is what is used, whoever replaces the artefact meanwhile.
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "copy"
        try:
            shutil.copytree(route.artefact, copy)
        except (OSError, shutil.Error):  # not there, or being replaced: in the words of a reader
            artefact.read(route.artefact)
            raise
        try:
            check_signature(copy, artefact.read(copy)[0]["checksum"], trusted_keys)
            loaded = _load(msgspec.structs.replace(route, artefact=str(copy)))
        except DataError as error:
            raise error.at(_original(error.path, copy, route.artefact)) from None
    return replace(loaded, path=route.artefact)


def _original(path: Any, copy: Path, original: str) -> str:
    """The file of an artefact of whose copy an error tells."""
    try:
        return str(Path(original) / Path(path).relative_to(copy))
    except (TypeError, ValueError):
        return original


def _load(route: Route) -> Loaded:
    """The artefact, all of it from one version: another may be put there while it is read."""
    for _ in range(_TRIES):
        description, _arrays = artefact.read(route.artefact)
        loaded = _load_described(route, description)
        if artefact.read(route.artefact)[0]["checksum"] == description["checksum"]:
            return loaded
    raise DataError("was replaced while it was read, again and again", path=route.artefact)


def _load_described(route: Route, description: Mapping[str, Any]) -> Loaded:
    facts = dict(path=route.artefact, checksum=str(description["checksum"])[:_CHECKSUM_DIGITS])
    serving = description.get("serving") or {}
    _check_view(route, serving.get("view"))
    if description.get("kind") == KIND:
        return _of_cascade(route, facts)
    return _of_racer(route, facts, serving.get("normal_form"))


def _check_view(route: Route, view: str | None) -> None:
    if view not in (None, route.view):
        raise DataError(
            f"was calibrated on the view {view!r} of conversations, and the route says "
            f"{route.view!r}: the scores would be those of other texts",
            path=route.artefact,
        )


def _form(route: Route, stored: str | None) -> str | None:
    """The normal form: that of the artefact, else of the route."""
    if stored is not None and route.form not in (None, stored):
        raise DataError(
            f"has the normal form {stored!r}, and the route says {route.form!r}: answers would be "
            "compared in another way than they were labelled",
            path=route.artefact,
        )
    return stored or route.form


def _check_forms(route: Route, form: str | None, groups: Sequence[str] | None) -> None:
    """Refuses forms by group that leave out a group, or name one that there is not."""
    if form is None:
        return
    try:
        named = set(forms_by_group(form))
    except UnknownFormError as error:
        raise DataError(str(error), path=route.artefact) from None
    known = {OTHERS} if groups is None else set(groups)
    if OTHERS not in named and (lacking := sorted(known - named)):
        raise DataError(
            f"has no normal form for {', '.join(lacking)}: name each group, or * for the others",
            path=route.artefact,
        )
    if unknown := sorted(named - known - {OTHERS}):
        raise DataError(
            f"has normal forms of groups that were not calibrated on: {', '.join(unknown)}",
            path=route.artefact,
        )


def _of_cascade(route: Route, facts: dict[str, Any]) -> Loaded:
    cascade = Cascade.load(route.artefact)
    if route.mode not in (None, "cascade"):
        raise DataError(
            f"is of a cascade, which answers by itself: mode must be 'cascade', got {route.mode!r}",
            path=route.artefact,
        )
    calibration = cascade.calibration
    return Loaded(
        **facts,
        models=cascade.models,
        alpha="0" if calibration is None else calibration.alpha,
        guarantee=cascade.guarantee(),
        warnings=(),
        promises=calibration is None or not calibration.num_overlap,
        racers={},
        cascade=cascade,
        form=_form(route, cascade.form),
        mode="cascade",
    )


def _of_racer(route: Route, facts: dict[str, Any], stored: str | None) -> Loaded:
    racer = Racer.load(route.artefact)
    if racer.calibration is None:
        raise DataError(str(NotCalibratedError("the gateway")), path=route.artefact)
    if racer.scorer is None:
        raise DataError(
            "was made from scores and has no router: the gateway has nothing to score texts with",
            path=route.artefact,
        )
    calibration = racer.calibration
    if not calibration.feasible().all() and not route.allow_infeasible:
        raise DataError(
            f"cannot keep alpha = {racer.alpha}: {'; '.join(racer.warnings())}. Calibrate on more "
            "queries, choose a higher alpha, or say allow_infeasible = true",
            path=route.artefact,
        )
    levels = {racer.alpha: racer} | {
        name: racer.at(name) for name in map(level_name, route.alphas) if name != racer.alpha
    }
    form = _form(route, stored)
    _check_forms(route, form, calibration.groups)
    return Loaded(
        **facts,
        models=racer.models,
        alpha=racer.alpha,
        guarantee=racer.guarantee(),
        warnings=racer.warnings(),
        promises=calibration.num_overlap == 0,
        racers=levels,
        cascade=None,
        form=form,
        mode=_mode(route, racer.nonconformity, form),
    )


def _mode(route: Route, nonconformity: str, form: str | None) -> Mode:
    """How several answers become one."""
    suits = nonconformity in _FOR_VOTES
    mode = route.mode
    if mode is None:
        mode = "vote" if form is not None and suits else "select"
    problem = None
    if mode == "cascade" and route.verifier is None:
        problem = "mode 'cascade' needs a verifier, or the artefact of a cascade"
    elif mode == "vote" and form is None:
        problem = "mode 'vote' needs a normal form of answers: say form = 'letter', say"
    elif mode == "vote" and not suits:
        made_for = f"sets of {nonconformity!r} are made for a judge"
        problem = f"{made_for}: mode must not be 'vote'; {_FOR_A_VOTE}"
    elif mode in ("select", "synthesize") and route.judge is None:
        instead = "say form and mode = 'vote'" if suits else f"for a vote {_FOR_A_VOTE}"
        problem = f"mode {mode!r} needs a judge: name a model, or {instead}"
    if problem is not None:
        raise DataError(problem, path=route.artefact)
    return mode


def check_pool(loaded: Loaded, models: Iterable[str]) -> None:
    """Refuses an artefact with a model that has no upstream.

    Raises:
      DataError: If there is one.
    """
    known = set(models)
    if absent := [name for name in loaded.models if name not in known]:
        tables = ", ".join(f"[models.{json.dumps(name, ensure_ascii=False)}]" for name in absent)
        raise DataError(
            f"calls models that the configuration lacks: add {tables}; the names must be those of "
            "the artefact",
            path=loaded.path,
        )


def check_group(loaded: Loaded, name: str, group: str | None) -> None:
    """Refuses a group of a route that its artefact does not have: it would call all models always.

    Args:
      loaded: The artefact of the route.
      name: Name of the route.
      group: Its group of requests that name none; None where there is none.

    Raises:
      DataError: If the artefact does not have it.
    """
    known = set(loaded.groups or ())
    if loaded.cascade is not None and loaded.groups is None:  # one threshold, yet it knows groups
        forms = {} if loaded.form is None else forms_by_group(loaded.form)
        known = {*loaded.cascade.policy.groups, *forms} - {OTHERS}
    if group is None or group in known:
        return
    if known:
        words = f"has the groups {', '.join(sorted(known))}: the group of a route must be one of"
        words += f" them, got {group!r}"
    else:
        words = f"has no groups: the group of a route must be left out, got {group!r}"
    raise DataError(f"{words} - at `$.routes.{name}.group`", path=loaded.path)


def warm(racer: Racer, sizes: Iterable[int]) -> None:
    """Compiles the shapes of batches of these sizes."""
    calibration = calibration_of(racer)
    group = None if calibration.groups is None else calibration.groups[0]
    for size in sizes:
        racer.route([f"warm up {i} of {size}" for i in range(size)], group)


def pooled(racer: Racer) -> Racer:
    """The racer with one threshold for all groups, which promises nothing for a single group."""
    calibration = calibration_of(racer)
    ties = calibration.tie
    order = np.lexsort((calibration.value if ties is None else ties, calibration.value))
    together: dict[str, Any] = dict(
        value=calibration.value[order],
        tie=None if ties is None else ties[order],
        code=np.zeros(len(order), np.int32),
        groups=None,
        accuracy=calibration.accuracy.mean(axis=0, keepdims=True),
    )
    return replace(racer, calibration=replace(calibration, **together))
