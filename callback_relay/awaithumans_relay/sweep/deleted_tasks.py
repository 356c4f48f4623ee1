"""Counts tasks that the server does not know, and ends their waits once their deletion is confirmed.

The rule is in `awaithumans_core.deleted_tasks`. A confirmed deletion is stored as an outcome and delivered like any
other.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

from awaithumans_core.deleted_tasks import RULE, Census, Rule
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.missing_tasks import MissingTasks

logger = safe_logger("awaithumans.relay")

FLUSH_SECONDS = 5.0
"""Seconds between two writes of readings of existing tasks, while some task is missing."""


class Deletions:
    """Evaluates what the sweep's readings show about deleted tasks.

    Args:
        missing_tasks: The record of missing tasks.
        observer: Reports when the server's database is in doubt.
        on_answer: Called after waits were ended.
        rule: When a deletion is confirmed.
    """

    def __init__(
        self, missing_tasks: MissingTasks, observer: Observer, *, on_answer: Callable[[], None], rule: Rule = RULE
    ) -> None:
        self._missing_tasks = missing_tasks
        self._health = observer.health
        self._observer = observer
        self._on_answer = on_answer
        self._rule = rule
        self._seen: dict[str, float] = {}
        """Readings of existing tasks that are not stored yet, with their times."""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Store readings, and check whether the database is in doubt, while the block runs."""
        async with beside(deletions=self._run()):
            yield

    def present(self, task_id: str) -> None:
        """Note that a task was read just now."""
        self._seen[task_id] = self._missing_tasks.clock()

    async def missing(self, task_id: str, waits: Sequence[Wait]) -> None:
        """Record that the server answered `TASK_NOT_FOUND`, and end the waits if the deletion is confirmed."""
        if task_id in self._seen:
            await self._flush()
        missing = await self._missing_tasks.record(task_id, self._rule)
        if missing is None:
            return
        logger.info("task missing on the awaithumans server: %s (reading %d)", task_id, missing.count)
        if self._health.missing_tasks is not None or not self._rule.confirmed(missing, self._missing_tasks.clock()):
            return
        await self._flush()
        with self._observer.finding(task_id, waits):
            review = await self._missing_tasks.review(task_id, self._rule)
        if review.doubted:
            self._doubt(review.census)
        elif review.engines:
            for wait in waits:
                message = "task %s was deleted on the awaithumans server: its caller gets TaskNotFoundError"
                logger.warning(message, task_id, extra=about(task_id, wait.route))
            self._on_answer()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                if await self._missing_tasks.any():
                    await self._flush()
                    self._doubt(await self._missing_tasks.doubt(self._rule))
                else:
                    self._seen.clear()
                    self._doubt(None)
            except Exception:
                logger.exception("storing task readings failed; trying again")

    async def _flush(self) -> None:
        seen, self._seen = self._seen, {}
        if seen:
            await self._missing_tasks.record_seen(seen)

    def _doubt(self, census: Census | None) -> None:
        before, self._health.missing_tasks = self._health.missing_tasks, census
        if census is not None and before is None:
            logger.error(
                "awaithumans server in doubt: %s. It may be running on another database, so no wait ends until most "
                "tasks are found again; check AWAITHUMANS_URL and the database of the server",
                census,
            )
        elif census is None and before is not None:
            logger.warning("awaithumans server no longer in doubt: most tasks are found again")
