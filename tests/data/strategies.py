"""Tables of every shape, for property tests."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from racer_jax.data import RoutingTable

# Anything UTF-8 can write: line breaks of all kinds, quotes, commas, byte-order marks, NUL, other
# scripts.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def tables(draw, min_queries=1):
    n, m = draw(st.integers(min_queries, 5)), draw(st.integers(1, 3))

    def names(size):
        return draw(st.lists(NAME, min_size=size, max_size=size, unique=True))

    def maybe(strategy):
        return draw(st.none() | strategy)

    def numbers(low=-1e300, high=1e300):
        return hnp.arrays(np.float64, (n, m), elements=st.floats(low, high) | st.just(np.nan))

    missing = maybe(hnp.arrays(bool, (n, m)))
    correct = draw(hnp.arrays(bool, (n, m)))
    if missing is not None:
        correct &= ~missing
    answers = maybe(hnp.arrays(object, (n, m), elements=st.none() | NAME))
    group = maybe(st.lists(NAME, min_size=n, max_size=n))
    rule = draw(NAME)
    if group is not None and draw(st.booleans()):
        rule = {name: draw(NAME) for name in dict.fromkeys(group)} or rule
    return RoutingTable(
        ids=names(n),
        texts=draw(st.lists(TEXT, min_size=n, max_size=n)),
        models=names(m),
        correct=correct,
        group=group,
        graded=maybe(numbers()),
        answers=answers,
        confidence={
            scheme: draw(numbers(0, 1)) for scheme in draw(st.lists(NAME, max_size=2, unique=True))
        },
        cost=maybe(numbers(0)),
        tokens=maybe(
            hnp.arrays(
                np.float64, (n, m), elements=st.integers(0, 2**53).map(float) | st.just(np.nan)
            )
        ),
        price=maybe(hnp.arrays(np.float64, m, elements=st.floats(0, 1e300) | st.just(np.nan))),
        label_rule=rule,
        missing=missing,
        notes=draw(st.lists(NAME, max_size=2, unique=True)),
    )
