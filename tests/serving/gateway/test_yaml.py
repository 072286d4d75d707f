"""Configurations in YAML: a value is what it looks like, by the core schema of YAML 1.2."""

from math import inf, isnan

import pytest

from racer_jax.data.errors import DataError
from racer_jax.serving.gateway._yaml import plain_yaml
from racer_jax.serving.gateway.configuration import load_settings

_CONFIGURATION = """\
models:
  small: {base_url: "http://127.0.0.1:9/v1", %s}
routes: {my: {artefact: my.racer, %s}}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, word) for word in ("yes", "No", "on", "OFF", "y", "n", "Yes")),
        *((word, word) for word in ("1:20", "190:20:30", "1:20.5", "12:30:45")),
        *((word, word) for word in ("2024-01-02", "2001-12-14t21:59:43.10-05:00", "2024-13-45")),
        *((word, word) for word in ("1_000", "0b11", "=", "1e", "+", ".", "-.", "nUll", "tRUE")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, False) for word in ("false", "False", "FALSE")),
        *((word, None) for word in ("null", "Null", "NULL", "~", "")),
        ("7", 7), ("-7", -7), ("+12", 12), ("0", 0), ("0o17", 15), ("0xfF", 255),
        ("1e-3", 1e-3), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-0.25", -0.25), ("0.1", 0.1),
        (".inf", inf), ("-.Inf", -inf), ("'010'", "010"), ('"yes"', "yes"), ("0.0", 0.0),
    ],
)  # fmt: skip
def test_a_value_is_what_it_looks_like(text, value):
    got = plain_yaml(f"a: {text}\n")["a"]
    assert (got, type(got)) == (value, type(value))
    (item,) = plain_yaml(f"- {text}\n")
    assert (item, type(item)) == (value, type(value))


def test_what_is_no_number_is_one():
    assert isnan(plain_yaml("a: .nan")["a"])
    assert plain_yaml("") is None
    assert plain_yaml("a: |\n  010\n") == {"a": "010\n"}
    assert plain_yaml("a: !!str 010\n") == {"a": "010"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [2, {c: 010}]", "010 begins with a zero: write 10, 0o10 if it is octal, or"),
        ("a: 1\nb: [2, {c: 010}]", '"010" if it is text - at `$.b[1].c` (line 2, column 12)'),
        ("a: -007", "-007 begins with a zero: write -7, 0o7 if it is octal"),
        ("a: 089", "089 begins with a zero: write 89, or"),
        ("a: 01.5", "01.5 begins with a zero: write 1.5, or"),
        ("a: {010: x}", "at `$.a.010` (line 1, column 5)"),
        ("a: &b 010\nc: *b", "at `$.a` (line 1, column 4)"),
    ],
)
def test_a_number_that_begins_with_a_zero_may_be_several(text, words):
    with pytest.raises(ValueError, match="begins with a zero") as refused:
        plain_yaml(text)
    assert words in str(refused.value)


def test_tables_may_take_over_others():
    text = "a: &a {x: 1, y: 2}\nb: &b {z: 3}\nc: {<<: *a, y: 5}\nd: {<<: [*a, *b], x: 9}"
    plain = plain_yaml(text)
    assert plain["c"] == {"x": 1, "y": 5}
    assert plain["d"] == {"x": 9, "y": 2, "z": 3}
    assert plain_yaml("a: '<<'") == {"a": "<<"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a {x: 1}\nb: &b {y: 1}\nc: {<<: *a, <<: *b}", "the name '<<' comes twice (line 3"),
        ("a: {x: 1, 'x': 2}", "the name 'x' comes twice"),
        ("a: {<<: 7}", "expected a mapping or list of mappings for merging"),
        ("a: *b", "found undefined alias 'b' (line 1, column 4)"),
        ("a: &b 1\nc: &b 2", "found duplicate anchor 'b'"),
        ("a: 1\n---\nb: 2", "but found another document"),
    ],
)
def test_surprises_of_tables_are_named(text, words):
    with pytest.raises(ValueError, match="line") as refused:
        plain_yaml(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("model", "route", "words"),
    [
        ("hedge: yes", "", "must be true or false, got 'yes' - at `$.models.small.hedge`"),
        ("tries: 1:20", "", "must be a whole number, got '1:20' - at `$.models.small.tries`"),
        ("tries: 010", "", "0o10 if it is octal"),
        ("tries: 1", "alphas: [0.1]", "must be text, got 0.1 - at `$.routes.my.alphas[0]`"),
    ],
)
def test_a_configuration_says_where(tmp_path, model, route, words):
    path = tmp_path / "gateway.yaml"
    path.write_text(_CONFIGURATION % (model, route))
    with pytest.raises(DataError) as refused:
        load_settings(path)
    assert words in str(refused.value)


def test_a_configuration_is_read_as_it_looks(tmp_path):
    path = tmp_path / "gateway.yaml"
    more = _CONFIGURATION % ("name: on, dollars_in: 1e-3, dollars_out: 2", "group: no")
    path.write_text(more.replace("small:", "off:"))
    settings = load_settings(path)
    assert settings.models["off"].name == "on"
    assert settings.models["off"].dollars_in == 1e-3
    assert settings.routes["my"].group == "no"
