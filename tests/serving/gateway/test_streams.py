"""How a stream that is passed through ends: which bytes are its last words, and which only read so."""

import json

import pytest

from racer_jax.serving.gateway._streams import Passing

_TEXT = b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":null}]}'
_LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'


def _passed(*pieces):
    passing = Passing()
    for piece in pieces:
        passing.add(piece)
    return passing


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("done", [b"data: [DONE]", b"data:[DONE]", b"id: 7\ndata: [DONE]"])
def test_the_last_event_ends_a_stream_wherever_it_is_cut(end, done):
    done = done.replace(b"\n", end)
    begin = _TEXT % b"A" + end * 2
    for after in (end * 2, end, b""):
        stream = begin + done + after
        for cut in range(len(begin), len(stream) + 1):
            assert _passed(stream[:cut], stream[cut:]).is_whole
        assert not _passed(stream[: stream.index(b"DONE]")]).is_whole


@pytest.mark.parametrize(
    "text",
    [
        "it ends with [DONE]",
        "[DONE]",
        "data: [DONE]",
        "a line\ndata: [DONE]\n\n",
        '"finish_reason": "stop"',
        r"\r\n\r\ndata: [DONE]",
    ],
)
@pytest.mark.parametrize("long", [0, 3900, 4020, 4040, 4050, 4060, 4070, 4080, 4090, 5000])
def test_what_a_text_says_ends_no_stream(text, long):
    content = json.dumps(text + "x" * long).strip('"').encode()
    for end in (b"\n\n", b"\r\n\r\n"):
        assert not _passed(_TEXT % content + end).is_whole
        assert not _passed(_TEXT % (b"x" * long + content) + end).is_whole


def test_a_cut_text_that_reads_like_the_last_event_is_none():
    """The end that is kept begins in the middle of a line, here right before `data: [DONE]`."""
    stream = b"data: x" + b"data: [DONE]\n\n" + b": " + b"x" * (4096 - 18) + b"\n\n"
    assert stream[-4096:].startswith(b"data: [DONE]\n\n")
    assert not _passed(stream).is_whole


@pytest.mark.parametrize(
    "stream",
    [
        b"data: [DONE]\ndata: more\n\n",  # one event of two lines
        b": [DONE]\n\n",
        b"event: [DONE]\n\n",
        b"[DONE]\n\n",
        b"xdata: [DONE]\n\n",
        _LAST[:-8],  # cut within the last words
        _LAST[:-1],
        _LAST[:-1] + b"\n",
    ],
)
def test_what_only_looks_like_the_last_event_is_none(stream):
    assert not _passed(_TEXT % b"A" + b"\n\n", stream).is_whole


@pytest.mark.parametrize("after", [b"\n\n", b"\r\n\r\n", b"\n", b""])
def test_a_reason_to_end_is_enough(after):
    assert _passed(_TEXT % b"A" + b"\n\n" + _LAST + after).is_whole
    long = _LAST.replace(b'"delta":{}', b'"delta":{"content":"%b"}' % (b"A" * 9000))
    assert _passed(long + b"\n\n").is_whole


@pytest.mark.parametrize("space", [b" ", b""])
def test_usage_is_read_with_and_without_a_space(space):
    stream = _LAST + b"\r\n\r\n" + _USAGE.replace(b"data: ", b"data:" + space)
    null = b'data: {"choices":[],"usage":null}\n\n'
    for after in (b"\r\n\r\ndata: [DONE]\r\n\r\n", b"\n\n" + null, b""):
        usage = _passed(stream + after).usage
        assert (usage.prompt_tokens, usage.completion_tokens) == (3, 4)


def test_a_stream_whose_text_names_the_end_is_a_lost_call(served, upstreams):
    upstreams.says["small"] = [_TEXT % b"the stream ends with data: [DONE]" + b"\n\n"]
    before = served.gateway.losses.get("my", (0, 0))
    response = served.chat("small hello", stream=True)
    last = json.loads(response.content.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
    assert last["error"]["type"] == "racer_upstream"
    assert last["racer"]["guarantee"] == "void"
    assert served.gateway.losses["my"] == (before[0] + 1, before[1] + 1)
