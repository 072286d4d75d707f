"""Whom to call for a request, why, and whether the promise holds: before any call is made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from racer_jax.core.risk_levels import exact_alpha
from racer_jax.racer.decision import Reason
from racer_jax.racer.promises import unpromised, unpromised_to_all
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._batcher import Batcher, Routed
from racer_jax.serving.gateway._costs import costs_of, expected_costs
from racer_jax.serving.gateway._errors import GatewayError, bad_request
from racer_jax.serving.gateway._loaded import Loaded, calibration_of, pooled
from racer_jax.serving.gateway._queries import BESIDE_TEXT, Query
from racer_jax.serving.gateway.settings import Mode, Model, Route

_FOR_PLAIN_TEXT = frozenset({"vote", "cascade", "synthesize"})
_MOST_POOLED = 64  # of the whole pool and of those without models that are down
_REASONS = {
    Reason.OK: "ok",
    Reason.ABSTAIN: "abstain",
    Reason.INFEASIBLE: "infeasible",
    Reason.UNKNOWN_GROUP: "unknown_group",
}


@dataclass
class Plan:
    """Whom to call for a request.

    Attributes:
      models: The models to call, most plausible first.
      decided: The set that the racer decided on.
      reason: Why these: `ok`, `abstain`, `infeasible`, `unknown_group`, `capped`, `degraded`,
        `bypass` or `shadow`.
      mode: How several answers become one.
      alpha: The level.
      group: The group of the query.
      scores: The router's scores by model.
      routed: The decision; None where none was taken.
      void: Why the promise does not hold, a sentence each; empty where it does.
      abstained: Whether the set is empty.
      null_in_set: Whether the null model is in the set.
      arm: The route that an experiment drew; None without one.
      promised: Whether the set that the racer decided on has the promise of the artefact, whatever
        is then called.
    """

    models: tuple[str, ...]
    decided: tuple[str, ...]
    reason: str
    mode: Mode
    alpha: str
    group: str | None
    scores: Mapping[str, float]
    routed: Routed | None = None
    void: list[str] = field(default_factory=list)
    abstained: bool = False
    null_in_set: bool = False
    arm: str | None = None
    promised: bool = True

    def no_promise(self, why: str) -> None:
        """Says why nothing is promised for the decided set; nothing where it is empty."""
        if why:
            self.promised = False
            self.void.append(why)


@dataclass(frozen=True)
class Situation:
    """What a plan depends on beside the request.

    Use this when you read what `Gateway.situation` returns.

    Attributes:
      dead: Models that are down now.
      alarm: Whether a monitor of the route has raised an alarm.
      calibrate: Computes the threshold of the models that are alive, of an artefact and for a
        level; ends when it is there, or takes longer than a request should wait.
    """

    dead: frozenset[str]
    alarm: bool
    calibrate: Callable[[Loaded, str, frozenset[str]], Awaitable[None]]


class Planner:
    """Plans for the requests of one route and artefact.

    Args:
      name: Name of the route.
      route: Its settings.
      loaded: The artefact.
      models: Settings of the models.
      batcher: Where decisions are taken.
    """

    def __init__(
        self,
        name: str,
        route: Route,
        loaded: Loaded,
        models: Mapping[str, Model],
        batcher: Batcher,
    ) -> None:
        self.name, self.route, self.loaded = name, route, loaded
        self._models, self._batcher = models, batcher
        self._levels = {exact_alpha(name): name for name in loaded.racers}
        # With the racer itself, so that no other one can get its number while it is kept here.
        self._pooled: dict[int, tuple[Racer, Racer]] = {}
        self._unpromised: dict[int, tuple[Racer, tuple[str, ...]]] = {}

    def mode(self, query: Query) -> Mode:
        """How the answers to a request become one.

        Raises:
          GatewayError: If it asks for a way that is not to be had.
        """
        chosen, route = query.options.mode, self.route
        default = self.loaded.mode
        if chosen is None:
            plain = query.special is None or default not in _FOR_PLAIN_TEXT
            return default if plain else "select"
        if chosen != default and chosen not in route.modes:
            allowed = sorted({default, *route.modes})
            raise bad_request(f"racer.mode must be one of {allowed}, got {chosen!r}", "racer.mode")
        problem = None
        if chosen in _FOR_PLAIN_TEXT and query.special is not None:
            problem = "must be 'select' or 'all' for a request with tools, formats, images or n"
        elif chosen == "vote" and self.loaded.form is None:
            problem = "must not be 'vote' on a route without a normal form of answers"
        elif chosen in ("select", "synthesize") and route.judge is None:
            problem = f"must not be {chosen!r} on a route without a judge"
        elif self.loaded.cascade is not None and chosen != "cascade":
            problem = f"must not be {chosen!r} on this route"
        elif chosen == "cascade" and self.loaded.cascade is None and route.verifier is None:
            problem = "must not be 'cascade' on a route without a verifier"
        if problem is not None:
            raise bad_request(f"racer.mode {problem}", "racer.mode")
        return chosen

    def alpha(self, query: Query) -> str:
        """The level of a request.

        Raises:
          GatewayError: If it is none of those published: a level chosen after seeing results has no
            promise.
        """
        return self.level(query.options.alpha, "racer.alpha")

    def level(self, alpha: str | float | None, param: str) -> str:
        """The name of a level; that of the artefact where it is None.

        Args:
          alpha: The level.
          param: Where the request says it.

        Raises:
          GatewayError: If it is none of those published.
        """
        if alpha is None:
            return self.loaded.alpha
        try:
            exact = exact_alpha(alpha)
        except (TypeError, ValueError) as error:
            raise bad_request(f"{param}: {error}", param) from None
        name = self._levels.get(exact)
        if name is None:
            levels = sorted(self._levels.values())
            raise bad_request(f"{param} must be one of {levels}, got {alpha}", param)
        return name

    def group(self, query: Query) -> tuple[str | None, bool]:
        """The group of a request, and whether it is of a kind that nobody calibrated on."""
        groups = self.loaded.groups
        special = query.special
        if special is None and len(query.texts) > 1 and self.route.multi_turn == "own_group":
            special = "multi_turn"
        if special is not None:
            return special, groups is None or special not in groups
        group = query.options.group or self.route.group
        return group, groups is not None and group not in groups

    async def plan(self, query: Query, situation: Situation) -> Plan:
        """Whom to call.

        Raises:
          GatewayError: If the request cannot be answered as it is.
        """
        mode, alpha = self.mode(query), self.alpha(query)
        group, unknown = self.group(query)
        # A group that is not known is not decided by scores, and needs no text.
        without_text = "" if unknown else self._without_text(query)
        racer, lost = await self._racer(alpha, situation)
        if unknown and self.route.on_unknown_group == "pooled":
            racer = self._pool(racer)
        routed = await self._routed(racer, query, group, unknown)
        decision = routed.decision
        plan = Plan(
            models=decision.models,
            decided=decision.models,
            reason=_REASONS[decision.reason],
            mode=mode,
            alpha=alpha,
            group=group,
            scores=decision.scores,
            routed=routed,
            abstained=decision.abstained,
            null_in_set=routed.null_in_set,
        )
        everyone = _by_plausibility(decision.margins, decision.scores)
        everyone = everyone[: calibration_of(racer).max_models]
        if unknown:
            plan.routed = self._of_unknown(routed, group, everyone)
            self._unknown(plan, racer, everyone)
        else:
            plan.no_promise(self._why_not(racer, group))
            plan.no_promise(without_text)
        if plan.reason == "infeasible":
            self._infeasible(plan)
        if lost:
            self._lost(plan, lost)
        elif len(decision.scores) < len(self.loaded.models) and plan.reason == "ok":
            plan.reason = "degraded"  # with a threshold of its own: the promise holds
        if situation.alarm:
            self._alarm(plan, everyone)
        self.fit(plan, query)
        return plan

    def _without_text(self, query: Query) -> str:
        """Why nothing is promised where there is no text to score; empty where there is one.

        Raises:
          GatewayError: If there is nothing else to answer either.
        """
        view = self.route.view
        if query.has_text(view):
            return ""
        if not query.needs & BESIDE_TEXT and self.route.shadow is None:
            raise bad_request(
                f"messages must hold a text of the user to route (view {view!r}), got none",
                "messages",
            )
        return "there is no text to route: the scores are not those of this request"

    async def _racer(self, alpha: str, situation: Situation) -> tuple[Racer, frozenset[str]]:
        """The racer that decides, and models it counts on though they are down."""
        full = self.loaded.racers[alpha]
        dead = situation.dead & set(full.models)
        if not dead or len(dead) == len(full.models):
            return full, frozenset()
        computed, live = self.loaded.live(alpha, dead)
        if not computed:
            await situation.calibrate(self.loaded, alpha, dead)
            _, live = self.loaded.live(alpha, dead)
        if live is None:
            return full, dead
        return live, frozenset()

    def _pool(self, racer: Racer) -> Racer:
        """The racer with one threshold for all groups; the same one every time."""
        known = self._pooled.get(id(racer))
        if known is None:
            known = self._pooled[id(racer)] = (racer, pooled(racer))
            if len(self._pooled) > _MOST_POOLED:
                self._pooled.pop(next(iter(self._pooled)))
        return known[1]

    def _why_not(self, racer: Racer, group: str | None) -> str:
        """Why the racer promises nothing to a query of a group that it knows; empty if it does."""
        calibration = calibration_of(racer)
        known = self._unpromised.get(id(racer))
        if known is None:
            known = (racer, unpromised(calibration, racer.null))
            self._unpromised[id(racer)] = known
            if len(self._unpromised) > _MOST_POOLED:
                self._unpromised.pop(next(iter(self._unpromised)))
        groups = calibration.groups
        return known[1][0 if groups is None else groups.index(str(group))]

    async def _routed(self, racer: Racer, query: Query, group: str | None, unknown: bool) -> Routed:
        """The decision; of an unknown group only the scores and their order count."""
        groups = calibration_of(racer).groups
        if groups is None:
            group = None
        elif unknown:
            group = groups[0]
        try:
            return await self._batcher.decide(racer, query.text(self.route.view), group)
        except ValueError as error:
            raise bad_request(f"the request cannot be routed: {error}", "messages") from None

    def _most(self, query: Query | None = None) -> int | None:
        limits = [self.route.max_models]
        if query is not None:
            limits.append(query.options.max_models)
        said = [limit for limit in limits if limit is not None]
        return min(said) if said else None

    def _of_unknown(self, routed: Routed, group: str | None, everyone: tuple[str, ...]) -> Routed:
        """The decision on a group that nobody calibrated on: it has no threshold of its own."""
        decision = routed.decision
        changes: dict[str, Any] = {"group": group, "reason": Reason.POOLED_GROUP}
        if self.route.on_unknown_group != "pooled":
            margins = dict.fromkeys(decision.margins, inf)
            changes |= {"reason": Reason.UNKNOWN_GROUP, "threshold": inf, "margins": margins}
            changes["models"] = everyone
            if costs := costs_of(self.loaded):
                changes["expected_cost"] = sum(costs[model] for model in everyone)
        return replace(routed, decision=replace(decision, **changes))

    def _unknown(self, plan: Plan, racer: Racer, everyone: tuple[str, ...]) -> None:
        """A group nobody calibrated on: the promise is kept by calling everyone, if it can be.

        The artefact may allow fewer models for a query than there are, which it says as a promise.
        """
        plan.reason = "unknown_group"
        if self.route.on_unknown_group == "pooled":
            plan.no_promise("no calibration query was of this group: the threshold of all was used")
            return
        most = self._most()
        if self.route.on_unknown_group == "error" or (most or len(everyone)) < len(everyone):
            groups = self.loaded.groups
            known = "none" if groups is None else ", ".join(sorted(groups))
            named = "no group" if plan.group is None else f"the group {plan.group!r}"
            raise GatewayError(
                400,
                "racer_unknown_group",
                f"no calibration query was of {named}, so nothing would be promised for fewer than "
                f"all models; known groups: {known}",
                param="racer.group",
            )
        plan.models = plan.decided = everyone
        plan.abstained, plan.null_in_set = False, True
        if len(everyone) < len(racer.models):
            few = f"the artefact allows {len(everyone)} of {len(racer.models)} models"
            plan.no_promise(f"no calibration query was of this group, and {few}")
        else:
            plan.no_promise(unpromised_to_all(calibration_of(racer), racer.null))

    def _infeasible(self, plan: Plan) -> None:
        most = self._most()
        if most is not None and most < len(plan.models):
            smallest = self.loaded.smallest_alpha(plan.group)
            raise GatewayError(
                400,
                "racer_infeasible",
                f"no threshold keeps alpha = {plan.alpha}, and all {len(plan.models)} models are "
                f"more than max_models = {most}; the smallest alpha that can be kept is {smallest}",
                param="racer.alpha",
            )

    def _lost(self, plan: Plan, lost: frozenset[str]) -> None:
        left_out = [name for name in plan.models if name in lost]
        plan.models = tuple(name for name in plan.models if name not in lost)
        if left_out:
            plan.no_promise(f"down, and part of the set: {', '.join(left_out)}")
            plan.reason = "degraded"

    def _alarm(self, plan: Plan, everyone: tuple[str, ...]) -> None:
        plan.void.append("a monitor has raised an alarm")
        if self.route.on_alarm == "call_all":
            plan.models, plan.abstained = everyone, False
        elif self.route.on_alarm == "fallback" and self.route.fallback is not None:
            plan.models, plan.abstained = (self.route.fallback,), False

    def fit(self, plan: Plan, query: Query) -> None:
        """Leaves out who cannot answer, and the least plausible above a limit.

        Raises:
          GatewayError: If nobody is left, or nothing says what a model costs.
        """
        if plan.abstained:
            return
        if query.needs:
            self._fit_capabilities(plan, query)
        most = self._most(query)
        if most is not None and most < len(plan.models):
            plan.models, plan.reason = plan.models[:most], "capped"
            plan.void.append(f"the set was cut to max_models = {most}")
        dollars = [d for d in (self.route.max_cost, query.options.max_cost) if d is not None]
        if dollars:
            self._fit_cost(plan, query, min(dollars))

    def _fit_capabilities(self, plan: Plan, query: Query) -> None:
        able = [name for name in plan.models if query.needs <= set(self._models[name].capabilities)]
        if not able and plan.models:
            raise GatewayError(
                400,
                "racer_capabilities",
                f"none of the models {', '.join(plan.models)} can do what the request needs: "
                f"{', '.join(sorted(query.needs))}",
            )
        if len(able) < len(plan.models):
            left_out = [name for name in plan.models if name not in able]
            plan.void.append(f"cannot do what the request needs: {', '.join(left_out)}")
            plan.models, plan.reason = tuple(able), "capped"

    def _fit_cost(self, plan: Plan, query: Query, dollars: float) -> None:
        costs = expected_costs(self.loaded, self._models, query)
        affordable: list[str] = []
        total = 0.0
        for name in plan.models:
            cost = costs[name]
            if cost is None:  # a limit that nothing can be held against is none
                raise bad_request(
                    f"max_cost = {dollars:g} cannot be kept: nothing says what {name!r} costs. "
                    "Give it dollars_in and dollars_out, and the request max_completion_tokens",
                    "racer.max_cost",
                )
            total += cost
            if total > dollars:
                break
            affordable.append(name)
        if not affordable and plan.models:
            raise GatewayError(
                429,
                "insufficient_quota",
                f"no model is expected to cost at most max_cost = {dollars:g}",
                code="racer_budget",
            )
        if len(affordable) < len(plan.models):
            plan.models, plan.reason = tuple(affordable), "capped"
            plan.void.append(f"the set was cut to max_cost = {dollars:g}")


def _by_plausibility(margins: Mapping[str, float], scores: Mapping[str, float]) -> tuple[str, ...]:
    """All models, most plausible first."""
    return tuple(sorted(margins, key=lambda name: (-margins[name], -scores[name])))
