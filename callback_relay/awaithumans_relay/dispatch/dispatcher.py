"""Leases answered waits for each engine, and delivers them (`attempts`).

Law: at-least-once delivery, made harmless. A delivery is leased, one at a time for each target among all relays.
"""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress

from awaithumans_core.engine import Engine
from awaithumans_core.retry import Backoff
from awaithumans_core.safe_logging import safe_logger
from awaithumans_relay.availability.circuit_breaker import CircuitBreaker
from awaithumans_relay.dispatch.attempts import Attempts
from awaithumans_relay.dispatch.lease_keeper import RENEWALS, LeaseKeeper
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.background import beside
from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.leases import Leases

logger = safe_logger("awaithumans.relay")

LEASE_SECONDS = 15.0
"""Seconds after which the delivery of a dead relay is taken over. A live relay renews three times as often."""
TICK_SECONDS = 5.0
"""Maximum seconds that an idle relay sleeps before it checks for work that other relays have stored.

The relay that stores an answer delivers it immediately. Another relay has to find only what a dead one left behind, and
that relay's lease lasts longer than this tick. So nothing depends on a notification, which poolers in front of
PostgreSQL do not pass on.
"""
BLOCKED_SECONDS = 1.0
"""Minimum seconds before an answer is checked again whose target has a delivery under way elsewhere."""
MAX_DELIVERIES = 256
"""Maximum number of deliveries under way for each engine.

Most of them wait: a graph may run minutes to its next question.
"""
ROOM_SECONDS = 0.02
"""Seconds to wait after a delivery has ended when `MAX_DELIVERIES` were under way.

More deliveries end in the meantime, and one write leases waits for all free slots.
"""
MAX_LEASES = 64
"""Maximum number of waits leased in one write, because acknowledgements wait behind it."""
RELEASE_SECONDS = 2.0
"""Maximum seconds that a stopping relay spends to release leases on waits that it does not deliver."""
DRAIN_SECONDS = 10.0
"""Seconds that deliveries under way have to finish when the relay stops."""


