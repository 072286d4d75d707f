"""`POST /v1/chat/completions`: from a request to its answer, its record, and its audit."""

import time
from typing import Any

import msgspec

from racer_jax.serving.gateway._answers import (
    NOT_SAFE,
    Answer,
    abstained_error,
    ask_all,
    refusal_text,
    run_cascade,
    select,
    vote,
    without_judge,
)
from racer_jax.serving.gateway._arms import arm_of, number_of_unit
from racer_jax.serving.gateway._budgets import Reservation
from racer_jax.serving.gateway._cascades import check_limits
from racer_jax.serving.gateway._charging import charge, check_day, reservation
from racer_jax.serving.gateway._errors import GONE, CallFailedError, GatewayError
from racer_jax.serving.gateway._facts import (
    Headers,
    dollars,
    headers,
    lost_calls,
    racer_object,
    undecided,
    usage_of,
)
from racer_jax.serving.gateway._facts import reason as reason_of
from racer_jax.serving.gateway._identifiers import draw, new_id
from racer_jax.serving.gateway._judging import write_request
from racer_jax.serving.gateway._keeping import keep, kept_as
from racer_jax.serving.gateway._keys import Client
from racer_jax.serving.gateway._loaded import calibration_of
from racer_jax.serving.gateway._panel import Asking
from racer_jax.serving.gateway._planning import Plan, Planner
from racer_jax.serving.gateway._queries import PREFIX, Query
from racer_jax.serving.gateway._recording import call_rows, decision_row
from racer_jax.serving.gateway._replies import Usage, choices_of
from racer_jax.serving.gateway._verifying import until_accepted, verifier_of
from racer_jax.serving.gateway.core import Gateway

_PINNED_SESSIONS = 10_000
Body = dict[str, Any]


