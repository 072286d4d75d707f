"""The gateway itself: upstreams, artefacts in use, state, monitors, and how they come and go."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from racer_jax._distribution import __version__
from racer_jax.racer.artefact import DESCRIPTION
from racer_jax.racer.signatures import SIGNATURE
from racer_jax.serving.gateway._batcher import LARGEST, Batcher
from racer_jax.serving.gateway._budgets import SECONDS_OF_A_DAY, Budgets, Spent, spent_today
from racer_jax.serving.gateway._cache import Cache
from racer_jax.serving.gateway._cascades import check_route
from racer_jax.serving.gateway._costs import check_costs, unpriced
from racer_jax.serving.gateway._databases import Connection
from racer_jax.serving.gateway._errors import GatewayError, busy, unwritten
from racer_jax.serving.gateway._facts import dollars
from racer_jax.serving.gateway._hash_keys import notice_of, taken_up
from racer_jax.serving.gateway._keys import KeyRing
from racer_jax.serving.gateway._loaded import Loaded, check_group, check_pool, load, warm
from racer_jax.serving.gateway._metrics import Metrics
from racer_jax.serving.gateway._monitoring import Monitors
from racer_jax.serving.gateway._panel import Panel
from racer_jax.serving.gateway._planning import Planner, Situation
from racer_jax.serving.gateway._queries import PREFIX
from racer_jax.serving.gateway._references import reference_of
from racer_jax.serving.gateway._replies import Usage
from racer_jax.serving.gateway._store import Store, answer_of
from racer_jax.serving.gateway._upstream import Upstream, new_session
from racer_jax.serving.gateway.settings import Settings

LOG = logging.getLogger("racer_jax.serving.gateway")
# How long a request waits for the threshold of a live pool, which takes milliseconds unless an
# artefact is being loaded.
_PATIENCE_SECONDS = 0.25


class UnderWay:
    """A request that counts as under way within a block.

    Use this when you call `Gateway.admitted`, which makes it.
    """

    __slots__ = ("_gateway",)

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    def __enter__(self) -> None:
        self._gateway.in_flight += 1

    def __exit__(self, *error: object) -> None:
        self._gateway.in_flight -= 1


class Gateway:
    """What all endpoints share.

    Use this when you run the gateway inside a program of your own; `racer-jax serve` runs it alone.

    Args:
      settings: The configuration.
      warm_sizes: Sizes of batches that are compiled before it is ready.
    """

    def __init__(self, settings: Settings, warm_sizes: tuple[int, ...] | None = None) -> None:
        self.settings = settings
        self._sizes = warm_sizes or tuple(2**k for k in range(LARGEST.bit_length()))
        self.keys = KeyRing(settings.keys)
        self.metrics = Metrics(len(settings.models))
        self.batcher = Batcher(on_batch=self.metrics.batch.observe)
        self.upstreams: dict[str, Upstream] = {}
        self.planners: dict[str, Planner] = {}
        self.previous: dict[str, Planner] = {}
        self.cache = Cache()
        self.sessions: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self.budgets = Budgets()
        # By route: requests since the start, and those of them in which a call was lost.
        self.losses: dict[str, tuple[int, int]] = {}
        self.in_flight = 0
        self.draining = False
        self.ready = False
        self._background: set[asyncio.Task[Any]] = set()
        self._calibrating: dict[tuple[int, str, frozenset[str]], asyncio.Task[Any]] = {}

    # --- how it comes and goes --------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the state, loads and warms the artefacts: it is ready afterwards.

        Raises:
          DataError: If an artefact or the state cannot be used.
        """
        settings = self.settings
        self._open_state()
        self.session = new_session()
        self.upstreams = {
            name: Upstream(name, model, self.session) for name, model in settings.models.items()
        }
        try:
            for name in settings.routes:
                await self._use(name, await self._loaded(name))
        except BaseException:
            await self.stop()
            raise
        self.ready = True
        for words in unpriced(settings):
            LOG.warning("%s", words)

    def _open_state(self) -> None:
        settings = self.settings
        retention = settings.state.retention_days * SECONDS_OF_A_DAY
        self.store = Store(settings.state.path, retention)

        secret = settings.audit.hash_key
        configured = None if secret is None else secret.reveal()

        def first(connection: Connection) -> tuple[bytes, str | None, Spent]:
            key = taken_up(connection, configured)
            return key, notice_of(connection, key), spent_today(connection)

        self.hash_key, self.key_notice, spent = self.store.ask(first).result()
        self.budgets.take(spent)
        self.monitors = Monitors(settings.monitors, self.hash_key, self._alarm)
        self.store.ask(self.monitors.load).result()
        self.store.on_commit = self.monitors.on_commit
        self.store.on_rollback = self.monitors.on_rollback

    async def stop(self) -> None:
        """Finishes what runs in the background and closes everything."""
        self.ready = False
        if self._background:
            await asyncio.wait(self._background, timeout=5.0)
        for task in list(self._background):
            task.cancel()
        if hasattr(self, "session"):
            await self.session.close()
        self.batcher.close()
        if hasattr(self, "store"):
            self.store.ask(self.monitors.save)
            await asyncio.get_running_loop().run_in_executor(None, self.store.close)

    def background(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Runs what no client waits for; an error of it is logged.

        Use this when no client waits for the outcome.
        """
        task = asyncio.ensure_future(work)
        self._background.add(task)

        def done(task: "asyncio.Task[Any]") -> None:
            self._background.discard(task)
            if not task.cancelled() and task.exception() is not None:
                LOG.error("in the background: %r", task.exception())

        task.add_done_callback(done)
        return task

    @property
    def num_background(self) -> int:
        """Pieces of work that no client waits for."""
        return len(self._background)

    # --- artefacts --------------------------------------------------------------------------------

    async def _loaded(self, name: str) -> Loaded:
        """The artefact of a route, warmed, in the thread that computes."""

        def work() -> Loaded:
            loaded = load(self.settings.routes[name], self.settings.trusted_keys)
            check_pool(loaded, self.settings.models)
            check_group(loaded, name, self.settings.routes[name].group)
            check_route(loaded, name, self.settings.routes[name])
            check_costs(loaded, self.settings.routes[name], self.settings.models)
            for racer in list(loaded.racers.values())[:1]:
                warm(racer, self._sizes)
            loaded.prepare()
            return loaded

        return await self.batcher.run(work)

    async def _use(self, name: str, loaded: Loaded) -> None:
        """Puts an artefact in use; requests under way keep the one they began with."""
        route = self.settings.routes[name]
        planner = Planner(name, route, loaded, self.settings.models, self.batcher)
        racer = loaded.racers.get(loaded.alpha)
        null = "paper" if racer is None else racer.null
        reference = None if racer is None else reference_of(racer, loaded.checksum)
        entered = self.store.ask(
            lambda connection: self.monitors.enter(
                connection, name, loaded.checksum, null, reference
            )
        )
        await answer_of(entered)
        try:
            self.monitors.of(name, loaded.checksum)
        except KeyError:  # the entry is written, and what is counted after it cannot be
            raise unwritten(
                "the state of the gateway cannot be written now, so an artefact that comes into "
                "use could not be tested: ask for it again later"
            ) from None
        if name in self.planners:
            self.previous[name] = self.planners[name]
        self._activate(name, planner)

    def _activate(self, name: str, planner: Planner) -> None:
        self.planners[name] = planner
        self.batcher.forget()
        loaded = planner.loaded
        self.monitors.activate(name, loaded.checksum)
        self.metrics.artefact.clear()
        for route, one in self.planners.items():
            self.metrics.artefact.labels(
                route, one.loaded.checksum, one.loaded.alpha, __version__
            ).set(1)

    async def reload(self, name: str | None = None) -> dict[str, str]:
        """Reads artefacts again and swaps those that changed; no request is lost.

        Args:
          name: The route; all where None.

        Returns:
          The checksum in use, by route.

        Raises:
          DataError: If one cannot be used; the one before stays in use.
        """
        names = list(self.settings.routes) if name is None else [name]
        loaded = {route: await self._loaded(route) for route in names}
        for route, new in loaded.items():
            if new.checksum != self.planners[route].loaded.checksum:
                await self._use(route, new)
        return {route: planner.loaded.checksum for route, planner in self.planners.items()}

    def artefact_files(self) -> dict[str, tuple[int, int]]:
        """What tells the artefacts on disk from those that may replace them, by route and file.

        Use this when you look for artefacts that were replaced.
        """
        files = {}
        for name, route in self.settings.routes.items():
            for file in (DESCRIPTION, SIGNATURE):  # which may come a moment later
                with contextlib.suppress(OSError):
                    status = (Path(route.artefact) / file).stat()
                    files[f"{name} {file}"] = (status.st_ino, status.st_mtime_ns)
        return files

    def roll_back(self, name: str) -> str:
        """Puts the artefact before the current one in use again; returns its checksum.

        Use this when a new artefact turns out to be a mistake.

        Raises:
          KeyError: If there is none.
        """
        planner = self.previous[name]
        self.previous[name] = self.planners[name]
        self._activate(name, planner)
        return planner.loaded.checksum

    # --- what requests ask ------------------------------------------------------------------------

    @property
    def records(self) -> bool:
        """Whether requests are recorded, or may go unrecorded.

        Use this when a request is about to be answered.
        """
        return self.store.error is None or self.settings.state.when_failing == "answer"

    def admitted(self, while_draining: bool = False, answers: bool = True) -> "UnderWay":
        """Counts a request as under way, before its body is read: that takes memory too.

        Use this when a request has named its key, around everything else that it costs.

        Args:
          while_draining: Whether it is taken though the gateway is about to end.
          answers: Whether models are called for it, so that there is something to record.

        Raises:
          GatewayError: If there are too many, the gateway is about to end, or what must be recorded
            cannot be.
        """
        if answers and not self.records:
            raise unwritten(
                "the state of the gateway cannot be written now, and requests that would not be "
                "recorded are refused: send it again later"
            )
        full = self.in_flight >= self.settings.server.max_in_flight
        if full or (self.draining and not while_draining):
            raise busy(self.draining)
        return UnderWay(self)

    def situation(self, name: str) -> Situation:
        """What a plan depends on beside the request, now.

        Use this when a plan is made.
        """
        dead = frozenset(
            model
            for model, upstream in self.upstreams.items()
            if upstream.breaker.is_open and not upstream.breaker.is_due
        )

        alarm = self.monitors.alarms.get(name, False)
        return Situation(dead, alarm, self._calibrated_live)

    async def _calibrated_live(self, loaded: Loaded, alpha: str, dead: frozenset[str]) -> None:
        """Waits a moment for the threshold of the models that are alive, computed once for all."""
        key = (id(loaded), alpha, dead)
        task = self._calibrating.get(key)
        if task is None:

            async def work() -> None:
                racer = None
                try:
                    racer = await self.batcher.run(lambda: loaded.calibrate_live(alpha, dead))
                finally:
                    loaded.keep_live(alpha, dead, racer)
                    del self._calibrating[key]

            task = self._calibrating[key] = self.background(work())
        await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)

    def no_model(self, name: str) -> GatewayError:
        """The error of a request that names no model there is.

        Use this when neither a route nor a model has the name.
        """
        routes = [*self.planners, *self.settings.experiments]
        known = [f"{PREFIX}{route}" for route in routes] + list(self.upstreams)
        return GatewayError(
            404,
            "invalid_request_error",
            f"model must be one of {known}, got {name[:100]!r}",
            code="model_not_found",
            param="model",
        )

    def refresh_spent(self) -> None:
        """Takes over what other replicas of a shared state have spent, their key and alarms.

        Use this when the state is shared, now and then.
        """
        loop = asyncio.get_running_loop()

        def read(connection: Connection) -> tuple[Spent, str | None]:
            return spent_today(connection), notice_of(connection, self.hash_key)

        def take(spent: Spent, notice: str | None) -> None:
            self.budgets.take(spent)
            if notice is not None and notice != self.key_notice:
                LOG.warning("%s", notice)
            self.key_notice = notice

        def done(future: "Future[tuple[Spent, str | None]]") -> None:
            if not future.cancelled() and future.exception() is None:
                loop.call_soon_threadsafe(take, *future.result())

        self.store.ask(read).add_done_callback(done)

    def count(self, panel: Panel, prices: Mapping[str, float | None]) -> None:
        """Counts the calls of a request in the metrics.

        Use this when a request has ended.
        """
        metrics = self.metrics
        for model, reply in panel.replies.items():
            usage = reply.usage
            metrics.count_answer(
                model,
                reply.seconds,
                usage.prompt_tokens,
                usage.completion_tokens,
                prices.get(model),
            )
        for model, used in panel.extra.items():  # a judge's; how long it took is not kept
            price = dollars(used, self.settings.models[model])
            metrics.count_answer(model, None, used.prompt_tokens, used.completion_tokens, price)
        for model, error in (*panel.failed.items(), *panel.extra_failed.items()):
            metrics.calls.add((model, error.kind))
        for model in panel.cancelled:
            metrics.calls.add((model, "cancelled"))

    def count_lost(self, route: str, lost: bool) -> None:
        """Counts a request of a route, and whether a call of its set was lost.

        Use this when a request has ended.
        """
        num, num_lost = self.losses.get(route, (0, 0))
        self.losses[route] = num + 1, num_lost + lost

    def count_stream(self, model: str, seconds: float, usage: Usage | None) -> None:
        """Counts a call whose bytes were passed through.

        Use this when a stream has ended.
        """
        used = usage or Usage()
        price = None if usage is None else dollars(usage, self.settings.models[model])
        self.metrics.count_answer(model, seconds, used.prompt_tokens, used.completion_tokens, price)

    def _alarm(self, route: str, artefact: str, words: str) -> None:
        """An alarm: logged, and sent to the webhook once. Called in the thread of the state."""
        LOG.warning("alarm on route %s, artefact %s: %s", route, artefact, words)
        webhook = self.settings.monitors.webhook
        if webhook is not None and hasattr(self, "session"):
            message = {"route": route, "artefact": artefact, "alarm": words}
            loop = self.session._loop
            loop.call_soon_threadsafe(lambda: self.background(self._notify(webhook, message)))

    async def _notify(self, url: str, message: Mapping[str, str]) -> None:
        body = msgspec.json.encode(message)
        headers = {"content-type": "application/json"}
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(10),
                self.session.post(
                    url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                if response.status >= 300:
                    LOG.warning("the webhook answered with status %d", response.status)


async def cancel(task: "asyncio.Task[Any]") -> None:
    """Cancels a task and waits for its end. Use this when a client has gone."""
    task.cancel()
    results = await asyncio.gather(task, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, GatewayError):
            LOG.error("while cancelled: %r", result)
