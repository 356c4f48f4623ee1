"""Answered waits -> `Engine.deliver` -> delivered, tried again, or parked.

Law: at least once, made harmless. A delivery is leased, one at a time for each target among all relays, and written
down only after the engine has taken it; a relay that dies in between delivers again, which every engine takes as a
normal case.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress

from awaithumans_core.engine import Engine, TargetGone, TargetNotReady
from awaithumans_core.retry import Backoff
from awaithumans_core.status import TaskStatus
from awaithumans_relay.leases import LeaseKeeper
from awaithumans_relay.store import Store, Wait

logger = logging.getLogger("awaithumans.relay")

LEASE_SECONDS = 15.0
"""A delivery whose relay has died is taken over after this long; a living one renews three times as often."""
TICK_SECONDS = 1.0
"""How long a relay sleeps at most before it looks for work another relay has stored."""
PARALLEL = 256
"""Deliveries under way at once, for each engine. Most of them wait: a graph may take minutes to its next question."""
GIVE_UP_SECONDS = 7 * 24 * 3600.0
"""After failing for this long, a delivery is parked. Outages of days need nobody."""
NOT_READY_GIVE_UP_SECONDS = 3600.0
"""A target that answers and does not know of the question for this long never will."""
DRAIN_SECONDS = 10.0
"""What deliveries under way get to finish when the relay stops."""


class Dispatcher:
    """Delivers for a set of engines until it is stopped."""

    def __init__(
        self,
        store: Store,
        engines: Mapping[str, Engine],
        *,
        backoff: Backoff = Backoff(first=0.5, most=60.0),  # noqa: B008 - frozen
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._engines = engines
        self._backoff = backoff
        self._lease_seconds = lease_seconds
        self._owner = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._keeper = LeaseKeeper(store, self._owner, lease_seconds)
        self._wake = {name: asyncio.Event() for name in engines}

    def wake(self) -> None:
        """There may be something to deliver."""
        for event in self._wake.values():
            event.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Deliver while the block runs; then let deliveries under way finish, within a limit."""
        with self._keeper.running():
            async with self._delivering():
                yield

    @asynccontextmanager
    async def _delivering(self) -> AsyncGenerator[None]:
        loops = [
            asyncio.create_task(self._run(engine), name=f"deliver:{engine.name}") for engine in self._engines.values()
        ]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _run(self, engine: Engine) -> None:
        under_way: set[asyncio.Task[None]] = set()
        failures = 0
        try:
            while True:
                self._wake[engine.name].clear()
                try:
                    leased = await self._store.lease(
                        engine.name, self._owner, limit=PARALLEL - len(under_way), seconds=self._lease_seconds
                    )
                    failures = 0
                except Exception:
                    failures += 1
                    logger.exception("cannot read the waits to deliver; trying again")
                    await asyncio.sleep(self._backoff.delay(failures))
                    continue
                for wait in leased:
                    task = asyncio.create_task(self._deliver(engine, wait))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    task.add_done_callback(lambda _: self._wake[engine.name].set())
                if not leased:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._wake[engine.name].wait(), TICK_SECONDS)
                elif len(under_way) >= PARALLEL:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if under_way:
                _, late = await asyncio.wait(under_way, timeout=DRAIN_SECONDS)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    async def _deliver(self, engine: Engine, wait: Wait) -> None:
        try:
            with self._keeper.holding():
                await self._attempt(engine, wait)
        except Exception:  # the store is away: the lease runs out, and the wait is delivered again
            logger.exception("delivery of task %s could not be written down", wait.task_id)

    async def _attempt(self, engine: Engine, wait: Wait) -> None:
        if wait.outcome is None:  # cannot be: answered rows carry their outcome
            raise RuntimeError(f"wait on task {wait.task_id} is answered without an outcome")
        try:
            await engine.deliver(wait.route, wait.outcome)
        except TargetGone as gone:
            await self._gone(wait, str(gone))
        except TargetNotReady as early:
            since = wait.not_ready_since
            await self._again(wait, early, since=since, give_up=NOT_READY_GIVE_UP_SECONDS, not_ready=True)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._again(wait, cancelled, since=wait.answered_at, give_up=GIVE_UP_SECONDS)
        except Exception as error:  # anything an engine raises means: later
            await self._again(wait, error, since=wait.answered_at, give_up=GIVE_UP_SECONDS)
        else:
            await self._store.delivered(wait, self._owner)
            logger.info("delivered task %s to %s", wait.task_id, wait.route.engine)

    async def _gone(self, wait: Wait, reason: str) -> None:
        if wait.delivered_at is not None:  # it had the answer before it went
            await self._store.delivered(wait, self._owner)
            return
        if wait.outcome is not None and wait.outcome.status != TaskStatus.COMPLETED:
            # Nobody's answer: most often the asker has cancelled the task itself, and gone.
            await self._store.delivered(wait, self._owner, note=reason)
            logger.info("task %s is %s and its asker has gone (%s)", wait.task_id, wait.outcome.status, reason)
            return
        await self._store.park(wait, self._owner, reason=reason)
        logger.warning("parked task %s: %s", wait.task_id, reason)

    async def _again(
        self, wait: Wait, error: BaseException, *, since: float | None, give_up: float, not_ready: bool = False
    ) -> None:
        told = f"{type(error).__name__}: {error}"
        at_least = error.retry_after if isinstance(error, TargetNotReady) else 0.0
        after = self._backoff.delay(wait.attempts + 1, at_least=at_least)
        age = 0.0 if since is None else self._store.clock() - since
        if age + after > give_up:
            await self._store.park(wait, self._owner, reason=f"gave up after {age:.0f} s: {told}")
            logger.error("parked task %s after %.0f s: %s", wait.task_id, age, told)
        else:
            await self._store.retry(wait, self._owner, after=after, error=told, not_ready=not_ready)
            logger.warning("task %s not delivered (%s); again in %.1f s", wait.task_id, told, after)
