"""From a request that has ended to the rows that are kept of it."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from racer_jax.racer.fingerprints import fingerprint
from racer_jax.serving.gateway._facts import dollars, void_reasons
from racer_jax.serving.gateway._identifiers import signed
from racer_jax.serving.gateway._panel import Panel
from racer_jax.serving.gateway._planning import Plan
from racer_jax.serving.gateway._records import CallRow, DecisionRow
from racer_jax.serving.gateway._replies import Usage
from racer_jax.serving.gateway.settings import Model

if TYPE_CHECKING:
    from racer_jax.serving.gateway._completions import Completion

_GUARANTEES = ("holds", "void")


def call_rows(
    panel: Panel,
    models: Mapping[str, Model],
    prices: Mapping[str, float | None],
    streamed: Mapping[str, Usage],
) -> list[CallRow]:
    """A row for each call of a request.

    Args:
      panel: What became of the calls.
      models: Settings of the models.
      prices: Dollars of the answers, by model.
      streamed: Usage of streamed calls that came to their end, by model.
    """

    def row(model: str, used: Usage, seconds: float, price: float | None) -> CallRow:
        return CallRow(model, "ok", seconds, used.prompt_tokens, used.completion_tokens, price)

    rows = [row(m, r.usage, r.seconds, prices[m]) for m, r in panel.replies.items()]
    for model, used in (*panel.extra.items(), *streamed.items()):
        rows.append(row(model, used, 0.0, dollars(used, models[model])))
    for model, error in (*panel.failed.items(), *panel.extra_failed.items()):
        lost = row(model, error.usage, 0.0, dollars(error.usage, models[model]))
        lost.outcome = error.reason
        rows.append(lost)
    return rows + [CallRow(model, "cancelled") for model in panel.cancelled]


def decision_row(
    completion: "Completion",
    plan: Plan,
    status: int,
    seconds: float,
    cost: float | None,
    calls: list[CallRow],
    charged: float | None = None,
) -> DecisionRow:
    """The row of a decision and what came of it.

    Args:
      completion: The request.
      plan: Its plan.
      status: Status of HTTP.
      seconds: How long it took.
      cost: What its calls cost, as far as known.
      calls: The rows of its calls.
      charged: What counts against the day of its key.
    """
    planner, panel = completion.planner, completion.asking.panel
    text = ""
    name, checksum = "", ""
    if planner is not None:
        text = completion.query.text(planner.route.view)
        name, checksum = planner.name, planner.loaded.checksum
    number = signed(fingerprint(text))
    scores = tuple(plan.scores.values())
    # The highest of fewer models is of another distribution: an outage is no change of the queries.
    whole = planner is not None and len(scores) == len(planner.loaded.models)
    void = void_reasons(plan, completion.answer, panel)
    prompt = text if completion.gateway.settings.state.store_prompts else None
    return DecisionRow(
        id=completion.id,
        at=time.time(),
        route=name,
        artefact=checksum,
        client=completion.client.name,
        alpha=plan.alpha,
        group=plan.group,
        reason=plan.reason,
        mode=plan.mode,
        decided=plan.decided,
        called=plan.models,
        answered=completion.shown,
        failed={model: error.reason for model, error in panel.failed.items()},
        guarantee=_GUARANTEES[bool(void)],
        status=status,
        seconds=seconds,
        dollars=cost,
        fingerprint=number,
        top_score=max(scores, default=None) if whole else None,
        null_in_set=plan.null_in_set,
        pool=tuple(plan.scores),
        scores=scores,
        audited=completion.audited and plan.routed is not None,
        prompt=prompt,
        promised=plan.promised,
        experiment=completion.experiment,
        unit=completion.unit_number,
        charged=charged,
        calls=calls,
    )
