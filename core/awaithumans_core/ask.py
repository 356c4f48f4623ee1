"""`await_human` and `await_human_sync` for plain scripts.

A script has no engine that could wake it, so it long-polls the server instead.
"""

import asyncio
import sys
from typing import Any, Literal, TypeVar, Unpack, overload

from awaithumans_core.client import SyncTaskClient, TaskClient
from awaithumans_core.errors import AnswererNotAllowedError, AwaitHumansError, SettingsError
from awaithumans_core.group_decisions import is_not_needed
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress import progress_of
from awaithumans_core.reask import answered, answered_sync
from awaithumans_core.task import HumanTask, TaskOptions

T = TypeVar("T")

INTERRUPTS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit)
"""Exceptions that stop a wait from outside. Under `asyncio.run`, Ctrl-C arrives as a cancellation."""

WITHDRAW_SECONDS = 5.0
"""Seconds that a stopped script spends on cancelling its question.

The time is short because a user who pressed Ctrl-C wants the prompt back.
"""


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
    question = HumanTask(task=task, response_schema=response_schema, **options)
    async with TaskClient(server_url, api_key, patience=WITHDRAW_SECONDS) as client:
        with progress_of(question, client.settings, shown=progress) as telling:

            async def ask(asked: HumanTask[Any]) -> Outcome:
                telling.asks(asked)
                try:
                    outcome = await client.ask(
                        asked, on_status=telling.tell, on_pause=telling.trouble, poll_seconds=telling.poll_seconds
                    )
                except AnswererNotAllowedError as refused:  # `answered` checks it again, and may re-ask
                    outcome = refused.outcome
                return telling.ends(outcome)

            try:
                decision, outcome = await answered(question, ask)
            except INTERRUPTS as stop:
                if cancel_on_interrupt or is_not_needed(stop):
                    telling.withdrawn(await _withdrawn(client, telling.asked))
                else:
                    telling.left_open()
                raise stop.with_traceback(None) from None  # its place in the HTTP client is of no use to a reader
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
    question = HumanTask(task=task, response_schema=response_schema, **options)
    with (
        SyncTaskClient(server_url, api_key, patience=WITHDRAW_SECONDS) as client,
        progress_of(question, client.settings, shown=progress) as telling,
    ):

        def ask(asked: HumanTask[Any]) -> Outcome:
            telling.asks(asked)
            try:
                outcome = client.ask(
                    asked, on_status=telling.tell, on_pause=telling.trouble, poll_seconds=telling.poll_seconds
                )
            except AnswererNotAllowedError as refused:  # `answered` checks it again, and may re-ask
                outcome = refused.outcome
            return telling.ends(outcome)

        try:
            decision, outcome = answered_sync(question, ask)
        except INTERRUPTS as stop:
            if cancel_on_interrupt:
                telling.withdrawn(_withdrawn_sync(client, telling.asked))
            else:
                telling.left_open()
            raise stop.with_traceback(None) from None  # its place in the HTTP client is of no use to a reader
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


async def _withdrawn(client: TaskClient, question: HumanTask[Any]) -> Outcome | None:
    """Cancel the question and return how it ended; None if the server could not be reached or refused."""
    try:
        return await client.withdraw(question)
    except AwaitHumansError:
        return None


def _withdrawn_sync(client: SyncTaskClient, question: HumanTask[Any]) -> Outcome | None:
    try:
        return client.withdraw(question)
    except AwaitHumansError:
        return None
