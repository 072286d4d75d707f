"""What the gateway costs: requests per second of its CPU, time it adds, memory, time until ready.

    python benchmarks/gateway.py [--seconds 4] [--rounds 3] [--json results.json] [--litellm PYTHON] [--beside PYTHON] [--no-pin]
                                 [--real-time]

All on loopback, each part in a process of its own: upstreams that echo, the gateway (`racer-jax
serve` as a user starts it), litellm's Router, and this program, which sends the requests. CPU
seconds are those of the process that serves, so the figures hold on a machine that is busy with
other things; times do not.

What a server adds is, request by request, its response time minus the time that the upstream takes
for this request (the same for all of its calls), less the median of the same for one call without a
server between, with as many clients. Upstreams take 10 to 30 ms, another time for each request.
Calls with and without the server take turns, and of the rounds the median counts.
"In step" has all of them take 20 ms: clients of such a test fall into step and ask together. What is
decided together takes less work, so the median is lower, and the last one waits for all the others;
real models never take exactly as long.

Clients run on uvloop where it is installed, so that little of what is measured is theirs. On Linux
with two cores or more the server is kept on the first one while it is measured, and clients and
upstreams on the others, as if the server had a machine of its own. With `--no-pin` they share the
cores, and take the server's caches from it between two requests.

A machine is hardly ever idle: where an agent of its provider wakes once a second and computes for
10 ms, one of a hundred requests waits for it. With `--real-time` all processes of the benchmark run
ahead of the others of the machine (Linux; root or CAP_SYS_NICE), so that the times are those of an
idle one; what its host takes away is still in them. A server that is busy all the time, as with 32
clients, then loses 50 ms of each second, which Linux keeps for the others.

Two rows say how much of this is the machine's and the packages' own. "No server between" are the
direct calls themselves, against their own median: how much later than it the slowest of them come.
"uvicorn and aiohttp alone" is a server of the gateway's packages that forwards each body and does
nothing else.

litellm's Router answers the same requests in the same run, by one call or by three, behind a small
server; where litellm is not installed a line says so. `--litellm` names the Python of an
environment that has it. `--beside` names the Python of an environment in which the gateway is
installed too: how the interpreter was built counts for up to a fifth of what the gateway takes.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from gateway_servers import MODELS, run
from harness import Counted, needs, turns

from racer_jax import reporting

SERVERS = Path(__file__).with_name("gateway_servers.py")
FLOORS = {"set of 1": 1800.0, "set of 3": 1000.0}
ADDED_FLOORS = {"p50_ms": 2.0, "p99_ms": 5.0}  # at most, at 8 clients on an idle machine
CLIENTS = (1, 8, 32)
DIRECT, BARE, OURS, LITELLM = (
    "no server between",
    "uvicorn and aiohttp alone",
    "racer-jax serve",
    "litellm Router",
)
ONE_CALL = "one call"  # of servers that decide nothing
WORDS = [
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
IN_STEP, SPREAD = (20.0, 20.0), (10.0, 30.0)  # ms that an upstream takes, from and to
# Clients, milliseconds that the upstream takes, and the share of the seconds, by column.
ADDED = {f"added at {n} client{'s' * (n > 1)}": (n, SPREAD, 1 / 2) for n in CLIENTS}
ADDED["added at 8 clients in step"] = (8, IN_STEP, 1 / 4)
# All that there are, before any process is kept on some of them: what is started later inherits
# where this one may run.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def question(rng, number):
    """A question like those that were calibrated on: another one each time."""
    return f"{' '.join(rng.choice(WORDS, 12))} {number}?"


def artefacts(folder):
    """One that calls one model or a few, and one whose alpha takes all three."""
    import jax

    from racer_jax import Racer, RoutingTable

    rng = np.random.default_rng(0)
    texts = [question(rng, i) for i in range(600)]
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


def keep_apart(servers, others):
    """Keeps servers on the first core, and this process and others off it, where that can be.

    Args:
      servers: Their processes.
      others: Further processes.
    """
    if len(CORES) < 2:
        return
    places = [(pid, CORES[:1]) for pid in servers]
    for process, its in (*places, *((other, CORES[1:]) for other in (os.getpid(), *others))):
        for task in os.listdir(f"/proc/{process}/task"):
            os.sched_setaffinity(int(task), its)


def memory(pid):
    """Memory of a process in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


