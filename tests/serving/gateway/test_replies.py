"""What is read of an upstream's answer."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from racer_jax.serving.gateway._replies import Usage, usage_from

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
def test_of_usage_whatever_is_sensible_counts(said):
    fields = said if isinstance(said, dict) else {}
    prompt = amount(fields.get("prompt_tokens"), 10**12)
    completion = amount(fields.get("completion_tokens"), 10**12)
    cost = amount(fields.get("cost"), 1e9)
    expected = None
    if prompt or completion or cost is not None:
        expected = Usage(int(prompt or 0), int(completion or 0), cost)
    assert usage_from(json.dumps(said).encode()) == expected
