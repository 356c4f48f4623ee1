"""Open waits -> one look at the task on their schedule -> answered.

Law: no answer is lost for want of a callback. A task completed by e-mail or in Slack sends none, and the far end may
have been down when one was sent; the sweep finds both.

What is due longest is looked at first, whoever asks. Looks are made at a pace; a slow one does not hold up the others;
a look that did not come about is made up for soon.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

from awaithumans_core.client import TaskClient
from awaithumans_core.engine import Engine
from awaithumans_core.errors import (
    AwaitHumansError,
    PermissionDeniedError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskNotFoundError,
)
from awaithumans_core.missing import RULE, Rule
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.ahead import Ahead
from awaithumans_relay.beside import beside
from awaithumans_relay.deletions import Deletions
from awaithumans_relay.logs import about
from awaithumans_relay.observe import Observer
from awaithumans_relay.orphans import Orphans
from awaithumans_relay.outage import Outage
from awaithumans_relay.pace import Pace
from awaithumans_relay.store import Store, Wait

logger = safe_logger("awaithumans.relay")

TICK_SECONDS = 1.0
"""How often the table is asked what is due, when nothing was."""
CLAIM_SECONDS = 0.2
"""Between two times when there was more: looks are taken up a few at once, and not with a transaction each."""
MISSED_SECONDS = 5.0
"""When a look that did not come about is made up for."""
PARALLEL = 8
"""Requests under way at once: the server answers from one process."""
UNDER_WAY = 32
"""Looks begun at once: most of those beyond the requests wait for an engine to say whether anybody waits."""
BEHIND_SECONDS = 10.0
"""A look that is overdue for longer: there are more to make than the pace allows."""


class Sweeper:
    """Looks after open waits until it is stopped.

    Args:
        store: The waits.
        client: Reads tasks; should give up at once (`patience=0`), the schedule is the retry.
        engines: Asked whether somebody still waits, those that can tell.
        on_answer: Called after an answer was stored.
        pace: Looks a second.
        observer: Told of every look.
        rule: When a deleted task ends its waits.
    """

    def __init__(
        self,
        store: Store,
        client: TaskClient,
        engines: Mapping[str, Engine],
        *,
        on_answer: Callable[[], None],
        pace: Pace | None = None,
        observer: Observer | None = None,
        rule: Rule = RULE,
    ) -> None:
        self._observer = observer or Observer(engines)
        self._store = store
        self._client = client
        self._on_answer = on_answer
        self._pace = pace or Pace()
        self._outage = Outage()
        self._orphans = Orphans(store, engines, self._observer)
        self._ahead = Ahead(store, client, self._pace, self._observer, on_answer=on_answer)
        self._deletions = Deletions(store, self._observer, on_answer=on_answer, rule=rule)
        self._requests = asyncio.Semaphore(PARALLEL)
        self._backoff = Backoff(first=TICK_SECONDS, most=15.0)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Sweep while the block runs."""
        async with self._deletions.running(), beside(sweep=self._run(), ahead=self._ahead.running()):
            yield

    def called_back(self, outcome: Outcome) -> None:
        """A callback has brought news; when it is late, the sweep runs ahead of the others."""
        self._ahead.called_back(outcome)

    async def _run(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        failures = 0
        try:
            while True:
                probing = self._outage.away
                if probing:
                    await asyncio.sleep(self._outage.pause())
                room = min(await self._pace.room(), 1 if probing else UNDER_WAY - len(under_way))
                try:
                    by_task = await self._claim(room)
                    failures = 0
                except Exception:
                    failures += 1
                    logger.exception("cannot read the waits to look after; trying again")
                    await asyncio.sleep(self._backoff.delay(failures))
                    continue
                for task_id, waits in by_task.items():
                    look = asyncio.create_task(self._look(task_id, waits, probe=probing))
                    under_way.add(look)
                    look.add_done_callback(under_way.discard)
                if probing and under_way:
                    await asyncio.wait(under_way)
                elif sum(map(len, by_task.values())) < room:
                    await asyncio.sleep(TICK_SECONDS)
                else:
                    await asyncio.sleep(CLAIM_SECONDS)
                if len(under_way) >= UNDER_WAY:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for look in under_way:
                look.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _claim(self, room: int) -> dict[str, list[Wait]]:
        """What is due, by task: one look serves all who share it."""
        due = await self._store.claim_checks(room)
        by_task: dict[str, list[Wait]] = {}
        for wait in due:
            by_task.setdefault(wait.task_id, []).append(wait)
        self._pace.spend(len(by_task))
        if due and self._store.clock() - due[0].next_check_at > BEHIND_SECONDS and not self._outage.away:
            self._ahead.run()
        return by_task

    async def _look(self, task_id: str, waits: list[Wait], *, probe: bool) -> None:
        try:
            await self._look_at(task_id, waits, probe=probe)
        except Exception:  # the store is away
            logger.exception("a look at task %s failed", task_id)
            with suppress(Exception):
                await self._store.postpone_checks(waits, MISSED_SECONDS)

    async def _look_at(self, task_id: str, waits: list[Wait], *, probe: bool) -> None:
        try:
            outcome = await self._read(task_id, waits, probe=probe)
        except TaskNotFoundError:
            self._answered()
            await self._deletions.missing(task_id, waits)
        except PermissionDeniedError as refused:  # perhaps of this task alone, which keeps its schedule
            self._missed(refused)
        except (RequestRefusedError, ServerUnreachableError) as trouble:
            self._missed(trouble)
            rest = trouble.retry_after if isinstance(trouble, ServerUnreachableError) else 0.0
            self._pace.hold(rest)
            await self._store.postpone_checks(waits, max(MISSED_SECONDS, rest))
        else:
            if outcome is None:
                await self._store.postpone_checks(waits, MISSED_SECONDS)
            elif outcome.terminal:
                await self._take(outcome, waits)

    async def _read(self, task_id: str, waits: list[Wait], *, probe: bool) -> Outcome | None:
        """How the task stands; None when the server has gone away since the look was begun.

        One nobody waits for any more is cancelled; an answer given in the meantime wins.
        """
        async with self._requests:
            await self._pace.rested()
            if self._outage.away and not probe:
                return None
            outcome = await self._client.get(task_id)
        self._answered()
        self._deletions.present(task_id)
        if outcome.terminal or not await self._orphans.all_gone(waits):
            return outcome
        self._pace.spend(1)
        async with self._requests:
            return await self._client.cancel(task_id)

    async def _take(self, outcome: Outcome, waits: list[Wait]) -> None:
        keys = {wait.route.idempotency_key for wait in waits}
        if outcome.idempotency_key is None and len(keys) == 1:  # hidden from this token; the id names the task
            outcome = outcome.model_copy(update={"idempotency_key": keys.pop()})
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

    def _answered(self) -> None:
        self._outage.answered()
        self._observer.looked()

    def _missed(self, trouble: AwaitHumansError) -> None:
        self._outage.failed(trouble)
        self._observer.missed(trouble)
