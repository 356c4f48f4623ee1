"""Answered waits -> `Engine.deliver` -> delivered, retried, or parked.

Law: at-least-once delivery, made harmless. A delivery is leased, one at a time for each target among all relays. It is
recorded only after the engine has accepted it. A relay that dies in between causes a second delivery, which every
engine handles as a normal case.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import cast

from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.engine import (
    Engine,
    Redrives,
    RelayNotReady,
    SeesAnswers,
    TargetBusy,
    TargetGone,
    TargetNotReady,
)
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff, retry_after_seconds
from awaithumans_core.runs import RecordsRuns
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.status import TaskStatus
from awaithumans_relay.availability.circuit_breaker import Breaker
from awaithumans_relay.dispatch.lease_keeper import RENEWALS, LeaseKeeper
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.metrics import Result
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store import Store, Wait
from awaithumans_relay.store.schedule import LONGEST_RETRY_SECONDS

logger = safe_logger("awaithumans.relay")

LEASE_SECONDS = 15.0
"""Seconds after which the delivery of a dead relay is taken over. A live relay renews three times as often."""
TICK_SECONDS = 5.0
"""Maximum seconds that an idle relay sleeps before it checks for work that other relays have stored.

The relay that stores an answer delivers it immediately. Another relay has to find only what a dead one left behind, and
that relay's lease lasts longer than this tick. So nothing depends on a notification, which poolers in front of
PostgreSQL do not pass on.
"""
HELD_SECONDS = 1.0
"""Minimum seconds before an answer is checked again whose target has a delivery under way elsewhere."""
PARALLEL = 256
"""Maximum number of deliveries under way for each engine.

Most of them wait: a graph may run minutes to its next question.
"""
ROOM_SECONDS = 0.02
"""Seconds to wait after a delivery has ended when `PARALLEL` were under way.

More deliveries end in the meantime, and one write leases waits for all free slots.
"""
LEASED_AT_ONCE = 64
"""Maximum number of waits leased in one write, because acknowledgements wait behind it."""
GIVE_UP_SECONDS = 7 * 24 * 3600.0
"""Seconds of failure after which a delivery is parked. Outages of days need no operator."""
NOT_READY_GIVE_UP_SECONDS = 3600.0
"""Seconds after which a target that responds, but does not know the question, never will. The wait is then parked."""
BUSY_GIVE_UP_SECONDS = 60 * 24 * 3600.0
"""Seconds that a busy target may stay busy.

A caller that waits for other people first may do so for their 30 days, and then for another 30.
"""
TRIES_BEFORE_GIVING_UP = 10
"""Minimum number of attempts before a wait is parked, whatever its age.