class Completion:
    """One request for a completion.

    Args:
      gateway: The gateway.
      query: The request.
      client: Who sent it.
    """

    def __init__(self, gateway: Gateway, query: Query, client: Client) -> None:
        self.gateway, self.query, self.client = gateway, query, client
        self.id = new_id()
        self.started = time.monotonic()
        self.planner: Planner | None = None
        self.plan: Plan | None = None
        self.asking = Asking(gateway.upstreams, query.fields, {})
        self.answer: Answer | None = None
        self.audited = False
        self.experiment: str | None = None  # the one that drew the route
        self.parent_span: Any = None
        self.cached: str | None = None  # `hit` or `miss` where answers are kept
        self.decided_at: float | None = None
        self.passed = ""  # the model whose bytes were passed through
        self.num_passed = 0  # events of them, each about a token
        self.reservation: Reservation | None = None

    # --- whom to call -----------------------------------------------------------------------------

    async def decide(self) -> Plan:
        """Plans the calls.

        Raises:
          GatewayError: If the request is refused.
        """
        try:
            check_day(self)
            plan = await self._decide()
            self.reservation = reservation(self, plan)
            return plan
        except GatewayError:
            self.plan = None  # a request that is refused is neither recorded nor audited
            raise
        finally:
            self.decided_at = time.monotonic()

    async def _decide(self) -> Plan:
        gateway, query = self.gateway, self.query
        name = query.model
        if not name.startswith(PREFIX):
            self.plan = self._bypass(name)
            return self.plan
        route = name.removeprefix(PREFIX)
        experiment = gateway.settings.experiments.get(route)
        if experiment is not None:
            self.experiment = route
            route = arm_of(experiment.arms, gateway.hash_key, route, self._unit())
        planner = gateway.planners.get(route)
        if planner is None:
            raise gateway.no_model(name)
        self.planner = planner
        self.audited = draw(gateway.hash_key, self.id, "audit") < gateway.settings.audit.share
        if planner.loaded.cascade is not None:
            self.plan = self._cascade_plan(planner)
        else:
            began = time.monotonic()
            self.plan = await planner.plan(query, gateway.situation(route))
            gateway.metrics.route.observe(time.monotonic() - began)
            self._pin(planner, self.plan)
        if experiment is not None:
            self.plan.arm = route
        if planner.route.shadow is not None:
            self.plan.models, self.plan.reason = (planner.route.shadow,), "shadow"
            self.plan.void.append("the route only decides: another model answers")
            self.plan.mode, self.plan.abstained = "all", False
        return self.plan

    def _unit(self) -> str:
        """Who gets the same route of an experiment every time."""
        user = bytes(self.query.fields.get("user", b"")).decode()
        return self.query.options.session or user or self.client.name or self.id

    @property
    def unit_number(self) -> int | None:
        """A number that stands for who gets the same route, if it was drawn; it needs the key."""
        if self.experiment is None:
            return None
        return number_of_unit(self.gateway.hash_key, self.experiment, self._unit())

    def _bypass(self, name: str) -> Plan:
        """A client that names a model itself gets that model."""
        if name not in self.gateway.upstreams:
            raise self.gateway.no_model(name)
        void = ["the client named a model itself"]
        return Plan((name,), (), "bypass", "all", "", None, {}, void=void)

    def _cascade_plan(self, planner: Planner) -> Plan:
        loaded, query = planner.loaded, self.query
        if query.special is not None:
            raise GatewayError(
                400,
                "racer_capabilities",
                "a cascade answers plain text alone: no tools, formats, images or n",
            )
        planner.mode(query)
        check_limits(query.options, loaded)
        group, _ = planner.group(query)
        if group == "multi_turn" and (loaded.groups is None or group not in loaded.groups):
            group = None
        void = [] if loaded.promises else ["it was calibrated on questions it was trained on"]
        if len(query.texts) > 1 and planner.route.multi_turn == "own_group" and group is None:
            void.append("the calibration had no conversations of several turns")
        if self.gateway.monitors.alarms.get(planner.name):
            void.append("a monitor has raised an alarm")
        models = loaded.models
        return Plan(models, models, "ok", "cascade", loaded.alpha, group, {}, void=void)

    def _pin(self, planner: Planner, plan: Plan) -> None:
        """A conversation may keep its models: prompts are cached there, and nothing is promised."""
        session = self.query.options.session
        if session is None:
            return
        sessions = self.gateway.sessions
        key = (self.client.name, planner.name, session)
        if key in sessions:
            plan.models, plan.abstained = sessions[key], not sessions[key]
            plan.void.append("the models of the conversation's first turn were kept")
            planner.fit(plan, self.query)  # the limits are those of this turn
            return
        if len(sessions) >= _PINNED_SESSIONS:
            sessions.pop(next(iter(sessions)))
        sessions[key] = plan.models

    # --- the answer -------------------------------------------------------------------------------

    async def respond(self) -> Answer:
        """Makes the calls.

        Raises:
          GatewayError: If there is no answer.
        """
        plan = self._plan
        key, cache_seconds = kept_as(self)
        if key is not None:
            earlier = self.gateway.cache.get(key)
            self.cached = "miss" if earlier is None else "hit"
            if earlier is not None:
                self.answer, self.asking.panel = earlier
                return self.answer
        self.answer = await self._answered(plan)
        if key is not None:
            keep(self, key, cache_seconds)
        return self.answer

    async def _answered(self, plan: Plan) -> Answer:
        """The answer, by calls."""
        if plan.abstained:
            self.answer = await self._abstain()
        elif plan.mode == "cascade" and not plan.scores:
            self.answer = await self._run_cascade()
        else:
            self.answer = await self._ask(plan)
        if self.answer.abstained:
            plan.reason = "abstain"
            plan.void += [NOT_SAFE] if self.on_abstain == "fallback" else []
            self.answer = await self._abstain()
        return self.answer

    async def _ask(self, plan: Plan) -> Answer:
        planner, asking = self.planner, self.asking
        if plan.mode == "cascade" and planner is not None and planner.route.verifier is not None:
            verifier = planner.route.verifier
            verify = verifier_of(verifier, self.gateway.session)
            return await until_accepted(asking, plan.models, verify, verifier.sound)
        if plan.mode == "all" or planner is None or len(plan.models) == 1:
            return await ask_all(asking, plan.models)
        route = planner.route
        form = planner.loaded.normal_form(plan.group)
        if plan.mode == "vote" and form is not None:
            return await vote(asking, plan.models, plan.scores, form)
        judge = str(route.judge)
        if plan.mode == "synthesize":
            return await self._write(judge)
        key, logprobs = self.gateway.hash_key, route.judge_logprobs
        return await select(asking, plan.models, judge, key, self.id, logprobs)

    async def _write(self, judge: str) -> Answer:
        """A judge writes the answer from those of the candidates."""
        candidates = await self.candidates()
        try:
            fields = write_request(self.query.fields, candidates.replies)
            reply = await self.asking.judged(judge, fields)
        except CallFailedError as error:
            return without_judge(candidates.replies, error)
        return Answer([reply], judge="wrote")

    async def candidates(self) -> Answer:
        """What a judge writes from."""
        return await ask_all(self.asking, self._plan.models)

    async def _run_cascade(self) -> Answer:
        planner, query = self.planner, self.query
        assert planner is not None
        assert planner.loaded.cascade is not None

        def dead(model: str) -> bool:
            breaker = self.gateway.upstreams[model].breaker
            return breaker.is_open and not breaker.is_due

        text = query.text(planner.route.view)
        return await run_cascade(self.asking, planner.loaded.cascade, text, self._plan.group, dead)

    @property
    def on_abstain(self) -> str:
        """What an empty set leads to."""
        assert self.planner is not None
        return self.query.options.on_abstain or self.planner.route.on_abstain

    async def _abstain(self) -> Answer:
        plan = self._plan
        if self.on_abstain == "error":
            raise abstained_error(plan.alpha)
        if self.on_abstain == "refusal":
            return Answer([])
        fallback, panel = self.fallback(), self.asking.panel
        if fallback in panel.replies:
            return Answer([panel.replies[fallback]])
        return await ask_all(self.asking, (fallback,))

    def fallback(self) -> str:
        """The model that answers where the racer abstains: the best single by default."""
        assert self.planner is not None
        loaded = self.planner.loaded
        if self.planner.route.fallback is not None:
            return self.planner.route.fallback
        if loaded.cascade is not None:
            return loaded.cascade.policy.calls[-1]
        accuracy = calibration_of(loaded.racers[loaded.alpha]).accuracy.mean(axis=0)
        return loaded.models[int(accuracy.argmax())]

    @property
    def _plan(self) -> Plan:
        assert self.plan is not None
        return self.plan

    # --- what the client gets ---------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        """The `racer` object."""
        if self.plan is None:
            return {"id": self.id}
        facts = racer_object(
            self.id,
            self.plan,
            self.asking.panel,
            self.answer,
            self.query.options.verbose,
            "" if self.planner is None else self.planner.loaded.checksum,
        )
        if self.passed:
            facts["answered"] = [self.passed]
        return facts

    def body(self) -> tuple[Body, Headers]:
        """The response, not streamed, and its headers."""
        answer, facts, panel = self.answer, self.facts, self.asking.panel
        assert answer is not None
        usage, cost = usage_of(panel, self.gateway.settings.models)
        if self.cached == "hit":  # the calls were made, and paid, for another request
            cost = None if cost is None else 0.0
            usage |= {} if cost is None else {"cost": cost}
        shown: Body = dict(self.base())
        if len(answer.replies) == 1:
            shown = {**answer.replies[0].fields, **shown}
        elif answer.replies:
            shown["choices"] = choices_of(answer.replies)
        else:
            refusal = refusal_text(self._plan.alpha)
            message = {"role": "assistant", "content": None, "refusal": refusal}
            shown["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        shown["usage"] = self._usage(usage, cost)
        shown["racer"] = facts
        more = headers(facts, self.overhead())
        if cost is not None:
            more.append((b"x-racer-cost", f"{cost:.6g}".encode()))
        if self.cached is not None:
            more.append((b"x-racer-cache", self.cached.encode()))
        return shown, more

    def headers(self, guarantee: str | None = None) -> Headers:
        """What the headers say of the decision, once there is one."""
        return headers(self.facts, self.overhead(), guarantee)

    @property
    def seconds(self) -> float:
        """The time that the answer may take."""
        most = self.gateway.settings.server.deadline_seconds
        limit_ms = self.query.options.deadline_ms
        # It may be beyond any float.
        return most if limit_ms is None or limit_ms >= most * 1000 else limit_ms / 1000

    def has_failed(self, error: GatewayError) -> None:
        """Says with an error what was decided, and that the promise does not hold.

        An abstention is an answer that the promise is about; of any other error it says nothing.
        """
        abstained = error.type == "racer_abstained"
        if self.plan is not None and not abstained and self.facts["guarantee"] == "holds":
            self.plan.void.append("the request has no answer")
        error.facts = self.facts

    def headers_of(self, error: GatewayError) -> Headers:
        """The headers of an error; one that comes before a decision says why there is none."""
        if self.plan is not None:
            return self.headers()
        return undecided(self.id, error.type, self.overhead())

    def _usage(self, usage: dict[str, Any], cost: float | None) -> Any:
        """The sum over the calls; a lone call's own, with all it says."""
        replies = list(self.asking.panel.replies.values())
        if len(replies) != 1 or self.asking.panel.extra or "usage" not in replies[0].fields:
            return usage
        said = replies[0].fields["usage"]
        if cost is None:
            return said
        plain = msgspec.json.decode(said)
        return {**plain, "cost": cost} if isinstance(plain, dict) else usage

    def base(self) -> Body:
        """Fields of a response or chunk that are the gateway's own."""
        answer = self.answer
        model = f"{PREFIX}{'' if self.planner is None else self.planner.name}"
        if answer is not None and len(answer.replies) == 1 and answer.judge != "wrote":
            model = answer.replies[0].model
        base: Body = {"id": self.id, "model": model}
        if answer is None or len(answer.replies) != 1:
            base |= {"object": "chat.completion", "created": int(time.time())}
        return base

    def overhead(self) -> float:
        """Seconds beside the longest call; those of the decision where no call has ended."""
        replies = self.asking.panel.replies.values()
        if not replies:
            return (self.decided_at or time.monotonic()) - self.started
        slowest = max(reply.seconds for reply in replies)
        return max(time.monotonic() - self.started - slowest, 0.0)

    @property
    def shown(self) -> str:
        """The model whose answer is shown first; empty where there is none."""
        if self.answer is not None and self.answer.replies:
            return self.answer.replies[0].model
        return self.passed

    def single(self) -> str | None:
        """The one model whose bytes can be passed through as they stream; None for others."""
        plan = self._plan
        if plan.abstained:
            return self.fallback() if self.on_abstain == "fallback" else None
        if len(plan.models) == 1 and plan.mode != "cascade":
            return plan.models[0]
        return None

    # --- afterwards -------------------------------------------------------------------------------

    def finish(self, status: int, usage: dict[str, Usage] | None = None) -> None:
        """Counts and records the request.

        Args:
          status: Status of HTTP; 499 where the client had gone.
          usage: Usage of streamed calls, by model.
        """
        gateway, plan, panel = self.gateway, self.plan, self.asking.panel
        seconds = time.monotonic() - self.started
        reason = "refused" if plan is None else reason_of(plan, panel)
        metrics = gateway.metrics
        metrics.count_request(reason, "" if plan is None else plan.mode, status)
        metrics.request.observe(seconds)
        if plan is None:
            return
        if status == GONE:
            plan.void.append("the client had gone")
        elif self.planner is not None:
            lost = status >= 500 or bool(lost_calls(plan, self.answer, panel))
            gateway.count_lost(self.planner.name, lost)
        metrics.set_size.observe(len(plan.decided))
        metrics.overhead.observe(self.overhead())
        calls = []
        if self.cached != "hit":
            models = gateway.settings.models
            prices = {m: dollars(r.usage, models[m]) for m, r in panel.replies.items()}
            gateway.count(panel, prices)
            calls = call_rows(panel, models, prices, usage or {})
        known = [call.dollars for call in calls if call.dollars is not None]
        cost = sum(known) if known else None
        charged = charge(self, cost, calls)
        gateway.store.add(decision_row(self, plan, status, seconds, cost, calls, charged))
