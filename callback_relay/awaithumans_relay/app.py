"""The relay as a service: `create_router` to include in your FastAPI app, `create_app` to run alone.

This module composes, starts and stops the parts. The endpoints are in `web.endpoints`.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import TypeVar

from fastapi import APIRouter, FastAPI

from awaithumans_core.client import TaskClient
from awaithumans_core.engine import Engine, OpensResources
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.relay_loops import relay_runs_here
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.services import with_flag
from awaithumans_core.settings import Settings, check_all
from awaithumans_relay.availability.engine_checks import EngineChecks
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.dispatch.probe_engine import PROBE
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.monitoring.repeated_lines import Repeats
from awaithumans_relay.monitoring.report import Reporter
from awaithumans_relay.monitoring.status import Status
from awaithumans_relay.store import Store
from awaithumans_relay.store.defaults import DEFAULT_DATABASE, RETENTION
from awaithumans_relay.store.readiness import PROBE_ENGINE
from awaithumans_relay.store.retention import Retention
from awaithumans_relay.sweep.adoption import Adoption
from awaithumans_relay.sweep.sweeper import Sweeper
from awaithumans_relay.web.endpoints import PlainRoute, add_endpoints
from awaithumans_relay.web.lifecycle import Lifecycle
from awaithumans_relay.web.limits import UnverifiedBodies
from awaithumans_relay.web.receiver import Receiver

T = TypeVar("T")

logger = safe_logger("awaithumans.relay")


class Relay:
    """The parts of one relay process, which start and stop together."""

    def __init__(self, engines: Sequence[Engine], settings: Settings, store: Store, retention: timedelta) -> None:
        self.engines = {engine.name: engine for engine in engines}
        if len(self.engines) != len(engines):
            raise SettingsError(f"two engines share a name: {', '.join(engine.name for engine in engines)}")
        if PROBE_ENGINE in self.engines:
            raise SettingsError(f"the engine name {PROBE_ENGINE!r} is the relay's own")
        self._settings = settings
        self._retention = retention
        self._loop: asyncio.AbstractEventLoop | None = None
        self.store = store
        self.lifecycle = Lifecycle()
        self.refusals = Repeats(logger)
        self._unverified = UnverifiedBodies()
        self._assemble()

    def _assemble(self) -> None:
        """Create the parts of one run.

        They belong to the process and the event loop that run them, so every start creates new ones. An application may
        be started a second time, and a process may be forked after it has created the application.
        """
        self.observer = Observer(self.engines)
        self.status = Status(self.store, self.observer)
        self.reporter = Reporter(self.engines, self._settings, self.store, self.observer)
        self.receiver = Receiver(
            self.store.intake,
            self.engines,
            self._settings,
            self.observer,
            self._unverified,
            on_answer=self.wake,
            on_callback=self._callback_received,
        )
        # One request per call, and no connection kept between checks.
        self._client = TaskClient(settings=self._settings, patience=0, keep_alive=0)
        delivered_for = {**self.engines, PROBE_ENGINE: PROBE}
        self.dispatcher = Dispatcher(self.store.leases, delivered_for, observer=self.observer)
        self.engine_checks = EngineChecks(self.engines.values(), self.observer.health)
        self.adoption = Adoption(self.engines.values())
        self.retention = Retention(self.store.upkeep, self._retention)
        self.sweeper = Sweeper(
            self.store,
            self._client,
            self.engines,
            on_answer=self.dispatcher.wake,
            observer=self.observer,
            share=self._settings.relay_sweep_percent / 100,
            lapsed_before=self.retention.before,
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Open the store, then sweep and dispatch until the block ends.

        If it is started again while it runs (a router that is included twice, or a lifespan that is run by hand as
        well), it continues unchanged until the block that started it ends.
        """
        if self.lifecycle.begun:
            yield
            return
        with self.lifecycle.of_start():
            self._assemble()
            self._loop = asyncio.get_running_loop()
            try:
                await self.store.start()
                await self._report_missing_engines()
                async with (
                    self._engines_opened(),
                    self.engine_checks.running(),
                    self.dispatcher.running(),
                    self.sweeper.running(),
                    self.retention.running(),
                    self.adoption.running(),
                ):
                    with relay_runs_here(), self.lifecycle.of_work():
                        yield
            finally:
                self.refusals.flush()
                await self._client.aclose()
                await self.store.stop()

    @asynccontextmanager
    async def _engines_opened(self) -> AsyncGenerator[None]:
        """Hold the resources of the engines open."""
        async with AsyncExitStack() as stack:
            for engine in self.engines.values():
                if isinstance(engine, OpensResources):
                    await stack.enter_async_context(engine.opened())
            yield

    async def _report_missing_engines(self) -> None:
        for name in set(await self.store.queries.engines()) - self.engines.keys() - {PROBE_ENGINE}:
            logger.error(
                "waits name the engine %s, which this relay does not have; they are kept until it does", with_flag(name)
            )

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Run the relay for the lifetime of an application or a router."""
        async with self.running():
            yield

    def wake(self, engines: Iterable[str] | None = None) -> None:
        """Deliver pending answers for these engines; by default for all. Callable from any event loop."""
        self._in_own_loop(self.dispatcher.wake, engines)

    def _callback_received(self, outcome: Outcome) -> None:
        self._in_own_loop(self.sweeper.callback_received, outcome)

    def _in_own_loop(self, act: Callable[[T], None], argument: T) -> None:
        """Run `act` in the event loop that sweeps and dispatches. Requests may be served by another one."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            act(argument)
        else:
            with suppress(RuntimeError):  # that loop has ended, and its relay with it
                self._loop.call_soon_threadsafe(act, argument)


