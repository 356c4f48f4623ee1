"""The contract of the waits table, on each supported database."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from awaithumans_core import Outcome, Route
from awaithumans_core.deleted_tasks import Census, Missing
from awaithumans_core.errors import TooManyWaitsError
from awaithumans_core.runs import NO_RUNS, StartedRuns
from awaithumans_relay.dispatch.dispatcher import Dispatcher
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.store.database import Database
from awaithumans_relay.store.database.connections import LOCK_TIMEOUT_MS, READERS
from awaithumans_relay.store.waits.intake import MAX_OPEN_WAITS
from tests.support.engines import CollectingEngine
from tests.support.postgres import PostgresServer


class Now:
    """A clock that stops unless it is moved."""

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
    """Yield the stores of two relays on one database, started at the same moment."""
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


async def test_registered_wait_is_answered_once(store: Store) -> None:
    """An open wait is answered once, with the outcome given first."""
    assert await store.intake.register("task-0", route(), 900) == WaitState.OPEN
    assert len(await store.intake.answer(outcome(), found_by="callback", route=route())) == 1
    assert (
        len(await store.intake.answer(outcome(response={"approved": False}), found_by="callback", route=route())) == 0
    )
    (wait,) = await store.queries.find("task-0")
    assert (wait.state, wait.outcome, wait.found_by) == (WaitState.ANSWERED, outcome(), "callback")


async def test_answer_before_registration_is_one_wait(store: Store) -> None:
    """A callback that arrives before the registration results in one answered wait."""
    await store.intake.answer(outcome(), found_by="callback", route=route())
    assert await store.intake.register("task-0", route(), 900) == WaitState.ANSWERED
    assert await store.queries.counts() == {"answered": 1}


async def test_unanswered_tasks_include_those_of_parked_waits(store: Store, now: Now) -> None:
    """The store lists tasks without an answer, those of parked waits too, and the age of the oldest open wait."""
    assert await store.checks.oldest_open() is None
    began = now.time
    for number in range(4):
        await store.intake.register(f"task-{number}", route(number), 900)
        now.time += 1
    await store.intake.answer(outcome(0), found_by="callback")
    (parked,) = await store.queries.find("task-1")
    await store.checks.park(parked, reason="deleted")
    found = await store.checks.unanswered([f"task-{number}" for number in (0, 1, 2, 9)])
    assert {wait.task_id for wait in found} == {"task-1", "task-2"}
    assert await store.checks.oldest_open() == began + 2


async def test_missed_checks_are_rescheduled_for_open_waits_only(store: Store, now: Now) -> None:
    """Of the waits whose checks were missed, open ones are due again and the answered one is unchanged."""
    for number in range(3):
        await store.intake.register(f"task-{number}", route(number), 900)
    now.time += 10
    due = await store.checks.claim(10)
    assert len(due) == 3
    await store.intake.answer(outcome(1), found_by="callback")
    (before,) = await store.queries.find("task-1")
    await store.checks.postpone(due, 2)
    now.time += 2
    assert {wait.task_id for wait in await store.checks.claim(10)} == {"task-0", "task-2"}
    (answered,) = await store.queries.find("task-1")
    assert answered.next_check_at == before.next_check_at


async def test_answer_reaches_every_wait_for_its_question(store: Store) -> None:
    """Two routes share a task; a route of another question on the same task does not get its answer."""
    other = Route("shelf", {"place": "elsewhere"}, "question-7")
    for each in (route(), route(target="also"), other):
        await store.intake.register("task-0", each, 900)
    assert len(await store.intake.answer(outcome(), found_by="sweep")) == 2
    assert {wait.route.target["place"]: wait.state for wait in await store.queries.find("task-0")} == {
        "somebody": "answered",
        "also": "answered",
        "elsewhere": "open",
    }


async def test_concurrent_registration_and_callbacks_make_one_wait(stores: tuple[Store, Store]) -> None:
    """Concurrent registrations and callbacks at two relays make one row, which is answered once."""
    for number in range(10):
        counts = await asyncio.gather(
            *(store.intake.answer(outcome(number), found_by="callback", route=route(number)) for store in stores * 2),
            *(store.intake.register(f"task-{number}", route(number), 900) for store in stores),
        )
        assert sum(count for count in counts if isinstance(count, int)) <= 1
    assert await stores[0].queries.counts() == {"answered": 10}


async def test_each_target_has_one_lease_among_all_relays(stores: tuple[Store, Store]) -> None:
    """However many relays lease work at once, each target has one lease, and every wait is delivered in turn."""
    for number in range(40):
        await stores[0].intake.answer(
            outcome(number), found_by="callback", route=route(number, target=f"t{number % 4}")
        )
    delivered: list[str] = []
    while len(delivered) < 40:
        rounds = await asyncio.gather(
            *(store.leases.acquire("shelf", f"relay-{n}", limit=3, seconds=15) for n, store in enumerate(stores * 3))
        )
        held = [(f"relay-{n}", wait) for n, leased in enumerate(rounds) for wait in leased]
        targets = [wait.route.target_id for _, wait in held]
        assert len(targets) == len(set(targets))
        assert held, "no relay found work"
        for owner, wait in held:
            assert await stores[0].leases.delivered(wait, owner)
            delivered.append(wait.task_id)
    assert len(set(delivered)) == 40


async def test_renewed_lease_is_kept_and_expired_lease_is_taken_over(store: Store, now: Now) -> None:
    """A running relay keeps its leases; a stopped one loses them and cannot write any more."""
    await store.intake.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.leases.acquire("shelf", "first", limit=9, seconds=15)
    now.time += 10
    held = {(wait.task_id, wait.route.digest)}
    assert await asyncio.to_thread(store.leases.renew, "first", held, seconds=15) == 1
    now.time += 10
    assert await store.leases.acquire("shelf", "second", limit=9, seconds=15) == []
    now.time += 10
    (taken_over,) = await store.leases.acquire("shelf", "second", limit=9, seconds=15)
    assert taken_over.attempts == wait.attempts + 1
    assert not await store.leases.delivered(wait, "first")
    assert await store.leases.delivered(taken_over, "second")
    assert await asyncio.to_thread(store.leases.renew, "second", held, seconds=15) == 0


async def test_leases_hold_when_relay_clocks_differ(postgres: PostgresServer) -> None:
    """However wrong a relay's clock is, leases of a running relay hold and those of a stopped one are taken over."""
    url = postgres.database()
    right, ahead = Store(url), Store(url)
    ahead.clock = lambda: time.time() + 60
    await right.start()
    await right.intake.answer(outcome(), found_by="callback", route=route())
    (held,) = await right.leases.acquire("shelf", "right", limit=9, seconds=15)
    assert await ahead.leases.acquire("shelf", "ahead", limit=9, seconds=15) == []
    assert await right.leases.retry(held, "right", after=0, error="", not_ready=False)
    assert len(await ahead.leases.acquire("shelf", "ahead", limit=9, seconds=0.5)) == 1
    await asyncio.sleep(0.6)
    assert len(await right.leases.acquire("shelf", "right", limit=9, seconds=0.5)) == 1
    await asyncio.gather(right.stop(), ahead.stop())


