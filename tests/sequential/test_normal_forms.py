"""Normal forms: patterns, and forms that differ from group to group."""

import re

import pytest

from racer_jax.sequential.normal_forms import (
    UnknownFormError,
    forms_by_group,
    last_match,
    normal_form,
)


@pytest.mark.parametrize(
    ("pattern", "response", "answer"),
    [
        (r"regex:answer is \(?([A-E])\)?", "The answer is A. No: the answer is (C).", "C"),
        ("regex:[0-9]{4}", "in 1984, not 2001", "2001"),
        ("regex:answer:.*", "so answer: 42", "answer: 42"),
        ("regex:[A-E]?$", "no letter!", None),
        ("regex:(x)?y", "y", None),
        ("regex:never", "something else", None),
        ("regex:a=([a-z])", "a=b", "b"),
    ],
)
def test_the_last_place_that_fits_is_the_answer(pattern, response, answer):
    assert normal_form(pattern)(response) == answer


def test_a_pattern_is_looked_for_at_the_end_alone():
    long = "x1" + "y" * 100_000
    assert last_match(long, re.compile("x1")) is None


def test_each_group_has_its_form():
    assert forms_by_group("json:a=b") == {"*": "json:a=b"}
    assert forms_by_group("regex:a=b,c") == {"*": "regex:a=b,c"}
    assert forms_by_group("math=number, mmlu=regex:is ([A-E])") == {
        "math": "number",
        "mmlu": "regex:is ([A-E])",
    }


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("regex:(", "linear time"),
        ("regex:(a+)+$", "linear time"),
        ("regex:(.*)x(.*)y", "linear time"),
        ("regex:", "not known"),
        ("math=nothing", "'nothing' is not known"),
        ("math=number,math=text", "'math' twice"),
        ("math=number,letter", "'' is not known"),
    ],
)
def test_what_is_no_form_is_refused(name, problem):
    with pytest.raises(UnknownFormError, match=re.escape(problem)):
        forms_by_group(name)