class Dispatcher:
    """Delivers answers for a set of engines until it is stopped."""

    def __init__(
        self,
        leases: Leases,
        engines: Mapping[str, Engine],
        *,
        backoff: Backoff = Backoff(first=0.5, most=60.0),  # noqa: B008 - frozen
        lease_seconds: float = LEASE_SECONDS,
        observer: Observer | None = None,
    ) -> None:
        self._leases = leases
        self._observer = observer or Observer(engines)
        self._engines = engines
        self._backoff = backoff
        self._lease_seconds = lease_seconds
        self._owner = f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._keeper = LeaseKeeper(leases, self._owner, lease_seconds)
        self.circuit_breakers = {
            name: CircuitBreaker(self._observer.health.engine(name), time.monotonic) for name in engines
        }
        self._attempts = Attempts(
            leases,
            self._owner,
            circuit_breakers=self.circuit_breakers,
            backoff=backoff,
            observer=self._observer,
            wake=self.wake,
        )
        self._grace_until = 0.0
        """Until when expired leases get extra grace.

        While the store was unavailable no relay could renew, so live relays renew before a lease is taken over.
        """
        self._wake = {name: asyncio.Event() for name in engines}
        self._blocked: set[str] = set()
        """Engines with a due wait that was not leased. A delivery that ends may make room for it."""
        self._freed: set[str] = set()
        """Engines with a delivery that has ended since their loop last began to check for work."""

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
                self._blocked.discard(engine.name)
                self._freed.discard(engine.name)
                self._attempts.note_clock()
                try:
                    leased = await self._lease(engine, under_way)
                    pause = 0.0 if leased else await self._until_due(engine)
                    failures = 0
                    self._observer.health.store.responded()
                except Exception as error:
                    failures += 1
                    self._extend_grace()
                    self._observer.store_failed(error)
                    # An answer ends this pause early. It has been stored, so the store is reachable again.
                    await self._sleep(engine, within=min(self._backoff.delay(failures), TICK_SECONDS))
                    continue
                for wait in leased:
                    task = asyncio.create_task(self._deliver(engine, wait))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    task.add_done_callback(lambda _: self._note_freed(engine))
                if not leased:
                    await self._sleep(engine, within=pause)
                elif len(under_way) >= MAX_DELIVERIES:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.sleep(ROOM_SECONDS)
        finally:
            await _drained(under_way)

    async def _sleep(self, engine: Engine, *, within: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):  # wait_for loses a cancellation that comes with the event
                await self._wake[engine.name].wait()

    async def _lease(self, engine: Engine, under_way: set[asyncio.Task[None]]) -> list[Wait]:
        """Lease the waits to deliver now. Empty: nothing is due, or the engine's circuit breaker is open."""
        circuit_breaker = self.circuit_breakers[engine.name]
        limit = circuit_breaker.admits(min(MAX_LEASES, MAX_DELIVERIES - len(under_way)))
        if not limit:
            return []
        began = time.monotonic()
        grace = self._lease_seconds if began < self._grace_until else 0.0
        try:
            leased = await self._leases.acquire(
                engine.name,
                self._owner,
                limit=limit,
                seconds=self._lease_seconds,
                grace=grace,
                probing=circuit_breaker.is_open,
            )
        except asyncio.CancelledError:  # the relay stops, and the unfinished write may still lease waits
            with suppress(Exception):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._release_leases(engine)
            raise
        if leased:
            circuit_breaker.probing()
        took = time.monotonic() - began
        if took > self._lease_seconds / RENEWALS:
            self._extend_grace()
        if took > self._lease_seconds * (1 - 1 / RENEWALS):  # they may expire before the first renewal, or have expired
            await self._release_leases(engine)
            return []
        return [wait for wait in leased if not self._keeper.holds(wait)]  # a lease of its own may have expired as well

    async def _release_leases(self, engine: Engine) -> None:
        """Release the leases of this relay whose delivery is not under way."""
        await self._leases.release(engine.name, self._owner, but=self._keeper.held())

    def _extend_grace(self) -> None:
        self._grace_until = time.monotonic() + self._lease_seconds

    async def _until_due(self, engine: Engine) -> float:
        """Return how long to sleep when there is nothing to lease, unless an answer comes to this relay."""
        if (open_for := self.circuit_breakers[engine.name].probes_in) > 0:
            self._note_blocked(engine)
            return open_for
        due = await self._leases.next_delivery(engine.name)
        due_in = TICK_SECONDS if due is None else due - self._leases.clock()
        if due_in <= 0:  # due but not leased: its target has a delivery under way, here or in another relay
            self._note_blocked(engine)
        return min(max(due_in, BLOCKED_SECONDS), TICK_SECONDS)

    def _note_blocked(self, engine: Engine) -> None:
        self._blocked.add(engine.name)
        if engine.name in self._freed:
            self.wake([engine.name])

    def _note_freed(self, engine: Engine) -> None:
        self._freed.add(engine.name)
        if engine.name in self._blocked:
            self.wake([engine.name])

    async def _deliver(self, engine: Engine, wait: Wait) -> None:
        try:
            with self._keeper.holding(wait):
                await self._attempts.attempt(engine, wait)
        except Exception:  # the store is unavailable; the lease expires, and the wait is delivered again
            message = "delivery not recorded: task %s; it is delivered again when its lease expires"
            logger.exception(message, wait.task_id, extra=about(wait.task_id, wait.route))
            self.wake([engine.name])


async def _drained(under_way: set[asyncio.Task[None]]) -> None:
    """Let deliveries finish, within the limit.

    A delivery that is cancelled then is repeated after its lease expires.
    """
    if under_way:
        _, late = await asyncio.wait(under_way, timeout=DRAIN_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
