"""The relay's HTTP side: `create_router` to include in your FastAPI app, `create_app` to run alone.

Laws: 2xx only after the commit, never 3xx (the server counts a redirect as delivered), and everything that is not
stored is 4xx or 5xx. An acknowledgement waits only for the store: waking the caller is the dispatcher's work.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from awaithumans_core.callback import MAX_BODY_BYTES, open_callback
from awaithumans_core.client import TaskClient
from awaithumans_core.engine import Engine
from awaithumans_core.errors import CallbackRejectedError, EngineUnknownError, SettingsError
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.settings import Settings
from awaithumans_core.signing import TASK_ID_HEADER
from awaithumans_core.status import TERMINAL
from awaithumans_core.task_id import TASK_ID_PATTERN
from awaithumans_relay.availability.engine_checks import EngineChecks
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.dispatch.probe_engine import PROBE
from awaithumans_relay.monitoring.logs import about, claimed, mask_access_log
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.monitoring.repeated_lines import Repeats
from awaithumans_relay.store import DEFAULT_DATABASE, Store, WaitState
from awaithumans_relay.store.errors import StoreUnavailableError, public_reason
from awaithumans_relay.store.readiness import PROBE_ENGINE, PROBE_SECONDS
from awaithumans_relay.store.retention import RETENTION, Retention
from awaithumans_relay.sweep.adoption import Adoption
from awaithumans_relay.sweep.sweeper import Sweeper
from awaithumans_relay.web.authentication import Operator, credentials
from awaithumans_relay.web.lifecycle import Lifecycle
from awaithumans_relay.web.limits import (
    MAX_REGISTRATION_BYTES,
    STRANGER,
    UnverifiedBodies,
    checked_outcome,
    checked_route,
    checked_task_id,
    limited_body,
)
from awaithumans_relay.web.operator_api import Operations, operations_router
from awaithumans_relay.web.operator_page import page_router
from awaithumans_relay.web.problem import Problem, problem

T = TypeVar("T")

logger = safe_logger("awaithumans.relay")


class Registration(BaseModel):
    """Body of `PUT /waits/{task_id}`."""

    timeout_seconds: int = Field(gt=0, le=2_592_000)
    """The task's timeout. The relay checks the task once it has passed."""
    missing: bool = False
    """Whether the caller, which asks again after a failure, did not find its task on the server."""


class Acknowledgement(BaseModel):
    """Body of every 2xx of the relay's two storing endpoints: the request is stored."""

    state: WaitState
    """The current state of the wait."""


class Asked(BaseModel):
    """Body of `GET /waits/asked`."""

    task_id: str | None
    """The task of the route's open wait. null: it has none."""


CALLBACK_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["task_id", "idempotency_key", "status"],
    "properties": {
        "task_id": {"type": "string", "pattern": f"^{TASK_ID_PATTERN}$"},
        "idempotency_key": {"type": "string"},
        "status": {"enum": sorted(TERMINAL)},
        "response": {"type": ["object", "null"]},
    },
}
"""The part of the server's body that the relay acts on. The server sends more."""

_NO_PROOF = "send the proof of the wait as: Authorization: Bearer <proof>"
_OF_CALLBACK_URL = (
    "the bearer is the token of a callback URL, which registers no wait: update awaithumans-workflows in the processes "
    "that ask. If they are up to date, a stranger has read a callback URL"
)
"""Reasons that appear only in the log."""

_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (401, 403, 413, 422, 503)}


