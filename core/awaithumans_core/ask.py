"""`await_human` and `await_human_sync` for plain scripts, which have nothing to wake and long-poll instead."""

import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Unpack, overload

from awaithumans_core.client import SyncTaskClient, TaskClient
from awaithumans_core.outcome import Outcome, settle
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask, TaskOptions

T = TypeVar("T")


@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person and wait for the typed answer, through the server's long-poll API.

    Waits through outages of the server. A script that was stopped picks the question up again by its `idempotency_key`:
    the stored answer comes back, and nobody is asked twice. In a Temporal workflow or a LangGraph node use the
    `await_human` of that adapter instead, which waits without holding a connection.

    Args:
        task: The question, one line, as the reviewer reads it.
        response_schema: What the answer must look like: a pydantic model, a dataclass or a TypedDict.
        server_url: Default: `AWAITHUMANS_URL`, then a local `awaithumans dev`.
        api_key: Default: `AWAITHUMANS_ADMIN_API_TOKEN`, then the local `awaithumans dev`.
        progress: Say on stderr what is being waited for and how it stands.
        return_outcome: Return `(answer, Outcome)`: who decided, when, on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: it ended without an answer.
        ResponseSchemaError: a person answered in another shape.
        AuthenticationError, PermissionDeniedError, TaskRejectedError, InvalidTaskError: the call must be mended.
        ServerUnreachableError: the server could not be reached up to the deadline.

    Example:
        decision = await await_human(
            task="Approve $250 refund?", payload=refund, response_schema=Decision, timeout_seconds=900
        )
    """
    question = HumanTask(task=task, response_schema=response_schema, **options)
    async with TaskClient(server_url, api_key) as client:
        outcome = await client.ask(question, on_status=_teller(question, client.settings, progress=progress))
    return _answer(outcome, response_schema, return_outcome=return_outcome)


@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """`await_human` without an event loop: for scripts, Flask handlers and notebooks. It blocks the calling thread."""
    question = HumanTask(task=task, response_schema=response_schema, **options)
    with SyncTaskClient(server_url, api_key) as client:
        outcome = client.ask(question, on_status=_teller(question, client.settings, progress=progress))
    return _answer(outcome, response_schema, return_outcome=return_outcome)


def _answer(outcome: Outcome, response_schema: type[T], *, return_outcome: bool) -> T | tuple[T, Outcome]:
    decision = settle(outcome, response_schema)
    return (decision, outcome) if return_outcome else decision


def _teller(question: HumanTask[Any], settings: Settings, *, progress: bool) -> Callable[[Outcome], None] | None:
    """Says on stderr what is being waited for: the link and the key once, then every change of status."""
    told: list[str] = []

    def tell(outcome: Outcome) -> None:
        if not told:
            told.append(outcome.status)
            line = (
                f"{question.task} - waiting for a person at {settings.review_url(outcome.task_id)} "
                f"(up to {question.seconds} s; pick up again with idempotency_key={question.idempotency_key!r})"
            )
        elif told[-1] != outcome.status:
            told.append(outcome.status)
            line = f"{question.task} - {outcome.status}"
        else:
            return
        sys.stderr.write(f"awaithumans: {line}\n")

    return tell if progress else None
