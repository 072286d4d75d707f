"""A model that dies and comes back, artefacts that are replaced, the configuration, the ports."""

import asyncio
import shutil
import threading
from collections import OrderedDict
from dataclasses import replace

import msgspec
import pytest

from racer_jax.cli.main import main
from racer_jax.data.errors import DataError
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway import _loaded, core, json_schema, load_settings, settings_from
from racer_jax.serving.gateway._breaker import Breaker
from racer_jax.serving.gateway._running import ready_lines
from racer_jax.serving.gateway.settings import Route
from tests.racer.test_racer import MODELS
from tests.serving.gateway.conftest import plain_settings
from tests.serving.gateway.upstreams import status


def test_a_breaker_opens_tries_and_closes():
    now = [0.0]
    breaker = Breaker(2, 10.0, lambda: now[0])
    breaker.failed()
    assert breaker.may_call()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.may_call()
    now[0] = 10.0
    assert breaker.is_due
    assert breaker.may_call()
    assert not breaker.may_call()  # one at a time
    breaker.succeeded()
    assert not breaker.is_open


def test_a_dead_model_is_routed_around_with_a_threshold_of_the_live_pool(
    start, upstreams, artefacts
):
    changes = {f"models__{name}__breaker_failures": 1 for name in MODELS}
    gateway = start(scripted=False, routes__my__mode="all", **changes)
    upstreams.reset()
    racer = Racer.load(artefacts / "my.racer")
    texts = [f"sum prime river {i}" for i in range(10)]
    (dead, *_) = racer.route(texts[0], "a").models
    upstreams.says[dead] = status(500)
    first = gateway.chat(texts[0])
    assert "status_500" in first.content.decode()
    assert first.headers["x-racer-guarantee"] == "void"
    assert gateway.admin("GET", "/status").json["models"][dead]["down"]
    live = racer.without(dead)
    for text in texts:  # the first one waits for the threshold: it takes milliseconds
        got = gateway.chat(text).json["racer"]
        expected = live.route(text, "a")
        assert got["set"] == list(expected.models)
        assert got["guarantee"] == "holds"
        assert got["reason"] == ("degraded" if expected.models else "abstain")
    assert upstreams.models.count(dead) == 1
    upstreams.says.clear()
    gateway.gateway.upstreams[dead].breaker.succeeded()
    again = gateway.chat(texts[0]).json["racer"]
    assert again["set"] == list(racer.route(texts[0], "a").models)


@pytest.mark.long
def test_while_the_threshold_of_the_live_pool_takes_long_nothing_is_promised(
    start, upstreams, monkeypatch
):
    gateway = start(scripted=False, routes__my__mode="all")
    loaded, go_on = gateway.gateway.planners["my"].loaded, threading.Event()
    monkeypatch.setattr(core, "_PATIENCE_SECONDS", 0.02)
    computed = []

    def slowly(alpha, dead):
        computed.append((alpha, dead))
        go_on.wait(10)

    # Frozen: as an artefact that is slow to calibrate, and in the end keeps no queries.
    object.__setattr__(loaded, "calibrate_live", slowly)
    upstream = gateway.gateway.upstreams["large"]
    for _ in range(5):
        upstream.breaker.failed()
    try:
        for _ in range(2):
            racer = gateway.chat("sum prime river ?", racer={"group": "a"}).json["racer"]
            assert "large" not in racer["called"]
            void = "large" in racer["set"]
            assert racer["guarantee"] == ("void" if void else "holds")
    finally:
        go_on.set()
        upstream.breaker.succeeded()
    assert computed == [("0.3", frozenset({"large"}))]  # once for all who wait


def test_an_unknown_group_is_decided_by_the_same_racer_every_time(start):
    gateway = start(routes__my__on_unknown_group="pooled")
    racers = gateway.gateway.planners["my"]._batcher.racers
    upstream = gateway.gateway.upstreams["large"]
    for _ in range(2):
        gateway.chat("small ?", racer={"group": "nobody"})
    for _ in range(5):
        upstream.breaker.failed()
    for _ in range(2):
        gateway.chat("small ?", racer={"group": "nobody"})
    assert racers[0] is racers[1]
    assert racers[2] is racers[3]
    assert [racer.models for racer in racers[1:3]] == [MODELS, MODELS[:2]]
    assert {racer.calibration.groups for racer in racers} == {None}


