"""Activity mode: one activity creates the task, and is completed from outside with the outcome.

Its start-to-close timeout is a re-check interval. When it passes, the next attempt asks again under the same key and
finds an answer if there is one, which compensates for a lost callback. The activity has no heartbeat. It is completed
by its id in the run that scheduled it, never by its task token, which becomes invalid with the attempt. The id is made
from the original run and the number of the call, so that a deploy may change what is asked.
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
from awaithumans_adapters.temporal.workflow.mailbox import Mailbox, Wait
from awaithumans_adapters.temporal.workflow.signal_mode import checked_body, let_go
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.task import HumanTask

RECHECKS: tuple[tuple[timedelta, timedelta], ...] = (
    (timedelta(hours=6), timedelta(hours=1)),
    (timedelta(days=3), timedelta(hours=6)),
)
"""Default re-check interval by the time people have: (up to this time, interval). Daily for longer times.

A re-check finds an answer that was not called back. Each attempt is billed, and the relay's sweep finds such answers as
well. One activity has one interval.
"""


async def wait_for_activity(question: HumanTask[Any], mailbox: Mailbox, wait: Wait, attempt: timedelta) -> Outcome:
    """Create the task and wait for its outcome. An outcome of another question is not the answer and is ignored."""
    while mailbox.is_foreign(wait, outcome := await _wait_once(question, mailbox, wait, attempt)):
        workflow.logger.warning("an outcome of another workflow's question was ignored; waiting again")
    return outcome


async def _wait_once(question: HumanTask[Any], mailbox: Mailbox, wait: Wait, attempt: timedelta) -> Outcome:
    waiting = workflow.start_activity(
        AWAIT_HUMAN,
        await checked_body(question, wait),
        result_type=dict[str, Any],
        activity_id=mailbox.activity_id(wait),
        start_to_close_timeout=attempt,
        summary=summary(question.task),
        **wait.activities.of_waiting(),
    )
    mailbox.waits(wait, question, "activity")
    try:
        return Outcome.model_validate(await asyncio.shield(waiting))
    except ActivityError as failed:
        raise typed(failed) from failed
    except asyncio.CancelledError:
        if not waiting.done() and wait.on_cancel != "leave":
            waiting.cancel()
            await let_go(mailbox, wait)
        raise


def interval(seconds: int, recheck: timedelta | None) -> timedelta:
    """Return the start-to-close timeout: an equal part of the person's time, about as long as `recheck`.

    The last part ends after that time plus the server's grace period, so no attempt is made just before the end.
    """
    if recheck is None:
        recheck = next((each for limit, each in RECHECKS if seconds <= limit.total_seconds()), timedelta(days=1))
    parts = math.ceil(seconds / recheck.total_seconds())
    return timedelta(seconds=(seconds + TIMEOUT_GRACE_SECONDS) / parts)
