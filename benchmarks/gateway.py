"""What the gateway costs: requests per second of its CPU, time it adds, memory, time until ready.

    python benchmarks/gateway.py [--seconds 4] [--json results.json]

All on loopback, each part in a process of its own: upstreams that echo at once, the gateway
(`racer-jax serve` as a user starts it), and this program, which sends the requests. CPU seconds are
those of the gateway's process, so the figures hold on a machine that is busy with other things;
times do not. The time it adds is measured with upstreams that take 20 ms, as in the benchmarks of
other gateways: clients that wait for upstreams which answer at once do nothing but ask, so that
they measure the rate again (clients / rate) and not what a request costs. Where litellm is installed, its Router answers the same requests for comparison.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import numpy as np

MODELS = ("small", "medium", "large")
FLOORS = {"set of 1": 1800.0, "set of 3": 1000.0}
QUESTION = "Which gas do plants take in, and which number is it in the table below? Case {}."
_REPLY = json.dumps(
    {
        "id": "echo",
        "object": "chat.completion",
        "created": 0,
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "B"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21},
    }
).encode()
_DELAY = 0.02
_DELAYED = b'"take_a_while"'  # however it is spaced
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Echo(asyncio.Protocol):
    """Answers every request with the same completion, at once or after a while."""

    def connection_made(self, transport):
        """A client has come."""
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        """Answers the requests that are whole."""
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            lower = head.lower()
            start = lower.index(b"content-length:") + 15
            size = int(lower[start:].split(b"\r\n")[0])
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            if _DELAYED in rest[:size]:
                asyncio.get_running_loop().call_later(_DELAY, self.answer)
            else:
                self.answer()

    def answer(self):
        """Sends the completion."""
        self.transport.write(_HEAD % len(_REPLY) + _REPLY)


async def echo():
    """The upstreams; prints their port."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def artefacts(folder):
    """One that calls one model or a few, and one whose alpha takes all three."""
    import jax

    from racer_jax import Racer, RoutingTable

    rng = np.random.default_rng(0)
    words = np.array(
        [
            "plants",
            "gas",
            "table",
            "number",
            "case",
            "river",
            "poem",
            "verb",
            "atom",
            "tax",
            "king",
            "graph",
        ]
    )
    texts = [f"{' '.join(rng.choice(words, 12))} {i}?" for i in range(600)]
    correct = rng.random((600, 3)) < [0.5, 0.6, 0.7]
    table = RoutingTable(
        ids=[f"q{i}" for i in range(600)], texts=texts, models=MODELS, correct=correct
    )
    score = "inverse_probability"  # whose sets suit a vote
    racer = Racer.fit(jax.random.key(0), table.select(slice(0, 300)), "knn", nonconformity=score)
    calibration = table.select(slice(300, 600))
    racer.calibrate(calibration, 0.3).save(folder / "one.racer")
    racer.calibrate(calibration, 0.001).save(folder / "three.racer")


def configuration(folder, upstream):
    """The gateway's configuration."""
    models = "".join(
        f'[models.{name}]\nbase_url = "http://127.0.0.1:{upstream}/v1"\n' for name in MODELS
    )
    routes = (
        '[routes.one]\nartefact = "one.racer"\nform = "letter"\nmax_models = 1\n'
        '[routes.three]\nartefact = "three.racer"\nform = "letter"\nallow_infeasible = true\n'
    )
    state = '[state]\npath = "state.db"\n[server]\nport = 0\nadmin_port = 0\n'
    (folder / "gateway.toml").write_text(models + routes + state)
    return folder / "gateway.toml"


def cpu_seconds(pid):
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid):
    """Memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def load(url, model, clients, seconds, delayed=False):
    """Sends requests from so many clients; returns the seconds of each."""
    times = []
    end = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client(place):
            number = 0
            while time.monotonic() < end:
                number += 1
                text = QUESTION.format(f"{place}-{number}")
                body = {"model": model, "messages": [{"role": "user", "content": text}]}
                if delayed:  # a field that the gateway does not know: it goes through untouched
                    body["take_a_while"] = True
                began = time.perf_counter()
                async with session.post(url, json=body) as response:
                    content = await response.read()
                    if response.status != 200:
                        raise SystemExit(f"status {response.status}: {content[:500]!r}")
                times.append(time.perf_counter() - began)

        await asyncio.gather(*(client(place) for place in range(clients)))
    return np.array(times)


def milliseconds(times):
    return {f"p{q}_ms": round(float(np.percentile(times, q)) * 1e3, 2) for q in (50, 99)}


def measured(address, echo_url, pid, seconds):
    """Every figure of the gateway."""
    url = f"{address}/chat/completions"
    results = {}
    for name, model in (("set of 1", "racer/one"), ("set of 3", "racer/three")):
        asyncio.run(load(url, model, 8, 0.5))
        before = cpu_seconds(pid)
        times = asyncio.run(load(url, model, 32, seconds))
        used = cpu_seconds(pid) - before
        results[name] = {
            "requests_per_cpu_second": round(len(times) / used),
            "floor": FLOORS[name],
            "requests": len(times),
        }
        for clients in (1, 8, 32):
            part = seconds / 4
            direct = milliseconds(asyncio.run(load(echo_url, "echo", clients, part, True)))
            through = milliseconds(asyncio.run(load(url, model, clients, part, True)))
            results[name][f"added at {clients} clients"] = {
                quantile: round(through[quantile] - direct[quantile], 2) for quantile in through
            }
    results["memory_mb"] = round(memory(pid))
    return results


def litellm_router(echo_url, seconds):
    """The same requests, three calls each, through litellm's Router in this process."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    from litellm import Router

    base = echo_url.removesuffix("/chat/completions")
    names = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": base, "api_key": "none"},
        }
        for name in MODELS
    ]
    router = Router(model_list=names)

    async def run():
        num, end = 0, time.monotonic() + seconds

        async def client():
            nonlocal num
            while time.monotonic() < end:
                messages = [{"role": "user", "content": QUESTION.format(num)}]
                await asyncio.gather(
                    *(router.acompletion(model=name, messages=messages) for name in MODELS)
                )
                num += 1

        before = time.process_time()
        await asyncio.gather(*(client() for _ in range(32)))
        return num / (time.process_time() - before)

    return round(asyncio.run(run()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--echo", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.echo:
        asyncio.run(echo())
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artefacts(folder)
        upstream = subprocess.Popen(
            [sys.executable, __file__, "--echo"], stdout=subprocess.PIPE, text=True
        )
        port = int(upstream.stdout.readline())
        echo_url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = [sys.executable, "-m", "racer_jax", "serve", str(configuration(folder, port))]
        environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        try:
            for _ in range(2):  # the second start finds the code compiled
                began = time.monotonic()
                gateway = subprocess.Popen(
                    command, stdout=subprocess.PIPE, text=True, env=environment
                )
                address = gateway.stdout.readline().split()[1].rstrip(",")
                ready, ready_cpu = time.monotonic() - began, cpu_seconds(gateway.pid)
                if _ == 0:
                    gateway.terminate()
                    gateway.wait()
            results = {
                "ready_seconds": round(ready, 1),
                "ready_cpu_seconds": round(ready_cpu, 1),
                **measured(address, echo_url, gateway.pid, parsed.seconds),
            }
            if importlib.util.find_spec("litellm") is not None:
                results["litellm Router, 3 calls, requests_per_cpu_second"] = litellm_router(
                    echo_url, parsed.seconds
                )
        finally:
            for process in (gateway, upstream):
                process.terminate()
                process.wait()
    print(json.dumps(results, indent=1))
    if parsed.json:
        parsed.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
