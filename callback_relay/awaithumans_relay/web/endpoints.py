"""The endpoints of a relay, for the awaithumans server, callers, probes and the operator.

Laws: 2xx only after the commit, never 3xx (the server counts a redirect as delivered), and everything that is not
stored is 4xx or 5xx.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from awaithumans_core.engine import Engine
from awaithumans_core.errors import CallbackRejectedError
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.settings import Settings
from awaithumans_core.signing import TASK_ID_HEADER
from awaithumans_core.status import TERMINAL
from awaithumans_core.task_id import TASK_ID_PATTERN
from awaithumans_relay.monitoring.logs import claimed, mask_access_log
from awaithumans_relay.monitoring.repeated_lines import Repeats
from awaithumans_relay.monitoring.report import RelayReport, Reporter
from awaithumans_relay.monitoring.status import Status
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.store.errors import StoreUnavailableError, public_reason
from awaithumans_relay.web.authentication import Operator, credentials
from awaithumans_relay.web.lifecycle import Lifecycle
from awaithumans_relay.web.limits import MAX_REGISTRATION_BYTES, STRANGER, limited_body
from awaithumans_relay.web.operator_api import Operations, operations_router
from awaithumans_relay.web.operator_page import page_router
from awaithumans_relay.web.problem import Problem, problem
from awaithumans_relay.web.receiver import Receiver, Registration

T = TypeVar("T")

logger = safe_logger("awaithumans.relay")


class Acknowledgement(BaseModel):
    """Body of every 2xx of the relay's two storing endpoints: the request is stored."""

    state: WaitState
    """The current state of the wait."""


class OpenTask(BaseModel):
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
"""A reason that appears only in the log."""

_PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (401, 403, 413, 422, 503)}


class Service(Protocol):
    """What the endpoints use of a relay."""

    store: Store
    lifecycle: Lifecycle
    refusals: Repeats
    """Logs refused requests."""
    receiver: Receiver
    """The receiver of the current run."""
    status: Status
    """The status of the current run."""
    reporter: Reporter
    """Collects the report of the current run."""

    @property
    def engines(self) -> Mapping[str, Engine]:
        """The relay's engines, by name."""
        ...

    def wake(self, engines: Iterable[str] | None = None) -> None:
        """Deliver pending answers for these engines; by default for all."""
        ...


def add_endpoints(
    router: APIRouter, service: Service, settings: Settings, *, callback_route: type[APIRoute] = APIRoute
) -> None:
    """Add all endpoints of a relay to a router.

    Args:
        router: The router of an application, or one to include in an application.
        service: The relay.
        settings: The settings of the relay.
        callback_route: The class of the route that receives callbacks.
    """
    mask_access_log()
    _Endpoints(service).add_to(router, callback_route)
    operator = Operator(settings.operator_token(), service.refusals)
    operations = Operations(service.store, service.wake, settings.review_url, service.lifecycle.refusal)
    router.include_router(operations_router(operations, operator))
    router.include_router(page_router(operations, operator, sorted(service.engines)))


class PlainRoute(APIRoute):
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


