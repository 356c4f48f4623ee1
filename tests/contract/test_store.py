"""The waits table under one contract, on each database it may live in."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from awaithumans_core import Outcome, Route
from awaithumans_relay.dispatcher import Dispatcher
from awaithumans_relay.store import Store, WaitState
from tests.support.engines import Shelf
from tests.support.postgres import PostgresServer


class Now:
    """A clock that stands."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'waits.db'}"
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.database()


@pytest.fixture
async def stores(url: str, now: Now) -> AsyncGenerator[tuple[Store, Store]]:
    """Two relays' stores on one database, started at the same moment."""
    pair = Store(url, clock=now), Store(url, clock=now)
    await asyncio.gather(*(store.start() for store in pair))
    yield pair
    await asyncio.gather(*(store.stop() for store in pair))


@pytest.fixture
def store(stores: tuple[Store, Store]) -> Store:
    return stores[0]


def route(number: int = 0, target: str = "somebody") -> Route:
    return Route("shelf", {"place": target}, f"question-{number}")


def outcome(number: int = 0, **fields: object) -> Outcome:
    return Outcome.model_validate(
        {"task_id": f"task-{number}", "status": "completed", "response": {"approved": True}}
        | {"idempotency_key": f"question-{number}", **fields}
    )


async def test_registered_then_answered(store: Store) -> None:
    """An open wait is answered once, with what was answered."""
    assert await store.register("task-0", route(), 900) == WaitState.OPEN
    assert await store.answer(outcome(), found_by="callback", route=route()) == 1
    assert await store.answer(outcome(response={"approved": False}), found_by="callback", route=route()) == 0
    (wait,) = await store.find("task-0")
    assert (wait.state, wait.outcome, wait.found_by) == (WaitState.ANSWERED, outcome(), "callback")


async def test_answered_then_registered(store: Store) -> None:
    """A callback that beats the registration is one wait, answered."""
    await store.answer(outcome(), found_by="callback", route=route())
    assert await store.register("task-0", route(), 900) == WaitState.ANSWERED
    assert await store.counts() == {"answered": 1}


async def test_everybody_who_waits_for_a_question_is_answered(store: Store) -> None:
    """Two routes share a task; one of another question on the same task does not get its answer."""
    other = Route("shelf", {"place": "elsewhere"}, "question-7")
    for each in (route(), route(target="also"), other):
        await store.register("task-0", each, 900)
    assert await store.answer(outcome(), found_by="sweep") == 2
    assert {wait.route.target["place"]: wait.state for wait in await store.find("task-0")} == {
        "somebody": "answered",
        "also": "answered",
        "elsewhere": "open",
    }


async def test_the_same_moment_twice(stores: tuple[Store, Store]) -> None:
    """Registration and callbacks of one wait at two relays at once make one row, answered once."""
    for number in range(10):
        counts = await asyncio.gather(
            *(store.answer(outcome(number), found_by="callback", route=route(number)) for store in stores * 2),
            *(store.register(f"task-{number}", route(number), 900) for store in stores),
        )
        assert sum(count for count in counts if isinstance(count, int)) <= 1
    assert await stores[0].counts() == {"answered": 10}


async def test_one_delivery_a_target_among_all_relays(stores: tuple[Store, Store]) -> None:
    """However many relays look for work at once, each target has one lease, and every wait has its turn."""
    for number in range(40):
        await stores[0].answer(outcome(number), found_by="callback", route=route(number, target=f"t{number % 4}"))
    delivered: list[str] = []
    while len(delivered) < 40:
        rounds = await asyncio.gather(
            *(store.lease("shelf", f"relay-{n}", limit=3, seconds=15) for n, store in enumerate(stores * 3))
        )
        held = [(f"relay-{n}", wait) for n, leased in enumerate(rounds) for wait in leased]
        targets = [wait.route.target_id for _, wait in held]
        assert len(targets) == len(set(targets))
        assert held, "nobody found work"
        for owner, wait in held:
            assert await stores[0].delivered(wait, owner)
            delivered.append(wait.task_id)
    assert len(set(delivered)) == 40


async def test_a_lease_is_held_by_renewing(store: Store, now: Now) -> None:
    """A relay that lives keeps what it has leased; what a dead one had is taken over, and it cannot write any more."""
    await store.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.lease("shelf", "first", limit=9, seconds=15)
    now.time += 10
    assert await store.renew("first", seconds=15) == 1
    now.time += 10
    assert await store.lease("shelf", "second", limit=9, seconds=15) == []
    now.time += 10
    (taken_over,) = await store.lease("shelf", "second", limit=9, seconds=15)
    assert taken_over.attempts == wait.attempts + 1
    assert not await store.delivered(wait, "first")
    assert await store.delivered(taken_over, "second")
    assert await store.renew("second", seconds=15) == 0


async def test_a_node_that_blocks_its_relay_is_not_run_by_another(url: str) -> None:
    """A delivery that blocks the event loop for longer than a lease lasts stays this relay's, and is made once."""
    delivered: list[str] = []

    class Blocking(Shelf):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            delivered.append(threading.current_thread().name)
            time.sleep(1.5)  # noqa: ASYNC251 - what a node of somebody else's may do

    async def relay() -> None:
        store = Store(url)
        await store.start()
        async with Dispatcher(store, {"shelf": Blocking()}, lease_seconds=0.5).running():
            while (await store.counts()).get("delivered") != 1:
                await asyncio.sleep(0.05)
        await store.stop()

    first = Store(url)
    await first.start()
    await first.answer(outcome(), found_by="callback", route=route())
    await first.stop()
    async with asyncio.timeout(20):
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, relay()) for _ in range(2)))
    assert len(delivered) == 1


async def test_checks_are_claimed_once(stores: tuple[Store, Store], now: Now) -> None:
    """Two relays that sweep at once share the work: no task is looked at twice."""
    for number in range(20):
        await stores[0].register(f"task-{number}", route(number), 900)
    now.time += 60
    claimed = await asyncio.gather(*(store.claim_checks(10) for store in stores))
    seen = [wait.task_id for batch in claimed for wait in batch]
    seen += [wait.task_id for wait in await stores[0].claim_checks(50)]
    assert sorted(seen) == sorted(f"task-{number}" for number in range(20))
    assert await stores[1].claim_checks(50) == []


async def test_set_aside_and_back(store: Store) -> None:
    """A parked open wait takes its answer when it comes after all."""
    await store.register("task-0", route(), 900)
    (wait,) = await store.find("task-0")
    assert await store.park_open(wait, reason="nobody knows it")
    assert await store.answer(outcome(), found_by="callback") == 1
    assert await store.counts() == {"answered": 1}


async def test_tried_again_later(store: Store, now: Now) -> None:
    """A delivery that failed is due again after its delay, with its error kept."""
    await store.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.lease("shelf", "relay", limit=9, seconds=15)
    assert await store.retry(wait, "relay", after=5, error="away", not_ready=False)
    assert await store.lease("shelf", "relay", limit=9, seconds=15) == []
    now.time += 5
    (again,) = await store.lease("shelf", "relay", limit=9, seconds=15)
    assert (again.attempts, again.last_error) == (1, "away")
