"""Waiting for an activity: it creates the task, and is completed from outside with the outcome.

Its start-to-close timeout is a re-check interval: when it passes, the next attempt asks again under the same key and
finds the answer there may be, so a callback that was lost is made up for. It has no heartbeat, and it is completed by
its id, which names the question, in whichever run is current; never by its task token, which dies with the attempt.
"""

import asyncio
import math
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from awaithumans_adapters.temporal.failures import typed
from awaithumans_adapters.temporal.limits import summary
from awaithumans_adapters.temporal.mailbox import Asked, Mailbox
from awaithumans_adapters.temporal.names import AWAIT_HUMAN
from awaithumans_adapters.temporal.signal_mode import checked_body, withdraw
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.task import HumanTask

RECHECK = timedelta(hours=1)
"""How long a lost callback goes unnoticed at most, unless the relay's sweep has noticed it before."""


async def wait_for_activity(question: HumanTask[Any], mailbox: Mailbox, asked: Asked, recheck: timedelta) -> Outcome:
    """Ask and wait."""
    key = question.idempotency_key
    waiting = workflow.start_activity(
        AWAIT_HUMAN,
        checked_body(question, asked),
        result_type=dict[str, Any],
        activity_id=mailbox.activity_id(key),
        start_to_close_timeout=interval(question.seconds, recheck),
        summary=summary(question.task),
        **asked.activities.of_waiting(),
    )
    mailbox.waits(asked, question, "activity")
    try:
        return Outcome.model_validate(await asyncio.shield(waiting))
    except ActivityError as failed:
        raise typed(failed) from failed
    except asyncio.CancelledError:
        if not waiting.done():
            waiting.cancel()
            await withdraw(key, asked.activities)
        raise


def interval(seconds: int, recheck: timedelta) -> timedelta:
    """The start-to-close timeout: so many equal parts of the person's time that the last one ends with it."""
    whole = seconds + TIMEOUT_GRACE_SECONDS
    return timedelta(seconds=whole / math.ceil(whole / recheck.total_seconds()))
