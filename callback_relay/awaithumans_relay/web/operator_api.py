"""The operator's endpoints for programs: list waits, redrive parked ones. The page for people is in `operator_page`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, BeforeValidator, StringConstraints

from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.web.authentication import Operator, operator_route
from awaithumans_relay.web.problem import Problem, problem
from awaithumans_relay.web.wait_view import WaitView

logger = safe_logger("awaithumans.relay")

MAX_LISTED = 500
"""Maximum number of waits in one listing."""

_PLAIN = r"^[^\x00]*$"
"""Text that every database can compare with."""
TaskId = Annotated[str, Path(max_length=255, pattern=_PLAIN)]


def _filled(chosen: object) -> object:
    """Return the chosen values. A form sends a field without a choice as an empty one, which is removed."""
    if isinstance(chosen, list):
        return [each for each in cast("list[object]", chosen) if each != ""]
    return None if chosen == "" else chosen


EngineName = Annotated[
    Annotated[str, StringConstraints(max_length=255, pattern=_PLAIN)] | None,
    BeforeValidator(_filled),
    Query(description="Only waits for this engine. Empty: for all."),
]
OneState = Annotated[WaitState | None, BeforeValidator(_filled), Query()]
States = Annotated[
    list[WaitState] | None,
    BeforeValidator(_filled),
    Query(description="Only waits in this state. May be repeated. Empty: in all."),
]
Offset = Annotated[int, Query(ge=0, le=10**9, description="How many of the newest to leave out.")]


class Listing(BaseModel):
    """A page of waits, newest first, with the number in each state."""

    waits: list[WaitView]
    counts: dict[WaitState, int]
    """Number of waits in each state, whichever states were requested."""


class Redriven(BaseModel):
    """The result of a redrive."""

    redriven: int
    """Number of parked waits that are delivered or checked once more. 0: none was parked."""


@dataclass(frozen=True)
class Operations:
    """The operations of an operator on a running relay."""

    store: Store
    wake: Callable[[], None]
    """Wakes the dispatcher, because there is something to deliver."""
    review_url: Callable[[str], str]
    refusal: Callable[[], Response | None]
    """The response to every request while the relay is not running."""

    async def listed(
        self, states: list[WaitState], engine: str | None, *, limit: int, offset: int
    ) -> tuple[list[WaitView], dict[WaitState, int]]:
        """Return a page of waits, newest first, and the number of waits in each state."""
        found = await self.store.queries.listed(states=states, engine=engine, limit=limit, offset=offset)
        counts = await self.store.queries.counts(engine=engine)
        return [WaitView.of(wait, self.review_url) for wait in found], {s: counts.get(s, 0) for s in WaitState}

    async def redrive(self, *, task_id: str | None = None, engine: str | None = None) -> int:
        """Deliver parked waits once more: those of a task, of an engine, or all of them. Returns how many."""
        redriven = await self.store.upkeep.redrive(task_id=task_id, engine=engine)
        if redriven:
            self.wake()
        what = task_id or engine or "everything parked"
        logger.info("an operator has redriven %r: %d waits", what, redriven)
        return redriven


def operations_router(operations: Operations, operator: Operator) -> APIRouter:
    """Create the routes `GET /waits`, `POST /waits/redrive` and `POST /waits/{task_id}/redrive`."""
    refused: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (401, 503)}
    router = APIRouter(route_class=operator_route(operator, operations.refusal), responses=refused)
    endpoints = _Endpoints(operations)
    router.add_api_route("/waits", endpoints.list_waits, methods=["GET"])
    router.add_api_route("/waits/redrive", endpoints.redrive_all, methods=["POST"])
    router.add_api_route(
        "/waits/{task_id}/redrive",
        endpoints.redrive,
        methods=["POST"],
        responses={404: {"model": Problem}},
        response_model=Redriven,
    )
    return router


class _Endpoints:
    """The operator's endpoints for programs."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def list_waits(
        self,
        state: States = None,
        engine: EngineName = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="How many to list at most.")] = 100,
        offset: Offset = 0,
    ) -> Listing:
        """List waits, newest first. Needs the operator token, as bearer or by HTTP Basic."""
        waits, counts = await self._operations.listed(state or [], engine, limit=limit, offset=offset)
        return Listing(waits=waits, counts=counts)

    async def redrive_all(self, engine: EngineName = None) -> Redriven:
        """Deliver all parked waits once more, or those for one engine. Needs the operator token, as bearer."""
        return Redriven(redriven=await self._operations.redrive(engine=engine))

    async def redrive(self, task_id: TaskId) -> Redriven | Response:
        """Deliver the parked waits on a task once more. Needs the operator token, as bearer."""
        if not await self._operations.store.queries.find(task_id):
            return problem(404, "WAIT_NOT_FOUND", "no wait on this task")
        return Redriven(redriven=await self._operations.redrive(task_id=task_id))