def test_few_thresholds_of_live_pools_are_kept(plain_gateway):
    loaded = replace(plain_gateway.gateway.planners["my"].loaded, _pools=OrderedDict())
    pools = [frozenset({f"m{i}"}) for i in range(70)]
    for i, dead in enumerate(pools):
        loaded.keep_live("0.3", dead, i)
        assert loaded.live("0.3", pools[0]) == (True, 0)  # asked for again and again
    known = [loaded.live("0.3", dead)[0] for dead in pools]
    assert known == [True] + [False] * 6 + [True] * 63
    assert loaded.live("0.3", frozenset({"another"})) == (False, None)


def test_artefacts_are_reloaded_and_rolled_back(start, artefacts, tmp_path, upstreams):
    upstreams.reset()
    shutil.copytree(artefacts / "my.racer", tmp_path / "used.racer")
    gateway = start(routes__my__artefact=str(tmp_path / "used.racer"))
    first = gateway.chat("large ?").headers["x-racer-artefact"]
    assert gateway.admin("POST", "/reload", {}).json["artefacts"] == {"my": first}
    assert gateway.admin("POST", "/artefacts/my/rollback", {}).status == 409
    shutil.rmtree(tmp_path / "used.racer")
    assert gateway.admin("POST", "/artefacts/my/activate", {}).status == 409
    shutil.copytree(artefacts / "other.racer", tmp_path / "used.racer")
    second = gateway.admin("POST", "/artefacts/my/activate", {}).json["artefacts"]["my"]
    assert second != first
    assert gateway.gateway.planners["my"].loaded.checksum == second
    level = gateway.gateway.monitors.of("my", second).level
    assert level == pytest.approx(0.05 / 4)
    back = gateway.admin("POST", "/artefacts/my/rollback", {}).json["artefacts"]["my"]
    assert back == first
    assert gateway.admin("POST", "/artefacts/nobody/activate", {}).status == 404


def test_a_reload_loses_no_request(start, artefacts, tmp_path, upstreams):
    from tests.serving.gateway.upstreams import call, slow

    upstreams.reset()
    upstreams.says.update(large=slow("A", 0.1))
    shutil.copytree(artefacts / "my.racer", tmp_path / "used.racer")
    gateway = start(routes__my__artefact=str(tmp_path / "used.racer"))
    body = {"model": "racer/my", "messages": [{"role": "user", "content": "large ?"}]}

    async def both():
        requests = [
            asyncio.ensure_future(call(gateway.app, "POST", "/v1/chat/completions", body))
            for _ in range(8)
        ]
        await asyncio.sleep(0.02)
        shutil.rmtree(tmp_path / "used.racer")
        shutil.copytree(artefacts / "other.racer", tmp_path / "used.racer")
        await gateway.gateway.reload()
        return await asyncio.gather(*requests)

    got = gateway.run(both())
    assert {one.status for one in got} == {200}
    assert gateway.gateway.previous["my"].loaded.checksum in got[0].headers["x-racer-artefact"]


def test_decisions_without_a_call(start, upstreams):
    gateway = start(scripted=False)
    upstreams.reset()
    inputs = [{"text": "sum prime river?", "group": "a", "id": "q"}, {"text": "atom", "group": "b"}]
    got = gateway.ask("POST", "/v1/racer/route", {"inputs": inputs, "explain": True})
    racer = gateway.gateway.planners["my"].loaded.racers["0.3"]
    expected = [d.to_dict() for d in racer.route([i["text"] for i in inputs], ["a", "b"])]
    for one, own in zip(got.json, expected, strict=True):
        assert one["models"] == own["models"]
        assert one["scores"] == pytest.approx(own["scores"], abs=1e-6)
    assert got.json[0]["id"] == "q"
    assert "explanation" in got.json[1]
    assert upstreams.asked == []
    assert gateway.ask("POST", "/v1/racer/route", {"inputs": []}).status == 400
    assert gateway.ask("POST", "/v1/racer/route", {"inputs": [{"text": " "}]}).status == 400


def test_a_decision_is_taken_once_for_a_text_a_group_and_an_artefact(start, artefacts, tmp_path):
    path = tmp_path / "used.racer"
    shutil.copytree(artefacts / "my.racer", path)
    gateway = start(scripted=False, routes__my__artefact=str(path))
    batches = []
    gateway.gateway.batcher._on_batch = batches.append

    def decided(text, group):
        entry = {"inputs": [{"text": text, "group": group}]}
        return gateway.ask("POST", "/v1/racer/route", entry).json

    first = decided("sum prime ?", "a")
    assert [decided("sum prime ?", "a") for _ in range(3)] == [first] * 3
    assert batches == [1]
    assert decided("sum prime ?", "b") != first
    decided("sum prime", "a")
    assert batches == [1, 1, 1]
    shutil.rmtree(path)
    shutil.copytree(artefacts / "other.racer", path)
    assert gateway.admin("POST", "/reload").status == 200
    again = decided("sum prime ?", "a")
    assert len(batches) == 4
    assert again[0]["threshold"] != first[0]["threshold"]


