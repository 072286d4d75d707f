"""Confidence from an endpoint.

A small fake server on loopback that can do everything a server does wrong.
"""

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from racer_jax.data import RoutingTable
from racer_jax.serving import confidence
from racer_jax.serving.confidence import ask, elicit, parse_binary, probability_of_true
from racer_jax.serving.endpoint import Endpoint, EndpointError

pytest.importorskip("openai")

QUESTIONS = ["Is water wet?", "Two plus two?"]
TABLE = RoutingTable(
    ids=["q1", "q2"],
    texts=QUESTIONS,
    models=["a", "b", "c"],
    correct=[[1, 1, 0], [0, 1, 0]],
    answers=[["yes", "yes", "no"], [None, "4", "5"]],
)
SURE = {"yes", "4"}


def chat(content, logprobs=None):
    message = {"role": "assistant"} | ({} if content is ... else {"content": content})
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    return (
        200,
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]},
        {},
    )


def tokens(*positions):
    content = [
        {
            "token": top[0][0],
            "logprob": top[0][1],
            "top_logprobs": [{"token": t, "logprob": p} for t, p in top],
        }
        for top in positions
    ]
    return {"content": content}


def answer_of(request):
    return request["messages"][0]["content"].split("Proposed answer:\n")[1].split("\n")[0]


def good(request):
    """A capable evaluator: sure of the right answers."""
    sure = answer_of(request) in SURE
    if not request.get("logprobs"):
        return chat("1" if sure else "0")
    likely, unlikely = ("True", "False") if sure else ("False", "True")
    return chat(likely, tokens([(likely, math.log(0.9)), (unlikely, math.log(0.1))]))


def busy(request):
    return 429, {"error": {"message": "slow down"}}, {"retry-after-ms": "5"}


def broken(request):
    return 500, {"error": {"message": "out of memory"}}, {"retry-after-ms": "5"}


class FakeServer:
    """Answers each request by `behave(request)`; keeps the requests it got."""

    def __init__(self):
        self.requests, self.behave, self.pause = [], good, 0.0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(request)
                time.sleep(server.pause)
                status, body, headers = server.behave(request)
                payload = json.dumps(body).encode()
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def endpoint(self, **options):
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return Endpoint(
            model="judge",
            base_url=url,
            **{"timeout": 5.0, "max_retries": 1, "num_workers": 2, **options},
        )

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server():
    fake = FakeServer()
    yield fake
    fake.close()


def sequence(*behaviours):
    """The first request meets the first behaviour, and so on; the last one stays."""
    left = list(behaviours)
    return lambda request: (left.pop(0) if len(left) > 1 else left[0])(request)


# --- the good path ---


def test_both_schemes_rate_every_distinct_answer_once(server):
    rated = elicit(TABLE, server.endpoint())
    np.testing.assert_allclose(rated.confidence["p_true"], [[0.9, 0.9, 0.1], [np.nan, 0.9, 0.1]])
    np.testing.assert_array_equal(rated.confidence["verbal"], [[1, 1, 0], [np.nan, 1, 0]])
    assert len(server.requests) == 8  # four distinct answers, two schemes
    assert rated.notes == (
        "p_true confidence of judge: 4 answers rated, 0 replies could not be read and count as 0",
        "verbal confidence of judge: 4 answers rated, 0 replies could not be read and count as 0",
    )
    requests = [request for request in server.requests if request.get("logprobs")]
    assert len(requests) == 4
    for request in server.requests:
        assert request["model"] == "judge"
        assert request["temperature"] == 0
        assert any(question in request["messages"][0]["content"] for question in QUESTIONS)


def test_a_reply_without_a_digit_counts_as_zero_and_is_noted(server):
    server.behave = lambda request: chat("I am quite sure.")
    rated = elicit(TABLE, server.endpoint(), ["verbal"])
    assert np.nansum(rated.confidence["verbal"]) == 0
    assert rated.notes == (
        "verbal confidence of judge: 4 answers rated, 4 replies could not be read and count as 0",
    )


def test_p_true_reads_the_first_position_that_names_an_option(server):
    server.behave = lambda request: chat(
        ' "True',
        tokens(
            [(' "', -0.1), ("A", -3.0)],
            [("True", math.log(0.3)), (" true", math.log(0.3)), ("False", math.log(0.2))],
        ),
    )
    with server.endpoint().client() as client:
        assert ask(client, "judge", "p_true", "q", "a").value == pytest.approx(0.75)
    server.behave = lambda request: chat("Maybe", tokens([("Maybe", -0.1)]))
    rated = elicit(TABLE, server.endpoint(), ["p_true"])
    assert np.nansum(rated.confidence["p_true"]) == 0
    assert "4 replies could not be read" in rated.notes[0]


