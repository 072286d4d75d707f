"""Bytes that are no HTTP: an error that a client of OpenAI can read, and none within an answer."""

import asyncio
import json

import pytest

from tests.serving.gateway.test_security import listens, raw
from tests.serving.gateway.upstreams import slow

_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
)
_BODY = json.dumps(
    {
        "model": "racer/my",
        "stream": True,
        "messages": [{"role": "user", "content": "small,large ?"}],
    }
).encode()


@pytest.fixture
def port(served):
    with listens(served, header_seconds=30) as port:
        yield port


def _error(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"
    assert headers["x-racer-guarantee"] == "void"
    assert headers["x-racer-reason"] == "refused"
    assert headers["x-racer-id"].startswith("chatcmpl-")
    return lines[0], json.loads(body)["error"]


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",  # the first bytes of TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\n\r\n",
        _HEAD + b"content-length: many\r\n\r\n",
        _HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        _HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}",
    ],
)
def test_what_is_no_request_gets_an_error_object(served, port, sent):
    line, error = _error(served.run(raw(port, sent)))
    assert line == "HTTP/1.1 400 Bad Request"
    assert (error["type"], error["code"]) == ("invalid_request_error", "http")
    assert served.gateway.in_flight == 0


def test_too_long_headers_get_an_error_object(served, port):
    long = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 5000 + b"\r\n\r\n"
    line, error = _error(served.run(raw(port, long)))
    assert line == "HTTP/1.1 431 Request Header Fields Too Large"
    assert error["message"] == "the headers must be at most 2000 bytes"


def test_no_error_is_written_into_an_answer(served, port, upstreams):
    """What comes on a connection whose answer has begun may end it, not garble it."""

    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_HEAD + b"content-length: %d\r\n\r\n" % len(_BODY) + _BODY)
        begun = await asyncio.wait_for(reader.readuntil(b"waiting for"), 10)
        writer.write(b"hello\r\n\r\n")
        rest = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return begun + rest

    upstreams.says.update({name: slow("A", 1) for name in ("small", "large")})
    answer = served.run(ask())
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400" not in answer
