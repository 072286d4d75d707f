"""A gateway on invented models, whose sets a test chooses by the text of the question."""

import asyncio
from types import SimpleNamespace

import jax
import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("aiohttp")

from racer_jax.encoders import HashedNgrams, ReducedEncoder
from racer_jax.racer.decision import Decision, Reason
from racer_jax.racer.racer import Racer
from racer_jax.routers import KNNConfig
from racer_jax.serving.gateway import Gateway, inference_app, management_app, settings_from
from racer_jax.serving.gateway._batcher import Routed
from tests.racer.test_racer import MODELS, table_of
from tests.serving.gateway.upstreams import Upstreams, call

P = "inverse_probability"  # whose sets suit a vote
SCORES = dict(zip(MODELS, (0.25, 0.5, 0.75), strict=True))


@pytest.fixture(scope="session")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def run(loop):
    """Runs a coroutine in the one loop of all gateway tests."""
    return loop.run_until_complete


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory):
    """An artefact with groups a and b, and another calibration of it."""
    folder = tmp_path_factory.mktemp("gateway")
    rng = np.random.default_rng(4)
    train, first, second = (table_of(rng, 80, start=s, cost=True) for s in (0, 500, 900))
    encoder = ReducedEncoder.fit(jax.random.key(0), train.table.texts, 8, HashedNgrams(dim=64))
    racer = Racer.fit(jax.random.key(1), train.table, KNNConfig(k=7), encoder, nonconformity=P)
    racer.save(folder / "bare.racer")
    racer.calibrate(first.table, 0.3).save(folder / "my.racer")
    racer.calibrate(second.table, 0.3).save(folder / "other.racer")
    racer.calibrate(first.table, 0.001).save(folder / "infeasible.racer")
    return folder


@pytest.fixture(scope="session")
def upstreams(run):
    fake = Upstreams()
    run(fake.start())
    yield fake
    run(fake.stop())


def decision_of(text, group=None, alpha="0.3"):
    """The decision that a text asks for: `small,large` are the models; `abstain`; `all`."""
    first = text.split()[0]
    reason = {"abstain": Reason.ABSTAIN, "all": Reason.INFEASIBLE, "unknown": Reason.UNKNOWN_GROUP}
    names = [] if first == "abstain" else first.split(",")
    if first in ("all", "unknown"):
        names = list(MODELS)
    ordered = sorted((n for n in names if n in MODELS), key=lambda n: -SCORES[n])
    margins = {name: (0.1 if name in ordered else -0.1) + SCORES[name] / 100 for name in MODELS}
    return Decision(
        tuple(ordered), SCORES, margins, 0.5, reason.get(first, Reason.OK), alpha, group, None
    )


class Scripted:
    """Takes decisions as the text says, in the place of the batcher."""

    def __init__(self, real):
        self.real, self.racers = real, []

    async def decide(self, racer, text, group):
        self.racers.append(racer)
        nonconformity = np.zeros(len(MODELS) + 1, np.float32)
        return Routed(decision_of(text, group, racer.alpha), False, nonconformity)

    def __getattr__(self, name):
        return getattr(self.real, name)


def plain_settings(upstreams, artefacts, **changes):
    """Settings of three models and a judge behind one server."""
    model = {"base_url": upstreams.url, "tries": 1, "dollars_in": 1.0, "dollars_out": 10.0}
    route = {
        "artefact": str(artefacts / "my.racer"),
        "form": "letter",
        "judge": "judge",
        "fallback": "large",
        "group": "a",
        "modes": ["vote", "select", "synthesize", "all"],
    }
    settings = {
        "models": {name: dict(model) for name in (*MODELS, "judge")},
        "routes": {"my": route},
        "state": {"path": ":memory:"},
        "server": {"heartbeat_seconds": 0.05},
    }
    for path, value in changes.items():
        place = settings
        *parents, last = path.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return settings


@pytest.fixture(scope="session")
def start(run, upstreams, artefacts):
    """Makes gateways; changes are paths such as `routes__my__max_models=2`."""
    made = []

    def make(scripted=True, **changes):
        gateway = Gateway(settings_from(plain_settings(upstreams, artefacts, **changes)), (1,))
        run(gateway.start())
        made.append(gateway)
        if scripted:
            for planner in gateway.planners.values():
                planner._batcher = Scripted(gateway.batcher)
        app, manage = inference_app(gateway), management_app(gateway)

        def chat(text="small hello", headers=None, gone_after=None, **body):
            messages = [{"role": "user", "content": text}]
            body = {"model": "racer/my", "messages": messages, **body}
            path = "/v1/chat/completions"
            return run(call(app, "POST", path, body, headers, gone_after))

        def ask(method, path, body=None, headers=None, raw=None):
            return run(call(app, method, path, body, headers, raw=raw))

        def admin(method, path, body=None, headers=None):
            return run(call(manage, method, path, body, headers))

        return SimpleNamespace(gateway=gateway, app=app, chat=chat, ask=ask, admin=admin, run=run)

    yield make
    for gateway in made:
        run(gateway.stop())


@pytest.fixture(autouse=True)
def as_new(request):
    """What the upstreams say and were asked in one test is forgotten before the next."""
    if "upstreams" in request.fixturenames:
        request.getfixturevalue("upstreams").reset()


@pytest.fixture(scope="session")
def plain_gateway(start):
    return start()


@pytest.fixture
def served(plain_gateway, upstreams):
    """The gateway that most tests share, with upstreams that say who they are."""
    upstreams.reset()
    for upstream in plain_gateway.gateway.upstreams.values():
        upstream.breaker.succeeded()
    return plain_gateway
