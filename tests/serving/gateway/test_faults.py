"""A fault of a configuration is said in words, with the field, its place and what would be right."""

import pytest

from racer_jax.serving.gateway.configuration import settings_from

MODELS = {name: {"base_url": f"http://127.0.0.1/{name}"} for name in ("small", "large")}


def plain(**changes):
    """Settings of two models and two routes, with values at paths such as `models.small.tries`."""
    settings = {
        "models": {name: dict(model) for name, model in MODELS.items()},
        "routes": {name: {"artefact": "x", "mode": "all"} for name in ("a", "b")},
    }
    for path, value in changes.items():
        *before, last = path.split("__")
        here = settings
        for name in before:
            here = here.setdefault(name, {})
        here[last] = value
    return settings


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"listen": 1},
            "unknown field `listen`; the fields are models, routes, server, .* - at `[$]`",
        ),
        (
            {"routes__b__artefct": 1},
            "unknown field `artefct`: did you mean `artefact`[?] - at `[$].routes.b`",
        ),
        ({"routes__b": {}}, "`artefact` is missing - at `[$].routes.b`"),
        (
            {"models__large__tries": 0},
            "a whole number, at least 1, got 0 - at `[$].models.large.tries`",
        ),
        ({"models__large__tries": 11}, "at most 10, got 11"),
        (
            {"models__large__also": [MODELS["small"], {"base_url": "x", "key": 1}]},
            "unknown field `key`: did you mean `api_key`[?] - at `[$].models.large.also.1.`",
        ),
        (
            {"routes__b__mode": "votes"},
            "one of 'all', .*'vote', got 'votes' - at `[$].routes.b.mode`",
        ),
        ({"routes__b__modes": ["all", "votes"]}, "got 'votes' - at `[$].routes.b.modes.1.`"),
        ({"routes": 3}, "must be a table of fields, got 3 - at `[$].routes`"),
        ({"routes__b__judge": ""}, "text, of length at least 1, got '' - at `[$].routes.b.judge`"),
        ({"routes__b__max_cost": "1"}, "must be a number, got '1' - at `[$].routes.b.max_cost`"),
        ({"routes__b__allow_infeasible": 1}, "must be true or false, got 1"),
        ({"models__large__capabilities": "n"}, "must be a list, got 'n'"),
    ],
)
def test_words(changes, words):
    with pytest.raises(ValueError, match=words):
        settings_from(plain(**changes))


def test_what_a_reference_stands_for_is_not_shown(monkeypatch):
    monkeypatch.setenv("RACER_TEST_SECRET", "hunter2")
    with pytest.raises(ValueError, match="must be a whole number") as error:
        settings_from(plain(server__port="${RACER_TEST_SECRET}"))
    assert "${RACER_TEST_SECRET}" in str(error.value)
    assert "hunter2" not in str(error.value)
