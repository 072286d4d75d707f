"""Many requests over upstreams that fail, hang and die: each has an answer or a typed reason."""

import asyncio
import gc
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from racer_jax._memory import give_back
from racer_jax.racer.racer import Racer
from racer_jax.serving.gateway._batcher import Batcher
from tests.racer.test_racer import MODELS, table_of
from tests.serving.gateway.test_state import settled
from tests.serving.gateway.upstreams import call

LOG = logging.getLogger(__name__)  # seen with --log-cli-level=INFO
REASONS = ("ok", "abstain", "degraded", "infeasible", "unknown_group")
# What is kept of each request: one number each, in memory that is there from the start.
OUTCOME = np.dtype(
    [("row", "i4"), ("status", "i2"), ("reason", "i1"), ("holds", "?"), ("places", "u1"),
     ("dead", "?")]
)  # fmt: skip
TYPED = -1  # in the place of a reason: an error with a code of its own


def memory_mb():
    """Memory of this process in MB, without what is garbage or free: a leak is neither."""
    gc.collect()
    give_back()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(gateway, upstreams, artefacts, path, num):
    """Sends so many requests; returns the questions, what became of them, and memory on the way."""
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
    outcomes, memory = np.zeros(num, OUTCOME), []
    numbers = iter(range(num))

    async def client():
        for i in numbers:
            row = i % len(table)
            messages = [{"role": "user", "content": table.texts[row]}]
            options = {"group": table.group[row]}
            body = {"model": "racer/my", "messages": messages, "racer": options}
            got = await call(gateway.app, "POST", "/v1/chat/completions", body)
            outcomes[i] = short(row, got, bool(dead))
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
            if i % (num // 20) == 0:
                memory.append(memory_mb())
                done, holds = outcomes[:i], outcomes["holds"][:i].sum()
                wrong = missed(table, done).sum()
                LOG.info("%d: %d misses of %d, %.0f MB", i, wrong, holds, memory[-1])

    async def all_clients():
        await asyncio.gather(*(client() for _ in range(32)))

    gateway.run(all_clients())
    settled(gateway)
    return table, outcomes, memory


def short(row, got, dead):
    """What is checked of a response, as one `OUTCOME`; the first model may be dead."""
    if got.status != 200:
        assert (got.status, got.json["error"]["code"]) == (502, "racer_upstream")
        return row, got.status, TYPED, False, 0, dead
    racer = got.json["racer"]
    assert racer["guarantee"] == ("void" if racer.get("void") else "holds")
    places = sum(1 << MODELS.index(name) for name in racer["set"])
    return row, 200, REASONS.index(racer["reason"]), racer["guarantee"] == "holds", places, dead


def missed(table, outcomes):
    """Whether each request has a right model, and none in its set; `[n]`, False where void.

    A model that is dead is not of the pool: the promise is that of the pool without it.
    """
    correct = table.correct[outcomes["row"]].copy()
    correct[outcomes["dead"], 0] = False
    in_set = outcomes["places"][:, None] >> np.arange(len(MODELS)) & 1
    return outcomes["holds"] & correct.any(1) & ~(correct & (in_set == 1)).any(1)


def risks(table, outcomes, num_parts):
    """The risk in each part of the traffic, of the requests whose promise holds."""
    assert (outcomes["status"] != 0).all()  # each was answered, or refused with a typed reason
    assert outcomes["holds"].sum() > len(outcomes) / 2
    parts = np.array_split(outcomes, num_parts)
    return [missed(table, part).sum() / part["holds"].sum() for part in parts]


@pytest.fixture
def soaked(start, artefacts, tmp_path):
    path = tmp_path / "used.racer"
    shutil.copytree(artefacts / "my.racer", path)
    changes = {f"models__{name}__first_seconds": 0.5 for name in MODELS}
    changes |= {f"models__{name}__tries": 2 for name in MODELS}
    changes |= {f"models__{name}__breaker_seconds": 0.5 for name in MODELS}
    changes["state__path"] = str(tmp_path / "state.db")  # in memory it would grow with the traffic
    gateway = start(scripted=False, routes__my__artefact=str(path), **changes)
    return gateway, path


@pytest.mark.long
def test_a_short_soak(soaked, upstreams, artefacts):
    gateway, path = soaked
    table, outcomes, _ = soak(gateway, upstreams, artefacts, path, 400)
    # Risk at most alpha = 0.3; 200 questions, so chance adds up to some 0.1.
    assert max(risks(table, outcomes, 2)) < 0.3 + 0.1
    assert gateway.gateway.in_flight == 0
    assert isinstance(gateway.gateway.batcher, Batcher)
    assert Racer.load(path).alpha == "0.3"


@pytest.mark.slow
def test_a_long_soak(soaked, upstreams, artefacts):
    gateway, path = soaked
    num = int(os.environ.get("RACER_SOAK_REQUESTS", "200000"))
    table, outcomes, memory = soak(gateway, upstreams, artefacts, path, num)
    by_part = risks(table, outcomes, 20)
    LOG.info("risk by part: %s", " ".join(f"{risk:.3f}" for risk in by_part))
    LOG.info("statuses: %s", np.unique(outcomes["status"], return_counts=True))
    assert max(by_part) < 0.3 + 0.1  # chance of 200 questions, as above
    # A reload compiles code, and the artefact before it is kept for a rollback. Nothing else grows,
    # whichever models are down together: a leak of 200 bytes a request would be 2 MB a part.
    steps = np.diff(memory)
    reloads = [part + late for part in (20 // 3, 40 // 3) for late in (0, 1)]
    others = np.delete(steps, [0, 1, *reloads])
    LOG.info("memory: %.0f to %.0f MB, steps %s", memory[2], memory[-1], steps.round(1).tolist())
    assert others.clip(0).sum() < 10  # MB
    assert steps[reloads].sum() < 80
