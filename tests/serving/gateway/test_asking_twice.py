"""The two ways of asking for a decision, with calls and without, decide alike whatever is asked."""

import itertools

import pytest

from tests.parameters import few_by_default
from tests.racer.test_racer import MODELS

_IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
_CONTENTS = (
    "sum prime river?",
    "atom large field",
    "",
    [],
    [{"type": "text", "text": "sum prime river?"}],
    [{"type": "text", "text": "sum prime river?"}, _IMAGE],
    [_IMAGE],
    [{"type": "text", "text": "sum prime river?"}, {"type": "input_audio", "input_audio": {}}],
    [{"type": "text", "text": "atom"}, {"type": "file", "file": {}}],
    None,
    7,
)
_BEFORE = (
    [],
    [{"role": "system", "content": "be brief"}],
    [{"role": "user", "content": "river"}, {"role": "assistant", "content": "field"}],
    [{"role": "user", "content": [_IMAGE]}, {"role": "assistant", "content": "field"}],
    [{"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "7"}],
    [{"role": "nobody", "content": "atom"}],
)
_GROUPS = (None, "a", "b", "zz", "modality")
_CONVERSATIONS = [
    ([*before, {"role": "user", "content": content}], group)
    for before, content, group in itertools.product(_BEFORE, _CONTENTS, _GROUPS)
] + [(messages, "a") for messages in ([], [{"role": "system", "content": "x"}], [{"content": "x"}])]
_CAN = {f"models__{name}__capabilities": ["images", "audio", "tools", "files"] for name in MODELS}
_CONFIGURED = {
    "plain": {},
    "able": _CAN,
    "without a group": {"routes__my__group": None, **_CAN},
    "pooled": {"routes__my__on_unknown_group": "pooled", **_CAN},
    "refused": {"routes__my__on_unknown_group": "error"},
    "turns": {"routes__my__multi_turn": "same", "routes__my__view": "all_user", **_CAN},
    "few": {"routes__my__max_models": 1, "routes__my__max_cost": 1.0, **_CAN},
    "all at an alarm": {"routes__my__on_alarm": "call_all", **_CAN},
    "down": {"models__large__breaker_failures": 1, **_CAN},
}


class _Raised(dict):
    """Alarms that the monitors do not take back."""

    def get(self, *_):
        return True


@pytest.mark.parametrize("configured", few_by_default(_CONFIGURED))
def test_both_ways_of_asking_decide_alike(start, upstreams, configured):
    made = start(scripted=False, **_CONFIGURED[configured])
    gateway = made.gateway
    if configured == "all at an alarm":
        gateway.monitors.alarms = _Raised()
    if configured == "down":
        gateway.upstreams["large"].breaker.failed()
    decided = refused = 0
    for messages, group in _CONVERSATIONS:
        racer = {"verbose": True} if group is None else {"verbose": True, "group": group}
        body = {"model": "racer/my", "messages": messages, "racer": racer}
        answered = made.ask("POST", "/v1/chat/completions", body)
        entry = {"messages": messages, "group": group}
        routed = made.ask("POST", "/v1/racer/route", {"model": "racer/my", "inputs": [entry]})
        assert routed.status == answered.status, (messages, group)
        if routed.status != 200:
            refused += 1
            assert routed.json["error"]["code"] == answered.json["error"]["code"]
            assert answered.json["error"]["message"] in routed.json["error"]["message"]
            continue
        decided += 1
        said, (decision,) = answered.json["racer"], routed.json
        for name in ("set", "called", "group", "reason", "mode", "alpha", "guarantee", "artefact"):
            assert decision["racer"][name] == said[name], (name, messages, group)
        assert decision["racer"].get("void") == said.get("void")
        for name in ("threshold", "scores", "margins"):
            assert decision[name] == said[name], (name, messages, group)
        assert (decision["models"], decision["group"]) == (said["set"], said["group"])
    assert decided > 20
    assert refused > 20


def test_a_text_alone_is_one_message(start):
    made = start(scripted=False)
    messages = [{"role": "user", "content": "atom large field"}]
    for group in (None, "b", "zz"):
        inputs = [{"text": "atom large field", "group": group, "id": "t"}, {"messages": messages}]
        inputs[1] |= {"group": group, "id": "t"}
        first, second = made.ask("POST", "/v1/racer/route", {"inputs": inputs}).json
        assert first == second


def test_an_unknown_group_has_no_threshold(start, upstreams):
    """The first group's was shown, though nothing was decided by it."""
    made = start(scripted=False)
    inputs = [{"text": "atom large field", "group": "zz"}]
    asked = {"inputs": inputs, "explain": True}
    (decision,) = made.ask("POST", "/v1/racer/route", asked).json
    assert decision["threshold"] == "inf"
    assert sorted(decision["models"]) == sorted(MODELS)
    assert decision["reason"] == "unknown group"
    assert "there was no calibration query of group 'zz'" in decision["explanation"]
    racer = made.gateway.planners["my"].loaded.racers["0.3"]
    assert decision["expected_cost"] == pytest.approx(float(racer.cost.sum()))


def test_the_input_at_fault_is_named(start):
    made = start(scripted=False)
    inputs = [{"text": "atom", "group": "a"}, {"messages": [{"role": 7}]}]
    error = made.ask("POST", "/v1/racer/route", {"inputs": inputs}).json["error"]
    assert error["param"] == "inputs"
    assert error["message"] == "inputs[1]: messages[0].role must be text, got 7"
