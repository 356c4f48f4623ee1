"""One attempt to deliver an answer: `Engine.deliver` -> delivered, retried, or parked.

Law: a delivery is recorded only after the engine has accepted it. A relay that dies in between causes a second
delivery, which every engine handles as a normal case.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
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
from awaithumans_relay.availability.circuit_breaker import CircuitBreaker
from awaithumans_relay.dispatch.stored_runs import StoredRuns
from awaithumans_relay.monitoring.logs import about
from awaithumans_relay.monitoring.metrics import Result
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store import Wait
from awaithumans_relay.store.schedule import MAX_RETRY_SECONDS
from awaithumans_relay.store.waits.leases import Leases

logger = safe_logger("awaithumans.relay")

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
RECORD_SECONDS = 5.0
"""Maximum seconds between two tries to record a delivery."""


class Attempts:
    """Delivers leased waits, one attempt each, and records the results.

    Args:
        leases: The leases of answered waits.
        owner: The holder of the leases.
        circuit_breakers: A circuit breaker for each engine.
        backoff: Delay between two attempts of one wait.
        observer: Notified of every attempt.
        wake: Signals that there may be something to deliver for these engines.
    """

    def __init__(
        self,
        leases: Leases,
        owner: str,
        *,
        circuit_breakers: Mapping[str, CircuitBreaker],
        backoff: Backoff,
        observer: Observer,
        wake: Callable[[Iterable[str]], None],
    ) -> None:
        self._leases = leases
        self._owner = owner
        self._circuit_breakers = circuit_breakers
        self._backoff = backoff
        self._observer = observer
        self._wake = wake
        self._steps = ClockSteps(leases.steady)
        self._queued: dict[str, dict[str, Wait]] = {}
        """Waits whose target is busy, by target and route.

        Such an answer is put off repeatedly for as long as people take.
        """

    def note_clock(self) -> None:
        """Compare the clocks, so that a step of the wall clock is detected."""
        self._steps.note(self._leases.clock())

    async def attempt(self, engine: Engine, wait: Wait) -> None:
        """Deliver the answer of a leased wait to its engine, and record the result. Raises if it cannot be recorded."""
        if wait.outcome is None:  # impossible: answered rows have an outcome
            raise RuntimeError(f"wait on task {wait.task_id} is answered without an outcome")
        try:
            with self._observer.delivering(wait):
                await self._pass_to_engine(engine, wait, wait.outcome)
        except TargetGone as gone:
            self._circuit_breakers[engine.name].succeeded()
            await self._finish_gone(wait, str(gone))
        except TargetBusy as busy:
            self._circuit_breakers[engine.name].succeeded()
            if isinstance(busy, RelayNotReady):
                self._observer.health.engine(engine.name).check_due.set()
            self._queued.setdefault(wait.route.target_id, {})[wait.route.digest] = replace(wait, outcome=None)
            await self._retry_or_park(wait, busy, since=wait.answered_at, give_up=BUSY_GIVE_UP_SECONDS)
        except TargetNotReady as early:
            self._circuit_breakers[engine.name].succeeded()
            wait = self._without_gap(wait)
            since = wait.not_ready_since
            await self._retry_or_park(wait, early, since=since, give_up=NOT_READY_GIVE_UP_SECONDS, not_ready=True)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._retry_or_park(wait, cancelled, since=wait.answered_at, give_up=GIVE_UP_SECONDS)
        except Exception as error:  # every other error of an engine means: retry
            self._circuit_breakers[engine.name].failed(wait.route.target_id, error)
            await self._retry_or_park(wait, error, since=wait.answered_at, give_up=GIVE_UP_SECONDS)
        else:
            self._circuit_breakers[engine.name].succeeded()
            if self._count(wait, "delivered", mine=await self._record_delivered(wait)):
                this = about(wait.task_id, wait.route)
                logger.info("delivered task %s to %s", wait.task_id, wait.route.engine, extra=this)
            if queued := self._queued.pop(wait.route.target_id, None):
                await self._leases.hasten(list(queued.values()))
                self._wake([engine.name])

    async def _record_delivered(self, wait: Wait) -> bool:
        """Record that the engine has accepted the answer. Returns False if the lease was lost to another relay.

        While the store is unavailable this is retried, because without the record the answer would be delivered twice.
        The lease is renewed meanwhile. A relay that stops ends the attempt with the other deliveries.
        """
        failures = 0
        while True:
            try:
                return await self._leases.delivered(wait, self._owner)
            except (SQLAlchemyError, OSError) as error:
                failures += 1
                after = min(self._backoff.delay(failures), RECORD_SECONDS)
                message = "delivery not recorded: task %s (%s); trying again in %.1f s"
                logger.warning(
                    message, wait.task_id, type(error).__name__, after, extra=about(wait.task_id, wait.route)
                )
                await asyncio.sleep(after)

    async def _pass_to_engine(self, engine: Engine, wait: Wait, outcome: Outcome) -> None:
        again = wait.delivered_at is not None and not wait.redriven
        if again and isinstance(engine, SeesAnswers) and await engine.has_answer(wait.route):
            return
        if isinstance(engine, RecordsRuns):
            runs = StoredRuns(self._leases, wait, self._owner)
            await engine.deliver_recorded(wait.route, outcome, runs, redriven=wait.redriven)
        elif wait.redriven and isinstance(engine, Redrives):
            await engine.redrive(wait.route, outcome)
        else:
            await engine.deliver(wait.route, outcome)

    def _count(self, wait: Wait, result: Result, *, mine: bool) -> bool:
        """Count the result of an attempt.

        Returns `mine`: the result is discarded if the lease was lost to another relay.
        """
        self._observer.delivery(wait, result if mine else "lease_lost", self._leases.clock())
        if not mine:
            message = "lease lost to another relay: task %s; result %s discarded"
            logger.warning(message, wait.task_id, result, extra=about(wait.task_id, wait.route))
        return mine

    async def _finish_gone(self, wait: Wait, reason: str) -> None:
        this = about(wait.task_id, wait.route)
        if wait.delivered_at is not None:  # it had received the answer before it disappeared
            self._count(wait, "caller_gone", mine=await self._leases.delivered(wait, self._owner))
            return
        if wait.outcome is not None and wait.outcome.status != TaskStatus.COMPLETED:
            # No person gave this outcome. Most often the caller has cancelled the task itself and ended.
            if self._count(wait, "caller_gone", mine=await self._leases.delivered(wait, self._owner, note=reason)):
                message = "caller is gone: task %s is %s (%s)"
                logger.info(message, wait.task_id, wait.outcome.status, reason, extra=this)
            return
        if self._count(wait, "parked", mine=await self._leases.park(wait, self._owner, reason=reason)):
            logger.warning("parked task %s: %s", wait.task_id, reason, extra=this)

    async def _retry_or_park(
        self, wait: Wait, error: BaseException, *, since: float | None, give_up: float, not_ready: bool = False
    ) -> None:
        cause, this = f"{type(error).__name__}: {error}", about(wait.task_id, wait.route)
        after = self._backoff.delay(wait.attempts + 1, at_least=min(_requested_delay(error), MAX_RETRY_SECONDS))
        age = self._age(since)
        if age + after > give_up and wait.attempts + 1 >= TRIES_BEFORE_GIVING_UP:
            parked = await self._leases.park(wait, self._owner, reason=f"gave up after {age:.0f} s: {cause}")
            if self._count(wait, "parked", mine=parked):
                logger.error("parked task %s after %.0f s: %s", wait.task_id, age, cause, extra=this)
        else:
            put_off = await self._leases.retry(wait, self._owner, after=after, error=cause, not_ready=not_ready)
            self._wake([wait.route.engine])
            if self._count(wait, "retried", mine=put_off):
                message = "delivery failed: task %s to %s (%s); trying again in %.1f s"
                logger.warning(message, wait.task_id, wait.route.engine, cause, after, extra=this)

    def _without_gap(self, wait: Wait) -> Wait:
        """Return the wait without the time in which no relay tried: a relay was down, or a clock was set forward."""
        late = self._age(wait.next_attempt_at) - MAX_RETRY_SECONDS
        if wait.not_ready_since is None or late <= 0:
            return wait
        # Not simply later by the gap: steps of the clock before that time would no longer be subtracted.
        tried_for = max(self._age(wait.not_ready_since) - late, 0.0)
        return replace(wait, not_ready_since=self._steps.ago(tried_for, self._leases.clock()))

    def _age(self, since: float | None) -> float:
        """Return the seconds since then, without those that the clock has skipped."""
        now = self._leases.clock()
        self._steps.note(now)
        return 0.0 if since is None else now - since - self._steps.skipped(since)


def _requested_delay(error: BaseException) -> float:
    """Return the seconds after which the target wants to be tried again, or 0 if it did not specify them."""
    if isinstance(error, TargetNotReady):
        return error.retry_after
    headers = getattr(getattr(error, "response", None), "headers", None)
    return retry_after_seconds(cast("Mapping[str, str]", headers)) if isinstance(headers, Mapping) else 0.0
