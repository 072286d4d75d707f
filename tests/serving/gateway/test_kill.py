"""A gateway that is killed under load: nothing that was acknowledged is lost or counted twice."""

import http.client
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._monitoring import Monitors
from racer_jax.serving.gateway._tables import opened
from racer_jax.serving.gateway.settings import Monitors as Settings

LOG = logging.getLogger(__name__)  # seen with --log-cli-level=INFO
CONFIG = """
[models.small]
base_url = "{url}"
[models.medium]
base_url = "{url}"
[models.large]
base_url = "{url}"
[routes.my]
artefact = "{artefact}"
form = "letter"
group = "a"
[state]
path = "{state}"
[audit]
share = 1.0
[server]
port = 0
admin_port = 0
"""
UPSTREAM = """
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.serving.gateway.upstreams import Upstreams
async def main():
    fake = Upstreams()
    await fake.start()
    print(fake.url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def post(port, path, body):
    """A response as JSON; None where the connection broke."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        text = json.dumps(body)
        connection.request("POST", path, text, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


class Seen:
    """What the clients saw.

    Attributes:
      labels: Labels that were acknowledged, by decision.
      answered: Answers.
      refused: Codes of the refusals.
      cut: Requests whose connection broke.
    """

    def __init__(self):
        self.labels, self.answered, self.refused, self.cut = {}, 0, set(), 0

    def note(self, reply):
        """Counts a reply; returns the body of an answer, None for anything else."""
        if reply is None:
            self.cut += 1
            return None
        status, body = reply
        if status == 200:
            self.answered += 1
            return body
        self.refused.add(body["error"]["code"])
        return None


def kill_under_load(config, seen, number):
    """Starts a gateway, sends requests and labels from four threads, kills it in the midst."""
    command = [sys.executable, "-m", "racer_jax", "serve", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    line = process.stdout.readline()
    port = int(line.split("127.0.0.1:")[1].split("/")[0])
    stop = threading.Event()

    def client(place):
        step = 0
        while not stop.is_set():
            step += 1
            text = f"sum prime {number} {place} {step}"
            body = {"model": "racer/my", "messages": [{"role": "user", "content": text}]}
            answer = seen.note(post(port, "/v1/chat/completions", body))
            if answer is None:
                continue
            label = {"small": step % 2, "medium": 0, "large": 1}
            entry = {"id": answer["id"], "correct": label, "source": "audit"}
            if seen.note(post(port, "/v1/feedback", entry)) is not None:
                seen.labels[entry["id"]] = label
                seen.note(post(port, "/v1/feedback", entry))  # again: it counts once

    threads = [threading.Thread(target=client, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    stop.wait(0.3 + 0.05 * (number % 10))
    process.send_signal(signal.SIGKILL)
    process.wait()
    stop.set()
    for thread in threads:
        thread.join()
    process.stdout.close()


def check_state(state, seen):
    """Nothing acknowledged is lost, double or torn, in the file that a kill left."""
    with closing(sqlite3.connect(state)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        rows = connection.execute("select decision, content from feedback").fetchall()
        orphans = connection.execute(
            "select count(*) from feedback where decision not in (select id from decision)"
        ).fetchone()
    stored = {name: json.loads(content)["correct"] for name, content in rows}
    assert len(stored) == len(rows)
    lost = {name for name, label in seen.labels.items() if stored.get(name) != label}
    assert lost == set()
    assert orphans == (0,)
    return len(rows)


def counted_labels(state, racer):
    """How many labels the monitors have counted, once the rows after the last save are folded."""
    with closing(opened(str(state))) as connection:
        monitors = Monitors(Settings(), b"key")
        monitors.load(connection)
        (artefact,) = connection.execute("select artefact from activation").fetchone()
        monitors.fold(connection)
        watched = monitors.of("my", artefact)
    return watched.labels["num"], watched.risk[racer.alpha].num


def kills(num, tmp_path, artefacts):
    """So many kills over one state; what it holds is checked after each."""
    root = str(Path(__file__).parents[3])
    upstream = subprocess.Popen(
        [sys.executable, "-c", UPSTREAM.format(root=root)], stdout=subprocess.PIPE, text=True
    )
    seen = Seen()
    try:
        url = upstream.stdout.readline().strip()
        config, state = tmp_path / "gateway.toml", tmp_path / "state.db"
        artefact = artefacts / "my.racer"
        config.write_text(CONFIG.format(url=url, artefact=artefact, state=state))
        for number in range(num):
            kill_under_load(config, seen, number)
            num_rows = check_state(state, seen)
            LOG.info("kill %d: %d labels in the state", number + 1, num_rows)
    finally:
        upstream.kill()
        upstream.wait()
        upstream.stdout.close()
    assert seen.labels
    assert seen.refused <= {"unknown_decision", "busy"}
    # Each question is another: each label counts once, however often it was sent and folded.
    assert counted_labels(state, Racer.load(artefact)) == (num_rows, num_rows)
    LOG.info(
        "%d kills: %d answers and acknowledgements, %d labels, %d connections cut, refused: %s",
        num,
        seen.answered,
        len(seen.labels),
        seen.cut,
        sorted(seen.refused),
    )


@pytest.mark.long
def test_a_few_kills_lose_nothing(tmp_path, artefacts):
    kills(2, tmp_path, artefacts)


@pytest.mark.slow
def test_200_kills_lose_nothing(tmp_path, artefacts):
    kills(int(os.environ.get("RACER_KILLS", "200")), tmp_path, artefacts)
