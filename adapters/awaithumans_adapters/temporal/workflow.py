"""The workflow's side: sandbox-safe, deterministic, replayed.

Laws: every question has its own identity (`workflow.uuid4()` is the same on replay and after a reset), the mailbox is
set up before the task exists so that an early answer is kept, duplicates are ignored by key, and an answer given at the
last moment wins over the deadline.
"""

import asyncio
from datetime import timedelta
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from awaithumans_adapters.temporal.names import CLOSE_WAIT, OPEN_WAIT, SIGNAL
    from awaithumans_core import errors
    from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
    from awaithumans_core.outcome import Outcome, at_deadline
    from awaithumans_core.reask import answered
    from awaithumans_core.task import HumanTask, TaskOptions

T = TypeVar("T")

ACTIVITY_TIMEOUT = timedelta(seconds=60)
"""For one attempt; it takes two short HTTP calls."""
CLOSE_LIMIT = timedelta(minutes=5)
"""How long a cancelled workflow tries to free the person; after that the task's own deadline does."""
RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))
SUMMARY_CHARS = 200
"""Temporal allows 400 bytes for a summary."""


class Mailbox:
    """Answers by idempotency key, one mailbox a workflow run.

    The first answer to a key stays; later ones are duplicates.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Outcome] = {}
        self._open: dict[str, str] = {}
        self._details_before = ""

    @classmethod
    def here(cls) -> Self:
        """The running workflow's mailbox. It lives where the SDK keeps signal handlers, so it ends with the run."""
        handler = cast("object", workflow.get_signal_handler(SIGNAL))  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
        if handler is None:
            mailbox = cls()
            workflow.set_signal_handler(SIGNAL, mailbox.receive)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            return mailbox
        owner = getattr(handler, "__self__", None)
        if not isinstance(owner, cls):
            raise errors.SettingsError(f"this workflow has its own handler for the signal {SIGNAL!r}; rename it")
        return owner

    def receive(self, outcome: Any) -> None:
        """Signal handler. What is not an outcome is not an answer, and must not stop the workflow."""
        try:
            answer = Outcome.model_validate(outcome)
        except ValidationError:
            workflow.logger.warning("a signal %s that holds no outcome was ignored", SIGNAL)
            return
        if answer.terminal and answer.idempotency_key is not None:
            self.answers.setdefault(answer.idempotency_key, answer)

    def show(self, key: str, line: str) -> None:
        """Tell whoever looks at the workflow in the Temporal UI what it waits for."""
        if not self._open:
            self._details_before = workflow.get_current_details()
        self._open[key] = line
        self._publish()

    def hide(self, key: str) -> None:
        """The question is over."""
        if self._open.pop(key, None) is not None:
            self._publish()

    def _publish(self) -> None:
        waiting = "\n\n".join(self._open.values())
        workflow.set_current_details(waiting or self._details_before)


