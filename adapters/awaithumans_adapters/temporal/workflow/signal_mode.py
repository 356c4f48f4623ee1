"""Signal mode: one activity creates the task, the answer arrives as a signal, and a timer is the deadline."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from awaithumans_adapters.temporal.activities.options import ACTIVITY_TIMEOUT, RETRY
from awaithumans_adapters.temporal.failures import not_asked, typed
from awaithumans_adapters.temporal.limits import MEASURED_FROM_BYTES, check_question, size_of, summary
from awaithumans_adapters.temporal.names import (
    ASK_WITHIN,
    CARRIED,
    CLOSE_WAIT,
    LAST_LOOK,
    MEASURE,
    OPEN_WAIT,
    ORIGINAL_RUN,
    WITHDRAW,
)
from awaithumans_adapters.temporal.workflow.mailbox import Mailbox, Wait
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import HumanTask

NOT_REGISTERED = "NotFoundError"
"""Error type with which the SDK's worker fails an activity that is not registered."""
MEASURE_RETRY = replace(RETRY, non_retryable_error_types=[NOT_REGISTERED])


async def wait_for_signal(question: HumanTask[Any], mailbox: Mailbox, wait: Wait) -> Outcome:
    """Create the task and wait for its outcome.

    A question inherited from the previous run is asked once more under its key, which finds its task. So a run has the
    same commands whatever was handed on to it, and the task is recorded in its own history.
    """
    key = question.idempotency_key
    if wait.pending is None or wait.pending.key != key:
        mailbox.waits(wait, question, "signal")
    opened = await _open(mailbox, wait, question)
    standing = Outcome.model_validate({"status": "created"} | opened)
    if standing.terminal:
        return standing
    pending = mailbox.opened(wait, question, **opened)
    task_id, recorded = str(pending.task_id), opened.get("idempotency_key")
    try:
        while True:
            await workflow.wait_condition(
                mailbox.arrival(wait, key).done,
                timeout=mailbox.until(pending) + timedelta(seconds=TIMEOUT_GRACE_SECONDS),
                timeout_summary="the person's deadline",
            )
            if (answer := mailbox.answer(wait, key)) is not None:
                return answer
    except TimeoutError:
        return await _last_look(mailbox, wait, question, task_id, recorded)
    except asyncio.CancelledError:
        if mailbox.answer(wait, key) is None:
            await let_go(mailbox, wait)
        raise


async def _open(mailbox: Mailbox, wait: Wait, question: HumanTask[Any]) -> dict[str, Any]:
    """Create the task and register the wait. Return the activity's result.

    If the call is cancelled before the task is known, the question is withdrawn by its key.

    Raises:
        QuestionNotAskedError: no worker ran the activity in time.
        AwaitHumansError: the activity failed.
    """
    limit = wait.ask_within or timedelta(seconds=question.seconds)
    calling = wait.activities.of_call()
    opening = workflow.start_activity(
        OPEN_WAIT,
        await checked_body(question, wait),
        result_type=dict[str, Any],
        schedule_to_close_timeout=None if wait.inherited else limit + calling["start_to_close_timeout"],
        summary=summary(question.task),
        **calling,
    )
    try:
        opened: dict[str, Any] = await asyncio.shield(opening)
    except ActivityError as failed:
        if (answer := mailbox.answer(wait, question.idempotency_key)) is not None:
            return answer.value()
        if isinstance(failed.cause, TemporalTimeoutError):  # no worker ran the activity, which itself ends before that
            raise not_asked(question.idempotency_key, limit.total_seconds(), one_line(failed.cause)) from failed
        raise typed(failed) from failed
    except asyncio.CancelledError:
        opening.cancel()
        await let_go(mailbox, wait)
        raise
    return opened