async def test_delivery_that_blocks_the_event_loop_is_made_once(url: str) -> None:
    """A delivery that blocks the event loop for longer than its lease stays with this relay and is made once."""
    delivered: list[str] = []

    class Blocking(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            delivered.append(threading.current_thread().name)
            time.sleep(4)  # noqa: ASYNC251 - a node of an application may block

    async def relay() -> None:
        store = Store(url)
        await store.start()
        async with Dispatcher(store.leases, {"shelf": Blocking()}, lease_seconds=2).running():
            while (await store.queries.counts()).get("delivered") != 1:
                await asyncio.sleep(0.05)
        await store.stop()

    first = Store(url)
    await first.start()
    await first.intake.answer(outcome(), found_by="callback", route=route())
    await first.stop()
    async with asyncio.timeout(60):
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, relay()) for _ in range(2)))
    assert len(delivered) == 1


@pytest.mark.edges
async def test_delivery_survives_an_outage_of_the_store(url: str) -> None:
    """While the store is unwritable for longer than a lease, a delivery is neither taken over nor started again."""
    delivered: list[str] = []

    class Slow(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            delivered.append(route.idempotency_key)
            await asyncio.sleep(12)

    first, second = Store(url), Store(url)
    await first.start()
    await second.start()
    await first.intake.answer(outcome(), found_by="callback", route=route())

    def lock() -> None:
        engine = create_engine(first.database.url)
        with engine.connect() as db:
            everything = "LOCK TABLE waits IN ACCESS EXCLUSIVE MODE"
            db.exec_driver_sql(everything if first.database.is_postgres else "BEGIN IMMEDIATE")
            time.sleep(6)
            db.rollback()
        engine.dispose()

    relays = [Dispatcher(store.leases, {"shelf": Slow()}, lease_seconds=3) for store in (first, second)]
    async with relays[0].running(), relays[1].running(), asyncio.timeout(60):
        while not delivered:
            await asyncio.sleep(0.05)
        locked = asyncio.create_task(asyncio.to_thread(lock))
        await asyncio.sleep(4)
        relays[1].wake()  # wakes the dispatcher, as another answer would
        await locked
        while (await first.queries.counts()).get("delivered") != 1:
            await asyncio.sleep(0.05)
    assert len(delivered) == 1
    await first.stop()
    await second.stop()


async def test_concurrent_sweeps_claim_each_check_once(stores: tuple[Store, Store], now: Now) -> None:
    """Two relays that sweep at once share the work, and no task is checked twice."""
    for number in range(20):
        await stores[0].intake.register(f"task-{number}", route(number), 900)
    now.time += 60
    claimed = await asyncio.gather(*(store.checks.claim(10) for store in stores))
    seen = [wait.task_id for batch in claimed for wait in batch]
    seen += [wait.task_id for wait in await stores[0].checks.claim(50)]
    assert sorted(seen) == sorted(f"task-{number}" for number in range(20))
    assert await stores[1].checks.claim(50) == []


async def test_relays_share_the_budget_of_their_sweeps(stores: tuple[Store, Store], now: Now) -> None:
    """What one relay has spent, another one cannot spend. A rest fills the budget again, up to that of a minute."""
    assert await stores[0].checks.settle(0.02, 0.0) == pytest.approx(1.2)
    assert await stores[0].checks.settle(0.02, 1.0) == pytest.approx(0.2, abs=0.1)
    assert await stores[1].checks.settle(0.02, 0.0) == pytest.approx(0.2, abs=0.1)
    assert await stores[1].checks.settle(0.02, 100.0) == pytest.approx(-1.2, abs=0.1)


async def test_young_waits_are_claimed_first_and_overdue_ones_not_forgotten(store: Store, now: Now) -> None:
    """Three quarters of a claim are young waits; a quarter are those that have been due for longest."""
    for number in range(10):
        await store.intake.register(f"task-{number}", route(number), 900)
    now.time += 7 * 24 * 3600
    for number in range(10, 20):
        await store.intake.register(f"task-{number}", route(number), 900)
    now.time += 60
    claimed = [int(wait.task_id.split("-")[1]) for wait in await store.checks.claim(8)]
    assert sum(number >= 10 for number in claimed) == 6
    rank, below = await store.checks.standing((await store.queries.find("task-14"))[0].created_at, 100)
    assert rank + len(below) == 20


async def test_late_checks_are_counted(store: Store, now: Now) -> None:
    """The shortfall is how many checks are later than the promise allows, and by how much."""
    for number in range(3):
        await store.intake.register(f"task-{number}", route(number), 900)
    now.time += 1
    assert (await store.checks.shortfall()).waits == 0
    now.time += 100
    late = await store.checks.shortfall()
    assert late.waits == 3
    assert 95 < late.seconds < 101


async def test_parked_open_wait_takes_its_late_answer(store: Store) -> None:
    """A parked open wait takes its answer when that comes after all."""
    await store.intake.register("task-0", route(), 900)
    (wait,) = await store.queries.find("task-0")
    assert await store.checks.park(wait, reason="unknown task")
    assert len(await store.intake.answer(outcome(), found_by="callback")) == 1
    assert await store.queries.counts() == {"answered": 1}


@pytest.mark.parametrize("how", ["park", "retry", "gone", "park_open"])
async def test_error_text_that_no_database_stores_is_still_recorded(store: Store, how: str) -> None:
    """Lone surrogates and NUL characters in an error text do not prevent the update of the wait."""
    reason = "cannot read caf\udce9\0.txt"
    await store.intake.register("task-0", route(), 900)
    if how != "park_open":
        await store.intake.answer(outcome(), found_by="callback", route=route())
        await store.leases.acquire("shelf", "me", limit=1, seconds=60)
    (wait,) = await store.queries.find("task-0")
    match how:
        case "park":
            assert await store.leases.park(wait, "me", reason=reason)
        case "retry":
            assert await store.leases.retry(wait, "me", after=1, error=reason, not_ready=False)
        case "gone":
            assert await store.leases.delivered(wait, "me", note=reason)
        case _:
            assert await store.checks.park(wait, reason=reason)
    (wait,) = await store.queries.find("task-0")
    assert wait.last_error == "cannot read caf??.txt"


async def test_failed_delivery_is_due_after_its_delay(store: Store, now: Now) -> None:
    """A failed delivery is due again after its delay, and its error is kept."""
    await store.intake.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    assert await store.leases.retry(wait, "relay", after=5, error="away", not_ready=False)
    assert await store.leases.acquire("shelf", "relay", limit=9, seconds=15) == []
    now.time += 5
    (again,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    assert (again.attempts, again.last_error) == (1, "away")


async def test_redrive_starts_a_parked_delivery_over(store: Store, now: Now) -> None:
    """A redriven answer gets a new time limit, and a redriven open wait is checked again."""
    await store.intake.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    await store.leases.park(wait, "relay", reason="gone")
    await store.intake.register("task-1", route(1), 900)
    (unanswered,) = await store.queries.find("task-1")
    await store.checks.park(unanswered, reason="deleted")
    now.time += 1000
    assert await store.upkeep.redrive(task_id="task-0") == 1
    assert await store.upkeep.redrive() == 1
    (again,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    assert (again.outcome, again.attempts, again.answered_at, again.redriven_at) == (outcome(), 0, now.time, now.time)
    assert (await store.queries.find("task-1"))[0].state == "open"
    assert await store.upkeep.redrive() == 0


async def test_new_relay_takes_over_leases_of_a_stopped_one(postgres: PostgresServer) -> None:
    """On PostgreSQL the database's clock limits leases, so even a relay that lives for seconds delivers."""
    url = postgres.database()
    dead, started = Store(url), Store(url)
    await dead.start()
    await dead.intake.answer(outcome(), found_by="callback", route=route())
    assert len(await dead.leases.acquire("shelf", "dead", limit=1, seconds=0.5)) == 1
    await asyncio.sleep(0.7)
    assert len(await started.leases.acquire("shelf", "started", limit=1, seconds=15)) == 1
    await asyncio.gather(dead.stop(), started.stop())


async def test_started_runs_are_recorded_with_the_wait(stores: tuple[Store, Store]) -> None:
    """The count outlives the process that started the run, only the lease holder counts, and a redrive resets it."""
    store, other = stores
    await store.intake.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.leases.acquire("shelf", "one", limit=1, seconds=60)
    assert wait.runs == NO_RUNS
    started = NO_RUNS.after_start("here", settled=False)
    assert not await other.leases.start_run(wait, "two", started)
    assert await store.leases.start_run(wait, "one", started)
    (kept,) = await other.queries.find("task-0")
    assert kept.runs == StartedRuns("here", 1)
    assert await store.leases.park(wait, "one", reason="run twice")
    assert await other.upkeep.redrive(task_id="task-0") == 1
    (again,) = await store.queries.find("task-0")
    assert again.runs == NO_RUNS


async def test_parked_wait_without_an_answer_is_deleted_after_its_deadline(store: Store, now: Now) -> None:
    """Open waits and parked waits with a deliverable answer are kept, whatever their age."""
    routes = {name: Route("shelf", {"place": name}, name) for name in ("open", "parked", "young", "answered")}
    for name, route in routes.items():
        await store.intake.register(name, route, 1000 if name == "young" else 10)
    for name in ("parked", "young"):
        await store.checks.park((await store.queries.find(name))[0], reason="another question")
    await store.intake.answer(
        Outcome(task_id="answered", status="cancelled", idempotency_key="answered"), found_by="sweep"
    )
    (wait,) = await store.leases.acquire("shelf", "me", limit=1, seconds=30)
    await store.leases.park(wait, "me", reason="gone")
    now.time += 500
    assert await store.upkeep.delete_ended(now.time) == 1
    assert [name for name in routes if not await store.queries.find(name)] == ["parked"]


async def test_route_has_at_most_eight_unanswered_waits(store: Store) -> None:
    """A question has one task, so a ninth wait of a route is refused until another one is answered."""
    route = Route("shelf", {}, "question-1")
    for number in range(MAX_OPEN_WAITS):
        await store.intake.register(f"task-{number}", route, 900)
    await store.checks.park((await store.queries.find("task-0"))[0], reason="another question")
    with pytest.raises(TooManyWaitsError, match="8 waits without an answer"):
        await store.intake.register("task-more", route, 900)
    assert await store.queries.find("task-more") == []
    assert await store.intake.register("task-1", route, 900) == "open"
    assert await store.intake.register("task-more", Route("shelf", {}, "question-2"), 900) == "open"
    await store.intake.answer(
        Outcome(task_id="task-1", status="cancelled", idempotency_key="question-1"), found_by="sweep"
    )
    assert await store.intake.register("task-more", route, 900) == "open"


async def test_delivered_waits_are_deleted_after_retention(store: Store, now: Now) -> None:
    """Waits delivered long ago are deleted; parked, open and recent ones are kept."""
    for number in range(4):
        await store.intake.answer(outcome(number), found_by="callback", route=route(number, target=str(number)))
    leased = {wait.task_id: wait for wait in await store.leases.acquire("shelf", "relay", limit=9, seconds=15)}
    await store.leases.delivered(leased["task-0"], "relay")
    await store.leases.park(leased["task-1"], "relay", reason="gone")
    now.time += 100
    await store.leases.delivered(leased["task-2"], "relay")
    assert await store.upkeep.delete_ended(now.time - 50) == 1
    assert await store.upkeep.delete_ended(now.time - 50) == 0
    assert await store.queries.counts() == {"answered": 1, "delivered": 1, "parked": 1}


async def test_busy_target_does_not_delay_other_targets(store: Store) -> None:
    """However many answers wait for one workflow, another's answer is leased in the same round."""
    for number in range(30):
        await store.intake.answer(outcome(number), found_by="callback", route=route(number, target="crowded"))
    await store.intake.answer(outcome(99), found_by="callback", route=route(99, target="lonely"))
    leased = await store.leases.acquire("shelf", "relay", limit=2, seconds=15)
    assert [wait.task_id for wait in leased] == ["task-0", "task-99"]


async def test_time_of_the_next_delivery_is_known(store: Store, now: Now) -> None:
    """The store knows when the next delivery is due, so the dispatcher need not poll."""
    assert await store.leases.next_delivery("shelf") is None
    await store.intake.answer(outcome(), found_by="callback", route=route())
    assert await store.leases.next_delivery("shelf") == now.time
    (wait,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    assert await store.leases.next_delivery("shelf") is None
    assert await store.queries.oldest_undelivered() == now.time
    await store.leases.retry(wait, "relay", after=7, error="away", not_ready=False)
    assert await store.leases.next_delivery("shelf") == now.time + 7


async def test_list_filters_and_pages_newest_first(store: Store, now: Now) -> None:
    """Waits are listed newest first, by state and engine, one page at a time."""
    for number in range(5):
        now.time += 1
        await store.intake.register(f"task-{number}", route(number), 900)
    await store.intake.answer(outcome(2), found_by="sweep")
    assert [wait.task_id for wait in await store.queries.listed(limit=2)] == ["task-4", "task-3"]
    assert [wait.task_id for wait in await store.queries.listed(limit=9, offset=3)] == ["task-1", "task-0"]
    assert [wait.task_id for wait in await store.queries.listed(states=["answered"])] == ["task-2"]
    assert await store.queries.listed(engine="another") == []


async def test_failing_write_does_not_fail_its_batch(store: Store) -> None:
    """Writes that share a commit fail individually."""

    def fails(db: Connection) -> None:
        db.execute(text("INSERT INTO nowhere VALUES (1)"))

    done = await asyncio.gather(
        *(store.intake.register(f"task-{number}", route(number), 900) for number in range(10)),
        store.database.write(fails),
        *(store.intake.register(f"task-{number}", route(number), 900) for number in range(10, 20)),
        return_exceptions=True,
    )
    assert [type(each) for each in done if isinstance(each, Exception)] in ([OperationalError], [ProgrammingError])
    assert await store.queries.counts() == {"open": 20}


async def test_writes_undone_by_an_io_error_are_not_acknowledged(tmp_path: Path) -> None:
    """SQLite undoes a whole transaction on an I/O error, and then no write in it is reported as stored."""
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    await store.start()
    blocked = threading.Event()
    first = asyncio.ensure_future(store.database.write(lambda _: blocked.wait(10)))
    await asyncio.sleep(0.1)

    def undo(db: Connection) -> None:
        db.execute(text("INSERT OR ROLLBACK INTO schema_version SELECT version FROM schema_version"))

    together = asyncio.gather(
        store.intake.answer(outcome(1), found_by="callback", route=route(1)),
        store.database.write(undo, order="task-2"),
        store.intake.answer(outcome(3), found_by="callback", route=route(3)),
        return_exceptions=True,
    )
    await asyncio.sleep(0.1)
    blocked.set()
    await first
    told = dict(zip((1, 2, 3), await together, strict=True))
    acknowledged = {number for number, said in told.items() if not isinstance(said, BaseException)}
    assert acknowledged <= {number for number in told if await store.queries.find(f"task-{number}")}
    assert len(await store.intake.answer(outcome(1), found_by="callback", route=route(1))) == 1
    await store.stop()


# --- tasks that the server does not know


async def registered(store: Store, count: int) -> None:
    for number in range(count):
        await store.intake.register(f"task-{number}", route(number), 30 * 24 * 3600)


async def read_missing(store: Store, now: Now, *task_ids: str) -> None:
    """Read each of these tasks as missing three times over five minutes."""
    for seconds in (0, 150, 151):
        now.time += seconds
        for task_id in task_ids:
            await store.missing_tasks.record(task_id)


async def states(store: Store, *task_ids: str) -> list[str]:
    return [wait.state for task_id in task_ids for wait in await store.queries.find(task_id)]


async def test_confirmed_deletion_ends_every_wait_on_the_task(stores: tuple[Store, Store], now: Now) -> None:
    """Readings of several relays count together, and each wait on the task gets the outcome."""
    first, second = stores
    await registered(first, 2)
    await first.intake.register("task-0", route(target="also"), 900)
    assert await first.missing_tasks.record("task-0") == Missing(now.time, 1)
    since = now.time
    now.time += 150
    assert await second.missing_tasks.record("task-0") == Missing(since, 2)
    assert (await second.missing_tasks.review("task-0")).engines == ()
    now.time += 151
    assert await first.missing_tasks.record("task-0") == Missing(since, 3)
    assert sorted((await first.missing_tasks.review("task-0")).engines) == ["shelf", "shelf"]
    for wait in await first.queries.find("task-0"):
        assert (wait.state, wait.found_by) == ("answered", "missing")
        assert wait.outcome == Outcome(task_id="task-0", status="not_found", idempotency_key="question-0")
    assert await states(first, "task-1") == ["open"]
    assert await first.missing_tasks.record("task-0") is None


async def test_missing_task_is_read_three_times_within_its_schedule(store: Store, now: Now) -> None:
    """Whatever the age of the wait, three readings fit into little more than five minutes."""
    await registered(store, 1)
    now.time += 7 * 24 * 3600
    times = list[float]()
    for _ in range(3):
        (wait,) = await store.queries.find("task-0")
        now.time = max(now.time, wait.next_check_at)
        assert len(await store.checks.claim(9)) == 1
        await store.missing_tasks.record("task-0")
        times.append(now.time)
    assert 300 <= times[2] - times[0] <= 305
    (wait,) = await store.queries.find("task-0")
    assert wait.next_check_at - now.time > 400  # while in doubt, the task is read on its ordinary schedule


async def test_other_tasks_are_checked_when_one_is_missing(store: Store, now: Now) -> None:
    """The store learns whether the server's database is the same before it confirms the first deletion."""
    await registered(store, 4)
    now.time += 7 * 24 * 3600
    await store.checks.claim(9)
    await store.missing_tasks.record("task-0")
    assert {wait.task_id for wait in await store.checks.claim(9)} == {"task-1", "task-2", "task-3"}


async def test_no_wait_ends_while_most_tasks_are_missing(store: Store, now: Now) -> None:
    """With two of three tasks missing the waits are kept with the reason, even when the third is deleted."""
    await registered(store, 3)
    await store.missing_tasks.record("task-0")
    now.time += 1
    await store.missing_tasks.record_seen({"task-2": now.time})
    assert await store.missing_tasks.doubt() is None
    await read_missing(store, now, "task-0", "task-1")
    review = await store.missing_tasks.review("task-0")
    assert (review.doubted, review.census, review.engines) == (True, Census(2, 3), ())
    assert await store.missing_tasks.doubt() == Census(2, 3)
    assert await states(store, "task-0", "task-1", "task-2") == ["open"] * 3
    assert await store.missing_tasks.listed(1) == (2, ["task-0"])


async def test_two_missing_of_four_tasks_are_deletions(store: Store, now: Now) -> None:
    """If half of the tasks are missing, both missing ones count as deleted."""
    await registered(store, 4)
    await store.missing_tasks.record("task-0")
    await store.missing_tasks.record("task-1")
    now.time += 1
    await store.missing_tasks.record_seen({"task-2": now.time, "task-3": now.time})
    await read_missing(store, now, "task-0", "task-1")
    assert (await store.missing_tasks.review("task-0")).engines == ["shelf"]
    assert (await store.missing_tasks.review("task-1")).engines == ["shelf"]


async def test_reading_before_the_first_404_is_no_evidence(store: Store, now: Now) -> None:
    """A task read before the first 404 may come from another database."""
    await registered(store, 4)
    await store.missing_tasks.record_seen({"task-2": now.time, "task-3": now.time})
    now.time += 1
    await read_missing(store, now, "task-0", "task-1")
    assert (await store.missing_tasks.review("task-0")).doubted


async def test_waits_ended_by_deletion_count_as_missing(store: Store, now: Now) -> None:
    """On another database the first of two tasks is missing alone, and the second is not ended after it."""
    await registered(store, 2)
    await read_missing(store, now, "task-0")
    assert (await store.missing_tasks.review("task-0")).engines == ["shelf"]
    now.time -= 10  # its first reading was before the end of the other task
    await store.missing_tasks.record("task-1")
    now.time += 10
    await read_missing(store, now, "task-1")
    assert (await store.missing_tasks.review("task-1")).doubted


async def test_missing_task_that_is_found_again_resets_the_count(store: Store, now: Now) -> None:
    """A reading or a registration resets the count; a reading from before the first 404 does not."""
    await registered(store, 1)
    early = now.time - 1
    await store.missing_tasks.record("task-0")
    await store.missing_tasks.record_seen({"task-0": early})
    (wait,) = await store.queries.find("task-0")
    assert wait.missing_since == now.time
    await store.missing_tasks.record_seen({"task-0": now.time + 1})
    assert not await store.missing_tasks.any()
    await store.missing_tasks.record("task-0")
    await store.intake.register("task-0", route(), 900)
    assert not await store.missing_tasks.any()
    await store.missing_tasks.record("task-0")
    await store.intake.register("task-0", route(), 900, missing=True)
    assert await store.missing_tasks.any()


async def test_clock_step_back_resets_the_readings(store: Store, now: Now) -> None:
    """Readings with a time in the future confirm nothing and do not block later ones."""
    await registered(store, 1)
    await store.missing_tasks.record("task-0")
    now.time -= 3600
    await read_missing(store, now, "task-0")
    assert (await store.missing_tasks.review("task-0")).engines == ["shelf"]


async def deleted(store: Store, now: Now) -> None:
    await registered(store, 1)
    await read_missing(store, now, "task-0")
    assert (await store.missing_tasks.review("task-0")).engines == ["shelf"]


async def deliver(store: Store) -> None:
    (wait,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    assert await store.leases.delivered(wait, "relay")


async def deliver_all(store: Store) -> None:
    while leased := await store.leases.acquire("shelf", "relay", limit=9, seconds=15):
        for wait in leased:
            assert await store.leases.delivered(wait, "relay")


async def park(store: Store) -> None:
    (wait,) = await store.leases.acquire("shelf", "relay", limit=9, seconds=15)
    assert await store.leases.park(wait, "relay", reason="the workflow has ended")


@pytest.mark.edges
@pytest.mark.parametrize("finish", [deliver, park], ids=["delivered", "parked"])
async def test_repeated_registrations_deliver_again_at_growing_intervals(
    store: Store, now: Now, finish: Callable[[Store], Awaitable[None]]
) -> None:
    """A restarted caller gets its answer at once, and a leaked route token cannot cause unlimited deliveries."""
    await store.intake.register("task-0", route(), 900)
    await store.intake.answer(outcome(), found_by="callback")
    await finish(store)
    (finished,) = await store.queries.find("task-0")
    spacing: list[float] = []
    for _ in range(25):
        if await store.intake.register("task-0", route(), 900) != "answered":
            break
        (wait,) = await store.queries.find("task-0")
        assert wait.next_attempt_at is not None
        spacing.append(wait.next_attempt_at - now.time)
        if spacing[-1] == 1:  # not due yet, and another registration does not change that
            assert await store.intake.register("task-0", route(), 900) == "answered"
            assert await store.leases.acquire("shelf", "relay", limit=9, seconds=15) == []
        now.time = wait.next_attempt_at
        await finish(store)
    assert spacing == [0, *(2.0**doubled for doubled in range(9)), *[300.0] * 10]
    assert await store.intake.register("task-0", route(), 900) == finished.state
    now.time += 24 * 3600
    assert await store.intake.register("task-0", route(), 900) == "answered"


async def test_answer_replaces_an_undelivered_end(store: Store, now: Now) -> None:
    """If a deletion was recorded in error, the person's answer is delivered instead."""
    await deleted(store, now)
    assert await store.intake.answer(outcome(), found_by="callback", route=route()) == ["shelf"]
    (wait,) = await store.queries.find("task-0")
    assert (wait.state, wait.outcome, wait.found_by) == ("answered", outcome(), "callback")


async def test_answer_after_a_delivered_end_is_parked(store: Store, now: Now) -> None:
    """The answer is kept with the reason, and an operator may have it delivered."""
    await deleted(store, now)
    await deliver(store)
    for _ in range(2):
        await store.intake.answer(outcome(), found_by="callback", route=route())
    (wait,) = await store.queries.find("task-0")
    assert (wait.state, wait.outcome, wait.found_by) == ("parked", outcome(), "callback")
    assert "TaskNotFoundError" in str(wait.last_error)
    assert await store.upkeep.redrive(task_id="task-0") == 1
    await deliver(store)


async def test_end_does_not_replace_an_answer(store: Store, now: Now) -> None:
    """A callback that arrives while a deletion is being confirmed is kept."""
    await registered(store, 1)
    await read_missing(store, now, "task-0")
    await store.intake.answer(outcome(), found_by="callback", route=route())
    assert (await store.missing_tasks.review("task-0")).engines == ()
    (wait,) = await store.queries.find("task-0")
    assert wait.outcome == outcome()


@pytest.mark.parametrize("delivered", [False, True], ids=["not delivered", "delivered"])
async def test_registration_reopens_a_question_that_had_ended(store: Store, now: Now, delivered: bool) -> None:  # noqa: FBT001
    """A registration proves that the task exists; only a caller that did not find it gets the end."""
    await deleted(store, now)
    if delivered:
        await deliver(store)
    assert await store.intake.register("task-0", route(), 900) == "open"
    (wait,) = await store.queries.find("task-0")
    assert (wait.outcome, wait.found_by, wait.missing_since) == (None, None, None)
    assert len(await store.intake.answer(outcome(), found_by="callback")) == 1


async def test_route_has_its_task_while_it_waits(store: Store, now: Now) -> None:
    """A route refers to its task until it is answered or ended; then its question may be asked anew."""
    assert await store.intake.open_task(route()) is None
    await registered(store, 2)
    assert await store.intake.open_task(route()) == "task-0"
    assert await store.intake.open_task(Route("shelf", {"place": "somebody"}, "another")) is None
    await store.intake.answer(outcome(1), found_by="callback")
    assert await store.intake.open_task(route(1)) is None
    await read_missing(store, now, "task-0")
    await store.missing_tasks.review("task-0")
    assert await store.intake.open_task(route()) == "task-0"
    await deliver_all(store)
    assert await store.intake.open_task(route()) is None


async def test_caller_that_did_not_find_its_task_gets_the_end(store: Store, now: Now) -> None:
    """The end is given if an earlier attempt or another caller has registered a wait for the task."""
    await deleted(store, now)
    await deliver(store)
    also = route(target="also")
    assert await store.intake.register("task-0", also, 900, missing=True) == "answered"
    (wait,) = [wait for wait in await store.queries.find("task-0") if wait.route == also]
    assert wait.outcome is not None
    assert wait.outcome.deleted
    await store.intake.answer(outcome(), found_by="callback", route=also)
    assert sorted(await states(store, "task-0")) == ["answered", "parked"]


async def test_database_of_an_earlier_release_is_migrated(url: str, now: Now) -> None:
    """The table of an earlier release keeps its waits and works; that of a later release is refused."""
    database = Database(url)
    await database.write(_first_release)
    await database.stop()
    store = Store(url, clock=now)
    await store.start()
    (wait,) = await store.queries.find("task-0")
    assert (wait.state, wait.route, wait.redriven_at, wait.runs) == ("open", route(), None, NO_RUNS)
    assert len(await store.intake.answer(outcome(), found_by="callback")) == 1
    await store.database.write(lambda db: db.execute(text("UPDATE schema_version SET version = 99")))
    with pytest.raises(RuntimeError, match="99, of a later release"):
        await store.start()
    await store.stop()


@pytest.mark.parametrize("caller", [{"run_id": "1", "user": "alice"}, None])
async def test_data_for_the_caller_is_kept_with_the_wait(store: Store, caller: dict[str, str] | None) -> None:
    """It is kept whether registration or callback came first, and the thread's wait is found."""
    asked = Route("langgraph-server", {"assistant_id": "a", "thread_id": "t%1"}, "question-0", caller=caller)
    await store.intake.register("task-0", asked, 900)
    await store.intake.answer(outcome(1), found_by="callback", route=replace(asked, idempotency_key="question-1"))
    for task_id in ("task-0", "task-1"):
        (wait,) = await store.queries.find(task_id)
        assert wait.route.caller == caller
    found = await store.queries.of_thread("langgraph-server", "t%1")
    assert found is not None
    assert await store.queries.of_thread("langgraph-server", "t%") is None
    assert await store.queries.of_thread("langgraph", "t%1") is None


def _first_release(db: Connection) -> None:
    for statement in (
        "CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version))",
        "INSERT INTO schema_version VALUES (1)",
        """CREATE TABLE waits (
            task_id VARCHAR(255) NOT NULL, route_digest VARCHAR(32) NOT NULL, engine VARCHAR(255) NOT NULL,
            target JSON NOT NULL, target_id TEXT NOT NULL, idempotency_key TEXT NOT NULL, state VARCHAR(16) NOT NULL,
            created_at FLOAT NOT NULL, registered_at FLOAT, deadline_at FLOAT NOT NULL, next_check_at FLOAT NOT NULL,
            outcome JSON, found_by VARCHAR(16), answered_at FLOAT, next_attempt_at FLOAT, attempts INTEGER NOT NULL,
            not_ready_since FLOAT, lease_owner VARCHAR(64), lease_until FLOAT, delivered_at FLOAT, last_error TEXT,
            PRIMARY KEY (task_id, route_digest))""",
        "CREATE INDEX waits_to_check ON waits (state, next_check_at)",
        "CREATE INDEX waits_to_deliver ON waits (state, engine, next_attempt_at)",
    ):
        db.execute(text(statement))
    held = dict.fromkeys(["task_id", "route_digest", "engine", "target", "target_id", "idempotency_key", "state"], "")
    held |= {"task_id": "task-0", "route_digest": route().digest, "engine": "shelf", "state": "open"}
    held |= {"target": route().target_id, "target_id": route().target_id, "idempotency_key": "question-0"}
    columns = ", ".join(held)
    values = ", ".join(f"'{value}'" for value in held.values())
    times = "created_at, deadline_at, next_check_at, attempts"
    db.exec_driver_sql(f"INSERT INTO waits ({columns}, {times}) VALUES ({values}, 1, 901, 6, 0)")  # noqa: S608


@pytest.mark.edges
async def test_table_lock_fails_writes_and_starts_within_a_limit(postgres: PostgresServer) -> None:
    """A locked table delays neither callbacks nor the end of the process without limit."""
    url = postgres.database()
    store, starting = Store(url), Store(url)
    await store.start()
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE waits, schema_version")
        answers = (
            store.intake.answer(outcome(number), found_by="callback", route=route(number)) for number in range(3)
        )
        async with asyncio.timeout(1.5 * LOCK_TIMEOUT_MS / 1000):
            results = await asyncio.gather(*answers, starting.start(), store.queries.counts(), return_exceptions=True)
        assert {type(getattr(error, "orig", error)).__name__ for error in results} == {"LockNotAvailable"}
    assert await store.intake.answer(outcome(0), found_by="callback", route=route(0)) == ["shelf"]
    await asyncio.gather(store.stop(), starting.stop())


async def test_callbacks_leave_no_state_in_a_session(postgres: PostgresServer) -> None:
    """No session keeps a prepared statement, lock, listener, cursor, temporary table or setting.

    A pooler in transaction mode gives each transaction another session.
    """
    store = Store(postgres.database())
    await store.start()
    async with Dispatcher(store.leases, {"shelf": CollectingEngine()}).running(), asyncio.timeout(60):
        for first in range(0, 200, 4):
            for number in range(first, first + 4):
                await store.intake.register(f"task-{number}", route(number, target=str(number)), 900)
            await asyncio.gather(
                *(
                    store.intake.answer(outcome(number), found_by="callback", route=route(number, target=str(number)))
                    for number in range(first, first + 4)
                )
            )
            await store.checks.claim(10)
            await store.readiness.check()
            await store.queries.unfinished()
        while await store.queries.counts() != {"delivered": 200}:
            await asyncio.sleep(0.05)
    together = threading.Barrier(READERS, timeout=20)

    def state(db: Connection) -> dict[str, list[object]]:
        session = cast("psycopg.Connection", db.connection.driver_connection)
        session.rollback()  # this also resets what SET LOCAL has set
        return {
            name: list(session.execute(f"SELECT * FROM {name} WHERE {which}".encode()).fetchall())  # noqa: S608
            for name, which in {
                "pg_prepared_statements": "true",
                "pg_cursors": "is_holdable",
                "pg_listening_channels()": "true",
                "pg_locks": "locktype = 'advisory' AND pid = pg_backend_pid()",
                "pg_settings": "source = 'session'",
                "pg_class": "relpersistence = 't'",
            }.items()
        }

    def state_of_each(db: Connection) -> dict[str, list[object]]:
        together.wait()  # all at once, so that each has its own connection
        return state(db)

    states = [await store.database.write(state)]
    states += await asyncio.gather(*(store.database.read(state_of_each) for _ in range(READERS)))
    for each in states:
        assert {name: found for name, found in each.items() if found} == {}
    await store.stop()