# --- endpoints that lack something ---


@pytest.mark.parametrize("how", ["refused", "left out", "later"])
def test_without_logprobs_verbal_stands_in_and_the_table_says_so(server, how):
    def lacking(request):
        if not request.get("logprobs"):
            return good(request)
        return (
            (422, {"detail": "Unsupported fields: logprobs"}, {})
            if how == "refused"
            else chat("True")
        )

    server.behave = sequence(good, lacking) if how == "later" else lacking
    rated = elicit(TABLE, server.endpoint(), ["p_true"])
    assert set(rated.confidence) == {"verbal"}
    np.testing.assert_array_equal(rated.confidence["verbal"], [[1, 1, 0], [np.nan, 1, 0]])
    assert (
        "gives no log-probabilities, so there is no p_true; verbal confidence stands in its place"
        in rated.notes[0]
    )
    if how != "later":  # a single request tells
        assert sum(bool(request.get("logprobs")) for request in server.requests) == 1


def test_a_429_is_sent_again_after_the_pause_the_server_asks_for(server):
    server.behave = sequence(busy, busy, good)
    rated = elicit(TABLE, server.endpoint(max_retries=3, num_workers=1), ["verbal"])
    np.testing.assert_array_equal(rated.confidence["verbal"], [[1, 1, 0], [np.nan, 1, 0]])
    assert len(server.requests) == 6


def test_a_429_that_stays_names_the_query(server):
    server.behave = lambda request: (
        429,
        {"error": {"message": "slow down"}},
        {"retry-after-ms": "5"},
    )
    with pytest.raises(
        EndpointError,
        match=r"query 'q1', answer 'no': the endpoint answers with status 429.*slow down",
    ):
        elicit(TABLE, server.endpoint(), ["verbal"])


def test_a_timeout_is_named_with_its_seconds_and_tries(server):
    server.pause = 0.4
    with pytest.raises(
        EndpointError, match=r"query 'q1', answer 'no': no reply within 0.05 s, sent 2 times"
    ):
        elicit(TABLE, server.endpoint(timeout=0.05), ["verbal"])


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        (lambda request: chat(...), "holds no field 'choices\\[0\\].message.content'"),
        (lambda request: (200, {"id": "1"}, {}), "holds no field 'choices'"),
        (lambda request: (200, {"id": "1", "choices": []}, {}), "holds no field 'choices'"),
        (
            lambda request: (404, {"error": {"message": "no such model"}}, {}),
            "status 404: .*no such model",
        ),
        (lambda request: (401, {"error": {"message": "bad key"}}, {}), "status 401: .*bad key"),
    ],
)
def test_what_the_protocol_promises_and_is_not_there_is_named(server, behave, message):
    server.behave = behave
    with pytest.raises(EndpointError, match=message):
        elicit(TABLE, server.endpoint(), ["verbal"])


def test_no_server_at_all():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = Endpoint("judge", f"http://127.0.0.1:{port}/v1", max_retries=0)
    with pytest.raises(EndpointError, match="the endpoint cannot be reached"):
        elicit(TABLE, endpoint, ["verbal"])


# --- the record ---


def test_an_interrupted_run_goes_on_where_it_stopped(server, tmp_path):
    record = tmp_path / "deep" / "judge.jsonl"
    server.behave = sequence(good, good, broken)
    with pytest.raises(EndpointError, match="out of memory"):
        elicit(TABLE, server.endpoint(num_workers=1), ["verbal"], record=record)
    assert len(record.read_text().splitlines()) == 2
    with record.open("a") as file:
        file.write('{"key": "torn')  # killed while it wrote
    server.behave, server.requests = good, []
    rated = elicit(TABLE, server.endpoint(), ["verbal"], record=record)
    assert len(server.requests) == 2
    np.testing.assert_array_equal(rated.confidence["verbal"], [[1, 1, 0], [np.nan, 1, 0]])
    server.requests = []
    again = elicit(TABLE, server.endpoint(), ["verbal"], record=record)
    assert server.requests == []
    np.testing.assert_array_equal(again.confidence["verbal"], rated.confidence["verbal"])
    entry = json.loads(record.read_text().splitlines()[0])
    assert entry["evaluator"] == "judge"
    assert {"query", "answer", "scheme", "value", "reply", "source"} <= set(entry)


def test_another_evaluator_is_asked_anew(server, tmp_path):
    record = tmp_path / "judge.jsonl"
    elicit(TABLE, server.endpoint(), ["verbal"], record=record)
    other = Endpoint("other", server.endpoint().base_url)
    elicit(TABLE, other, ["verbal"], record=record)
    assert len(server.requests) == 8


