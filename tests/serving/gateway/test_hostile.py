"""Requests and upstreams that nobody meant: an answer or an error that says why, and no more."""

import asyncio
import json
from types import SimpleNamespace

import msgspec
import pytest
from aiohttp import web

from racer_jax.data.errors import DataError
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway import _chat, _server
from racer_jax.serving.gateway._exchange import CONNECTION
from racer_jax.serving.gateway._records import DecisionRow
from racer_jax.serving.gateway._store import Store
from racer_jax.serving.gateway._streams import Passing
from racer_jax.serving.gateway.configuration import load_settings, settings_from
from tests.racer.test_racer import MODELS
from tests.serving.gateway.conftest import plain_settings
from tests.serving.gateway.test_security import listens
from tests.serving.gateway.upstreams import completion, slow

_ASK = '{"model":"racer/my","messages":[{"role":"user","content":"small hello"}]%s}'


def _asked(served, more, headers=None):
    body = _ASK.encode() % (more if isinstance(more, bytes) else more.encode())
    return served.ask("POST", "/v1/chat/completions", raw=body, headers=headers)


def _raw(body, kind="application/json", status=200, **headers):
    sent = {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return lambda _: web.Response(body=body, status=status, headers=sent)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (b',"user":"\xff"', "must be JSON in UTF-8"),
        (r',"user":"cut \ud83d"', r"\ud83d at byte 85 is half of a character"),
        (r',"user":"cut \ude00"', r"\ude00 at byte 85 is half of a character"),
        (',"max_tokens":1e400,"racer":{"max_cost":1}', "max_tokens cannot be read"),
        (f',"racer":{{"session":"{"s" * 201}"}}', "racer.session must be text, of length at most"),
        (f',"racer":{{"group":"{"g" * 201}"}}', "racer.group must be text, of length at most"),
    ],
)
def test_what_cannot_be_read_is_the_clients_fault(served, upstreams, more, words):
    response = _asked(served, more)
    assert response.status == 400
    assert words in response.json["error"]["message"]
    assert upstreams.asked == []  # a model that chokes on it would count as down


def test_both_halves_of_a_character_are_one(served):
    assert _asked(served, r',"user":"\ud83d\ude00 and \\ud83d"').status == 200


def test_a_byte_order_mark_is_named(served):
    body = b"\xef\xbb\xbf" + (_ASK % "").encode()
    response = served.ask("POST", "/v1/chat/completions", raw=body)
    assert "byte order mark" in response.json["error"]["message"]


def test_a_deadline_beyond_any_float_is_none(served):
    assert _asked(served, ',"racer":{"deadline_ms":1%s}' % ("0" * 400)).status == 200


def test_a_header_may_be_in_utf_8(served):
    name = "prüfung"
    response = _asked(served, "", {"x-racer-group": name})
    assert response.json["racer"]["group"] == name


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -(10**9), "completion_tokens": -1},
        {"prompt_tokens": 2**63, "completion_tokens": 10**400},
        {"prompt_tokens": None, "completion_tokens": "ten"},
        {"cost": -5.0},
        [],
    ],
)
def test_odd_numbers_of_tokens_cost_neither_the_answer_nor_money(served, upstreams, usage):
    upstreams.says["small"] = {**completion("A"), "usage": usage}
    before = dict(served.gateway.budgets.spent)
    response = served.chat("small hello")
    assert response.json["choices"][0]["message"]["content"] == "A"
    assert "x-racer-cost" not in response.headers
    stored = served.gateway.store.decision(response.json["id"]).result(10)
    assert stored["dollars"] is None
    assert served.gateway.budgets.spent == before


def test_tokens_that_are_told_as_fractions_count(served, upstreams):
    usage = {"prompt_tokens": 10.0, "completion_tokens": 2.0}
    upstreams.says["small"] = {**completion("A"), "usage": usage}
    assert served.chat("small hello").headers["x-racer-cost"] == "3e-05"


def test_a_row_that_cannot_be_written_takes_no_other_with_it(tmp_path, caplog):
    store = Store(str(tmp_path / "state.db"), 1e6)
    for i, fingerprint in enumerate((1, 2**70, 1)):
        store.add(DecisionRow(f"chatcmpl-{i}", 1.0, "my", fingerprint=fingerprint))
    asked = store.ask(lambda connection: connection.execute("select id from decision").fetchall())
    assert {name for (name,) in asked.result(10)} == {"chatcmpl-0", "chatcmpl-2"}
    assert store.dropped == 1
    assert "has lost 1 rows" in caplog.text
    store.close()