class Relay:
    """Store, sweeper and dispatcher of one relay process, and the two endpoints that feed them."""

    def __init__(self, engines: Sequence[Engine], settings: Settings, store: Store, retention: timedelta) -> None:
        self.engines = {engine.name: engine for engine in engines}
        if len(self.engines) != len(engines):
            raise SettingsError(f"two engines share a name: {', '.join(engine.name for engine in engines)}")
        if PROBE_ENGINE in self.engines:
            raise SettingsError(f"the engine name {PROBE_ENGINE!r} is the relay's own")
        self._settings = settings
        self._signer = settings.signer()
        self._keys = settings.key_ring()
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
        # One request per call, and no connection kept between checks.
        self._client = TaskClient(settings=self._settings, patience=0, keep_alive=0)
        self.observer = Observer(self.engines)
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
                    self.engine_checks.running(),
                    self.dispatcher.running(),
                    self.sweeper.running(),
                    self.retention.running(),
                    self.adoption.running(),
                ):
                    with self.lifecycle.of_work():
                        yield
            finally:
                self.refusals.flush()
                await self._client.aclose()
                await self.store.stop()

    async def _report_missing_engines(self) -> None:
        for name in set(await self.store.queries.engines()) - self.engines.keys() - {PROBE_ENGINE}:
            logger.error("waits name the engine %r, which this relay does not have; they are kept until it does", name)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Run the relay for the lifetime of an application or a router."""
        async with self.running():
            yield

    def wake(self, engines: Iterable[str] | None = None) -> None:
        """Deliver pending answers for these engines; by default for all. Callable from any event loop."""
        self._in_own_loop(self.dispatcher.wake, engines)

    def _in_own_loop(self, act: Callable[[T], None], argument: T) -> None:
        """Run `act` in the event loop that sweeps and dispatches. Requests may be served by another one."""
        if self._loop is None or self._loop is asyncio.get_running_loop():
            act(argument)
        else:
            with suppress(RuntimeError):  # that loop has ended, and its relay with it
                self._loop.call_soon_threadsafe(act, argument)

    def _proven(self, proof: str, task_id: str | None) -> Route:
        """Return the route in a caller's proof for this task, or (without a task) for asking which task it has open."""
        try:
            return checked_route(self._signer.open_proof(proof, task_id))
        except CallbackRejectedError as refused:
            if refused.http_status == 401 and self._signer.knows(proof):
                raise CallbackRejectedError(_OF_CALLBACK_URL, http_status=401) from None
            raise

    async def register(self, task_id: str, proof: str, body: bytes) -> WaitState:
        """Register the wait of a caller, whose proof contains the route of the answer."""
        route = self._proven(proof, task_id)
        if len(body) > MAX_REGISTRATION_BYTES:
            raise CallbackRejectedError(f"the body is larger than {MAX_REGISTRATION_BYTES} bytes", http_status=413)
        try:
            asked = Registration.model_validate_json(body)
        except ValidationError as invalid:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in invalid.errors())
            raise CallbackRejectedError(wrong, http_status=422) from None
        if route.engine not in self.engines:
            raise EngineUnknownError(
                f"this relay has no engine {route.engine!r}; it has: {', '.join(self.engines) or 'none'}"
            )
        state = await self.store.intake.register(
            checked_task_id(task_id), route, asked.timeout_seconds, missing=asked.missing
        )
        if state == WaitState.ANSWERED:
            self.wake()
        return state

    async def asked(self, proof: str) -> str | None:
        """Return the task of the wait that the proof's route has open."""
        return await self.store.intake.open_task(self._proven(proof, None))

    async def receive(self, token: str, request: Request) -> WaitState:
        """Verify and store a callback of the awaithumans server, then wake the dispatcher."""
        with self.observer.metrics.receiving() as reception:
            body = await limited_body(
                request, MAX_BODY_BYTES, proven=lambda: self._signer.knows(token), unverified=self._unverified
            )
            callback = open_callback(token, request.headers, body, signer=self._signer, keys=self._keys)
            outcome, route = checked_outcome(callback.outcome), checked_route(callback.route)
            with self.observer.storing(callback):
                answered = await self.store.intake.answer(outcome, found_by="callback", route=route)
            reception.result = "stored" if answered else "duplicate"
        if answered:
            self.wake(answered)
            self._in_own_loop(self.sweeper.callback_received, outcome)
        if logger.isEnabledFor(logging.INFO):
            this = about(outcome.task_id, route)
            logger.info("callback for task %s: %s (%s)", outcome.task_id, outcome.status, reception.result, extra=this)
        return WaitState.ANSWERED

    async def readiness(self) -> dict[str, Any]:
        """Return the state of the waits, the engines and the server. Raises when a callback could not be stored now."""
        await self.store.readiness.check()
        async with asyncio.timeout(PROBE_SECONDS):
            unfinished = await self.store.queries.unfinished()
        waits: dict[str, int] = {}
        for (state, _), count in unfinished.items():
            waits[state] = waits.get(state, 0) + count
        waiting = {engine for (state, engine) in unfinished if state != WaitState.PARKED}
        return {"waits": waits} | self.observer.health.report(waiting)

    async def figures(self) -> bytes:
        """Return the metrics for Prometheus, whether or not the relay runs and the store answers."""
        if not self.lifecycle.running:
            return self.observer.metrics.text(None, 0)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                unfinished, oldest = (
                    await self.store.queries.unfinished(),
                    await self.store.queries.oldest_undelivered(),
                )
        except (SQLAlchemyError, OSError):
            return self.observer.metrics.text(None, 0)
        age = 0.0 if oldest is None else max(0.0, self.store.clock() - oldest)
        return self.observer.metrics.text(unfinished, age)


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
    settings = settings or Settings.load()
    relay = Relay(engines, settings, _store(database, settings), retention)
    router = APIRouter(lifespan=relay.lifespan, tags=["awaithumans relay"])
    _add_doors(router, relay, settings)
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
    settings = settings or Settings.load()
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
    _add_doors(app.router, relay, settings, route_class=Door)
    return app


