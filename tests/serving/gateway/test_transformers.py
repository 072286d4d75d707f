"""A server that nobody here wrote as the upstream: `transformers serve` on a tiny checkpoint."""

import pytest

from tests.racer.test_racer import MODELS
from tests.serving.gateway.upstreams import events


@pytest.fixture
def real(start, tmp_path):
    confidence = pytest.importorskip("tests.serving.test_confidence")
    with confidence.transformers_serve(tmp_path) as (name, url):
        model = {"base_url": url, "name": name, "tries": 1}
        yield start(**{f"models__{one}": dict(model) for one in (*MODELS, "judge")})


@pytest.mark.slow
def test_transformers_serve_is_an_upstream(real):
    one = real.chat("small hello", max_tokens=4, temperature=0)
    assert one.status == 200, one.content
    assert isinstance(one.json["choices"][0]["message"]["content"], str)
    assert one.json["usage"]["completion_tokens"] in range(1, 5)
    assert one.json["racer"]["answered"] == ["small"]
    assert one.json["racer"]["guarantee"] == "holds"

    # Three calls of one checkpoint at temperature 0 say the same.
    three = real.chat("small,medium,large hello", max_tokens=4, racer={"mode": "all"})
    assert three.status == 200, three.content
    said = [choice["message"]["content"] for choice in three.json["choices"]]
    assert len(said) == 3
    vote = real.chat("small,medium,large hello", max_tokens=4, racer={"mode": "select"})
    assert vote.json["choices"][0]["message"]["content"] in said
    assert vote.json["racer"]["judge"] in ("one candidate", "picked", "failed")

    stream = real.chat("small hello", max_tokens=4, stream=True)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    chunks = [chunk for chunk in events(stream.content) if chunk != "[DONE]"]
    deltas = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    # Its stream leaves out a character that the last token has only begun.
    whole = one.json["choices"][0]["message"]["content"].rstrip("\ufffd")
    assert "".join(deltas).rstrip("\ufffd") == whole

    refused = real.chat("small hello", max_tokens="many")
    assert refused.status in (400, 422, 502)
    assert refused.json["error"]["code"] in ("upstream_refused", "racer_upstream")
