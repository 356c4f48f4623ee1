"""Waiting for a signal: one activity creates the task, the answer comes as a signal, a timer is the deadline."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from awaithumans_adapters.temporal.activity_options import ActivityOptions
from awaithumans_adapters.temporal.failures import typed
from awaithumans_adapters.temporal.limits import check_question, size_of, summary
from awaithumans_adapters.temporal.mailbox import Asked, Mailbox
from awaithumans_adapters.temporal.names import CARRIED, CLOSE_WAIT, LAST_LOOK, OPEN_WAIT, WITHDRAW
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import HumanTask

CLOSE_LIMIT = timedelta(minutes=5)
"""How long a cancelled workflow tries to free the person; after that the task's own deadline does."""


async def wait_for_signal(question: HumanTask[Any], mailbox: Mailbox, asked: Asked) -> Outcome:
    """Ask and wait. A question whose task the run before has handed on is not asked again."""
    key = question.idempotency_key
    waiting = asked.waiting
    if waiting is None or waiting.key != key or waiting.task_id is None:
        waiting = mailbox.waits(asked, question, "signal")
        opened = await _open(question, asked)
        standing = Outcome.model_validate({"status": "created"} | opened)
        if standing.terminal:
            return standing
        mailbox.opened(waiting, question, **opened)
    task_id = str(waiting.task_id)
    try:
        await workflow.wait_condition(
            lambda: mailbox.answer(key) is not None,
            timeout=mailbox.until(waiting) + timedelta(seconds=TIMEOUT_GRACE_SECONDS),
            timeout_summary="the person's deadline",
        )
    except TimeoutError:
        return await _last_look(mailbox, asked, question, task_id)
    except asyncio.CancelledError:
        if mailbox.answer(key) is None:
            await close(task_id, asked.activities)
        raise
    return mailbox.answer(key) or await _last_look(mailbox, asked, question, task_id)


async def _open(question: HumanTask[Any], asked: Asked) -> dict[str, Any]:
    """Create and register. Until it is known which task that is, the question is withdrawn by its key."""
    opening = workflow.start_activity(
        OPEN_WAIT,
        checked_body(question, asked),
        result_type=dict[str, Any],
        summary=summary(question.task),
        **asked.activities.of_call(),
    )
    try:
        opened: dict[str, Any] = await asyncio.shield(opening)
    except ActivityError as failed:
        raise typed(failed) from failed
    except asyncio.CancelledError:
        opening.cancel()
        await withdraw(question.idempotency_key, asked.activities)
        raise
    return opened


def checked_body(question: HumanTask[Any], asked: Asked) -> dict[str, Any]:
    """The input of the activity that asks, if Temporal can carry it."""
    body = question.body() | ({CARRIED: True} if asked.inherited else {})
    check_question(size_of(workflow.payload_converter().to_payloads([body])))
    return body


async def _last_look(mailbox: Mailbox, asked: Asked, question: HumanTask[Any], task_id: str) -> Outcome:
    """The task at its deadline. An answer that arrives by either way meanwhile counts."""
    key = question.idempotency_key
    looking = workflow.start_activity(
        LAST_LOOK,
        {"task_id": task_id, "timeout_seconds": question.seconds, "idempotency_key": key},
        result_type=dict[str, Any],
        summary="a last look",
        **asked.activities.of_call(),
    )
    try:
        looked = await asyncio.shield(looking)
    except asyncio.CancelledError:
        looking.cancel()
        await close(task_id, asked.activities)
        raise
    except ActivityError as failed:
        if (answer := mailbox.answer(key)) is not None:
            return answer
        error = typed(failed)
        raise error from failed
    return mailbox.answer(key) or Outcome.model_validate(looked)


async def close(task_id: str, activities: ActivityOptions) -> None:
    """Cancel the task."""
    await freed(closing(task_id, activities))


async def withdraw(key: str, activities: ActivityOptions) -> None:
    """Cancel the question by its key, whose task is not known here."""
    await freed(withdrawing(key, activities))


def closing(task_id: str, activities: ActivityOptions) -> workflow.ActivityHandle[Any]:
    """Start cancelling the task."""
    return _freeing(CLOSE_WAIT, task_id, activities)


def withdrawing(key: str, activities: ActivityOptions) -> workflow.ActivityHandle[Any]:
    """Start cancelling the question by its key."""
    return _freeing(WITHDRAW, key, activities)


def _freeing(how: str, what: str, activities: ActivityOptions) -> workflow.ActivityHandle[Any]:
    return workflow.start_activity(
        how,
        what,
        result_type=dict[str, Any],
        schedule_to_close_timeout=CLOSE_LIMIT,
        summary="nobody waits any more",
        **activities.of_call(),
    )


async def freed(*freeing: workflow.ActivityHandle[Any]) -> None:
    """Wait until these have ended; a failure to cancel a question does not keep the workflow from ending."""
    if freeing:
        await workflow.wait(freeing)
    for each in freeing:
        if not each.cancelled() and (failure := each.exception()) is not None:
            workflow.logger.warning("a question could not be cancelled: %s", one_line(failure))
