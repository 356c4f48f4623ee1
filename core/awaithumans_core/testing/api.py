"""The task API of a `FakeHumans`, as a FastAPI app: the routes, the statuses and the three error shapes of the server.

`{"error", "message", "docs"}` for errors of the server itself, `{"detail": text}` for 401 and 403, and
`{"detail": [{"loc", "msg", ...}]}` for 422.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from awaithumans_core.clock import Clock
from awaithumans_core.flow import POLL_SECONDS
from awaithumans_core.status import TaskStatus
from awaithumans_core.task import MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS
from awaithumans_core.testing.changes import Changes
from awaithumans_core.testing.task_server_state import EndedError, FakeTask, TaskServerState, UnknownTaskError

DOCS = "https://docs.awaithumans.dev/troubleshooting"
MAX_POLL_SECONDS = 30
MAX_LISTED = 200


class TaskCreate(BaseModel):
    """The request body of `POST /api/tasks`, which creates a task."""

    task: str
    payload: dict[str, Any]
    payload_schema: dict[str, Any]
    response_schema: dict[str, Any]
    form_definition: dict[str, Any] | None = None
    timeout_seconds: int = Field(ge=MIN_TIMEOUT_SECONDS, le=MAX_TIMEOUT_SECONDS)
    idempotency_key: str
    assign_to: dict[str, Any] | None = None
    notify: list[str] | None = None
    verifier_config: dict[str, Any] | None = None
    redact_payload: bool = False
    callback_url: str | None = None
    task_metadata: dict[str, str] | None = None
    initial_response: dict[str, Any] | None = None
    redact_response_after_submit: bool = False


class TaskCompletion(BaseModel):
    """The request body of `POST /api/tasks/{id}/complete`, which submits an answer."""

    response: dict[str, Any]
    completed_by_email: str | None = None
    completed_via_channel: str | None = None


@dataclass(frozen=True)
class ServerContext:
    """The state, clock and tokens that the routes use."""

    state: TaskServerState
    clock: Clock
    token: str = field(repr=False)
    outsider_token: str = field(repr=False)
    """The token of a caller that is neither operator nor assignee."""


async def _context(request: Request) -> ServerContext:
    context: ServerContext = request.app.state.context
    return context


async def _known(request: Request, context: "Context") -> str:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or given not in {context.token, context.outsider_token}:
        raise HTTPException(401, "Authentication required.")
    return given


async def _admin(given: "Known", context: "Context") -> None:
    if given != context.token:
        raise HTTPException(403, "Admin access required.")


async def _operator(given: "Known", context: "Context") -> None:
    if given != context.token:
        raise HTTPException(403, "Operator access required.")


async def _reader(given: "Known", context: "Context", task_id: str) -> FakeTask:
    task = context.state.get(task_id)
    if given != context.token:
        raise HTTPException(403, "You don't have access to this task.")
    return task


Context = Annotated[ServerContext, Depends(_context)]
Known = Annotated[str, Depends(_known)]
Readable = Annotated[FakeTask, Depends(_reader)]

router = APIRouter(prefix="/api")


@router.get("/health")
async def health() -> dict[str, str]:
    """Report that the server is running."""
    return {"status": "ok", "version": "fake"}


@router.post("/tasks", status_code=201, dependencies=[Depends(_admin)])
async def create(asked: TaskCreate, response: Response, context: Context) -> dict[str, Any]:
    """Create a task, or return the one that already has this key."""
    task, replayed = context.state.create(asked.model_dump())
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return task.record()


@router.get("/tasks")
async def listed(
    given: Known,
    context: Context,
    status: TaskStatus | None = None,
    terminal: Annotated[bool, Query()] = False,  # noqa: FBT002 - a query parameter
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> list[dict[str, Any]]:
    """List the tasks, newest first. A caller that is not an operator gets an empty list."""
    if given != context.token:
        return []
    found = context.state.listed(status, terminal=terminal, limit=limit, offset=offset)
    return [task.record(listed=True) for task in found]


@router.get("/tasks/{task_id}")
async def get(task: Readable) -> dict[str, Any]:
    """Return the record of one task."""
    return task.record()


@router.get("/tasks/{task_id}/poll")
async def poll(
    task: Readable, context: Context, timeout: Annotated[int, Query(ge=1, le=MAX_POLL_SECONDS)] = POLL_SECONDS
) -> dict[str, Any]:
    """Reply once the task has ended, or when the timeout has passed."""
    until = context.clock.now() + timeout
    async with Changes(context.state, context.clock) as changes:
        while not context.state.get(task.id).terminal and context.clock.now() < until:
            await changes.next_during_poll(until)
            context.state.catch_up()
    return task.polled()


@router.post("/tasks/{task_id}/complete")
async def complete(task: Readable, submitted: TaskCompletion, context: Context) -> dict[str, Any]:
    """Complete the task with any response, since the server does not check it."""
    by, via = submitted.completed_by_email, submitted.completed_via_channel
    return context.state.complete(task.id, submitted.response, by=by, via=via).record()


@router.post("/tasks/{task_id}/cancel", dependencies=[Depends(_operator)])
async def cancel(task_id: str, context: Context) -> dict[str, Any]:
    """Cancel the task, unless it has ended."""
    return context.state.cancel(task_id).record()


@router.delete("/tasks/{task_id}", status_code=204, dependencies=[Depends(_admin)])
async def delete(task_id: str, context: Context) -> Response:
    """Remove the task and its key."""
    context.state.delete(task_id)
    return Response(status_code=204)


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    return _refused(404, "TASK_NOT_FOUND", f"Task '{error.args[0]}' not found.")


async def _ended(request: Request, error: Exception) -> JSONResponse:
    task_id, status = error.args
    return _refused(409, "TASK_ALREADY_TERMINAL", f"Task '{task_id}' is already in terminal status '{status}'.")


def create_api(context: ServerContext, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """Return the task API of the fake server as a FastAPI app."""
    app = FastAPI(
        title="FakeHumans",
        lifespan=lifespan,
        exception_handlers={UnknownTaskError: _unknown, EndedError: _ended},
        redirect_slashes=False,
    )
    app.state.context = context
    app.include_router(router)
    return app


def _refused(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(
        {"error": code, "message": message, "docs": f"{DOCS}#{code.lower().replace('_', '-')}"}, status_code=status
    )