@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person from a workflow and wait for the typed answer, holding nothing meanwhile.

    One activity creates the task and registers the wait at the relay; the answer comes back as a signal. Any number of
    waits may be open at once (`asyncio.gather`). Cancelling the workflow, or the coroutine that waits, cancels the
    task, so that nobody works for nothing. The worker needs `HumanTasksPlugin`.

    Args:
        task: The question, one line, as the reviewer reads it.
        response_schema: What the answer must look like: a pydantic model, a dataclass or a TypedDict.
        return_outcome: Return `(answer, Outcome)`: who decided, when, on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, max_reasks, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: it ended without an answer.
        ResponseSchemaError: a person answered in another shape.
        TaskRejectedError, AuthenticationError, InvalidTaskError, SettingsError: the call or the worker's settings must
            be mended.

    Example:
        @workflow.run
        async def run(self, refund: Refund) -> str:
            decision = await await_human(task="Approve $250 refund?", payload=refund, response_schema=Decision)
            return "paid" if decision.approved else "declined"
    """
    options.setdefault("idempotency_key", _fresh_key())
    question = HumanTask(task=task, response_schema=response_schema, **options)
    decision, outcome = await answered(question, _wait)
    return (decision, outcome) if return_outcome else decision


def _fresh_key() -> str:
    info = workflow.info()
    return f"temporal:{info.namespace}:{info.workflow_id}:{workflow.uuid4()}"


async def _wait(question: HumanTask[Any]) -> Outcome:
    mailbox = Mailbox.here()
    key = question.idempotency_key
    opened = await _open(question)
    standing = Outcome.model_validate(opened)
    if standing.terminal:
        return standing
    mailbox.show(key, f"Waiting for a person: **{question.task}**\n\n{opened['review_url']}")
    try:
        await workflow.wait_condition(
            lambda: key in mailbox.answers,
            timeout=question.seconds + TIMEOUT_GRACE_SECONDS,
            timeout_summary="the person's deadline",
        )
        outcome = mailbox.answers[key]
    except TimeoutError:
        outcome = await _last_look(mailbox, key, standing.task_id)
    except asyncio.CancelledError:
        if key not in mailbox.answers:
            await _free(standing.task_id)
        mailbox.hide(key)
        raise
    # Not in a finally clause: that would also run when the worker drops the workflow from its cache, outside of it.
    mailbox.hide(key)
    return outcome


async def _last_look(mailbox: Mailbox, key: str, task_id: str) -> Outcome:
    """Close the task at its deadline. An answer that arrives by either way meanwhile counts."""
    try:
        closed = at_deadline(await _close(task_id))
    except errors.AwaitHumansError:
        if key not in mailbox.answers:
            raise
        return mailbox.answers[key]
    return mailbox.answers.get(key, closed)


async def _open(question: HumanTask[Any]) -> dict[str, Any]:
    """Create and register.

    A cancellation waits for the activity, because a task whose id is unknown cannot be cancelled.
    """
    opening = workflow.start_activity(
        OPEN_WAIT,
        question.body(),
        result_type=dict[str, Any],
        start_to_close_timeout=ACTIVITY_TIMEOUT,
        retry_policy=RETRY,
        summary=question.task[:SUMMARY_CHARS],
    )
    try:
        return await asyncio.shield(opening)
    except ActivityError as failed:
        raise _typed(failed) from failed
    except asyncio.CancelledError:
        done, _ = await workflow.wait([opening], timeout=CLOSE_LIMIT.total_seconds())
        if done and not opening.cancelled() and opening.exception() is None:
            await _free(opening.result()["task_id"])
        raise


async def _close(task_id: str) -> Outcome:
    try:
        closed = await workflow.execute_activity(
            CLOSE_WAIT,
            task_id,
            result_type=dict[str, Any],
            start_to_close_timeout=ACTIVITY_TIMEOUT,
            retry_policy=RETRY,
            summary="a last look",
        )
    except ActivityError as failed:
        raise _typed(failed) from failed
    return Outcome.model_validate(closed)


async def _free(task_id: str) -> None:
    """Cancel the task; a failure to do so does not keep the workflow from ending."""
    closing = workflow.start_activity(
        CLOSE_WAIT,
        task_id,
        result_type=dict[str, Any],
        start_to_close_timeout=ACTIVITY_TIMEOUT,
        schedule_to_close_timeout=CLOSE_LIMIT,
        retry_policy=RETRY,
        summary="nobody waits any more",
    )
    await workflow.wait([closing])
    if not closing.cancelled() and (failure := closing.exception()) is not None:
        workflow.logger.warning("task %s could not be cancelled: %s", task_id, failure)


def _typed(failed: ActivityError) -> BaseException:
    """The error the activity stands for, born again on this side of the wall; any other failure as it is."""
    cause = failed.cause
    kind = getattr(errors, cause.type or "", None) if isinstance(cause, ApplicationError) else None
    if isinstance(cause, ApplicationError) and isinstance(kind, type) and issubclass(kind, errors.AwaitHumansError):
        return kind(cause.message)
    return failed