def _store(database: str | None, settings: Settings) -> Store:
    named = settings.relay_database.get_secret_value() if settings.relay_database else None
    return Store(database or named or DEFAULT_DATABASE)


class Door(APIRoute):
    """Passes a request to its endpoint, with the parameters of its path and nothing else.

    FastAPI also prepares dependencies and validated parameters, which takes longer than checking an answer's proofs. So
    this class is for an application that has none to add.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive, send)
            response = await endpoint(request, **request.path_params)
            await response(scope, receive, send)

        self.app = app


def _add_doors(router: APIRouter, relay: Relay, settings: Settings, *, route_class: type[APIRoute] = APIRoute) -> None:
    mask_access_log()
    gate = relay.lifecycle.gate

    # Routes are searched in their order, and this one is the busiest, so it is first. It accepts any number of slashes:
    # a redirect to another form would count as delivered, and the answer would be lost.
    async def receive_callback(request: Request, token: str = "") -> Response:
        """Receive a terminal-status callback of the awaithumans server."""
        stored = relay.receive(token.rstrip("/"), request)
        return await _acknowledge(stored, request.headers.get(TASK_ID_HEADER), relay.refusals, "callback")

    router.add_api_route(
        "/callbacks/{token:path}",
        receive_callback,
        methods=["POST"],
        responses=_PROBLEMS,
        openapi_extra=_json_body(CALLBACK_BODY),
        response_model=Acknowledgement,
        route_class_override=gate(route_class),
    )
    router.add_api_route(
        "/callbacks", receive_callback, methods=["POST"], include_in_schema=False, route_class_override=gate(APIRoute)
    )

    async def register_wait(task_id: str, request: Request) -> Response:
        """Register a wait. Authenticated by the caller's proof for this route and task as bearer."""
        scheme, proof = credentials(request.headers.get("authorization"))

        async def stored() -> WaitState:
            body = await limited_body(request, MAX_REGISTRATION_BYTES)
            if scheme != "bearer":
                raise CallbackRejectedError(_NO_PROOF, http_status=401)
            return await relay.register(task_id, proof, body)

        return await _acknowledge(stored(), task_id, relay.refusals, "registration")

    router.add_api_route(
        "/waits/{task_id}",
        register_wait,
        methods=["PUT"],
        responses=_PROBLEMS | {429: {"model": Problem}},
        openapi_extra=_json_body(Registration.model_json_schema()),
        response_model=Acknowledgement,
        route_class_override=gate(APIRoute),
    )

    async def asked(request: Request) -> Response:
        """Return the task of a caller that runs again and has no record of it. Authenticated by its proof as bearer."""
        scheme, proof = credentials(request.headers.get("authorization"))

        async def found() -> str | None:
            if scheme != "bearer":
                raise CallbackRejectedError(_NO_PROOF, http_status=401)
            return await relay.asked(proof)

        told = relay.refusals, "question about a wait"
        return await _reply(found(), None, lambda task_id: Asked(task_id=task_id).model_dump_json(), *told)

    router.add_api_route(
        "/waits/asked",
        asked,
        methods=["GET"],
        responses=_PROBLEMS,
        response_model=Asked,
        route_class_override=gate(APIRoute),
    )

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Report that the process is running."""
        return {"status": "ok"}

    async def readyz() -> dict[str, Any] | JSONResponse:
        """Report whether a callback can be stored, and the state of the waits, the engines and the server.

        200 with `"status": "degraded"` while an engine or the server is unreachable: callbacks must still be sent here.
        """
        try:
            return await relay.readiness()
        except (SQLAlchemyError, OSError) as trouble:
            return problem(503, StoreUnavailableError.code, public_reason(trouble))

    router.add_api_route(
        "/readyz",
        readyz,
        methods=["GET"],
        responses={503: {"model": Problem}},
        response_model=None,
        route_class_override=gate(APIRoute),
    )

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the metrics for Prometheus."""
        return Response(await relay.figures(), media_type=CONTENT_TYPE_LATEST)

    operator = Operator(settings.operator_token(), relay.refusals)
    operations = Operations(relay.store, relay.wake, settings.review_url, relay.lifecycle.refusal)
    router.include_router(operations_router(operations, operator))
    router.include_router(page_router(operations, operator, sorted(relay.engines)))
    _ = (healthz, metrics)