async def load(url, model, clients, seconds, took=None):
    """Sends requests from so many clients.

    Args:
      url: Where to.
      model: What they ask for.
      clients: Requests under way at once.
      seconds: How long.
      took: Milliseconds that the upstream takes, from and to; None for no time at all.

    Returns:
      The seconds of each request, less those of its upstream.
    """
    import aiohttp

    rng, times = np.random.default_rng(clients), []
    end = time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def client(place):
            number = 0
            while time.monotonic() < end:
                number += 1
                text = question(rng, f"{place}-{number}")
                body = {"model": model, "messages": [{"role": "user", "content": text}]}
                upstream_ms = 0.0
                if took is not None:  # a field that no gateway knows: it goes through untouched
                    body["take_ms"] = upstream_ms = round(float(rng.uniform(*took)), 3)
                began = time.perf_counter()
                async with session.post(url, json=body) as response:
                    content = await response.read()
                    if response.status != 200:
                        raise SystemExit(f"status {response.status}: {content[:500]!r}")
                times.append(time.perf_counter() - began - upstream_ms / 1e3)

        await asyncio.gather(*(client(place) for place in range(clients)))
    return np.array(times)


@dataclass
class Served:
    """A server under test.

    Attributes:
      url: Its address.
      pid: Its process.
      names: The model that a client asks for, by size of the set.
      apart: Processes that are kept off its core; None to leave all where they are.
    """

    url: str
    pid: int
    names: dict
    apart: tuple | None = None


def above(rounds):
    """Quantiles of times in milliseconds, less the median of direct calls: medians over rounds.

    Args:
      rounds: Seconds of the requests of each round, and those of its direct calls.
    """
    added = [(times - np.median(direct)) * 1e3 for times, direct in rounds]
    quantiles = np.median([np.percentile(times, (50, 99)) for times in added], axis=0)
    return {f"p{q}_ms": round(float(ms), 2) for q, ms in zip((50, 99), quantiles, strict=True)}


def measured(served, echo_url, seconds, num_rounds):
    """Every figure of a server."""
    results = {}
    run_loop_first(served.pid)
    if served.apart is not None:
        keep_apart([served.pid], served.apart)
    for name, model in served.names.items():
        run(load(served.url, model, 8, 0.5))
        before = cpu_seconds(served.pid)
        times = run(load(served.url, model, 32, seconds))
        used = cpu_seconds(served.pid) - before
        figures = results[name] = {
            "requests_per_cpu_second": round(len(times) / used),
            "requests": len(times),
        }
        for column, (clients, took, share) in ADDED.items():
            rounds = []
            for _ in range(num_rounds):
                direct = run(load(echo_url, "echo", clients, seconds * share, took))
                through = run(load(served.url, model, clients, seconds * share, took))
                rounds.append((through, direct))
            figures[column] = above(rounds)
    results["memory_mb"] = round(memory(served.pid))
    return results


def direct_figures(echo_url, seconds, num_rounds, apart):
    """The times of calls without a server between, above their own median."""
    if apart is not None:
        keep_apart([], apart)
    run(load(echo_url, "echo", 8, 0.5))
    figures = {}
    for column, (clients, took, share) in ADDED.items():
        rounds = [
            run(load(echo_url, "echo", clients, seconds * share, took)) for _ in range(num_rounds)
        ]
        figures[column] = above([(times, times) for times in rounds])
    return {ONE_CALL: figures}