A relay that was itself down for a week has not tried for a week.
"""
RELEASE_SECONDS = 2.0
"""Maximum seconds that a stopping relay spends to release leases on waits that it does not deliver."""
DRAIN_SECONDS = 10.0
"""Seconds that deliveries under way have to finish when the relay stops."""


class Dispatcher:
    """Delivers answers for a set of engines until it is stopped."""

    def __init__(
        self,
        store: Store,
        engines: Mapping[str, Engine],
        *,
        backoff: Backoff = Backoff(first=0.5, most=60.0),  # noqa: B008 - frozen
        lease_seconds: float = LEASE_SECONDS,
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._observer = observer or Observer(engines)
        self._engines = engines
        self._backoff = backoff
        self._lease_seconds = lease_seconds
        self._owner = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._keeper = LeaseKeeper(store, self._owner, lease_seconds)
        self._steady_at = 0.0
        """Until when expired leases get extra grace.

        While the store was unavailable no relay could renew, so live relays renew before a lease is taken over.
        """
        self._steps = ClockSteps(store.steady)
        self._wake = {name: asyncio.Event() for name in engines}
        self._held: set[str] = set()
        """Engines with a due wait that was not leased. A delivery that ends may make room for it."""
        self._fewer: set[str] = set()
        """Engines with a delivery that has ended since their loop last began to check for work."""
        self.breakers = {name: Breaker(time.monotonic) for name in engines}
        self._behind: dict[str, dict[str, Wait]] = {}
        """Waits whose target is busy, by target and route.

        Such an answer is put off repeatedly for as long as people take.
        """

    def wake(self, engines: Iterable[str] | None = None) -> None:
        """Signal that there may be something to deliver for these engines; by default for all."""
        for name in self._wake if engines is None else engines:
            if event := self._wake.get(name):
                event.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Deliver while the block runs, then let deliveries under way finish, within a limit."""
        with self._keeper.running():
            async with beside(**{f"deliver:{name}": self._run(engine) for name, engine in self._engines.items()}):
                yield

    async def _run(self, engine: Engine) -> None:
        under_way: set[asyncio.Task[None]] = set()
        failures = 0
        try:
            while True:
                self._wake[engine.name].clear()
                self._held.discard(engine.name)
                self._fewer.discard(engine.name)
                self._steps.note(self._store.clock())
                try:
                    leased = await self._lease(engine, under_way)
                    pause = 0.0 if leased else await self._until_due(engine)
                    failures = 0
                except Exception:
                    failures += 1
                    self._shaken()
                    logger.exception("cannot read the waits to deliver; trying again")
                    # An answer ends this pause early. It has been stored, so the store is reachable again.
                    await self._woken(engine, within=min(self._backoff.delay(failures), TICK_SECONDS))
                    continue
                for wait in leased:
                    task = asyncio.create_task(self._deliver(engine, wait))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    task.add_done_callback(lambda _: self._made_room(engine))
                if not leased:
                    await self._woken(engine, within=pause)
                elif len(under_way) >= PARALLEL:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(ROOM_SECONDS)
        finally:
            await _drained(under_way)

    async def _woken(self, engine: Engine, *, within: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):  # wait_for loses a cancellation that comes with the event
                await self._wake[engine.name].wait()

    async def _lease(self, engine: Engine, under_way: set[asyncio.Task[None]]) -> list[Wait]:
        """Lease the waits to deliver now. Empty: nothing is due, or the engine's circuit breaker is open."""
        breaker = self.breakers[engine.name]
        limit = breaker.admits(min(LEASED_AT_ONCE, PARALLEL - len(under_way)))
        if not limit:
            return []
        began = time.monotonic()
        grace = self._lease_seconds if began < self._steady_at else 0.0
        try:
            leased = await self._store.lease(
                engine.name, self._owner, limit=limit, seconds=self._lease_seconds, grace=grace, probing=breaker.away
            )
        except asyncio.CancelledError:  # the relay stops, and the unfinished write may still lease waits
            with suppress(Exception):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._let_go(engine)
            raise
        if leased:
            breaker.probing()
        took = time.monotonic() - began
        if took > self._lease_seconds / RENEWALS:
            self._shaken()
        if took > self._lease_seconds * (1 - 1 / RENEWALS):  # they may expire before the first renewal, or have expired
            await self._let_go(engine)
            return []
        return [wait for wait in leased if not self._keeper.holds(wait)]  # a lease of its own may have expired as well

    async def _let_go(self, engine: Engine) -> None:
        """Release the leases of this relay whose delivery is not under way."""
        await self._store.release(engine.name, self._owner, but=self._keeper.held())

    def _shaken(self) -> None:
        self._steady_at = time.monotonic() + self._lease_seconds

    async def _until_due(self, engine: Engine) -> float:
        """Return how long to sleep when there is nothing to lease, unless an answer comes to this relay."""
        if (closed_for := self.breakers[engine.name].opens_in) > 0:
            self._hold(engine)
            return closed_for
        due = await self._store.next_delivery(engine.name)
        due_in = TICK_SECONDS if due is None else due - self._store.clock()
        if due_in <= 0:  # due but not leased: its target has a delivery under way, here or in another relay
            self._hold(engine)
        return min(max(due_in, HELD_SECONDS), TICK_SECONDS)

    def _hold(self, engine: Engine) -> None:
        self._held.add(engine.name)
        if engine.name in self._fewer:
            self.wake([engine.name])

    def _made_room(self, engine: Engine) -> None:
        self._fewer.add(engine.name)
        if engine.name in self._held:
            self.wake([engine.name])

    async def _deliver(self, engine: Engine, wait: Wait) -> None:
        try:
            with self._keeper.holding(wait):
                await self._attempt(engine, wait)
        except Exception:  # the store is unavailable; the lease expires, and the wait is delivered again
            told = "delivery of task %s could not be written down"
            logger.exception(told, wait.task_id, extra=about(wait.task_id, wait.route))
            self.wake([engine.name])

    async def _attempt(self, engine: Engine, wait: Wait) -> None:
        if wait.outcome is None:  # impossible: answered rows have an outcome
            raise RuntimeError(f"wait on task {wait.task_id} is answered without an outcome")
        try:
            with self._observer.delivering(wait):
                await self._bring(engine, wait, wait.outcome)
        except TargetGone as gone:
            self._there(engine)
            await self._gone(wait, str(gone))
        except TargetBusy as busy:
            self._there(engine)
            if isinstance(busy, RelayNotReady):
                self._observer.failed(engine.name, busy)
            self._behind.setdefault(wait.route.target_id, {})[wait.route.digest] = replace(wait, outcome=None)
            await self._again(wait, busy, since=wait.answered_at, give_up=BUSY_GIVE_UP_SECONDS)
        except TargetNotReady as early:
            self._there(engine)
            wait = self._without_gap(wait)
            since = wait.not_ready_since
            await self._again(wait, early, since=since, give_up=NOT_READY_GIVE_UP_SECONDS, not_ready=True)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._again(wait, cancelled, since=wait.answered_at, give_up=GIVE_UP_SECONDS)
        except Exception as error:  # every other error of an engine means: retry
            told = f"{type(error).__name__}: {error}"
            away = self.breakers[engine.name].failed(wait.route.target_id, told)
            self._observer.failed(engine.name, error, away=away)
            if away:
                logger.error("engine %s is away (%s); its answers wait until it is back", engine.name, told)  # noqa: TRY400
            await self._again(wait, error, since=wait.answered_at, give_up=GIVE_UP_SECONDS)
        else:
            self._there(engine)
            if self._ended(wait, "delivered", mine=await self._recorded(wait)):
                this = about(wait.task_id, wait.route)
                logger.info("delivered task %s to %s", wait.task_id, wait.route.engine, extra=this)
            if behind := self._behind.pop(wait.route.target_id, None):
                await self._store.hasten(list(behind.values()))
                self.wake([engine.name])

    async def _recorded(self, wait: Wait) -> bool:
        """Record that the engine has accepted the answer. Returns False if the lease was lost to another relay.

        While the store is unavailable this is retried, because without the record the answer would be delivered twice.
        The lease is renewed meanwhile. A relay that stops ends the attempt with the other deliveries.
        """
        failures = 0
        while True:
            try:
                return await self._store.delivered(wait, self._owner)
            except (SQLAlchemyError, OSError) as error:
                failures += 1
                after = min(self._backoff.delay(failures), TICK_SECONDS)
                text = "task %s was delivered, which could not be recorded (%s); trying again in %.1f s"
                logger.warning(text, wait.task_id, type(error).__name__, after, extra=about(wait.task_id, wait.route))
                await asyncio.sleep(after)

    async def _bring(self, engine: Engine, wait: Wait, outcome: Outcome) -> None:
        again = wait.delivered_at is not None and not wait.redriven
        if again and isinstance(engine, SeesAnswers) and await engine.has_answer(wait.route):
            return
        if isinstance(engine, RecordsRuns):
            runs = StoredRuns(self._store, wait, self._owner)
            await engine.deliver_recorded(wait.route, outcome, runs, redriven=wait.redriven)
        elif wait.redriven and isinstance(engine, Redrives):
            await engine.redrive(wait.route, outcome)
        else:
            await engine.deliver(wait.route, outcome)

    def _there(self, engine: Engine) -> None:
        if self.breakers[engine.name].succeeded():
            logger.warning("engine %s is back", engine.name)

    def _ended(self, wait: Wait, result: Result, *, mine: bool) -> bool:
        """Count the result of an attempt.

        Returns `mine`: the result is discarded if the lease was lost to another relay.
        """
        self._observer.delivery(wait, result if mine else "lost", self._store.clock())
        if not mine:
            told = "task %s: another relay has it by now; how this one's attempt ended (%s) is not written down"
            logger.warning(told, wait.task_id, result, extra=about(wait.task_id, wait.route))
        return mine

    async def _gone(self, wait: Wait, reason: str) -> None:
        this = about(wait.task_id, wait.route)
        if wait.delivered_at is not None:  # it had received the answer before it disappeared
            self._ended(wait, "gone", mine=await self._store.delivered(wait, self._owner))
            return
        if wait.outcome is not None and wait.outcome.status != TaskStatus.COMPLETED:
            # No person gave this outcome. Most often the caller has cancelled the task itself and ended.
            if self._ended(wait, "gone", mine=await self._store.delivered(wait, self._owner, note=reason)):
                told = "task %s is %s and its asker has gone (%s)"
                logger.info(told, wait.task_id, wait.outcome.status, reason, extra=this)
            return
        if self._ended(wait, "parked", mine=await self._store.park(wait, self._owner, reason=reason)):
            logger.warning("parked task %s: %s", wait.task_id, reason, extra=this)

    async def _again(
        self, wait: Wait, error: BaseException, *, since: float | None, give_up: float, not_ready: bool = False
    ) -> None:
        told, this = f"{type(error).__name__}: {error}", about(wait.task_id, wait.route)
        after = self._backoff.delay(wait.attempts + 1, at_least=min(_asked_to_wait(error), LONGEST_RETRY_SECONDS))
        age = self._age(since)
        if age + after > give_up and wait.attempts + 1 >= TRIES_BEFORE_GIVING_UP:
            parked = await self._store.park(wait, self._owner, reason=f"gave up after {age:.0f} s: {told}")
            if self._ended(wait, "parked", mine=parked):
                logger.error("parked task %s after %.0f s: %s", wait.task_id, age, told, extra=this)
        else:
            put_off = await self._store.retry(wait, self._owner, after=after, error=told, not_ready=not_ready)
            self.wake([wait.route.engine])
            if self._ended(wait, "retried", mine=put_off):
                said = "task %s not delivered to %s (%s); again in %.1f s"
                logger.warning(said, wait.task_id, wait.route.engine, told, after, extra=this)

    def _without_gap(self, wait: Wait) -> Wait:
        """Return the wait without the time in which no relay tried: a relay was down, or a clock was set forward."""
        late = self._age(wait.next_attempt_at) - LONGEST_RETRY_SECONDS
        if wait.not_ready_since is None or late <= 0:
            return wait
        return replace(wait, not_ready_since=wait.not_ready_since + late)

    def _age(self, since: float | None) -> float:
        """Return the seconds since then, without those that the clock has skipped."""
        now = self._store.clock()
        self._steps.note(now)
        return 0.0 if since is None else now - since - self._steps.skipped(since)


