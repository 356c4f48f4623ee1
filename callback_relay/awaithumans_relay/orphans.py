"""Open questions nobody waits for any more.

Law: a dead asker frees the human. A task that is still open, and whose last asker has gone, is to be cancelled; an
asker that has gone alone is set aside.
"""

import asyncio
from collections.abc import Mapping

from awaithumans_core.engine import Engine, SeesOrphans
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.logs import about
from awaithumans_relay.observe import Observer
from awaithumans_relay.store import Store, Wait, WaitState

logger = safe_logger("awaithumans.relay")

ANSWER_SECONDS = 10.0
"""How long an engine may think about whether somebody waits."""
REST_SECONDS = 60.0
"""An engine that took longer is not asked for so long: looks that wait for it would hold up those of the others."""
PARALLEL = 4
"""Questions to one engine at once."""


class Orphans:
    """Asks the engines that can tell.

    Args:
        store: The waits.
        engines: By name.
        observer: Told which of them fail.
    """

    def __init__(self, store: Store, engines: Mapping[str, Engine], observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._engines = engines
        self._gates = {name: asyncio.Semaphore(PARALLEL) for name in engines}
        self._resting: dict[str, float] = {}

    async def all_gone(self, waits: list[Wait]) -> bool:
        """Whether nobody waits for this task any more. Whoever has gone alone is set aside."""
        task_id = waits[0].task_id
        gone = {wait.route.digest: reason for wait in waits if (reason := await self._gone(wait))}
        if not gone:
            return False
        waiting = {wait.route.digest for wait in await self._store.find(task_id) if wait.state == WaitState.OPEN}
        if waiting <= gone.keys():
            why = "; ".join(sorted(set(gone.values())))
            logger.warning("task %s is cancelled: %s", task_id, why, extra={"task_id": task_id})
            return True
        for wait in waits:
            if reason := gone.get(wait.route.digest):
                await self._store.park_open(wait, reason=reason)
        return False

    async def _gone(self, wait: Wait) -> str | None:
        engine = self._engines.get(wait.route.engine)
        now = asyncio.get_running_loop().time()
        if not isinstance(engine, SeesOrphans) or self._resting.get(wait.route.engine, 0.0) > now:
            return None
        limit = asyncio.timeout(ANSWER_SECONDS)
        try:
            async with limit, self._gates[wait.route.engine]:
                return await engine.orphaned(wait.route)
        except Exception as away:
            self._observer.failed(wait.route.engine, away)
            if limit.expired():
                self._resting[wait.route.engine] = asyncio.get_running_loop().time() + REST_SECONDS
            told = "cannot tell whether anybody still waits for task %s (%s)"
            logger.info(told, wait.task_id, away, extra=about(wait.task_id, wait.route))
            return None
