"""Open waits -> one look at the task on their schedule -> answered.

Law: no answer is lost for want of a callback. A task completed by e-mail or in Slack sends none, and the far end may
have been down when one was sent; the sweep finds both.

Law: a dead asker frees the human. A task that is still open, and whose last asker has gone, is cancelled.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from awaithumans_core.client import TaskClient
from awaithumans_core.engine import Engine, SeesOrphans
from awaithumans_core.errors import RequestRefusedError, ServerUnreachableError, TaskNotFoundError
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_relay.logs import about
from awaithumans_relay.observe import Observer
from awaithumans_relay.store import Store, Wait, WaitState

logger = logging.getLogger("awaithumans.relay")

TICK_SECONDS = 1.0
"""How often the table is asked what is due."""
BATCH = 50
AWAY_AFTER = 4
"""So many tasks that cannot be read, and none that can: the server is away."""
MISSED_SECONDS = 10.0
"""When a look that did not come about is made up for."""
ORPHAN_SECONDS = 10.0
"""How long an engine may think about whether somebody waits."""
PARALLEL = 8
"""Looks under way at once: the server answers from one process."""


class Sweeper:
    """Looks after open waits until it is stopped.

    Args:
        store: The waits.
        client: Reads tasks; should give up at once (`patience=0`), the schedule is the retry.
        engines: Asked whether somebody still waits, those that can tell.
        on_answer: Called after an answer was stored.
        observer: Told of every look.
    """

    def __init__(
        self,
        store: Store,
        client: TaskClient,
        engines: Mapping[str, Engine],
        *,
        on_answer: Callable[[], None],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer(engines)
        self._store = store
        self._client = client
        self._engines = engines
        self._on_answer = on_answer
        self._backoff = Backoff(first=TICK_SECONDS, most=15.0)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Sweep while the block runs."""
        loop = asyncio.create_task(self._run(), name="sweep")
        try:
            yield
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                due = await self._store.claim_checks(BATCH)
                await self._look_at(due)
                failures = 0
            except ServerUnreachableError as away:
                self._observer.missed(away)
                failures += 1
                logger.warning("sweep: %s", away)
            except Exception:
                failures += 1
                logger.exception("sweep failed; trying again")
            await asyncio.sleep(self._backoff.delay(failures) if failures else TICK_SECONDS)

    async def _look_at(self, due: list[Wait]) -> None:
        """Look at every task once, however many waits share it.

        One task that cannot be read does not keep the others from being looked at; several, and nothing read, mean that
        the server is away, and end the round. What was missed comes again soon, not on its schedule.
        """
        by_task: dict[str, list[Wait]] = {}
        for wait in due:
            by_task.setdefault(wait.task_id, []).append(wait)
        gate = asyncio.Semaphore(PARALLEL)
        missed: list[Wait] = []
        troubles: list[Exception] = []
        seen: list[str] = []

        async def look(task_id: str, waits: list[Wait]) -> None:
            async with gate:
                if len(troubles) >= AWAY_AFTER and not seen:
                    missed.extend(waits)
                    return
                try:
                    await self._look(task_id, waits)
                    seen.append(task_id)
                except Exception as trouble:
                    troubles.append(trouble)
                    missed.extend(waits)

        await asyncio.gather(*(look(task_id, waits) for task_id, waits in by_task.items()))
        if missed:
            await self._store.postpone_checks(missed, MISSED_SECONDS)
        if troubles and not seen:
            raise troubles[0]
        for trouble in troubles:
            logger.warning("sweep: %s", trouble)

    async def _look(self, task_id: str, waits: list[Wait]) -> None:
        try:
            outcome = await self._client.get(task_id)
            self._observer.looked()
        except TaskNotFoundError:
            self._observer.looked()
            for wait in waits:
                await self._store.park_open(wait, reason="the task was deleted on the awaithumans server")
                told = "parked task %s: it was deleted on the server"
                logger.warning(told, task_id, extra=about(task_id, wait.route))
            return
        except RequestRefusedError as refused:
            self._observer.missed(refused)
            told = "sweep: the server refuses to show task %s (%s); its waits are kept"
            logger.error(told, task_id, refused, extra={"task_id": task_id})  # noqa: TRY400  # a traceback adds nothing
            return
        if not outcome.terminal and await self._all_gone(waits):
            outcome = await self._client.cancel(task_id)  # an answer given in the meantime wins
        if outcome.terminal:
            await self._take(outcome, waits)

    async def _all_gone(self, waits: list[Wait]) -> bool:
        """Whether nobody waits for this task any more. Whoever has gone alone is set aside."""
        task_id = waits[0].task_id
        gone = {wait.route.digest: reason for wait in waits if (reason := await self._orphaned(wait))}
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

    async def _orphaned(self, wait: Wait) -> str | None:
        engine = self._engines.get(wait.route.engine)
        if not isinstance(engine, SeesOrphans):
            return None
        try:
            async with asyncio.timeout(ORPHAN_SECONDS):
                return await engine.orphaned(wait.route)
        except Exception as away:
            told = "cannot tell whether anybody still waits for task %s (%s)"
            logger.info(told, wait.task_id, away, extra=about(wait.task_id, wait.route))
            return None

    async def _take(self, outcome: Outcome, waits: list[Wait]) -> None:
        for wait in waits:
            if wait.route.idempotency_key != outcome.idempotency_key:
                await self._store.park_open(
                    wait, reason=f"task {wait.task_id} is another question than the one this wait was registered for"
                )
        with self._observer.finding(outcome.task_id, waits):
            found = await self._store.answer(outcome, found_by="sweep")
        if found:
            self._observer.metrics.found()
            for wait in waits:
                told = "sweep found the answer to task %s (%s)"
                logger.info(told, outcome.task_id, outcome.status, extra=about(outcome.task_id, wait.route))
            self._on_answer()