async def _acknowledge(stored: Awaitable[WaitState], task_id: str | None, refusals: Repeats, what: str) -> Response:
    return await _reply(stored, task_id, _STORED.__getitem__, refusals, what)


async def _reply(
    done: Awaitable[T], task_id: str | None, body: Callable[[T], str], refusals: Repeats, what: str
) -> Response:
    """Run a request's work, and map its result to a response: stored, refused, or try again later."""
    try:
        state = await done
    except CallbackRejectedError as refused:
        named = claimed(task_id)
        facts = {"task_id": named, "http_status": refused.http_status, "error": refused.code}
        # Strangers are refused with these statuses only, for one of a few reasons. Other reasons may hold any text.
        reason = f": {refused}" if refused.http_status in {401, 408, 503} else ""
        kind = f"{what}s refused ({refused.http_status}){reason}"
        refusals.warn(kind, f"refused ({refused.http_status}), task {named or 'unknown'}: {refused}", facts)
        return problem(refused.http_status, refused.code, STRANGER if refused.http_status == 401 else str(refused))
    except ClientDisconnect:
        logger.info("a caller hung up in the middle of its request")
        return problem(400, CallbackRejectedError.code, "the request ended early")
    except DataError as error:  # the value itself is refused, so a retry would not help
        logger.error("refused (422): the database cannot keep it (%s)", type(error.orig).__name__)  # noqa: TRY400
        return problem(422, CallbackRejectedError.code, "it holds characters that cannot be stored")
    except (SQLAlchemyError, OSError) as trouble:
        logger.exception("the store is away; the caller is asked to come back", extra={"task_id": claimed(task_id)})
        return problem(503, StoreUnavailableError.code, f"not stored; try again: {public_reason(trouble)}")
    return Response(body(state), media_type="application/json")


_STORED = {state: Acknowledgement(state=state).model_dump_json() for state in WaitState}


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """Document a body that is read only after its proof was checked, and so is not declared as a parameter."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
