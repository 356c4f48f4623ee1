"""Orphaned waits: open questions whose callers no longer exist.

Law: no person is asked on behalf of a dead caller. A task that is still open, and whose last caller is gone, is to be
cancelled. If only one of several callers is gone, its wait is parked.

Law: a task is cancelled only if it is the caller's own. Its key must be that of the waits, and it must carry the mark
of one of their callers. The mark is given when the task is created, with its callback URL, which the server does not
show.
"""

import asyncio
from collections.abc import Mapping, Sequence

from awaithumans_core.engine import Engine, MarksTasks, SeesOrphans
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.availability.health import Health
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.store import Wait, WaitState
from awaithumans_relay.store.waits.due_for_check import Checks
from awaithumans_relay.store.waits.queries import Queries

logger = safe_logger("awaithumans.relay")

RESPONSE_SECONDS = 10.0
"""Maximum seconds in which an engine must report whether a caller still waits."""
REST_SECONDS = 60.0
"""Seconds for which a slower engine is not asked. Checks that wait for it would delay those of other engines."""
MAX_REQUESTS = 4
"""Maximum number of concurrent questions to one engine."""


class Orphans:
    """Asks engines that support it whether the callers of waits still exist.

    Args:
        checks: Parks open waits.
        queries: Reads the waits on a task.
        engines: Engines by name.
        health: Notified when one of them fails.
    """

    def __init__(self, checks: Checks, queries: Queries, engines: Mapping[str, Engine], health: Health) -> None:
        self._checks = checks
        self._queries = queries
        self._health = health
        self._engines = engines
        self._gates = {name: asyncio.Semaphore(MAX_REQUESTS) for name in engines}

    async def cancel_reason(self, waits: Sequence[Wait]) -> str | None:
        """Return why the task is to be cancelled, because no caller exists any more. None: a caller may still exist.

        If another caller still waits, this also parks the waits of the callers that are gone.

        Args:
            waits: Waits on one task, with its key.
        """
        task_id = waits[0].task_id
        gone = {wait.route.digest: reason for wait in waits if (reason := await self._gone(wait))}
        if not gone:
            return None
        key = waits[0].route.idempotency_key
        waiting = {
            wait.route.digest
            for wait in await self._queries.find(task_id)
            if wait.state == WaitState.OPEN and wait.route.idempotency_key == key
        }
        if waiting <= gone.keys():
            return "; ".join(sorted(set(gone.values())))
        for wait in waits:
            if reason := gone.get(wait.route.digest):
                await self._checks.park(wait, reason=reason)
        return None

    async def marks(self, task_id: str, key: str) -> set[str]:
        """Return the marks of the callers that wait, or waited, for this task under this key."""
        return {
            mark
            for wait in await self._queries.find(task_id)
            if wait.route.idempotency_key == key
            for mark in _marks(self._engines.get(wait.route.engine), wait.route)
        }

    async def _gone(self, wait: Wait) -> str | None:
        engine = self._engines.get(wait.route.engine)
        tracker = self._health.engine(wait.route.engine)
        if not isinstance(engine, SeesOrphans) or tracker.slow:
            return None
        limit = asyncio.timeout(RESPONSE_SECONDS)
        try:
            async with limit, self._gates[wait.route.engine]:
                return await engine.orphaned(wait.route)
        except Exception as error:
            tracker.check_due.set()
            if limit.expired():
                tracker.took_too_long(REST_SECONDS)
            message = "caller check failed: task %s (%s)"
            logger.info(message, wait.task_id, error, extra=about(wait.task_id, wait.route))
            return None


def _marks(engine: Engine | None, route: Route) -> set[str]:
    """Return the marks on tasks that the caller of this route has created."""
    return {route.digest, engine.asked_by(route)} if isinstance(engine, MarksTasks) else {route.digest}