class _Endpoints:
    """The endpoints for the awaithumans server, for callers and for probes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, router: APIRouter, callback_route: type[APIRoute]) -> None:
        """Add the routes. They are searched in this order, and callbacks are the most frequent requests."""
        gate = self._service.lifecycle.gate
        gated: dict[str, Any] = {"route_class_override": gate(APIRoute)}
        # Any number of slashes is accepted. A redirect to another form of the path would count as delivered, and the
        # answer would be lost.
        router.add_api_route(
            "/callbacks/{token:path}",
            self.receive_callback,
            methods=["POST"],
            openapi_extra=_json_body(CALLBACK_BODY),
            responses=_PROBLEMS,
            route_class_override=gate(callback_route),
            response_model=Acknowledgement,
        )
        router.add_api_route("/callbacks", self.receive_callback, methods=["POST"], include_in_schema=False, **gated)
        router.add_api_route(
            "/waits/{task_id}",
            self.register_wait,
            methods=["PUT"],
            openapi_extra=_json_body(Registration.model_json_schema()),
            responses=_PROBLEMS | {429: {"model": Problem}},
            response_model=Acknowledgement,
            **gated,
        )
        router.add_api_route(
            "/waits/asked", self.open_task, methods=["GET"], responses=_PROBLEMS, response_model=OpenTask, **gated
        )
        router.add_api_route(
            "/waits/report", self.report, methods=["GET"], responses=_PROBLEMS, response_model=RelayReport, **gated
        )
        router.add_api_route("/healthz", self.healthz, methods=["GET"])
        router.add_api_route(
            "/readyz",
            self.readyz,
            methods=["GET"],
            responses={503: {"model": Problem}},
            response_model=None,
            **gated,
        )
        router.add_api_route("/metrics", self.metrics, methods=["GET"], response_class=Response)

    async def receive_callback(self, request: Request, token: str = "") -> Response:
        """Receive a terminal-status callback of the awaithumans server."""
        stored = self._service.receiver.receive(token.rstrip("/"), request)
        return await self._reply(stored, request.headers.get(TASK_ID_HEADER), _STORED.__getitem__, "callback")

    async def register_wait(self, task_id: str, request: Request) -> Response:
        """Register a wait. Authenticated by the caller's proof for this route and task as bearer."""

        async def stored() -> WaitState:
            body = await limited_body(request, MAX_REGISTRATION_BYTES)
            return await self._service.receiver.register(task_id, _bearer(request), body)

        return await self._reply(stored(), task_id, _STORED.__getitem__, "registration")

    async def open_task(self, request: Request) -> Response:
        """Return the task of a caller that runs again and has no record of it. Authenticated by its proof as bearer."""

        async def found() -> str | None:
            return await self._service.receiver.open_task(_bearer(request))

        return await self._reply(found(), None, _open_task_body, "question about a wait")

    async def report(self, request: Request) -> Response:
        """Return what the relay has, for `doctor` on a worker's machine. Authenticated by its proof as bearer."""

        async def found() -> RelayReport:
            self._service.receiver.check_report_proof(_bearer(request))
            return await self._service.reporter.report()

        return await self._reply(found(), None, RelayReport.model_dump_json, "request for the report")

    async def healthz(self) -> dict[str, str]:
        """Report that the process is running."""
        return {"status": "ok"}

    async def readyz(self) -> dict[str, Any] | JSONResponse:
        """Report whether a callback can be stored, and the state of the waits, the engines and the server.

        200 with `"status": "degraded"` while an engine or the server is unreachable: callbacks must still be sent here.
        """
        try:
            return await self._service.status.readiness()
        except (SQLAlchemyError, OSError) as trouble:
            return problem(503, StoreUnavailableError.code, public_reason(trouble))

    async def metrics(self) -> Response:
        """Return the metrics for Prometheus."""
        text = await self._service.status.metrics(running=self._service.lifecycle.running)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def _reply(self, work: Awaitable[T], task_id: str | None, body: Callable[[T], str], what: str) -> Response:
        """Run a request's work, and map its result to a response: stored, refused, or try again later."""
        try:
            result = await work
        except CallbackRejectedError as refused:
            named = claimed(task_id)
            facts = {"task_id": named, "http_status": refused.http_status, "error": refused.code}
            # Strangers are refused with these statuses only, for one of a few reasons. Other reasons may hold any text.
            reason = f": {refused}" if refused.http_status in {401, 408, 503} else ""
            kind = f"{what}s refused ({refused.http_status}){reason}"
            self._service.refusals.warn(
                kind, f"refused ({refused.http_status}), task {named or 'unknown'}: {refused}", facts
            )
            return problem(refused.http_status, refused.code, STRANGER if refused.http_status == 401 else refused.text)
        except ClientDisconnect:
            logger.info("a caller disconnected in the middle of its request")
            return problem(400, CallbackRejectedError.code, "the request ended early")
        except DataError as error:  # the value itself is refused, so a retry would not help
            logger.error("refused (422): the database cannot store it (%s)", type(error.orig).__name__)  # noqa: TRY400
            return problem(422, CallbackRejectedError.code, "it holds characters that cannot be stored")
        except (SQLAlchemyError, OSError) as trouble:
            logger.exception(
                "the store is unavailable; the caller is asked to retry", extra={"task_id": claimed(task_id)}
            )
            return problem(503, StoreUnavailableError.code, f"not stored; try again: {public_reason(trouble)}")
        return Response(body(result), media_type="application/json")


_STORED = {state: Acknowledgement(state=state).model_dump_json() for state in WaitState}


def _open_task_body(task_id: str | None) -> str:
    return OpenTask(task_id=task_id).model_dump_json()


def _bearer(request: Request) -> str:
    """Return the proof in the Authorization header."""
    scheme, proof = credentials(request.headers.get("authorization"))
    if scheme != "bearer":
        raise CallbackRejectedError(_NO_PROOF, http_status=401)
    return proof


def _json_body(schema: dict[str, Any]) -> dict[str, Any]:
    """Document a body that is read only after its proof was checked, and so is not declared as a parameter."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
