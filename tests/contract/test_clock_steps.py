"""A clock set back or forward by an hour delays no answer and ends nothing early.

The tests cover every stored time in the waits table that something waits for, on each database. `wall` is the clock
that is set and `steady` is one that never is; time passes on both.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from awaithumans_core import Outcome, Route, TargetBusy, TargetNotReady
from awaithumans_core.retry import Backoff
from awaithumans_core.schedule import MAX_CHECK_SECONDS
from awaithumans_relay.dispatch.attempts import GIVE_UP_SECONDS, TRIES_BEFORE_GIVING_UP
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store import Store, Wait, WaitState
from awaithumans_relay.store.retention import Retention
from awaithumans_relay.store.schedule import MAX_LEASE_SECONDS, MAX_RETRY_SECONDS
from tests.support.engines import CollectingEngine
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.edges

HOUR = 3600.0
LEASE = 15.0
ROUTE = Route("shelf", {"place": "here"}, "question")
OUTCOME = Outcome(task_id="task", status="completed", response={"approved": True}, idempotency_key="question")


class Clocks:
    """The wall clock, which can be set, and the steady clock."""

    def __init__(self) -> None:
        self.wall = 1_790_000_000.0
        self.steady = 5_000.0

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def is_set(self, seconds: float) -> None:
        self.wall += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'waits.db'}"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.database()


@pytest.fixture
async def store(url: str, clocks: Clocks) -> AsyncGenerator[Store]:
    """Yield a store that has just started and so trusts its clock."""
    opened = Store(url, clock=lambda: clocks.wall)
    await opened.start()
    yield opened
    await opened.stop()


async def lease(store: Store, owner: str = "relay") -> list[Wait]:
    return await store.leases.acquire("shelf", owner, limit=9, seconds=LEASE)


async def answered(store: Store) -> None:
    await store.intake.answer(OUTCOME, found_by="callback", route=ROUTE)


async def put_off_check(store: Store) -> None:
    """Postpone the check of a wait so old that it is checked every quarter of an hour."""
    await store.intake.register("task", ROUTE, 30 * 24 * 3600)
    (wait,) = await store.queries.find("task")
    await store.checks.postpone([wait], MAX_CHECK_SECONDS)


async def put_off_delivery(store: Store) -> None:
    """Postpone a delivery whose target asked for more time than it is given."""
    await answered(store)
    (wait,) = await lease(store)
    await store.leases.retry(wait, "relay", after=10 * HOUR, error="busy", not_ready=False)


async def leased(store: Store) -> None:
    """Lease a delivery for a relay that is no longer running."""
    await answered(store)
    assert await lease(store, "dead")


async def redriven(store: Store) -> None:
    await answered(store)
    (wait,) = await lease(store)
    await store.leases.park(wait, "relay", reason="gone")
    assert await store.upkeep.redrive() == 1


async def checked(store: Store) -> bool:
    return bool(await store.checks.claim(9))


async def delivered(store: Store) -> bool:
    next_delivery = await store.leases.next_delivery("shelf")
    found = await lease(store)
    assert bool(found) == (next_delivery is not None and next_delivery <= store.clock())
    return bool(found)


@dataclass(frozen=True)
class StoredTime:
    """A stored time that something waits for."""

    column: str
    stored: Callable[[Store], Awaitable[None]]
    due: Callable[[Store], Awaitable[bool]]
    """Return whether the work that waits for this time is done now."""
    longest: float
    """Maximum distance into the future, in seconds."""
    respected_for: float
    """Duration of the wait while the clock is not set, in seconds."""


TIMES = [
    StoredTime("next_check_at", put_off_check, checked, MAX_CHECK_SECONDS, MAX_CHECK_SECONDS),
    StoredTime("next_attempt_at", put_off_delivery, delivered, MAX_RETRY_SECONDS, MAX_RETRY_SECONDS),
    StoredTime("next_attempt_at of an answer", answered, delivered, MAX_RETRY_SECONDS, 0),
    StoredTime("next_attempt_at of a redrive", redriven, delivered, MAX_RETRY_SECONDS, 0),
    StoredTime("lease_until", leased, delivered, MAX_LEASE_SECONDS, LEASE),
]
every_time = pytest.mark.parametrize("time", TIMES, ids=lambda time: time.column)


@every_time
async def test_time_beyond_its_longest_interval_is_due(store: Store, clocks: Clocks, time: StoredTime) -> None:
    """After the clock is set back by an hour no work waits for that hour."""
    await time.stored(store)
    clocks.is_set(-HOUR)
    assert await time.due(store)


@every_time
async def test_time_within_its_interval_is_waited_for(store: Store, clocks: Clocks, time: StoredTime) -> None:
    """Without a clock step the work is due at its stored time and not before."""
    await time.stored(store)
    if time.respected_for:
        clocks.passes(time.respected_for - 1)
        assert not await time.due(store)
        clocks.passes(2)
    assert await time.due(store)


@every_time
async def test_step_back_delays_by_at_most_the_longest_interval(store: Store, clocks: Clocks, time: StoredTime) -> None:
    """Whatever the size of the step, all work is due after the longest interval."""
    await time.stored(store)
    clocks.is_set(-(time.longest - time.respected_for) / 2)
    clocks.passes(time.longest + 1)
    assert await time.due(store)


@every_time
async def test_time_stored_during_a_step_forward_does_not_outlive_the_correction(
    store: Store, clocks: Clocks, time: StoredTime
) -> None:
    """A time stored while the clock was an hour ahead causes no delay once the clock is corrected."""
    clocks.is_set(HOUR)
    await time.stored(store)
    clocks.is_set(-HOUR)
    assert await time.due(store)


async def test_deadline_passed_only_by_a_step_forward_keeps_the_wait_open(store: Store, clocks: Clocks) -> None:
    """A wait that is past its deadline only because the clock was set stays open and is checked."""
    await store.intake.register("task", ROUTE, 900)
    for step in (HOUR, -2 * HOUR):
        clocks.is_set(step)
        clocks.passes(MAX_CHECK_SECONDS)
        assert await checked(store)
        (wait,) = await store.queries.find("task")
        assert wait.state == WaitState.OPEN
        assert wait.next_check_at <= clocks.wall + MAX_CHECK_SECONDS


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
async def test_running_relay_keeps_its_leases_after_a_clock_step(url: str, clocks: Clocks, step: float) -> None:
    """Just after a step a running relay renews first; the lease of a stopped one is taken over later."""
    living, other = (Store(url, clock=lambda: clocks.wall, steady=lambda: clocks.steady) for _ in range(2))
    await living.start()
    await answered(living)
    (wait,) = await lease(living, "living")
    held = {(wait.task_id, wait.route.digest)}
    for _ in range(5):
        assert await lease(other, "other") == []
        clocks.passes(LEASE / 3)
        await asyncio.to_thread(living.leases.renew, "living", held, seconds=LEASE)
    clocks.is_set(step)
    assert await lease(other, "other") == []
    clocks.passes(LEASE / 3)
    await asyncio.to_thread(living.leases.renew, "living", held, seconds=LEASE)
    for _ in range(10):
        assert await lease(other, "other") == []
        clocks.passes(LEASE / 3)
        await asyncio.to_thread(living.leases.renew, "living", held, seconds=LEASE)
    clocks.is_set(step)
    assert await lease(other, "other") == []
    clocks.passes(LEASE + 1)
    assert len(await lease(other, "other")) == 1
    await living.stop()
    await other.stop()


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
async def test_relay_that_starts_takes_over_no_lease_at_once(url: str, clocks: Clocks, step: float) -> None:
    """A new relay waits before it takes over leases, because the clock may just have been set."""
    first, second = (Store(url, clock=lambda: clocks.wall, steady=lambda: clocks.steady) for _ in range(2))
    await first.start()
    await answered(first)
    assert await lease(first, "first")
    clocks.is_set(step)
    assert await lease(second, "second") == []
    clocks.passes(LEASE + 1)
    assert len(await lease(second, "second")) == 1
    await first.stop()
    await second.stop()


@pytest.mark.parametrize("early", [TargetNotReady, TargetBusy, ConnectionError])
async def test_step_forward_parks_nothing_early(url: str, clocks: Clocks, early: type[Exception]) -> None:
    """However far the clock is set forward, a target that was briefly not ready is not parked."""
    store = Store(url, clock=lambda: clocks.wall, steady=lambda: clocks.steady)
    await store.start()
    await answered(store)

    def refuse(_: Route) -> None:
        raise early("not now")

    shelf = CollectingEngine(on_deliver=refuse)
    dispatcher = Dispatcher(store.leases, {"shelf": shelf}, backoff=Backoff(first=0.05, most=0.1))

    async def tried(times: int) -> None:
        until = shelf.calls + times
        async with asyncio.timeout(60):
            while shelf.calls < until:
                # Small steps: on a slow machine the rounds stay far below the hour after which a wait is parked.
                clocks.passes(0.2)
                dispatcher.wake()
                await asyncio.sleep(0.02)

    async with dispatcher.running():
        await tried(TRIES_BEFORE_GIVING_UP + 1)
        for step, passed in ((HOUR, 1.0), (100 * GIVE_UP_SECONDS, 0.0)):
            await asyncio.sleep(0.3)  # the last attempt is recorded
            clocks.passes(passed)  # the next attempt is due at the first step, and not yet at the second
            clocks.is_set(step)
            dispatcher.wake()
            await asyncio.sleep(0.3)
            await tried(3)
    assert await store.queries.counts() == {"answered": 1}
    await store.stop()


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
async def test_hour_without_attempts_does_not_count_towards_parking(
    tmp_path: Path, clocks: Clocks, *, restarted: bool
) -> None:
    """After an unnoticed clock step or an hour of downtime the target still gets its hour of attempts."""
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}", clock=lambda: clocks.wall)
    await store.start()
    await answered(store)

    def refuse(_: Route) -> None:
        raise TargetNotReady("not now")

    shelf = CollectingEngine(on_deliver=refuse)
    for _ in range(2):
        dispatcher = Dispatcher(store.leases, {"shelf": shelf}, backoff=Backoff(first=0.05, most=0.1))
        until = shelf.calls + TRIES_BEFORE_GIVING_UP + 1
        async with dispatcher.running(), asyncio.timeout(60):
            while shelf.calls < until:
                clocks.passes(1)
                dispatcher.wake()
                await asyncio.sleep(0.02)
            if not restarted:
                clocks.is_set(HOUR)
                await asyncio.sleep(0.1)
        clocks.passes(HOUR if restarted else 0)
    assert await store.queries.counts() == {"answered": 1}
    await store.stop()


@pytest.mark.parametrize("step", [HOUR, 365 * 24 * HOUR, -HOUR], ids=["an hour", "a year", "back"])
async def test_retention_deletes_nothing_early(store: Store, clocks: Clocks, step: float) -> None:
    """A delivered wait is deleted after its retention time, however the clock is set meanwhile."""
    patient = Store(store.database.url, clock=lambda: clocks.wall, steady=lambda: clocks.steady)
    retention = Retention(patient.upkeep, timedelta(minutes=30))
    await answered(store)
    (wait,) = await lease(store)
    assert await store.leases.delivered(wait, "relay")
    clocks.is_set(step)
    assert await retention.forget() == 0
    clocks.passes(29 * 60)
    assert await retention.forget() == 0
    clocks.passes(max(0.0, -step) + 2 * 60)
    assert await retention.forget() == 1
    await patient.stop()


def test_gradual_adjustment_is_no_clock_step(clocks: Clocks) -> None:
    """A clock that is adjusted gradually is trusted."""
    steps = ClockSteps(lambda: clocks.steady)
    since = clocks.wall
    for _ in range(100):
        clocks.passes(60)
        clocks.is_set(0.03)
        steps.note(clocks.wall)
    assert steps.skipped(since) == pytest.approx(3, abs=1.5)
    clocks.is_set(HOUR)
    steps.note(clocks.wall)
    assert steps.skipped(since) == pytest.approx(HOUR, abs=5)
    assert steps.skipped(clocks.wall) == 0