async def checked_body(question: HumanTask[Any], wait: Wait) -> dict[str, Any]:
    """Return the input of the activity that asks, if Temporal can carry it.

    A workflow has no access to the codec and to external storage, so a large question is measured by a local activity.
    If the worker has not registered that activity, the size before codec and storage is used.

    Raises:
        InvalidTaskError: the question is too large.
    """
    body = question.body() | ({CARRIED: wait.activity_before or True} if wait.inherited else {})
    if not wait.named:
        body[ORIGINAL_RUN] = wait.original_run
    if wait.ask_within is not None:
        body[ASK_WITHIN] = wait.ask_within.total_seconds()
    size = size_of(workflow.payload_converter().to_payloads([body]))
    if size >= MEASURED_FROM_BYTES:
        try:
            size = await workflow.execute_local_activity(
                MEASURE, body, result_type=int, start_to_close_timeout=ACTIVITY_TIMEOUT, retry_policy=MEASURE_RETRY
            )
        except ActivityError as failed:
            if not _not_registered(failed):
                raise
    check_question(size)
    return body


def _not_registered(failed: ActivityError) -> bool:
    return isinstance(failed.cause, ApplicationError) and failed.cause.type == NOT_REGISTERED


async def _last_look(
    mailbox: Mailbox, wait: Wait, question: HumanTask[Any], task_id: str, recorded: str | None
) -> Outcome:
    """Read the task at its deadline. An answer that arrives in the meantime, as a signal or in the task, counts.

    Args:
        mailbox: The run's mailbox.
        wait: The question.
        question: The question as it is asked now.
        task_id: The recorded task.
        recorded: The key of that task. None: the history is of a release that did not record it, and any key is
            accepted.
    """
    key = question.idempotency_key
    own_key, own_task = mailbox.own_task(wait)
    if own_task is None:
        raise mailbox.other_order(task_id)
    if own_task != task_id:
        task_id, recorded = own_task, own_key
    looking = workflow.start_activity(
        LAST_LOOK,
        {"task_id": task_id, "timeout_seconds": question.seconds, "idempotency_key": recorded},
        result_type=dict[str, Any],
        summary="a last look",
        **wait.activities.of_call(),
    )
    try:
        looked = await asyncio.shield(looking)
    except asyncio.CancelledError:
        looking.cancel()
        await let_go(mailbox, wait)
        raise
    except ActivityError as failed:
        if (answer := mailbox.answer(wait, key)) is not None:
            return answer
        error = typed(failed)
        raise error from failed
    return mailbox.answer(wait, key) or Outcome.model_validate(looked)


async def let_go(mailbox: Mailbox, wait: Wait) -> None:
    """Cancel the question of a cancelled call, in the way that its `on_cancel` selects."""
    if wait.on_cancel == "leave":
        return
    cancelling = freeing(mailbox, wait)
    if wait.on_cancel == "wait":
        await freed(cancelling)
    else:
        cancelling.add_done_callback(_log_failure)


def freeing(mailbox: Mailbox, wait: Wait) -> workflow.ActivityHandle[Any]:
    """Start cancelling a question: by its task, or by its key while its task is not known here."""
    key, task_id = mailbox.own_task(wait)
    how, what = (WITHDRAW, _withdrawal(wait, key)) if task_id is None else (CLOSE_WAIT, task_id)
    return workflow.start_activity(
        how,
        what,
        result_type=dict[str, Any],
        schedule_to_close_timeout=wait.cancel_within,
        summary="nobody waits any more",
        **wait.activities.of_call(),
    )


def _withdrawal(wait: Wait, key: str) -> dict[str, Any]:
    """Return the input of the activity that cancels a question by its key."""
    original = {} if wait.named else {ORIGINAL_RUN: wait.original_run}
    return {"idempotency_key": key} | original | (wait.activity or {})


async def freed(*freeing: workflow.ActivityHandle[Any]) -> None:
    """Wait until these cancellations have ended. A failed cancellation does not keep the workflow from ending."""
    if freeing:
        await workflow.wait(freeing)
    for each in freeing:
        _log_failure(each)


def _log_failure(freeing: "asyncio.Task[Any]") -> None:
    if not freeing.cancelled() and (failure := freeing.exception()) is not None:
        workflow.logger.warning("a question could not be cancelled: %s", one_line(failure))
