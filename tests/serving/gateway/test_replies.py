"""What is read of an upstream's answer."""

import json
import math

from hypothesis import example, given
from hypothesis import strategies as st

from racer_jax.serving.gateway._facts import usage_of
from racer_jax.serving.gateway._panel import Panel
from racer_jax.serving.gateway._replies import Usage, reply_of, usage_from
from racer_jax.serving.gateway.settings import Model
from tests.serving.gateway.upstreams import completion

NUMBERS = st.one_of(
    st.integers(-5, 10**13),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 0.0, 1.0, 2.5, -0.0, 10**12, 10**12 + 1, 10**30, 1e9, 1e300]),
)
ODD = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
SAID = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "cost", "total_tokens"]), NUMBERS | ODD
)


def amount(value, most):
    """A number that can be an amount of something, by the words of `usage_from`."""
    is_number = type(value) in (int, float) and math.isfinite(value)
    return value if is_number and 0 <= value <= most else None


@given(SAID | ODD | NUMBERS)
@example({"prompt_tokens": 10**12 + 1, "completion_tokens": 3})
@example({"prompt_tokens": -1, "cost": 1e300})
@example({"completion_tokens": 2.5, "cost": -1})
def test_of_usage_whatever_is_sensible_counts(said):
    fields = said if isinstance(said, dict) else {}
    prompt = amount(fields.get("prompt_tokens"), 10**12)
    completion = amount(fields.get("completion_tokens"), 10**12)
    cost = amount(fields.get("cost"), 1e9)
    expected = None
    if prompt or completion or cost is not None:
        expected = Usage(int(prompt or 0), int(completion or 0), cost)
    assert usage_from(json.dumps(said).encode()) == expected


def test_a_request_of_which_one_call_has_no_price_has_none():
    body = json.dumps(completion("A") | {"usage": {"prompt_tokens": 10, "completion_tokens": 5}})
    place = "http://127.0.0.1:1/v1"
    models = {
        "priced": Model(base_url=place, dollars_in=1.0, dollars_out=2.0),
        "unpriced": Model(base_url=place),
    }
    panel = Panel({name: reply_of(name, body.encode()) for name in models})
    usage, cost = usage_of(panel, models)
    assert (usage["prompt_tokens"], usage["completion_tokens"], cost) == (20, 10, None)
    del panel.replies["unpriced"]
    assert usage_of(panel, models)[1] == 20 / 1e6
