"""Stores an answer that the sweep has found, by reading its task or in the list of ended tasks."""

from collections.abc import Sequence

from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.intake import Intake

logger = safe_logger("awaithumans.relay")


class FoundAnswers:
    """Stores answers, and reports those that no callback had brought.

    Args:
        intake: Stores answers.
        observer: Notified of every answer that is found.
    """

    def __init__(self, intake: Intake, observer: Observer) -> None:
        self._intake = intake
        self._observer = observer

    async def record(self, outcome: Outcome, waits: Sequence[Wait], *, ahead: bool = False) -> bool:
        """Store the outcome of a task that has ended. Returns whether it was not known yet.

        Args:
            outcome: A terminal outcome with its idempotency key.
            waits: The waits on the task.
            ahead: Whether it was found before its callback was due.
        """
        with self._observer.finding(outcome.task_id, waits):
            found = bool(await self._intake.answer(outcome, found_by="sweep"))
        if found:
            self._observer.metrics.answer_found()
            message = "sweep found the answer to task %s (%s)" + (", ahead of its callback" if ahead else "")
            for wait in waits:
                logger.info(message, outcome.task_id, outcome.status, extra=about(outcome.task_id, wait.route))
        return found
