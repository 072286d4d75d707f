"""An endpoint that is no friend: its replies are bounded, and never show the key."""

import contextlib
import gzip
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("openai")

from racer_jax.serving import endpoint as endpoint_module
from racer_jax.serving.confidence import Judgement, _Record, ask
from racer_jax.serving.endpoint import Endpoint, EndpointError

KEY = "sk-SECRET-123456"


def reply(content="1", logprobs=None):
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    chat = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    return json.dumps({**chat, "choices": [choice]}).encode()


def token(name, value):
    top = [{"token": name, "logprob": "@", "bytes": None}]
    body = reply("True", {"content": [{**top[0], "top_logprobs": top}]})
    return body.replace(b'"@"', value.encode())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        try:
            self.server.behave(self)
        except OSError:
            return  # the client gave up

    def log_message(self, *_):
        pass

    def say(self, body, status=200, **headers):
        self.send_response(status)
        headers = {"content_type": "application/json", "content_length": len(body)} | headers
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def started():
    """A server that behaves as its attribute `behave` says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # clients that gave up
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def server():
    with started() as server:
        yield server


def asked(server, behave, scheme="verbal", timeout=5.0, key=KEY):
    server.behave = behave
    base = f"http://127.0.0.1:{server.server_port}/v1"
    client = Endpoint("m", base, key, timeout=timeout, max_retries=0).client()
    try:
        return ask(client, "m", scheme, "Q", "A")
    finally:
        client.close()


def refused(server, behave, scheme="verbal", timeout=5.0):
    with pytest.raises(EndpointError) as error:
        asked(server, behave, scheme, timeout)
    text = str(error.value)
    assert KEY not in text
    assert text.isprintable()
    assert len(text) < 500
    return text


def test_the_key_is_not_shown(server):
    assert KEY not in repr(Endpoint("m", None, KEY))
    echoed = json.dumps({"error": {"message": f"bad header Bearer {KEY}"}}).encode()
    assert "[key]" in refused(server, lambda h: h.say(echoed, 400))
    assert "status 401" in refused(server, lambda h: h.say(f"<html>{KEY}".encode(), 401))
    assert asked(server, lambda h: h.say(reply(f"1 {KEY}"))) == Judgement(1, "1 [key]", "verbal")


def test_control_characters_are_written_out(server):
    body = json.dumps({"error": {"message": "\x1b]0;owned\x07\x1b[31mred\nline"}}).encode()
    assert r"\x1b[31m" in refused(server, lambda h: h.say(body, 400))


def test_a_redirect_is_not_followed(server):
    text = refused(server, lambda h: h.say(b"", 307, location="http://127.0.0.1:9/elsewhere"))
    assert "status 307" in text


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{not json",
        b"[]",
        b"null",
        b"{}",
        b'{"choices":"abc"}',
        b'{"choices":5}',
        b'{"choices":[null]}',
        b'{"choices":[]}',
        b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        reply(5),
        reply([{"a": 1}]),
        reply(None),
    ],
)
def test_replies_that_are_none(server, body):
    assert refused(server, lambda h: h.say(body))


@pytest.mark.parametrize(
    "body",
    [
        *(token("True", value) for value in ("NaN", "Infinity", "1000", '"abc"', "null", "true")),
        token(None, "-1.0"),
        token(5, "-1.0"),
        reply("True", {"content": "abc"}),
        reply("True", {"content": [{"token": "True", "logprob": -1, "top_logprobs": 5}]}),
    ],
)
def test_log_probabilities_that_are_none(server, body):
    assert refused(server, lambda h: h.say(body), "p_true")


def test_impossible_is_a_probability(server):
    assert asked(server, lambda h: h.say(token("False", "-1.0")), "p_true").value == 0
    assert asked(server, lambda h: h.say(token("True", "-Infinity")), "p_true").value is None


def drip(handler, preamble, ended):
    handler.wfile.write(preamble)
    for _ in range(1200):
        handler.wfile.write(b"a: b\r\n")
        handler.wfile.flush()
        time.sleep(0.05)
    ended.append(True)


@pytest.mark.parametrize(
    "preamble", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_the_whole_exchange_has_a_time(server, preamble):
    """A byte now and then would keep it going for a minute."""
    ended = []
    text = refused(server, lambda h: drip(h, preamble, ended), timeout=0.3)
    assert "no reply within 0.3 s" in text
    assert not ended


def test_the_size_of_a_reply_is_bounded(server, monkeypatch):
    monkeypatch.setattr(endpoint_module, "MAX_REPLY_BYTES", 1 << 20)
    assert "more than 1 MiB" in refused(server, lambda h: h.say(b" " * (2 << 20)))
    bomb = gzip.compress(b" " * (2 << 20))
    assert "compressed" in refused(server, lambda h: h.say(bomb, content_encoding="gzip"))


@pytest.mark.parametrize(
    "line",
    [
        b'{"key": "k", "value": 5, "reply": "", "source": "x"}',
        b'{"key": "k", "value": "x", "reply": "", "source": "x"}',
        b'{"key": "k", "value": true, "reply": "", "source": "x"}',
        b'{"key": [], "value": 1, "reply": "", "source": ""}',
        b"[" * 100_000,
        b"5",
        b"\xff",
    ],
)
def test_a_record_that_was_changed_brings_nothing_into_a_table(tmp_path, line):
    good = b'{"key": "g", "value": 1, "reply": "1", "source": "verbal"}\n'
    (tmp_path / "r.jsonl").write_bytes(line + b"\n" + good)
    record = _Record(tmp_path / "r.jsonl", "m")
    assert record.lookup("k") is None
    assert record.lookup("g") == Judgement(1, "1", "verbal")
