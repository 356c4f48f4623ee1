"""Waiting for a signal: one activity creates the task, the answer comes as a signal, a timer is the deadline."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from awaithumans_adapters.temporal.failures import typed
from awaithumans_adapters.temporal.limits import checked, summary
from awaithumans_adapters.temporal.mailbox import Asked, Mailbox
from awaithumans_adapters.temporal.names import CLOSE_WAIT, LAST_LOOK, OPEN_WAIT
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.task import HumanTask

ACTIVITY_TIMEOUT = timedelta(seconds=60)
"""For one attempt; it takes a few short HTTP calls."""
CLOSE_LIMIT = timedelta(minutes=5)
"""How long a cancelled workflow tries to free the person; after that the task's own deadline does."""
RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))


async def wait_for_signal(question: HumanTask[Any], mailbox: Mailbox, asked: Asked) -> Outcome:
    """Ask and wait. A question of the run before is not asked again: its task and its answers were handed on."""
    key = question.idempotency_key
    if asked.inherited and (known := mailbox.answer(key)) is not None:
        return known
    waiting = asked.waiting
    if waiting is None or waiting.key != key or waiting.task_id is None:
        opened = await _open(question)
        standing = Outcome.model_validate({"status": "created"} | opened)
        if standing.terminal:
            return standing
        waiting = mailbox.waits(asked, question, "signal", opened)
    task_id = str(waiting.task_id)
    try:
        await workflow.wait_condition(
            lambda: mailbox.answer(key) is not None,
            timeout=mailbox.until(waiting) + timedelta(seconds=TIMEOUT_GRACE_SECONDS),
            timeout_summary="the person's deadline",
        )
    except TimeoutError:
        return await _last_look(mailbox, question, task_id)
    except asyncio.CancelledError:
        if mailbox.answer(key) is None:
            await close(task_id)
        raise
    return mailbox.answer(key) or await _last_look(mailbox, question, task_id)


async def _open(question: HumanTask[Any]) -> dict[str, Any]:
    """Create and register.

    A cancellation waits for the activity, because a task whose id is unknown cannot be cancelled.
    """
    opening = workflow.start_activity(
        OPEN_WAIT,
        checked(question.body()),
        result_type=dict[str, Any],
        start_to_close_timeout=ACTIVITY_TIMEOUT,
        retry_policy=RETRY,
        summary=summary(question.task),
    )
    try:
        return await asyncio.shield(opening)
    except ActivityError as failed:
        raise typed(failed) from failed
    except asyncio.CancelledError:
        done, _ = await workflow.wait([opening], timeout=CLOSE_LIMIT.total_seconds())
        if done and not opening.cancelled() and opening.exception() is None:
            await close(opening.result()["task_id"])
        raise


async def _last_look(mailbox: Mailbox, question: HumanTask[Any], task_id: str) -> Outcome:
    """The task at its deadline. An answer that arrives by either way meanwhile counts."""
    key = question.idempotency_key
    try:
        looked = await workflow.execute_activity(
            LAST_LOOK,
            {"task_id": task_id, "timeout_seconds": question.seconds},
            result_type=dict[str, Any],
            start_to_close_timeout=ACTIVITY_TIMEOUT,
            retry_policy=RETRY,
            summary="a last look",
        )
    except ActivityError as failed:
        if (answer := mailbox.answer(key)) is not None:
            return answer
        error = typed(failed)
        raise error from failed
    return mailbox.answer(key) or Outcome.model_validate(looked)


async def close(task_id: str) -> None:
    """Cancel the task; a failure to do so does not keep the workflow from ending."""
    await settled(
        workflow.start_activity(
            CLOSE_WAIT,
            task_id,
            result_type=dict[str, Any],
            start_to_close_timeout=ACTIVITY_TIMEOUT,
            schedule_to_close_timeout=CLOSE_LIMIT,
            retry_policy=RETRY,
            summary="nobody waits any more",
        ),
        task_id,
    )


async def settled(freeing: workflow.ActivityHandle[Any], what: str) -> None:
    """Wait until a person has been freed, or until that has failed."""
    await workflow.wait([freeing])
    if not freeing.cancelled() and (failure := freeing.exception()) is not None:
        workflow.logger.warning("%s could not be cancelled: %s", what, failure)
