"""Open waits -> one look at the task on their schedule -> answered.

Law: no answer is lost for want of a callback. A task completed by e-mail or in Slack sends none, and the far end may
have been down when one was sent; the sweep finds both.

What is due longest is looked at first, whoever asks. Looks are made at a pace; a slow one does not hold up the others;
a look that did not come about is made up for soon.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from awaithumans_core import flow
from awaithumans_core.client import TaskClient
from awaithumans_core.deleted_tasks import RULE, Rule
from awaithumans_core.engine import Engine
from awaithumans_core.errors import (
    InvalidTaskError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskNotFoundError,
)
from awaithumans_core.flow import Patience
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.availability.server_outage import Outage, is_outage
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.store import Store, Wait
from awaithumans_relay.store.schedule import MOST_CHECK_SECONDS
from awaithumans_relay.sweep.deleted_tasks import Deletions
from awaithumans_relay.sweep.ended_tasks import Ahead
from awaithumans_relay.sweep.orphans import Orphans
from awaithumans_relay.sweep.rate_limit import Pace

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


ODD = Backoff(first=MISSED_SECONDS, most=MOST_CHECK_SECONDS / 1.25)
"""Between two checks of a task whose replies are odd: growing, and with its jitter never more than the schedule's."""
LAPSED = (
    "the task's deadline is long past, and the awaithumans server still reports it as open: does its scheduler run? "
    "This wait will be deleted; a callback brings it back"
)
"""Reason of a parked wait whose task has no end, long after its deadline."""
MOST_ODD = 10_000
"""Tasks whose odd replies are counted; of more, the count of the oldest begins anew."""


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
        lapsed_before: Epoch seconds; a wait whose deadline was earlier is parked if its task is still open. Default:
            none is.
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
        lapsed_before: Callable[[], float] = lambda: -math.inf,
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
        self._lapsed_before = lapsed_before
        self._odd: dict[str, int] = {}
        """Odd replies in a row, by task."""
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
            outcome = await self._read(task_id, probe=probe)
            if outcome is not None:
                await self._decide(outcome, waits)
        except TaskNotFoundError:
            self._answered(task_id)
            await self._deletions.missing(task_id, waits)
        except InvalidTaskError as never:  # earlier releases stored waits on any text as a task id
            await self._park(waits, str(never))
        except (RequestRefusedError, ServerUnreachableError) as trouble:
            await self._store.postpone_checks(waits, self._missed(task_id, trouble))
        else:
            if outcome is None:
                await self._store.postpone_checks(waits, MISSED_SECONDS)

    async def _read(self, task_id: str, *, probe: bool) -> Outcome | None:
        """The task's record; None when the server has become unreachable since the check was begun."""
        async with self._requests:
            await self._pace.rested()
            if self._outage.away and not probe:
                return None
            outcome = await self._client.get(task_id)
        self._answered(task_id)
        self._deletions.present(task_id)
        return outcome

    async def _decide(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Compare keys first: only waits for this very question decide what becomes of its task."""
        outcome, matching, others = _compared(outcome, waits)
        for wait in others:
            await self._store.park_open(
                wait, reason=f"task {wait.task_id} is another question than the one this wait was registered for"
            )
        if outcome.terminal:
            await self._take(outcome, matching)
        elif matching:
            await self._go_on(outcome, matching)

    async def _go_on(self, outcome: Outcome, waits: list[Wait]) -> None:
        """The task is open: cancel it if no caller exists any more, and park waits whose deadline is long past."""
        if why := await self._orphans.all_gone(waits):
            outcome = await self._cancel(outcome, waits)
            if outcome.terminal:
                logger.warning(
                    "task %s is %s: %s", outcome.task_id, outcome.status, why, extra={"task_id": outcome.task_id}
                )
                await self._take(outcome, waits)
            else:
                await self._park(waits, f"{why}; its task was created for another caller and stays open")
            return
        if min(wait.deadline_at for wait in waits) < self._store.clock():
            before = self._lapsed_before()
            await self._park([wait for wait in waits if wait.deadline_at < before], LAPSED)

    async def _cancel(self, outcome: Outcome, waits: Sequence[Wait]) -> Outcome:
        """Cancel a task that was created for one of these callers; return its record. An answer wins."""
        key = waits[0].route.idempotency_key
        marks = await self._orphans.marks(outcome.task_id, key)
        self._pace.spend(2)
        async with self._requests:
            closed = await self._client.run(flow.close_of(outcome.task_id, key, marks, Patience(0)))
        return _of(closed, key)

    async def _park(self, waits: Sequence[Wait], reason: str) -> None:
        for wait in waits:
            await self._store.park_open(wait, reason=reason)

    async def _take(self, outcome: Outcome, waits: list[Wait]) -> None:
        """The task has ended."""
        with self._observer.finding(outcome.task_id, waits):
            found = await self._store.answer(outcome, found_by="sweep")
        if found:
            self._observer.metrics.found()
            for wait in waits:
                told = "sweep found the answer to task %s (%s)"
                logger.info(told, outcome.task_id, outcome.status, extra=about(outcome.task_id, wait.route))
            self._on_answer()

    def _answered(self, task_id: str) -> None:
        self._odd.pop(task_id, None)
        self._outage.answered()
        self._observer.looked()

    def _missed(self, task_id: str, trouble: RequestRefusedError | ServerUnreachableError) -> float:
        """Seconds after which a check that did not come about is made up for."""
        if is_outage(trouble):
            self._outage.failed(trouble)
            self._observer.missed(trouble)
            rest = trouble.retry_after if isinstance(trouble, ServerUnreachableError) else 0.0
            self._pace.hold(rest)
            return max(MISSED_SECONDS, rest)
        count = self._odd.pop(task_id, 0) + 1
        self._odd[task_id] = count
        if len(self._odd) > MOST_ODD:
            del self._odd[next(iter(self._odd))]
        if count == 1:
            message = "sweep: task %s cannot be read, and is read again at growing intervals: %s"
            logger.warning(message, task_id, trouble, extra={"task_id": task_id})
        if self._outage.odd(task_id, trouble):
            self._observer.missed(trouble)
        return ODD.delay(count)


def _compared(outcome: Outcome, waits: list[Wait]) -> tuple[Outcome, list[Wait], list[Wait]]:
    """The outcome with its key, the waits for its question, and those for another one, which are to be parked.

    A server may hide the key from this token; then the id names the task, if all waits name one question. If they do
    not, nothing shows whose it is: no wait decides anything, and once the task has ended none gets its answer.
    """
    keys = {wait.route.idempotency_key for wait in waits}
    if outcome.idempotency_key is None and len(keys) > 1:
        return outcome, [], waits if outcome.terminal else []
    outcome = _of(outcome, next(iter(keys)))
    ours = [wait for wait in waits if wait.route.idempotency_key == outcome.idempotency_key]
    return outcome, ours, [wait for wait in waits if wait not in ours]


def _of(outcome: Outcome, key: str) -> Outcome:
    """The outcome, with this key if the server hides it."""
    return outcome if outcome.idempotency_key is not None else outcome.model_copy(update={"idempotency_key": key})
