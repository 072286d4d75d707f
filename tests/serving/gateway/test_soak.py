"""Many requests over upstreams that fail, hang and die: each has an answer or a typed reason."""

import asyncio
import os
import resource
import shutil

import numpy as np
import pytest
from aiohttp import web

from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._batcher import Batcher
from tests.racer.test_racer import MODELS, table_of
from tests.serving.gateway.test_state import settled
from tests.serving.gateway.upstreams import call

REASONS = {"ok", "abstain", "degraded", "infeasible", "unknown_group"}


def soak(gateway, upstreams, artefacts, path, num):
    """Sends so many requests; returns what became of them and the memory in kB on the way."""
    rng = np.random.default_rng(0)
    table = table_of(rng, 200, start=5000).table
    dead = set()

    def model(name):
        async def answer(body):
            draw = rng.random()
            if name in dead or draw < 0.05:
                return web.json_response({"error": {"message": "no"}}, status=500)
            if draw < 0.06:
                await asyncio.sleep(5)
            return "A"

        return answer

    upstreams.reset()
    upstreams.says.update({name: model(name) for name in MODELS})
    outcomes, memory = [], []
    numbers = iter(range(num))

    async def client():
        for i in numbers:
            row = i % len(table)
            messages = [{"role": "user", "content": table.texts[row]}]
            options = {"group": table.group[row]}
            body = {"model": "racer/my", "messages": messages, "racer": options}
            got = await call(gateway.app, "POST", "/v1/chat/completions", body)
            outcomes.append(short(row, got))
            upstreams.asked.clear()
            upstreams.headers.clear()
            if i == num // 4:
                dead.add(MODELS[0])
            if i == num // 2:
                dead.clear()
            if i in (num // 3, 2 * num // 3):
                source = "other" if i == num // 3 else "my"
                shutil.rmtree(path)
                shutil.copytree(artefacts / f"{source}.racer", path)
                await gateway.gateway.reload()
            if i % (num // 8) == 0:
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    async def all_clients():
        await asyncio.gather(*(client() for _ in range(32)))

    gateway.run(all_clients())
    settled(gateway)
    return table, outcomes, memory


def short(row, got):
    """What is checked of a response, in little memory."""
    if got.status != 200:
        return row, got.status, got.json["error"]["code"], None, None
    racer = got.json["racer"]
    assert racer["guarantee"] == ("void" if racer.get("void") else "holds")
    places = sum(1 << MODELS.index(name) for name in racer["set"])
    return row, 200, racer["reason"], racer["guarantee"] == "holds", places


def check(table, outcomes, num):
    assert len(outcomes) == num
    right = miss = 0
    for row, status, reason, holds, places in outcomes:
        if status != 200:
            assert (status, reason) == (502, "racer_upstream")
            continue
        assert reason in REASONS
        if holds:
            correct = table.correct[row].tolist()
            covered = any(is_right for j, is_right in enumerate(correct) if places >> j & 1)
            right, miss = right + 1, miss + (any(correct) and not covered)
    assert right > num / 2
    return miss / right


@pytest.fixture
def soaked(start, artefacts, tmp_path):
    path = tmp_path / "used.racer"
    shutil.copytree(artefacts / "my.racer", path)
    changes = {f"models__{name}__first_seconds": 0.5 for name in MODELS}
    changes |= {f"models__{name}__tries": 2 for name in MODELS}
    changes |= {f"models__{name}__breaker_seconds": 0.5 for name in MODELS}
    gateway = start(scripted=False, routes__my__artefact=str(path), **changes)
    return gateway, path


@pytest.mark.long
def test_a_short_soak(soaked, upstreams, artefacts):
    gateway, path = soaked
    table, outcomes, _ = soak(gateway, upstreams, artefacts, path, 400)
    # Risk at most alpha = 0.3; 200 questions, so chance adds up to some 0.1.
    assert check(table, outcomes, 400) < 0.3 + 0.1
    assert gateway.gateway.in_flight == 0
    assert isinstance(gateway.gateway.batcher, Batcher)
    assert Racer.load(path).alpha == "0.3"


@pytest.mark.slow
def test_a_long_soak(soaked, upstreams, artefacts):
    gateway, path = soaked
    num = int(os.environ.get("RACER_SOAK_REQUESTS", "200000"))
    table, outcomes, memory = soak(gateway, upstreams, artefacts, path, num)
    assert check(table, outcomes, num) < 0.3 + 0.1
    assert memory[-1] - memory[1] < 150_000  # kB, of which the outcomes take half
