"""Waiting for an activity: it creates the task, and is completed from outside with the outcome.

Its start-to-close timeout is a re-check interval: when it passes, the next attempt asks again under the same key and
finds the answer there may be, so a callback that was lost is made up for. It has no heartbeat, and it is completed by
its id in the run that scheduled it; never by its task token, which dies with the attempt. The id is made of the
original run and the number of the call, so that a deploy may change what is asked.
"""

import asyncio
import math
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from awaithumans_adapters.temporal.failures import typed
from awaithumans_adapters.temporal.limits import summary
from awaithumans_adapters.temporal.names import AWAIT_HUMAN
from awaithumans_adapters.temporal.workflow.mailbox import Asked, Mailbox
from awaithumans_adapters.temporal.workflow.signal_mode import checked_body, let_go
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.task import HumanTask

RECHECKS: tuple[tuple[timedelta, timedelta], ...] = (
    (timedelta(hours=6), timedelta(hours=1)),
    (timedelta(days=3), timedelta(hours=6)),
)
"""How often an answer that was not called back is looked for, by the time people have; daily beyond these.

Each attempt is billed, and the relay's sweep finds such answers as well. One activity has one interval.
"""


async def wait_for_activity(question: HumanTask[Any], mailbox: Mailbox, asked: Asked, attempt: timedelta) -> Outcome:
    """Ask and wait. An outcome of another question that was delivered to this activity is not the answer."""
    while mailbox.is_foreign(asked, outcome := await _wait_once(question, mailbox, asked, attempt)):
        workflow.logger.warning("an outcome of another workflow's question was ignored; waiting again")
    return outcome


async def _wait_once(question: HumanTask[Any], mailbox: Mailbox, asked: Asked, attempt: timedelta) -> Outcome:
    waiting = workflow.start_activity(
        AWAIT_HUMAN,
        await checked_body(question, asked),
        result_type=dict[str, Any],
        activity_id=mailbox.activity_id(asked),
        start_to_close_timeout=attempt,
        summary=summary(question.task),
        **asked.activities.of_waiting(),
    )
    mailbox.waits(asked, question, "activity")
    try:
        return Outcome.model_validate(await asyncio.shield(waiting))
    except ActivityError as failed:
        raise typed(failed) from failed
    except asyncio.CancelledError:
        if not waiting.done() and asked.on_cancel != "leave":
            waiting.cancel()
            await let_go(mailbox, asked)
        raise


def interval(seconds: int, recheck: timedelta | None) -> timedelta:
    """The start-to-close timeout: equal parts of the person's time, about as long as `recheck`.

    The last one ends with that time and what the server is allowed after it, so no attempt is made just before the end.
    """
    if recheck is None:
        recheck = next((each for limit, each in RECHECKS if seconds <= limit.total_seconds()), timedelta(days=1))
    parts = math.ceil(seconds / recheck.total_seconds())
    return timedelta(seconds=(seconds + TIMEOUT_GRACE_SECONDS) / parts)