class StoredRuns:
    """The record, stored with the wait, of the runs that a delivery starts."""

    def __init__(self, store: Store, wait: Wait, owner: str) -> None:
        self._store = store
        self._wait = wait
        self._owner = owner
        self._runs = wait.runs

    @property
    def started(self) -> bool:
        """Whether a run was started to deliver this answer, also by an earlier process."""
        return self._runs.starts > 0

    async def start(self, position: str, *, settled: bool) -> None:
        """Record a start, as `RunRecord.start` requires. Raises RuntimeError if the lease was lost."""
        runs = self._runs.after_start(position, settled=settled)
        if not await self._store.start_run(self._wait, self._owner, runs):
            raise RuntimeError("lease lost to another relay; the run was not started")
        self._runs = runs


async def _drained(under_way: set[asyncio.Task[None]]) -> None:
    """Let deliveries finish, within the limit.

    A delivery that is cancelled then is repeated after its lease expires.
    """
    if under_way:
        _, late = await asyncio.wait(under_way, timeout=DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _asked_to_wait(error: BaseException) -> float:
    """Return the seconds after which the target wants to be tried again, or 0 if it did not specify them."""
    if isinstance(error, TargetNotReady):
        return error.retry_after
    headers = getattr(getattr(error, "response", None), "headers", None)
    return retry_after_seconds(cast("Mapping[str, str]", headers)) if isinstance(headers, Mapping) else 0.0