def test_bytes_that_are_no_text_are_no_answer(served, upstreams):
    body = json.dumps(completion("A")).encode().replace(b"chatcmpl-upstream", b"\xff")
    upstreams.says["small"] = _raw(body)
    assert served.chat("small hello").json["racer"]["failed"] == {"small": "reply"}
    upstreams.says["small"] = _raw(b'{"error":{"message":"\xff"}}', status=400)
    response = served.chat("small hello")
    assert (response.status, response.json["racer"]["failed"]) == (400, {"small": "refused_400"})


def test_a_page_is_no_stream(served, upstreams):
    for says in (
        _raw(b"<html>log in</html>", "text/html"),
        _raw(b'{"error":{"message":"no"}}'),
        _raw(b"\x1f\x8b\x08", "text/event-stream", content_encoding="gzip"),
    ):
        upstreams.says["small"] = says
        response = served.chat("small hello", stream=True)
        assert response.status == 502
        assert response.headers["x-racer-guarantee"] == "void"


_LONG = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"A" * 10_000)
_LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    "pieces",
    [
        [b'data: {"choices":[{"delta":{"content":"A"},"finish_reason":null}]}\n\n'],
        [b'data: {"choices":[{"delta":{}}]}\n\n', b'data: {"error":{"message":"lost"}}\n\n'],
        [b'data: {"err', b'or":{"message":"lost"}}\n\n', _LONG, _LAST],
        [_LONG, b"event: er", b'ror\ndata: {"message":"lost"}\n\n', _LONG, _LAST],
        [_LONG, b'data: {"choices":[{"delta":{},"finish_reason":"error"}]}\n\n'],
    ],
)
def test_a_stream_that_only_seems_to_end_is_a_lost_call(served, upstreams, pieces):
    upstreams.says["small"] = pieces
    before = served.gateway.losses.get("my", (0, 0))
    response = served.chat("small hello", stream=True)
    assert b"[DONE]" not in response.content
    last = json.loads(response.content.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
    assert last["racer"]["guarantee"] == "void"
    assert served.gateway.losses["my"] == (before[0] + 1, before[1] + 1)


def test_an_error_is_seen_wherever_it_is_cut():
    for error in (b'\n\ndata: {"error":{"message":"lost"}}\n\n', b"\r\nevent: error\r\n"):
        stream = _LONG + error + _LONG + _LAST
        for cut in range(len(_LONG), len(_LONG + error)):
            passing = Passing()
            passing.add(stream[:cut])
            passing.add(stream[cut:])
            assert not passing.is_whole


def test_an_answer_about_errors_is_whole():
    text = r"data: {\"error\": 1} and event: error"
    for piece in (f'{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}', '{"error":null}'):
        passing = Passing()
        passing.add(f"data: {piece}\n\n".encode() + _LAST)
        assert passing.is_whole


def test_a_stream_may_end_without_the_last_word(served, upstreams):
    upstreams.says["small"] = [
        b'data: {"choices":[{"delta":{"content":"A"},"finish_reason":"stop"}]}\r\n\r\n'
    ]
    response = served.chat("small hello", stream=True)
    assert b"error" not in response.content


def test_no_promise_is_kept_without_an_answer(served, upstreams):
    upstreams.says["small"] = slow("A", 60)
    before = served.gateway.losses.get("my", (0, 0))
    response = served.chat("small hello", racer={"deadline_ms": 300})
    assert response.status == 504
    assert response.headers["x-racer-guarantee"] == "void"
    assert response.json["racer"]["void"] == ["the request has no answer"]
    assert served.gateway.losses["my"] == (before[0] + 1, before[1] + 1)


def test_an_upstream_that_repeats_its_key_tells_nobody(start, upstreams, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-very-secret")
    made = start(models__small__api_key="${A_KEY}")

    def repeat(_):
        sent = {name.lower(): value for name, value in upstreams.headers[-1].items()}
        said = f"bad key: {sent['authorization']}"
        return web.json_response({"error": {"message": said}}, status=400)

    upstreams.says["small"] = repeat
    message = made.chat("small hello").json["error"]["message"]
    assert message.endswith("bad key: Bearer [secret]")


_CONFIGURATION = """
models: {small: {base_url: "http://127.0.0.1:9/v1", %s}}
routes: {my: {artefact: my.racer}}
"""


def _refused(tmp_path, text, suffix=".yaml"):
    path = tmp_path / f"gateway{suffix}"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        load_settings(path)
    return str(refused.value)


@pytest.mark.parametrize(
    "value", ["[sk-very-secret]", "{a: sk-very-secret}", "12345678", "'${ODD}'"]
)
def test_what_is_in_the_place_of_a_secret_is_not_shown(tmp_path, monkeypatch, value):
    monkeypatch.setenv("ODD", "sk-very-secret\nx")
    said = _refused(tmp_path, _CONFIGURATION % f"api_key: {value}")
    assert "$.models.small.api_key" in said
    assert "very-secret" not in said
    assert "12345678" not in said


def test_an_empty_secret_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("EMPTY", " ")
    said = _refused(tmp_path, _CONFIGURATION % 'api_key: "${EMPTY}"')
    assert "${EMPTY} is empty" in said


def test_a_secret_may_end_with_a_line_and_lie_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "sk-1234\n")
    (tmp_path / "key.txt").write_text("sk-5678")
    path = tmp_path / "gateway.yaml"
    for reference, key in (("${A_KEY}", "sk-1234"), ("${file:key.txt}", "sk-5678")):
        path.write_text(_CONFIGURATION % f'api_key: "{reference}"')
        assert load_settings(path).models["small"].api_key.reveal() == key


def test_a_model_may_be_named_as_a_field(tmp_path):
    path = tmp_path / "gateway.yaml"
    path.write_text((_CONFIGURATION % "tries: 1").replace("small", "api_key"))
    assert list(load_settings(path).models) == ["api_key"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("routes: {}\nmodels: {}\nroutes: {}", "the name 'routes' comes twice"),
        ("models: {a: {tries: 1}, a: {tries: 2}}", "the name 'a' comes twice"),
        ("models: {true: {}}", "names that are text, got True: put it in quotes - at `$.models`"),
        ("models: &a {small: *a}", "nested so deeply"),
        ("[" * 3000, "nested so deeply"),
        ("server: {host: !!timestamp 2024-13-45}", "must be YAML: month must be in 1..12"),
        ("models: {a: }}", "expected <block end>, but found '}' (line 1, column 14)"),
        (_CONFIGURATION % "dollars_in: .inf", "at most 1000000000"),
        (_CONFIGURATION.replace("/v1", "/v 1") % "tries: 1", "must hold no white space"),
        (_CONFIGURATION.replace("127.0.0.1", "a..b") % "insecure: true", "https://host/v1: "),
    ],
)
def test_surprises_of_yaml_are_named(tmp_path, text, words):
    assert words in _refused(tmp_path, text)


