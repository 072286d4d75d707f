"""A gateway that is killed under load: nothing that was acknowledged is lost or counted twice."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

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


def kill_under_load(config, acknowledged, number):
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
            got = post(port, "/v1/chat/completions", body)
            if got is None or got[0] != 200:
                continue
            label = {"small": step % 2, "medium": 0, "large": 1}
            entry = {"id": got[1]["id"], "correct": label, "source": "audit"}
            said = post(port, "/v1/feedback", entry)
            if said is not None and said[0] == 200:
                acknowledged[entry["id"]] = label
                post(port, "/v1/feedback", entry)  # again: it counts once

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


def kills(num, tmp_path, artefacts):
    """So many kills over one state; then what it holds."""
    root = str(Path(__file__).parents[2])
    upstream = subprocess.Popen(
        [sys.executable, "-c", UPSTREAM.format(root=root)], stdout=subprocess.PIPE, text=True
    )
    acknowledged = {}
    try:
        url = upstream.stdout.readline().strip()
        config, state = tmp_path / "gateway.toml", tmp_path / "state.db"
        artefact = artefacts / "my.racer"
        config.write_text(CONFIG.format(url=url, artefact=artefact, state=state))
        for number in range(num):
            kill_under_load(config, acknowledged, number)
    finally:
        upstream.kill()
        upstream.wait()
        upstream.stdout.close()
    assert acknowledged
    connection = sqlite3.connect(state)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    rows = connection.execute("select decision, content from feedback").fetchall()
    stored = {name: json.loads(content)["correct"] for name, content in rows}
    assert len(stored) == len(rows)
    lost = {name for name, label in acknowledged.items() if stored.get(name) != label}
    assert lost == set()
    orphans = connection.execute(
        "select count(*) from feedback where decision not in (select id from decision)"
    ).fetchone()
    assert orphans == (0,)
    connection.close()


@pytest.mark.long
def test_a_few_kills_lose_nothing(tmp_path, artefacts):
    kills(2, tmp_path, artefacts)


@pytest.mark.slow
def test_200_kills_lose_nothing(tmp_path, artefacts):
    kills(int(os.environ.get("RACER_KILLS", "200")), tmp_path, artefacts)