def test_concurrent_decisions_are_those_of_each_alone(start):
    gateway = start(scripted=False)
    racer = gateway.gateway.planners["my"].loaded.racers["0.3"]
    texts = [f"sum prime {i}" for i in range(9)]

    async def all_at_once():
        decide = gateway.gateway.batcher.decide
        return await asyncio.gather(*(decide(racer, text, "a") for text in texts))

    together = gateway.run(all_at_once())
    for text, routed in zip(texts, together, strict=True):
        alone = racer.route(text, "a")
        assert routed.decision.models == alone.models
    with pytest.raises(ValueError, match="empty"):
        gateway.run(gateway.gateway.batcher.decide(racer, " ", "a"))


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"models__small__base_urll": "x"}, "$.models.small"),
        ({"server__port": 70000}, "$.server.port"),
        ({"nonsense": 1}, "unknown field `nonsense`"),
        ({"models__small__api_key": "sk-plain"}, "$.models.small.api_key"),
        ({"models__small__api_key": "${RACER_NOT_SET}"}, "RACER_NOT_SET"),
        ({"models__small__base_url": "http://169.254.169.254/v1"}, "$.models.small.base_url"),
        ({"models__small__base_url": "http://example.com/v1"}, "insecure = true"),
        ({"models__small__base_url": "file:///etc/passwd"}, "$.models.small.base_url"),
        ({"routes__my__judge": "nobody"}, "$.routes.my.judge"),
        ({"routes__my__form": "nothing"}, "$.routes.my.form"),
        ({"server__host": "0.0.0.0"}, "$.server.host"),
        ({"server__admin_host": "0.0.0.0"}, "$.server.admin_host"),
        ({"audit__labeller": "judge"}, "$.audit.judge"),
        ({"models__small__dollars_in": None}, "$.models.small"),
    ],
)
def test_a_fault_of_the_configuration_has_its_path(upstreams, artefacts, changes, place):
    with pytest.raises(ValueError, match=r".") as error:
        settings_from(plain_settings(upstreams, artefacts, **changes))
    assert place in str(error.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"routes__my__artefact": "nowhere"}, "folder not found"),
        ({"bare": True}, "calibrate"),
        ({"infeasible": True}, "cannot keep alpha"),
        ({"routes__my__mode": "cascade"}, "cascade"),
        ({"routes__my__form": None, "routes__my__judge": None}, "needs a judge"),
    ],
)
def test_an_artefact_that_does_not_fit_is_refused_at_the_start(start, artefacts, changes, problem):
    for name in ("bare", "infeasible"):
        if changes.pop(name, False):
            changes["routes__my__artefact"] = str(artefacts / f"{name}.racer")
    with pytest.raises(DataError, match=problem):
        start(**changes)


@pytest.mark.parametrize(
    ("mode", "nonconformity", "advice"),
    [
        ("select", "gap", "name a model, or say form and mode = 'vote'"),
        (None, "J_learned", "name a model, or for a vote train with --nonconformity gap"),
        ("vote", "J_learned", "mode must not be 'vote'; train with --nonconformity gap"),
    ],
)
def test_what_is_advised_of_a_vote_can_be_followed(mode, nonconformity, advice):
    route = Route(artefact="my.racer", mode=mode)
    with pytest.raises(DataError, match=advice):
        _loaded._mode(route, nonconformity, "letter")
    judged = msgspec.structs.replace(route, judge="large", mode="select")
    assert _loaded._mode(judged, nonconformity, "letter") == "select"
    assert _loaded._mode(Route(artefact="my.racer"), "gap", "letter") == "vote"