def test_toml_may_begin_with_a_mark_and_is_not_nested_without_end(tmp_path):
    path = tmp_path / "gateway.toml"
    lines = '[models.small]\nbase_url = "http://127.0.0.1:9/v1"\n[routes.my]\nartefact = "a"\n'
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert list(load_settings(path).models) == ["small"]
    assert "nested so deeply" in _refused(tmp_path, f"a = {'[' * 5000}", ".toml")


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_client_that_does_not_read_is_let_go(served, upstreams, monkeypatch, has_begun):
    """Its request would count as under way for ever, and shut others out."""
    monkeypatch.setattr(_chat, "_LAST_WORDS_SECONDS", 0.05)
    parts = [b"data: {}\n\n" for _ in range(3)]
    upstreams.says["small"] = parts if has_begun else slow("late", 1.0)
    aborted = []

    class Connection:
        is_lost, on_leave = False, None
        transport = SimpleNamespace(abort=lambda: aborted.append(True))

    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def ask():
        body = (_ASK % ',"stream":true,"racer":{"deadline_ms":50}').encode()
        head = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        path = "/v1/chat/completions"
        scope = {"type": "http", "method": "POST", "path": path, "headers": head}
        scope[CONNECTION] = Connection()

        async def receive():
            return {"type": "http.request", "body": body}

        await asyncio.wait_for(served.app(scope, receive, send), 10)

    served.run(ask())
    assert aborted == [True]
    assert served.gateway.in_flight == 0


