"""A clock that is set back or forward by an hour: no stored time delays an answer, and none ends anything early.

Every time in the waits table that something waits for, on each database. `wall` is the clock that is set, `steady` one
that never is; time passes on both.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from awaithumans_core import Outcome, Route, TargetBusy, TargetNotReady
from awaithumans_core.retry import Backoff
from awaithumans_relay.dispatch.attempts import GIVE_UP_SECONDS, TRIES_BEFORE_GIVING_UP
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.runtime.clock_steps import ClockSteps
from awaithumans_relay.store import Store, Wait, WaitState
from awaithumans_relay.store.retention import Retention
from awaithumans_relay.store.schedule import LONGEST_LEASE_SECONDS, LONGEST_RETRY_SECONDS, MOST_CHECK_SECONDS
from tests.support.engines import CollectingEngine
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.edges

HOUR = 3600.0
LEASE = 15.0
ROUTE = Route("shelf", {"place": "here"}, "question")
OUTCOME = Outcome(task_id="task", status="completed", response={"approved": True}, idempotency_key="question")


class Clocks:
    """Both clocks."""

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
    """A store that takes its clock for right, as one that has just been started does."""
    opened = Store(url, clock=lambda: clocks.wall)
    await opened.start()
    yield opened
    await opened.stop()


async def lease(store: Store, owner: str = "relay") -> list[Wait]:
    return await store.lease("shelf", owner, limit=9, seconds=LEASE)


async def answered(store: Store) -> None:
    await store.answer(OUTCOME, found_by="callback", route=ROUTE)


async def put_off_check(store: Store) -> None:
    """A wait so old that it is checked every quarter of an hour."""
    await store.register("task", ROUTE, 30 * 24 * 3600)
    (wait,) = await store.find("task")
    await store.postpone_checks([wait], MOST_CHECK_SECONDS)


async def put_off_delivery(store: Store) -> None:
    """A delivery whose target has asked for more time than it gets."""
    await answered(store)
    (wait,) = await lease(store)
    await store.retry(wait, "relay", after=10 * HOUR, error="busy", not_ready=False)


async def leased(store: Store) -> None:
    """A delivery of a relay that has died."""
    await answered(store)
    assert await lease(store, "dead")


async def redriven(store: Store) -> None:
    await answered(store)
    (wait,) = await lease(store)
    await store.park(wait, "relay", reason="gone")
    assert await store.redrive() == 1


async def checked(store: Store) -> bool:
    return bool(await store.claim_checks(9))


async def delivered(store: Store) -> bool:
    next_delivery = await store.next_delivery("shelf")
    found = await lease(store)
    assert bool(found) == (next_delivery is not None and next_delivery <= store.clock())
    return bool(found)


@dataclass(frozen=True)
class StoredTime:
    """A time that something waits for."""

    column: str
    stored: Callable[[Store], Awaitable[None]]
    due: Callable[[Store], Awaitable[bool]]
    """Whether what waits for it is done now."""
    longest: float
    """How far ahead it can have been set, in seconds."""
    respected_for: float
    """How long it is waited for while the clock is not set."""


TIMES = [
    StoredTime("next_check_at", put_off_check, checked, MOST_CHECK_SECONDS, MOST_CHECK_SECONDS),
    StoredTime("next_attempt_at", put_off_delivery, delivered, LONGEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS),
    StoredTime("next_attempt_at of an answer", answered, delivered, LONGEST_RETRY_SECONDS, 0),
    StoredTime("next_attempt_at of a redrive", redriven, delivered, LONGEST_RETRY_SECONDS, 0),
    StoredTime("lease_until", leased, delivered, LONGEST_LEASE_SECONDS, LEASE),
]
every_time = pytest.mark.parametrize("time", TIMES, ids=lambda time: time.column)


@every_time
async def test_a_time_beyond_its_longest_interval_is_due(store: Store, clocks: Clocks, time: StoredTime) -> None:
    """The clock is set back by an hour: nothing waits for that hour."""
    await time.stored(store)
    clocks.is_set(-HOUR)
    assert await time.due(store)


@every_time
async def test_a_time_within_its_interval_is_waited_for(store: Store, clocks: Clocks, time: StoredTime) -> None:
    """Without a step it is due when it is due, and not before."""
    await time.stored(store)
    if time.respected_for:
        clocks.passes(time.respected_for - 1)
        assert not await time.due(store)
        clocks.passes(2)
    assert await time.due(store)


@every_time
async def test_a_step_back_delays_by_the_longest_interval_at_most(
    store: Store, clocks: Clocks, time: StoredTime
) -> None:
    """Whatever the size of the step: after the longest interval everything is due."""
    await time.stored(store)
    clocks.is_set(-(time.longest - time.respected_for) / 2)
    clocks.passes(time.longest + 1)
    assert await time.due(store)


@every_time
async def test_a_step_forward_and_back_leaves_nothing_behind(store: Store, clocks: Clocks, time: StoredTime) -> None:
    """A time that was set while the clock was an hour ahead does not outlive the correction."""
    clocks.is_set(HOUR)
    await time.stored(store)
    clocks.is_set(-HOUR)
    assert await time.due(store)


async def test_a_deadline_ends_nothing_by_the_clock(store: Store, clocks: Clocks) -> None:
    """Past its deadline by a clock that was set forward, and long before it: the wait is open, and is checked."""
    await store.register("task", ROUTE, 900)
    for step in (HOUR, -2 * HOUR):
        clocks.is_set(step)
        clocks.passes(MOST_CHECK_SECONDS)
        assert await checked(store)
        (wait,) = await store.find("task")
        assert wait.state == WaitState.OPEN
        assert wait.next_check_at <= clocks.wall + MOST_CHECK_SECONDS


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_living_relay_keeps_its_leases_when_the_clock_is_set(url: str, clocks: Clocks, step: float) -> None:
    """Just after a step nothing is taken over, so that a living relay renews first; a dead one's lease is, later."""
    living, other = (Store(url, clock=lambda: clocks.wall, steady=lambda: clocks.steady) for _ in range(2))
    await living.start()
    await answered(living)
    (wait,) = await lease(living, "living")
    held = {(wait.task_id, wait.route.digest)}
    for _ in range(5):
        assert await lease(other, "other") == []
        clocks.passes(LEASE / 3)
        await asyncio.to_thread(living.renew, "living", held, seconds=LEASE)
    clocks.is_set(step)
    assert await lease(other, "other") == []
    clocks.passes(LEASE / 3)
    await asyncio.to_thread(living.renew, "living", held, seconds=LEASE)
    for _ in range(10):
        assert await lease(other, "other") == []
        clocks.passes(LEASE / 3)
        await asyncio.to_thread(living.renew, "living", held, seconds=LEASE)
    clocks.is_set(step)
    assert await lease(other, "other") == []
    clocks.passes(LEASE + 1)
    assert len(await lease(other, "other")) == 1
    await living.stop()
    await other.stop()


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
async def test_a_relay_that_starts_takes_nothing_over_at_once(url: str, clocks: Clocks, step: float) -> None:
    """It cannot know whether the clock was set a moment ago, and another relay is about to renew; later it does."""
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
async def test_a_step_forward_parks_nothing_early(url: str, clocks: Clocks, early: type[Exception]) -> None:
    """A target that was not ready for a moment is not parked because the clock was set forward, however far."""
    store = Store(url, clock=lambda: clocks.wall, steady=lambda: clocks.steady)
    await store.start()
    await answered(store)

    def refuse(_: Route) -> None:
        raise early("not now")

    shelf = CollectingEngine(on_deliver=refuse)
    dispatcher = Dispatcher(store, {"shelf": shelf}, backoff=Backoff(first=0.05, most=0.1))

    async def tried(times: int) -> None:
        until = shelf.calls + times
        async with asyncio.timeout(60):
            while shelf.calls < until:
                clocks.passes(0.2)  # on a slow machine the rounds of a minute pass far less than the hour to give up
                dispatcher.wake()
                await asyncio.sleep(0.02)

    async with dispatcher.running():
        await tried(TRIES_BEFORE_GIVING_UP + 1)
        for step in (HOUR, 100 * GIVE_UP_SECONDS):
            clocks.is_set(step)
            await asyncio.sleep(0.1)
            await tried(3)
    assert await store.counts() == {"answered": 1}
    await store.stop()


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
async def test_an_hour_without_a_try_is_not_counted(tmp_path: Path, clocks: Clocks, *, restarted: bool) -> None:
    """Set forward while the relay runs, unnoticed, or down for an hour: the target gets its hour of tries."""
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}", clock=lambda: clocks.wall)
    await store.start()
    await answered(store)

    def refuse(_: Route) -> None:
        raise TargetNotReady("not now")

    shelf = CollectingEngine(on_deliver=refuse)
    for _ in range(2):
        dispatcher = Dispatcher(store, {"shelf": shelf}, backoff=Backoff(first=0.05, most=0.1))
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
    assert await store.counts() == {"answered": 1}
    await store.stop()


@pytest.mark.parametrize("step", [HOUR, 365 * 24 * HOUR, -HOUR], ids=["an hour", "a year", "back"])
async def test_retention_deletes_nothing_early(store: Store, clocks: Clocks, step: float) -> None:
    """A delivered wait is kept for its time, however the clock is set meanwhile, and is deleted then."""
    patient = Store(store.database.url, clock=lambda: clocks.wall, steady=lambda: clocks.steady)
    retention = Retention(patient, timedelta(minutes=30))
    await answered(store)
    (wait,) = await lease(store)
    assert await store.delivered(wait, "relay")
    clocks.is_set(step)
    assert await retention.forget() == 0
    clocks.passes(29 * 60)
    assert await retention.forget() == 0
    clocks.passes(max(0.0, -step) + 2 * 60)
    assert await retention.forget() == 1
    await patient.stop()


def test_small_differences_are_no_steps(clocks: Clocks) -> None:
    """A clock that is adjusted gradually is right."""
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