def create_router(
    engines: Sequence[Engine],
    *,
    settings: Settings | None = None,
    database: str | None = None,
    retention: timedelta = RETENTION,
) -> APIRouter:
    """Create the relay as a router to include in your FastAPI app. It starts and stops with the app.

    It must be included before the app starts. A router that is included later, or in an app that is mounted inside
    another one, is started by your own lifespan: `async with router.lifespan_context(app):`. Until it runs, every
    endpoint but `/healthz` and `/metrics` answers 503.

    The size of headers, the time they may take and the number of connections are limited by your HTTP server, and
    uvicorn does not limit them. Put a proxy in front of it, as in examples/deploy/nginx.conf.

    Args:
        engines: The engines that wake callers; each has its own name.
        settings: Default: from the environment: AWAITHUMANS_URL, AWAITHUMANS_ADMIN_API_TOKEN (for the sweep),
            AWAITHUMANS_RELAY_SECRET, and AWAITHUMANS_WEBHOOK_KEY or AWAITHUMANS_PAYLOAD_KEY.
        database: SQLAlchemy URL of the waits table. Default: AWAITHUMANS_RELAY_DATABASE, else a SQLite file in the
            working directory.
        retention: How long delivered waits are kept, and waits without an answer after the deadline of their task.

    Raises:
        SettingsError: A required setting is missing or wrong.
    """
    settings = _checked(settings)
    relay = Relay(engines, settings, _store(database, settings), retention)
    router = APIRouter(lifespan=relay.lifespan, tags=["awaithumans relay"])
    add_endpoints(router, relay, settings)
    return router


def create_app(
    engines: Sequence[Engine],
    *,
    settings: Settings | None = None,
    database: str | None = None,
    retention: timedelta = RETENTION,
) -> FastAPI:
    """Create the relay as an application of its own. The arguments are those of `create_router`.

    If it is mounted inside another application, the lifespan of that one must start it, which FastAPI and Starlette do
    not do by themselves: `async with relay_app.router.lifespan_context(relay_app):`. Until it runs, every endpoint but
    `/healthz` and `/metrics` answers 503.
    """
    settings = _checked(settings)
    relay = Relay(engines, settings, _store(database, settings), retention)
    app = FastAPI(
        title="awaithumans callback relay",
        lifespan=relay.lifespan,
        redirect_slashes=False,
        openapi_url=None,
        # FastAPI's own spans name the path, which is the route token. The relay has its own spans.
        telemetry={"tracing": False},
    )
    # The endpoints are not in an included router, because a request would then search through all routes several times.
    add_endpoints(app.router, relay, settings, callback_route=PlainRoute)
    return app


def _checked(settings: Settings | None) -> Settings:
    """Return the settings of a relay.

    Raises:
        SettingsError: settings are missing or wrong. The text lists all of them.
    """
    settings = settings or Settings.load().with_local_key()
    check_all(settings.token, settings.signer, settings.key_ring, settings.operator_token)
    return settings


def _store(database: str | None, settings: Settings) -> Store:
    named = settings.relay_database.get_secret_value() if settings.relay_database else None
    return Store(database or named or DEFAULT_DATABASE)
