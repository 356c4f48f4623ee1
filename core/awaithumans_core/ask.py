"""`await_human` and `await_human_sync` for plain scripts.

A script has no engine that could wake it, so it long-polls the server instead. What the wait needs (`script`) is
imported by the first call, so that a program that may ask starts as quickly as one that does not.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal, TypeVar, Unpack, overload

from awaithumans_core.errors import SettingsError

if TYPE_CHECKING:
    from awaithumans_core.outcome import Outcome
    from awaithumans_core.task import TaskOptions

T = TypeVar("T")


@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    cancel_on_interrupt: bool = False,
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
    cancel_on_interrupt: bool = False,
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
    cancel_on_interrupt: bool = False,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person and wait for the typed answer, through the server's long-poll API.

    The wait continues through outages of the server. A script that was stopped resumes the question by its
    `idempotency_key`: it receives the stored answer, and no person is asked twice. In a Temporal workflow or a
    LangGraph node, use the `await_human` of that adapter instead, which waits without holding a connection.

    Args:
        task: The question, one line, as the reviewer reads it.
        response_schema: What the answer must look like: a pydantic model, a dataclass or a TypedDict.
        server_url: Default: `AWAITHUMANS_URL`, then a local `awaithumans dev`.
        api_key: Default: `AWAITHUMANS_ADMIN_API_TOKEN`, then the local `awaithumans dev`.
        progress: Show the open question and its status on stderr: live on a terminal, as one line elsewhere.
        cancel_on_interrupt: Whether to cancel the question when the wait is stopped (Ctrl-C, a cancelled coroutine,
            SystemExit). False: the question stays open, and stderr shows how to resume it. True: it is cancelled.
        return_outcome: Return `(answer, Outcome)`. The outcome records who decided, when, and on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, max_reasks, only_assignee, not_by, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: the task ended without an answer.
        TaskNotFoundError: the task was deleted on the server. The same call with the same key asks again.
        ResponseSchemaError: the answer does not fit `response_schema`, and neither does that of any of the
            `max_reasks` re-asks.
        AnswererNotAllowedError: the answer is from a person whose answer is not accepted (`only_assignee`, `not_by`),
            and so is that of each re-ask.
        AuthenticationError, PermissionDeniedError, TaskRejectedError, InvalidTaskError: the call must be fixed.
        ServerUnreachableError: the server could not be reached until the deadline.

    Example:
        decision = await await_human(
            task="Approve $250 refund?", payload=refund, response_schema=Decision, timeout_seconds=900
        )
    """
    _refuse_in_workflow()
    from awaithumans_core.script import answer
    from awaithumans_core.task import HumanTask

    question = HumanTask(task=task, response_schema=response_schema, **options)
    decision, outcome = await answer(
        question, server_url, api_key, progress=progress, cancel_on_interrupt=cancel_on_interrupt
    )
    return (decision, outcome) if return_outcome else decision


@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    server_url: str | None = None,
    api_key: str | None = None,
    progress: bool = True,
    cancel_on_interrupt: bool = False,
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
    cancel_on_interrupt: bool = False,
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
    cancel_on_interrupt: bool = False,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person and wait for the typed answer like `await_human`, but block the calling thread.

    For scripts, Flask handlers and notebooks. It uses no event loop, so it also works where one is already running, and
    in any thread.
    """
    _refuse_in_workflow()
    from awaithumans_core.script import answer_sync
    from awaithumans_core.task import HumanTask

    question = HumanTask(task=task, response_schema=response_schema, **options)
    decision, outcome = answer_sync(
        question, server_url, api_key, progress=progress, cancel_on_interrupt=cancel_on_interrupt
    )
    return (decision, outcome) if return_outcome else decision


def _refuse_in_workflow() -> None:
    """Raise `SettingsError` in a Temporal workflow, which has an `await_human` of its own.

    The one in this module would open a socket in the workflow's sandbox.
    """
    temporal = sys.modules.get("temporalio.workflow")
    if temporal is not None and temporal.in_workflow():
        raise SettingsError(
            "this is the await_human of plain scripts: in a workflow use the one of awaithumans_adapters.temporal"
        )