def test_configurations_of_both_languages(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    (tmp_path / "key").write_text("from-a-file\n")
    toml = f"""
[models.small]
base_url = "https://api.example.com/v1/"
api_key = "${{MY_KEY}}"
also = [{{base_url = "http://127.0.0.1:9/v1", api_key = "${{file:{tmp_path}/key}}"}}]
[routes.my]
artefact = "my.racer"
"""
    yaml = f"""
models:
  small:
    base_url: https://api.example.com/v1/
    api_key: ${{MY_KEY}}
    also:
      - base_url: http://127.0.0.1:9/v1
        api_key: ${{file:{tmp_path}/key}}
routes: {{my: {{artefact: my.racer}}}}
"""
    (tmp_path / "g.toml").write_text(toml)
    (tmp_path / "g.yaml").write_text(yaml)
    settings = load_settings(tmp_path / "g.toml")
    assert settings == load_settings(tmp_path / "g.yaml")
    assert settings.models["small"].api_key.reveal() == "sk-very-secret"
    assert settings.models["small"].also[0].api_key.reveal() == "from-a-file"
    assert "secret" not in repr(settings).replace("Secret", "")
    assert settings.routes["my"].artefact == str(tmp_path / "my.racer")
    (tmp_path / "bad.toml").write_text("= 1")
    with pytest.raises(DataError, match="must be TOML"):
        load_settings(tmp_path / "bad.toml")
    with pytest.raises(DataError, match="ends with"):
        load_settings(tmp_path / "key")


def test_the_schema_knows_every_field():
    schema = json_schema()
    assert schema["$defs"]["Model"]["additionalProperties"] is False
    assert "base_url" in schema["$defs"]["Model"]["required"]
    assert msgspec.json.encode(schema)


def test_the_form_and_the_view_belong_to_the_artefact(start, artefacts, tmp_path):
    path = str(tmp_path / "form.racer")
    shutil.copytree(artefacts / "my.racer", path)
    assert main(["calibrate", path, "--form", "number", "--view", "all_user"]) == 0
    racer = Racer.load(path)
    assert (racer.normal_form, racer.view) == ("number", "all_user")
    with pytest.raises(DataError, match="normal form 'number'"):
        start(routes__my__artefact=path, routes__my__view="all_user")
    with pytest.raises(DataError, match="view 'all_user'"):
        start(routes__my__artefact=path, routes__my__form=None)
    gateway = start(routes__my__artefact=path, routes__my__form=None, routes__my__view="all_user")
    assert gateway.admin("GET", "/status").json["routes"]["my"]["normal_form"] == "number"
    assert main(["calibrate", path, "--form", "nonsense"]) == 1


def test_groups_compare_their_answers_in_forms_of_their_own(start, upstreams):
    gateway = start(routes__my__form="a=letter,b=number")
    upstreams.reset()
    upstreams.says.update(small="A", medium="A)", large="it is 12.0, or 7")

    def votes(group):
        got = gateway.chat("small,medium,large ?", racer={"group": group})
        winner = next(iter(got.json["racer"]["votes"]))
        return winner, got.json["choices"][0]["message"]["content"]

    assert votes("a") == ("A", "A)")
    upstreams.says.update(small="7", medium="so 7.00", large="8")
    assert votes("b") == ("7", "so 7.00")
    # A group of nobody's has the texts as they are.
    upstreams.says.update(small="7", medium="7.00", large="7")
    assert votes("c") == ("7", "7")


@pytest.mark.parametrize(
    ("form", "problem"),
    [("a=letter", "no normal form for b"), ("a=letter,b=text,c=text", "not calibrated on: c")],
)
def test_forms_by_group_name_the_groups_of_the_artefact(start, form, problem):
    with pytest.raises(DataError, match=problem):
        start(routes__my__form=form)


def test_decisions_go_on_while_an_artefact_is_loaded(start):
    gateway = start(scripted=False)
    racer, batcher = gateway.gateway.planners["my"].loaded.racers["0.3"], gateway.gateway.batcher
    loading = threading.Event()

    async def both():
        work = asyncio.ensure_future(batcher.run(lambda: loading.wait(60)))
        decided = await asyncio.wait_for(batcher.decide(racer, "while loading", "a"), 40)
        loading.set()
        return decided, await work

    decided, loaded = gateway.run(both())
    assert loaded
    assert decided.decision.models == racer.route(["while loading"], ["a"])[0].models


def test_a_gateway_that_is_ready_names_all_that_clients_ask_for():
    """An experiment is asked for by its name, as a route is."""
    fields = {
        "models": {"small": {"base_url": "http://127.0.0.1:9/v1"}},
        "routes": {name: {"artefact": "my.racer"} for name in ("exams", "exams-new")},
        "experiments": {"trial": {"arms": {"exams": 0.9, "exams-new": 0.1}}},
    }
    inference, management = ready_lines(settings_from(fields), (8080, 8081))
    assert inference.endswith(":8080/v1, models racer/exams, racer/exams-new, racer/trial")
    assert management == "management: http://127.0.0.1:8081/status"