def test_a_request_that_offers_another_protocol_keeps_its_body(served):
    """The client of Java offers HTTP/2 in every request."""
    body = (_ASK % "").encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nUpgrade: h2c\r\n"
        b"connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAE\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    )

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        await asyncio.sleep(0.05)
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(12), 10)
        writer.close()
        return answer

    with listens(served, header_seconds=30) as port:
        assert served.run(ask(port)) == b"HTTP/1.1 200"


def test_a_fault_while_artefacts_are_read_again_ends_nothing(caplog):
    async def reload():
        raise KeyError("odd")

    assert asyncio.run(_server._reloaded(SimpleNamespace(ready=True, reload=reload)))
    assert "the artefact in use stays" in caplog.text
    caplog.clear()
    assert asyncio.run(_server._reloaded(SimpleNamespace(ready=False, reload=reload)))
    assert caplog.text == ""


def test_labels_of_no_model_keep_no_others_out(served):
    name = served.chat("small hello").json["id"]
    response = served.ask("POST", "/v1/feedback", {"id": name, "correct": {}})
    assert response.status == 400
    assert "correct must say 0 or 1 of models" in response.json["error"]["message"]
    said = {"id": name, "correct": {"small": 1}}
    assert served.ask("POST", "/v1/feedback", said).json["new"]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ({"missed": 1, "correct": {"small": 0, "large": 1}}, "correct says that large was"),
        (
            {"missed": 0, "correct": {"small": 1, "medium": 0, "large": 0}},
            "correct says that none was, though others were",
        ),
        ({"answer_correct": 1, "correct": {"large": 0}}, "correct says 0 of it"),
        ({"answer_correct": 0, "correct": {"large": 1}}, "correct says 1 of it"),
        ({"answer_correct": 1, "missed": 1}, "large was, which is one of the set"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(served, label, words):
    name = served.chat("large hello").json["id"]
    response = served.ask("POST", "/v1/feedback", {"id": name, **label})
    assert response.status == 400
    assert words in response.json["error"]["message"]
    said = {"id": name, "missed": 0, "answer_correct": 1, "correct": {"large": 1}}
    assert served.ask("POST", "/v1/feedback", said).json["new"]  # the first one took no place


def test_a_label_without_a_right_model_may_be_no_miss(served):
    name = served.chat("large hello").json["id"]
    label = {"id": name, "missed": 0, "correct": dict.fromkeys(("small", "medium", "large"), 0)}
    assert served.ask("POST", "/v1/feedback", label).json["new"]  # the null mode says so


@pytest.fixture(scope="module")
def all_audited(start):
    return start(audit__share=1.0)


def test_a_label_of_an_audit_with_gaps_keeps_no_whole_one_out(all_audited):
    name = all_audited.chat("large hello").json["id"]
    some = [{"id": name, "correct": {"small": 0, "large": 1}}]
    (said,) = all_audited.admin("POST", "/audit", some).json["labels"]
    assert "every model of an audited request: medium is missing" in str(said["error"])
    whole = [{"id": name, "correct": {"small": 0, "medium": 0, "large": 1}}]
    assert all_audited.admin("POST", "/audit", whole).json["labels"] == [{"id": name, "new": True}]


def test_a_group_that_the_artefact_does_not_have_is_refused(start, artefacts, tmp_path, run):
    where = r"at `\$.routes.my.group`"
    with pytest.raises(DataError, match=rf"has the groups a, b: .* got 'maths' - {where}"):
        start(routes__my__group="maths")
    Racer.load(artefacts / "my.racer").recalibrate(by_group=False).save(tmp_path / "one.racer")
    alone = {"artefact": str(tmp_path / "one.racer"), "form": "letter"}
    with pytest.raises(DataError, match=rf"has no groups: .* left out, got 'a' - {where}"):
        start(routes={"my": {**alone, "group": "a"}})
    gateway = start(routes={"my": alone}).gateway
    gateway.settings.routes["my"] = msgspec.structs.replace(
        gateway.settings.routes["my"], group="a"
    )
    with pytest.raises(DataError, match=where):  # as with an artefact that lost its groups
        run(gateway.reload())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"experiments__ab": {"arms": {"my": 1.0, "other": float("inf")}}},
            r"must be a finite number, at most 1000000000.0, got inf - at `\$.experiments.ab.arms.other`",
        ),
        (
            {"experiments__ab": {"arms": {"my": float("nan"), "other": 1.0}}},
            r"must be a finite number, .*got nan - at `\$.experiments.ab.arms.my`",
        ),
        (
            {"experiments__ab": {"arms": {"my": 1.0, "other": -1.0}}},
            r"must be a number, above 0.0, got -1.0 - at `\$.experiments.ab.arms.other`",
        ),
        ({"routes__my__alphas": ["0.2", "1.5"]}, r"1.5.* - at `\$.routes.my.alphas\[1\]`"),
        ({"routes__my__alphas": ["nan"]}, r"nan.* - at `\$.routes.my.alphas\[0\]`"),
        (
            {"keys__me": {"prefix": "abcdefgh", "sha256": "0" * 64, "alphas": ["much"]}},
            r"much.* - at `\$.keys.me.alphas\[0\]`",
        ),
    ],
)
def test_numbers_of_a_configuration_are_named(upstreams, artefacts, changes, words):
    with pytest.raises(ValueError, match=words):
        settings_from(plain_settings(upstreams, artefacts, **changes))


_IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]


@pytest.mark.parametrize("content", ["", " \n", [], None, [{"type": "text", "text": ""}]])
def test_what_holds_no_text_is_not_routed(served, upstreams, content):
    messages = [{"role": "user", "content": content}]
    response = served.chat(messages=messages)
    assert response.status == 400
    assert "must hold a text of the user to route" in response.json["error"]["message"]
    assert upstreams.asked == []
    inputs = [{"messages": messages, "group": "a"}]
    response = served.ask("POST", "/v1/racer/route", {"inputs": inputs})
    assert response.status == 400
    assert "inputs[0] must hold text" in response.json["error"]["message"]


@pytest.mark.parametrize("kind", ["file", "input_file", "video_url", "document", "of_next_year"])
def test_what_is_neither_text_nor_seen_is_no_plain_text(served, upstreams, start, kind):
    """The scores know nothing of it, and most models cannot read it."""
    content = [{"type": "text", "text": "large ?"}, {"type": kind, kind: {"data": "AA=="}}]
    messages = [{"role": "user", "content": content}]
    refused = served.chat(messages=messages)
    assert (refused.status, refused.json["error"]["type"]) == (400, "racer_capabilities")
    assert refused.json["error"]["message"].endswith("what the request needs: files")
    able = start(**{f"models__{name}__capabilities": ["files"] for name in MODELS})
    upstreams.reset()
    racer = able.chat(messages=messages, racer={"mode": "all"}).json["racer"]
    assert (racer["group"], racer["reason"]) == ("modality", "unknown_group")
    assert sorted(upstreams.models) == sorted(MODELS)
    assert upstreams.asked[0]["messages"][0]["content"] == content


def test_parts_of_other_messages_and_without_a_type_are_text(served):
    thought = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "A"}]
    messages = [
        {"role": "user", "content": "large ?"},
        {"role": "assistant", "content": thought},
        {"role": "user", "content": [{"text": "large ?"}]},
    ]
    got = served.chat(messages=messages)
    assert got.status == 200
    assert got.json["racer"]["group"] != "modality"


def test_an_image_alone_is_for_all_models_or_without_a_promise(start, upstreams, artefacts):
    model = {"base_url": upstreams.url, "tries": 1, "capabilities": ["images"]}
    models = {name: model for name in ("small", "medium", "large", "judge")}
    gateway = start(models=models, scripted=False)
    messages = [{"role": "user", "content": _IMAGE}]
    racer = gateway.chat(messages=messages, racer={"mode": "all"}).json["racer"]
    assert (racer["group"], racer["reason"]) == ("modality", "unknown_group")
    assert sorted(racer["set"]) == ["large", "medium", "small"]
    assert racer["guarantee"] == "holds"  # all are called, whatever the scores are
    planner = gateway.gateway.planners["my"]
    planner.group = lambda query: ("a", False)  # as if images had been calibrated on
    racer = gateway.chat(messages=messages, racer={"mode": "all"}).json["racer"]
    assert racer["guarantee"] == "void"
    assert "there is no text to route" in racer["void"][0]


def test_two_gateways_cannot_open_the_same_port():
    first = _server.listening("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(OSError, match=f"Address already in use: 127.0.0.1:{port}"):
        _server.listening("127.0.0.1", port)
    first.close()
