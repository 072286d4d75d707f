"""Options of a reader, typed as one line: every option, and what is none."""

import pytest

from racer_jax.data.remedies import OPTIONS, Remedy
from racer_jax.data.typed_options import typed_options

VALUES = {
    "text": "one two",
    "number": 3,
    "names": ["a,b", "c"],
    "pairs": {"x": "y,z"},
    "text or pairs": {"a": "score > 0.5", "b": "score >= 1"},
}


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "key"])
def test_every_remedy_can_be_typed(name):
    option = OPTIONS[name]
    values = (True, False) if option.kind == "switch" else (VALUES[option.kind],)
    for value in values:
        line = Remedy("{}", **{name: value}).in_shell()
        assert typed_options(line) == {name: value}
        assert typed_options(f"--part test {line}") == {"part": "test", name: value}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--nothing 3", "must be among --format"),
        ("models a", "got 'models'"),
        ("--models", "--models must be followed by its value"),
        ("--no-models a", "got '--no-models'"),
        ("--seed 3", "got '--seed'"),
    ],
)
def test_what_is_no_option_is_named(line, message):
    with pytest.raises(ValueError, match=message):
        typed_options(line)


def test_an_empty_line_and_an_equals_sign():
    assert typed_options("") == {}
    assert typed_options("--models=a,b") == {"models": ["a", "b"]}
