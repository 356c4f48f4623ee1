"""Waiting for a signal: one activity creates the task, the answer comes as a signal, a timer is the deadline."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from awaithumans_adapters.temporal.failures import typed
from awaithumans_adapters.temporal.limits import check_question, size_of, summary
from awaithumans_adapters.temporal.mailbox import Asked, Mailbox
from awaithumans_adapters.temporal.names import CARRIED, CLOSE_WAIT, LAST_LOOK, OPEN_WAIT, ORIGINAL_RUN, WITHDRAW
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import HumanTask

ACTIVITY_TIMEOUT = timedelta(seconds=60)
"""For one attempt; it takes a few short HTTP calls."""
CLOSE_LIMIT = timedelta(minutes=5)
"""How long a cancelled workflow tries to free the person; after that the task's own deadline does."""
RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))


async def wait_for_signal(question: HumanTask[Any], mailbox: Mailbox, asked: Asked) -> Outcome:
    """Ask and wait.

    A question of the run before is asked under its key once more, which finds its task: a run has the same commands
    whatever was handed on to it, and the task is recorded in its own history.
    """
    key = question.idempotency_key
    if asked.waiting is None or asked.waiting.key != key:
        mailbox.waits(asked, question, "signal")
    opened = await _open(question, asked)
    standing = Outcome.model_validate({"status": "created"} | opened)
    if standing.terminal:
        return standing
    waiting = mailbox.opened(asked, question, **opened)
    task_id, recorded = str(waiting.task_id), opened.get("idempotency_key")
    try:
        await workflow.wait_condition(
            lambda: mailbox.answer(asked, key) is not None,
            timeout=mailbox.until(waiting) + timedelta(seconds=TIMEOUT_GRACE_SECONDS),
            timeout_summary="the person's deadline",
        )
    except TimeoutError:
        return await _last_look(mailbox, asked, question, task_id, recorded)
    except asyncio.CancelledError:
        if mailbox.answer(asked, key) is None:
            await close(task_id)
        raise
    return mailbox.answer(asked, key) or await _last_look(mailbox, asked, question, task_id, recorded)


async def _open(question: HumanTask[Any], asked: Asked) -> dict[str, Any]:
    """Create and register. Until it is known which task that is, the question is withdrawn by its key."""
    opening = workflow.start_activity(
        OPEN_WAIT,
        checked_body(question, asked),
        result_type=dict[str, Any],
        start_to_close_timeout=ACTIVITY_TIMEOUT,
        retry_policy=RETRY,
        summary=summary(question.task),
    )
    try:
        opened: dict[str, Any] = await asyncio.shield(opening)
    except ActivityError as failed:
        raise typed(failed) from failed
    except asyncio.CancelledError:
        opening.cancel()
        await withdraw(withdrawal(question.idempotency_key, asked))
        raise
    return opened


def checked_body(question: HumanTask[Any], asked: Asked) -> dict[str, Any]:
    """The input of the activity that asks, if Temporal can carry it."""
    body = question.body() | ({CARRIED: asked.activity_before or True} if asked.inherited else {})
    if not asked.named:
        body[ORIGINAL_RUN] = asked.original_run
    check_question(size_of(workflow.payload_converter().to_payloads([body])))
    return body


async def _last_look(
    mailbox: Mailbox, asked: Asked, question: HumanTask[Any], task_id: str, recorded: str | None
) -> Outcome:
    """The task at its deadline. An answer that arrives by either way meanwhile counts.

    Args:
        mailbox: The run's.
        asked: The question.
        question: What is asked now.
        task_id: The recorded task.
        recorded: Its key. None: the history is of a release that did not record it; then any is accepted.
    """
    key = question.idempotency_key
    looking = workflow.start_activity(
        LAST_LOOK,
        {"task_id": task_id, "timeout_seconds": question.seconds, "idempotency_key": recorded},
        result_type=dict[str, Any],
        start_to_close_timeout=ACTIVITY_TIMEOUT,
        retry_policy=RETRY,
        summary="a last look",
    )
    try:
        looked = await asyncio.shield(looking)
    except asyncio.CancelledError:
        looking.cancel()
        await close(task_id)
        raise
    except ActivityError as failed:
        if (answer := mailbox.answer(asked, key)) is not None:
            return answer
        error = typed(failed)
        raise error from failed
    return mailbox.answer(asked, key) or Outcome.model_validate(looked)


async def close(task_id: str) -> None:
    """Cancel the task."""
    await freed(closing(task_id))


async def withdraw(question: dict[str, Any]) -> None:
    """Cancel a question, described by `withdrawal`, whose task is not known here."""
    await freed(withdrawing(question))


def withdrawal(key: str, asked: Asked) -> dict[str, Any]:
    """The input of the activity that cancels a question by its key."""
    question: dict[str, Any] = {"idempotency_key": key}
    if not asked.named:
        question[ORIGINAL_RUN] = asked.original_run
    return question | (asked.activity or {})


def closing(task_id: str) -> workflow.ActivityHandle[Any]:
    """Start cancelling the task."""
    return _freeing(CLOSE_WAIT, task_id)


def withdrawing(question: dict[str, Any]) -> workflow.ActivityHandle[Any]:
    """Start cancelling a question, described by `withdrawal`."""
    return _freeing(WITHDRAW, question)


def _freeing(how: str, what: str | dict[str, Any]) -> workflow.ActivityHandle[Any]:
    return workflow.start_activity(
        how,
        what,
        result_type=dict[str, Any],
        start_to_close_timeout=ACTIVITY_TIMEOUT,
        schedule_to_close_timeout=CLOSE_LIMIT,
        retry_policy=RETRY,
        summary="nobody waits any more",
    )


async def freed(*freeing: workflow.ActivityHandle[Any]) -> None:
    """Wait until these have ended; a failure to cancel a question does not keep the workflow from ending."""
    if freeing:
        await workflow.wait(freeing)
    for each in freeing:
        if not each.cancelled() and (failure := each.exception()) is not None:
            workflow.logger.warning("a question could not be cancelled: %s", one_line(failure))
