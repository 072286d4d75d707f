"""Endpoints that reply with anything at all."""

import json
import random
import time
import warnings
from pathlib import Path

from racer_jax.serving.confidence import ask
from racer_jax.serving.endpoint import Endpoint, EndpointError
from tests.attack.files import mutated
from tests.attack.tally import BEYOND, LOST, Tally
from tests.serving.test_endpoint import KEY, reply, started, token

STATUSES = (100, 200, 200, 200, 204, 301, 400, 401, 404, 418, 429, 500, 503, 599)
BODIES = [
    reply(),
    reply("0.5"),
    reply(f"{KEY} \x1b[31m"),
    token("True", "-0.1"),
    token("True", "NaN"),
    token("True", "1e999"),
    json.dumps({"error": {"message": f"Bearer {KEY}\n\x1b]0;a\x07", "type": "x"}}).encode(),
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"choices": [' + b"9" * 5000 + b"]}",
    b'{"choices": "\\ud800"}',
]


def replies(tally: Tally, rounds: int, folder: Path) -> None:
    """Bodies, statuses and headers at random, and lines that are no HTTP."""
    rng = random.Random(7)
    warnings.simplefilter("ignore")
    with started() as server:
        base = f"http://127.0.0.1:{server.server_port}/v1"
        client = Endpoint("m", base, KEY, timeout=2.0, max_retries=0).client()
        for number in range(150 * rounds):
            body = mutated(rng.choice(BODIES), rng) if number % 3 else rng.choice(BODIES)
            status = rng.choice(STATUSES)
            extra = rng.choice(
                [
                    {},
                    {"content_length": len(body) + rng.randint(-5, 5)},
                    {"content_encoding": rng.choice(["gzip", "br", "x", "identity"])},
                    {"location": "http://127.0.0.1:9/"},
                    {"content_type": rng.choice(["text/html", "application/json; charset=x", ""])},
                    {"retry_after": rng.choice(["-1", "1e99", "x"])},
                ]
            )
            raw = mutated(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", rng)

            def behave(handler, number=number, body=body, status=status, extra=extra, raw=raw):
                if number % 7 == 0:
                    handler.wfile.write(raw)
                    handler.close_connection = True
                else:
                    handler.say(body, status, **extra)

            server.behave = behave
            what = f"number {number}: {status} {extra} {body[:200]!r}"
            errors: list[EndpointError] = []
            start = time.monotonic()

            def call(errors=errors, number=number):
                try:
                    return ask(client, "m", ("verbal", "p_true")[number % 2], "Q", "A")
                except EndpointError as refused:
                    errors.append(refused)
                    raise

            judged = tally.attempt(call, EndpointError, what)
            shown = f"{judged} {[str(error) for error in errors]}"
            if KEY in shown or "\x1b" in shown:
                tally.problem(LOST, f"{what}: the key or a control character is shown: {shown}")
            if time.monotonic() - start > 30:
                tally.problem(BEYOND, f"{what}: {time.monotonic() - start:.0f} s")
        client.close()
