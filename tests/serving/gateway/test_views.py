"""Views: the same text of a conversation is routed as was calibrated on."""

import pytest

from racer_jax.cli.main import main
from racer_jax.serving.gateway import settings_from
from racer_jax.serving.gateway._views import Conversation, check_view, viewed
from tests.serving.gateway.conftest import plain_settings

TALK = Conversation(["first", "second"], "be brief")


@pytest.mark.parametrize(
    ("view", "text"),
    [
        ("last_user", "second"),
        ("all_user", "first\n\nsecond"),
        ("template:{system}\nQ: {last_user}\nA:", "be brief\nQ: second\nA:"),
        ("template:{{{first_user}}} {all_user}", "{first} first\n\nsecond"),
    ],
)
def test_a_view_is_a_text_of_the_conversation(view, text):
    assert viewed(TALK, check_view(view)) == text


def test_what_users_write_is_no_template():
    assert viewed(Conversation(["{system} {0.__class__}"], "s"), "template:{last_user}") == (
        "{system} {0.__class__}"
    )
    for view in ("last_user", "template:Q: {last_user}"):
        assert viewed(Conversation([" "]), view) == "(no text)"


@pytest.mark.parametrize(
    "view",
    ["first", "template:", "template:no part", "template:{user}", "template:{last_user!r}",
     "template:{last_user:>9}", "template:{system.__class__}", "template:{", "template:{}"],
)  # fmt: skip
def test_what_is_no_view_is_refused(view, upstreams, artefacts, capsys):
    with pytest.raises(ValueError, match=r"view|template"):
        check_view(view)
    with pytest.raises(ValueError, match=r"routes\.my\.view"):
        settings_from(plain_settings(upstreams, artefacts, routes__my__view=view))


def test_the_command_refuses_it_too(artefacts, capsys):
    assert main(["calibrate", str(artefacts / "my.racer"), "--view", "nothing"]) == 1
    assert "template:" in capsys.readouterr().err


def test_a_template_is_routed(start, upstreams):
    view = "template:{last_user} {system}"
    gateway = start(routes__my__view=view, state__store_prompts=True)
    upstreams.reset()
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "large"}]
    name = gateway.chat(messages=messages).json["id"]
    assert gateway.ask("GET", f"/v1/racer/decisions/{name}").json["prompt"] == "large be brief"
    entry = {"messages": messages, "group": "a"}
    got = gateway.ask("POST", "/v1/racer/route", {"inputs": [entry]})
    assert got.status == 200
    nobody = {"messages": messages[:1], "group": "a"}
    assert gateway.ask("POST", "/v1/racer/route", {"inputs": [nobody]}).status == 400
    assert gateway.ask("POST", "/v1/racer/route", {"inputs": [{"messages": [1]}]}).status == 400