def started(command, environment=None):
    """A process, and the first line that it prints."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise SystemExit(f"{' '.join(map(str, command))} did not start")
    return process, line


def ended(process):
    process.terminate()
    process.wait()


def run_ahead():
    """Has this process, and all that it starts, run ahead of the others of the machine."""
    if not hasattr(os, "sched_setscheduler"):
        raise SystemExit("--real-time: this system cannot do it; Linux can")
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        raise SystemExit("--real-time needs root or the capability CAP_SYS_NICE") from None


def run_loop_first(pid):
    """Has the event loop of a server that runs ahead run before the server's other threads.

    The usual scheduler does so by itself: the loop sleeps more than they do.
    """
    if hasattr(os, "SCHED_RR") and os.sched_getscheduler(pid) == os.SCHED_RR:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(2))


def asked(python, code):
    """What a line of code prints under an interpreter."""
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout


def name_of(python):
    """An interpreter by its version and the folder that it is installed in."""
    code = "import platform, sys; print(platform.python_version(), 'of', sys.base_prefix)"
    return f"Python {asked(python, code).strip()}"


def gateway_figures(python, folder, port, echo_url, seconds, num_rounds, apart):
    """The figures of the gateway."""
    command = [python, "-m", "racer_jax", "serve", str(configuration(folder, port))]
    environment = {**os.environ, "RACER_JAX_CACHE": str(folder)}
    ended(started(command, environment)[0])  # the second start finds the code compiled
    began = time.monotonic()
    gateway, line = started(command, environment)
    ready, ready_cpu = time.monotonic() - began, cpu_seconds(gateway.pid)
    try:
        url = f"{line.split()[1].rstrip(',')}/chat/completions"
        names = {"set of 1": "racer/one", "set of 3": "racer/three"}
        served = Served(url, gateway.pid, names, apart)
        figures = measured(served, echo_url, seconds, num_rounds)
    finally:
        ended(gateway)
    ready_figures = {"ready_seconds": round(ready, 1), "ready_cpu_seconds": round(ready_cpu, 1)}
    return ready_figures | figures


def bare_figures(port, echo_url, seconds, num_rounds, apart):
    """The figures of a server that forwards and does nothing else."""
    server, line = started([sys.executable, str(SERVERS), "bare", f"http://127.0.0.1:{port}/v1"])
    try:
        url = f"http://127.0.0.1:{int(line)}/v1/chat/completions"
        served = Served(url, server.pid, {ONE_CALL: "echo"}, apart)
        return measured(served, echo_url, seconds, num_rounds)
    finally:
        ended(server)


def has_litellm(python):
    """Whether an interpreter has litellm, asked without importing it: that takes seconds."""
    code = "import importlib.util as u; raise SystemExit(u.find_spec('litellm') is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def litellm_figures(python, port, echo_url, seconds, num_rounds, apart):
    """The figures of litellm's Router; None where it is not installed."""
    if not has_litellm(python):
        return None
    command = [python, str(SERVERS), "litellm", f"http://127.0.0.1:{port}/v1"]
    server, line = started(command)
    try:
        url = f"http://127.0.0.1:{int(line)}/v1/chat/completions"
        names = {"set of 1": "one", "set of 3": "three"}
        served = Served(url, server.pid, names, apart)
        return measured(served, echo_url, seconds, num_rounds)
    finally:
        ended(server)