# --- the pieces, and misuse ---


@pytest.mark.parametrize(
    ("reply", "value"),
    [("1", 1), (" 0\n", 0), ("Confidence: 1.", 1), ("It is 0, I think", 0), ("0.9", None), ("10", None), ("-1", None),
     ("", None), ("yes", None), ("11 or 1", 1)],
)  # fmt: skip
def test_binary_replies(reply, value):
    assert parse_binary(reply) == value


def test_probability_of_true_is_a_softmax_over_the_two_options():
    rng = np.random.default_rng(0)
    for a, b in rng.normal(-2, 2, (20, 2)):
        expected = np.exp(a) / (np.exp(a) + np.exp(b))
        assert probability_of_true([("True", a), ("x", 0.0), ("false", b)]) == pytest.approx(
            expected
        )
    assert probability_of_true([("True", -1.0)]) == 1
    assert probability_of_true([(" False.", -1.0)]) == 0
    assert probability_of_true([("Yes", -1.0)]) is None
    assert probability_of_true([]) is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Endpoint("m", timeout=0), ValueError, "timeout must be positive"),
        (lambda: Endpoint("m", max_retries=-1), ValueError, "max_retries must be at least 0"),
        (lambda: Endpoint("m", num_workers=0), ValueError, "num_workers must be at least 1"),
        (lambda: elicit(TABLE, Endpoint("m"), ["loud"]), ValueError, "schemes must be among"),
        (lambda: elicit(TABLE, Endpoint("m"), []), ValueError, "schemes must name at least one"),
        (lambda: ask(None, "m", "loud", "q", "a"), ValueError, "scheme must be one of"),
        (
            lambda: elicit(
                RoutingTable(ids=["a"], texts=["?"], models=["m"], correct=[[1]]), Endpoint("m")
            ),
            ValueError,
            "table must have answers",
        ),
    ],
)
def test_misuse_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_a_key_openai_itself_cannot_be_asked(monkeypatch):
    for name in [n for n in os.environ if n.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    with pytest.raises(EndpointError, match="the endpoint cannot be used"):
        Endpoint("m").client()


def test_without_the_client_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[endpoint\]'"):
        Endpoint("m", "http://127.0.0.1:1/v1").client()


# --- a real server ---


def tiny_checkpoint(folder: Path) -> None:
    """A random Llama of a few thousand parameters with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture
def served(tmp_path):
    """An endpoint of `transformers serve` with the tiny checkpoint; down again after the test."""
    with transformers_serve(tmp_path) as (name, url):
        yield Endpoint(name, url, timeout=120, num_workers=1)


@contextlib.contextmanager
def transformers_serve(tmp_path):
    """`transformers serve` with the tiny checkpoint, on loopback: the model's name, the address."""
    program = Path(sys.executable).with_name("transformers")
    for module in ("fastapi", "uvicorn", "openai", "torch"):
        pytest.importorskip(module, reason="transformers serve needs pip install -e '.[serving]'")
    if not program.exists():
        pytest.skip(f"transformers serve is not installed beside {sys.executable}")
    folder, log = tmp_path / "tiny", tmp_path / "log"
    make = (
        "import sys, pathlib, tests.serving.test_confidence as t; "
        "t.tiny_checkpoint(pathlib.Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    # In a process of its own: torch's warnings are not this run's errors.
    subprocess.run(
        [sys.executable, "-c", make, str(folder)],
        check=True,
        capture_output=True,
        cwd=root,
        timeout=180,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        program,
        "serve",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env=offline)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, log)
            yield str(folder), f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(timeout=20)


@pytest.mark.slow
def test_against_transformers_serve(served, tmp_path):
    rated = elicit(TABLE, served, record=tmp_path / "record.jsonl")
    # A random model says neither 0 nor 1 reliably, and this server gives no log-probabilities.
    assert set(rated.confidence) == {"verbal"}
    assert set(np.unique(rated.confidence["verbal"][~np.isnan(rated.confidence["verbal"])])) <= {
        0.0,
        1.0,
    }
    assert "no log-probabilities" in rated.notes[0]
    assert "4 answers rated" in rated.notes[1]
    assert np.isnan(rated.confidence["verbal"][1, 0])
    assert len((tmp_path / "record.jsonl").read_text().splitlines()) == 4


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    """Until the server is up; fails with its log if it ends or takes three minutes."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def test_prompts_show_question_and_answer():
    for scheme in confidence.SCHEMES:
        prompt = confidence.PROMPTS[scheme].format(question="Q?", answer="A!")
        assert "Q?" in prompt
        assert "A!" in prompt