def table(results):
    """The figures as a table, a row for each server and set."""
    titles = ["", "requests per CPU second", *(f"{name}, ms" for name in ADDED), "MB"]
    rows = [titles, ["---"] * len(titles)]
    for server, figures in results.items():
        if figures is None:
            continue
        for name in (ONE_CALL, *FLOORS):
            if name not in figures:
                continue
            own = figures[name]
            times = [f"{own[c]['p50_ms']} / {own[c]['p99_ms']}" for c in ADDED]
            label, per_second, size = server, "", ""
            if name != ONE_CALL:
                label = f"{server}, {name}"
            if "memory_mb" in figures:
                per_second = f"{own['requests_per_cpu_second']:,}"
                size = str(figures["memory_mb"])
            rows.append([label, per_second, *times, size])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def verdicts(figures):
    """Each floor of the gateway and whether it is kept."""
    for name, floor in FLOORS.items():
        rate = figures[name]["requests_per_cpu_second"]
        yield f"{name}: {rate:,} requests per CPU second, at least {floor:,.0f}", rate >= floor
        for quantile, most in ADDED_FLOORS.items():
            ms = figures[name]["added at 8 clients"][quantile]
            label = quantile.removesuffix("_ms")
            yield f"{name}: {label} added at 8 clients {ms} ms, at most {most:g}", ms <= most
    yield f"memory {figures['memory_mb']} MB, at most 400", figures["memory_mb"] <= 400
    yield f"ready within {figures['ready_seconds']} s, at most 6", figures["ready_seconds"] <= 6


@dataclass(frozen=True)
class Config(Counted):
    """Options of the benchmark."""

    seconds: Annotated[float, "seconds of each measurement"] = 4.0
    rounds: Annotated[int, "rounds whose median each of the added times is"] = 3
    json: Annotated[Path | None, "file for the figures"] = None
    pin: Annotated[bool, "keep the server on a core of its own while it is measured"] = True
    real_time: Annotated[bool, "run ahead of the machine's other processes (Linux, root)"] = False
    litellm: Annotated[str, "the Python of an environment with litellm; this one by default"] = ""
    beside: Annotated[str, "the Python of a further environment to measure the gateway in"] = ""


def share_of_others(results):
    """What the machine and the packages add without any work of the gateway, in a sentence."""
    bare, direct = (results[name][ONE_CALL]["added at 8 clients"] for name in (BARE, DIRECT))
    return (
        f"{BARE}, which forward and do nothing else, add p50 {bare['p50_ms']} / p99 "
        f"{bare['p99_ms']} ms at 8 clients; of calls with no server between, p99 is "
        f"{direct['p99_ms']} ms above the median"
    )


def main():
    parsed = reporting.parse_config(Config, __doc__.splitlines()[0])
    needs("serve", "starlette", "uvicorn", "aiohttp")
    if parsed.real_time:
        run_ahead()
    python = parsed.litellm or sys.executable
    ours = {OURS: sys.executable}
    if parsed.beside:
        ours = {f"{OURS}, {name_of(one)}": one for one in (sys.executable, parsed.beside)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artefacts(folder)
        upstream, line = started([sys.executable, str(SERVERS), "echo"])
        port = int(line)
        echo_url = f"http://127.0.0.1:{port}/v1/chat/completions"
        apart = (upstream.pid,) if parsed.pin else None
        how = echo_url, parsed.seconds, parsed.rounds, apart
        try:
            servers = {
                DIRECT: lambda: direct_figures(*how),
                BARE: lambda: bare_figures(port, *how),
                **{
                    name: partial(gateway_figures, one, folder, port, *how)
                    for name, one in ours.items()
                },
                LITELLM: lambda: litellm_figures(python, port, *how),
            }
            results = {name: figures() for name, figures in turns(servers.items(), "server")}
        finally:
            ended(upstream)
    print(table(results))
    if results[LITELLM] is None:
        print(
            f"\n{python} has no litellm, so nothing is compared: pip install litellm, or --litellm"
            " PYTHON of an environment that has it"
        )
    where = "the server has the first core" if parsed.pin else "all processes share the cores"
    if parsed.real_time:
        where += ", and all processes of the benchmark run ahead of the machine's others"
    print(
        f"\nTimes are p50 / p99, medians of {parsed.rounds} rounds, and hold on an idle machine alone; {where}."
    )
    for name in ours:
        if parsed.beside:
            print(f"{name}:")
        for sentence, kept in verdicts(results[name]):
            print(f"{'kept' if kept else 'NOT KEPT'}: {sentence}")
    print(share_of_others(results))
    if parsed.json:
        parsed.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
