"""The dispatcher on a real store with engines of the tests: when it delivers, how often, and what delays it."""

import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from devservers import Process, free_port, tool
from sqlalchemy import update

from awaithumans_core import Outcome, Route, TargetBusy, TargetGone, TargetNotReady
from awaithumans_core.retry import Backoff
from awaithumans_relay.availability.circuit_breaker import PROBES
from awaithumans_relay.commands.serve import HANG_UP_SECONDS
from awaithumans_relay.dispatch.attempts import GIVE_UP_SECONDS, TRIES_BEFORE_GIVING_UP
from awaithumans_relay.dispatch.dispatcher import MAX_DELIVERIES, MAX_LEASES, TICK_SECONDS, Dispatcher
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import Store, Wait
from awaithumans_relay.store.retention import Retention
from awaithumans_relay.store.table.schema import waits
from tests.support.engines import CollectingEngine

QUICKLY = Backoff(first=0.05, most=0.2)


def route(number: int, place: str | None = None) -> Route:
    return Route("shelf", {"place": place or f"place-{number}"}, f"question-{number}")


async def answered(store: Store, number: int, place: str | None = None) -> None:
    outcome = Outcome(task_id=f"task-{number}", status="completed", idempotency_key=f"question-{number}")
    await store.intake.answer(outcome, found_by="callback", route=route(number, place))


async def until(store: Store, **counts: int) -> None:
    async with asyncio.timeout(60):
        while await store.queries.counts() != counts:
            await asyncio.sleep(0.02)


def counting_leases(store: Store) -> Counter[str]:
    """Count how often the store is asked for work."""
    looks = Counter[str]()
    lease = store.leases.acquire

    async def counted(*args: object, **kwargs: object) -> object:
        looks["lease"] += 1
        return await lease(*args, **kwargs)  # type: ignore[arg-type]

    store.leases.acquire = counted  # type: ignore[method-assign, assignment]
    return looks


async def test_idle_dispatcher_rarely_queries_the_database(store: Store) -> None:
    """Without work the table is queried at most once in several seconds."""
    looks = counting_leases(store)
    async with Dispatcher(store.leases, {"shelf": CollectingEngine()}).running():
        await asyncio.sleep(2)
    assert looks["lease"] <= 1


@pytest.mark.parametrize("count", [60, MAX_DELIVERIES + 60])
async def test_ended_delivery_causes_no_query_of_its_own(store: Store, count: int) -> None:
    """While all due waits are being delivered, or the maximum number is, an ended delivery triggers no lease."""

    class Turnstile:
        name = "shelf"

        def __init__(self) -> None:
            self._gate = asyncio.Lock()

        async def deliver(self, route: Route, outcome: Outcome) -> None:
            async with self._gate:
                await asyncio.sleep(0.005)

    looks = counting_leases(store)
    for number in range(count):
        await answered(store, number)
    async with Dispatcher(store.leases, {"shelf": Turnstile()}).running():
        await until(store, delivered=count)
    assert looks["lease"] <= count / MAX_LEASES + 3 + 0.5 * max(0, count - MAX_DELIVERIES)


async def test_unreachable_engine_is_tried_a_few_times_and_gets_all_answers_later(store: Store) -> None:
    """Fifty answers for an unreachable engine cause a few attempts, and all arrive when it is reachable again."""
    away = [True]

    def attempt(_: Route) -> None:
        if away:
            raise ConnectionError("away")

    shelf = CollectingEngine(on_deliver=attempt)
    for number in range(6):
        await answered(store, number)
    dispatcher = Dispatcher(store.leases, {"shelf": shelf}, backoff=QUICKLY)
    async with dispatcher.running():
        async with asyncio.timeout(60):
            while not dispatcher.circuit_breakers["shelf"].is_open:
                await asyncio.sleep(0.02)
        for number in range(6, 50):
            await answered(store, number)
        knocks = shelf.calls
        dispatcher.wake()
        await asyncio.sleep(0.5)
        assert shelf.calls - knocks <= 3 * PROBES  # of 44 that are due
        away.clear()
        await shelf.until(50)
        await until(store, delivered=50)
    assert not dispatcher.circuit_breakers["shelf"].is_open


async def test_failing_targets_do_not_delay_a_healthy_one(store: Store) -> None:
    """An answer that can be delivered does not wait for hundreds that fail for their own reasons."""

    def some(route: Route) -> None:
        if route.target["place"] != "well":
            raise RuntimeError("this one is broken")

    shelf = CollectingEngine(on_deliver=some)
    for number in range(300):
        await answered(store, number)
    dispatcher = Dispatcher(store.leases, {"shelf": shelf}, backoff=QUICKLY)
    async with dispatcher.running():
        async with asyncio.timeout(60):
            while not dispatcher.circuit_breakers["shelf"].is_open:
                await asyncio.sleep(0.02)
        await answered(store, 1000, place="well")
        dispatcher.wake()
        await until(store, answered=300, delivered=1)


async def test_retry_after_of_an_engine_is_kept(store: Store) -> None:
    """An engine that replies 429 with Retry-After is not called again before that time."""
    times: list[float] = []

    def busy(_: Route) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            reply = httpx.Response(429, headers={"Retry-After": "1"}, request=httpx.Request("POST", "http://x"))
            reply.raise_for_status()

    await answered(store, 1)
    async with Dispatcher(store.leases, {"shelf": CollectingEngine(on_deliver=busy)}, backoff=QUICKLY).running():
        await until(store, delivered=1)
    assert times[1] - times[0] >= 1


async def test_answer_queued_behind_another_is_delivered_right_after_it(store: Store) -> None:
    """A caller that takes its answers in order gets the second as soon as it has taken the first."""
    taken: list[str] = []

    def in_order(route: Route) -> None:
        if route.idempotency_key == "question-1" and "question-0" not in taken:
            raise TargetBusy("first the other one", retry_after=600)
        taken.append(route.idempotency_key)

    await answered(store, 1, place="one thread")
    dispatcher = Dispatcher(store.leases, {"shelf": CollectingEngine(on_deliver=in_order)})
    async with dispatcher.running():
        async with asyncio.timeout(60):
            while (await store.queries.find("task-1"))[0].last_error is None:
                await asyncio.sleep(0.02)
        await answered(store, 0, place="one thread")
        dispatcher.wake()
        await until(store, delivered=2)
    assert taken == ["question-0", "question-1"]


async def test_answer_queued_for_weeks_is_hastened_once(store: Store) -> None:
    """An answer behind another one is retried for weeks, and is hastened once when it is next."""
    hastened: list[int] = []
    hasten = store.leases.hasten

    async def counted(held_back: Sequence[Wait]) -> None:
        hastened.append(len(held_back))
        await hasten(held_back)

    store.leases.hasten = counted  # type: ignore[method-assign]
    tries = Counter[str]()

    def in_order(route: Route) -> None:
        tries[route.idempotency_key] += 1
        if route.idempotency_key == "question-1" and not tries["question-0"]:
            raise TargetBusy("first the other one")

    await answered(store, 1, place="one thread")
    dispatcher = Dispatcher(store.leases, {"shelf": CollectingEngine(on_deliver=in_order)}, backoff=QUICKLY)
    async with dispatcher.running():
        async with asyncio.timeout(60):
            while tries["question-1"] < 3:
                dispatcher.wake()
                await asyncio.sleep(0.02)
        await answered(store, 0, place="one thread")
        dispatcher.wake()
        await until(store, delivered=2)
    assert hastened[0] == 1


@pytest.mark.parametrize(("early", "state"), [(TargetNotReady, "parked"), (TargetBusy, "answered")])
async def test_busy_target_is_retried_longer_than_an_unknown_one(
    tmp_path: Path, early: type[TargetNotReady], state: str
) -> None:
    """A target that never knew the question is given up after an hour, and a busy one is not."""
    now = [1_000_000.0]
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}", clock=lambda: now[0])
    await store.start()

    def not_now(_: Route) -> None:
        now[0] += 1800
        raise early("not now")

    await answered(store, 1)
    shelf = CollectingEngine(on_deliver=not_now)
    dispatcher = Dispatcher(store.leases, {"shelf": shelf}, backoff=QUICKLY)
    async with dispatcher.running(), asyncio.timeout(60):
        while shelf.calls < TRIES_BEFORE_GIVING_UP + 2 and await store.queries.counts() != {"parked": 1}:
            now[0] += 1
            dispatcher.wake()
            await asyncio.sleep(0.02)
    assert await store.queries.counts() == {state: 1}
    await store.stop()


async def test_answer_survives_a_long_stop_of_the_relay(tmp_path: Path) -> None:
    """After eight days in a stopped relay an answer survives an engine that is briefly unreachable."""
    stopped = Store(f"sqlite:///{tmp_path / 'waits.db'}", clock=lambda: time.time() - GIVE_UP_SECONDS - 86400)
    await stopped.start()
    await answered(stopped, 1)
    await stopped.stop()
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    await store.start()
    away = [ConnectionError("not up yet")]

    def attempt(_: Route) -> None:
        if away:
            raise away.pop()

    async with Dispatcher(store.leases, {"shelf": CollectingEngine(on_deliver=attempt)}, backoff=QUICKLY).running():
        await until(store, delivered=1)
    await store.stop()


async def test_delivered_waits_are_deleted_after_the_retention(tmp_path: Path) -> None:
    """Waits delivered before the retention time are deleted in chunks, and the others are kept."""
    now = [1_000_000.0]
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}", clock=lambda: now[0])
    await store.start()
    for number in range(30):
        await answered(store, number)
    async with Dispatcher(store.leases, {"shelf": CollectingEngine()}).running():
        await until(store, delivered=30)
    now[0] += 10 * 86400
    await answered(store, 99)
    assert await Retention(store.upkeep, timedelta(days=30)).forget() == 0
    assert await Retention(store.upkeep, timedelta(days=9)).forget() == 30
    assert await store.queries.counts() == {"answered": 1}
    await store.stop()


async def test_stop_finishes_running_deliveries(store: Store) -> None:
    """A relay that is stopped finishes the deliveries that have begun."""
    begun = asyncio.Event()

    class Slow(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            begun.set()
            await asyncio.sleep(0.5)
            await super().deliver(route, outcome)

    shelf = Slow()
    await answered(store, 1)
    async with Dispatcher(store.leases, {"shelf": shelf}).running():
        await begun.wait()
    assert len(shelf.held) == 1
    assert await store.queries.counts() == {"delivered": 1}


async def test_lease_that_expired_while_leasing_is_not_delivered(store: Store, tmp_path: Path) -> None:
    """If the database blocks for longer than a lease, another relay may already have the answer."""
    others = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    stalled, over = asyncio.Event(), asyncio.Event()
    lease = store.leases.acquire

    async def slowly(*args: object, **kwargs: object) -> object:
        found = await lease(*args, **kwargs)  # type: ignore[arg-type]
        if found and not stalled.is_set():
            stalled.set()
            await over.wait()
        return found

    store.leases.acquire = slowly  # type: ignore[method-assign, assignment]
    shelf = CollectingEngine()
    await answered(store, 1)
    slow, quick = (Dispatcher(each.leases, {"shelf": shelf}, lease_seconds=0.5) for each in (store, others))
    async with asyncio.timeout(30), slow.running():
        await stalled.wait()
        await asyncio.sleep(0.6)
        async with quick.running():
            await shelf.until(1)
            over.set()
            await asyncio.sleep(0.3)
            await answered(store, 2)
            slow.wake()
            await shelf.until(2)
    assert [outcome.task_id for _, outcome in shelf.held] == ["task-1", "task-2"]
    await others.stop()


async def test_stop_while_leasing_releases_the_new_leases(store: Store) -> None:
    """Waits leased while the relay stops are free at once; those being delivered stay leased."""
    begun, leased, finish = asyncio.Event(), asyncio.Event(), asyncio.Event()
    lease = store.leases.acquire

    async def stopped_meanwhile(*args: object, **kwargs: object) -> object:
        found = await lease(*args, **kwargs)  # type: ignore[arg-type]
        if begun.is_set() and found:
            leased.set()
            await asyncio.Event().wait()
        return found

    class Slow(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            begun.set()
            await finish.wait()
            await super().deliver(route, outcome)

    slow, other = Slow(), CollectingEngine()
    store.leases.acquire = stopped_meanwhile  # type: ignore[method-assign, assignment]
    first = Dispatcher(store.leases, {"shelf": slow})
    await answered(store, 1)
    async with asyncio.timeout(10):
        async with first.running():
            await begun.wait()
            await answered(store, 2)
            first.wake()
            await leased.wait()
            store.leases.acquire = lease  # type: ignore[method-assign]
            asyncio.get_running_loop().call_later(3, finish.set)  # after the relay has begun to stop
            second = asyncio.create_task(_taken(store, other))
        await second
    assert [outcome.task_id for _, outcome in other.held] == ["task-2"]
    assert [outcome.task_id for _, outcome in slow.held] == ["task-1"]


async def _taken(store: Store, shelf: CollectingEngine) -> None:
    async with Dispatcher(store.leases, {"shelf": shelf}).running():
        await until(store, delivered=2)


async def test_answers_are_delivered_at_once_after_an_outage_of_the_store(store: Store) -> None:
    """The dispatcher queries an unavailable table rarely, yet a newly stored answer is delivered at once."""
    shelf = CollectingEngine()
    seldom = Backoff(first=600, most=600)

    def renamed(old: str, new: str) -> Awaitable[int]:
        return store.database.write(lambda db: db.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}").rowcount)

    await renamed("waits", "elsewhere")
    dispatcher = Dispatcher(store.leases, {"shelf": shelf}, backoff=seldom)
    async with dispatcher.running():
        await asyncio.sleep(0.5)
        await renamed("elsewhere", "waits")
        await answered(store, 1)
        dispatcher.wake()
        await shelf.until(1, seconds=2)
        await renamed("waits", "elsewhere")
        dispatcher.wake()
        await asyncio.sleep(0.5)
        await renamed("elsewhere", "waits")
        await answered(store, 2)  # by another relay, so that this one is not woken
        await shelf.until(2, seconds=TICK_SECONDS + 2)


async def test_unrecorded_delivery_is_recorded_before_other_deliveries_end(store: Store) -> None:
    """A delivery that the database refused to record is recorded later and not repeated."""
    done = asyncio.Event()

    class Slow(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            if route.idempotency_key == "question-0":
                await done.wait()
            await super().deliver(route, outcome)

    refuse = "CREATE TRIGGER refuse BEFORE UPDATE OF delivered_at ON waits BEGIN SELECT RAISE(ABORT, 'no'); END"
    await store.database.write(lambda db: db.exec_driver_sql(refuse).rowcount)
    shelf = Slow()
    await answered(store, 0)
    await answered(store, 1)
    async with Dispatcher(store.leases, {"shelf": shelf}, lease_seconds=0.5).running():
        await shelf.until(1)
        await asyncio.sleep(1)  # longer than a lease lasts
        await store.database.write(lambda db: db.exec_driver_sql("DROP TRIGGER refuse").rowcount)
        await until(store, answered=1, delivered=1)
        done.set()
        await until(store, delivered=2)
    assert shelf.calls == 2


@pytest.mark.parametrize("end", ["taken", "gone", "failed", "nobodys-answer"])
async def test_result_of_a_lost_lease_is_neither_logged_nor_counted(
    store: Store, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    """A relay that lost its lease during a delivery reports no result and does not change the other relay's."""
    caplog.set_level("INFO", logger="awaithumans.relay")
    others = update(waits).values(lease_owner="another relay", lease_until=time.time() + 60)

    class Slow(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            await store.database.write(lambda db: db.execute(others).rowcount)
            await super().deliver(route, outcome)
            if end in {"gone", "nobodys-answer"}:
                raise TargetGone("the target has ended")
            if end == "failed":
                raise RuntimeError("it is broken")

    shelf, observer = Slow(), Observer(["shelf"])
    outcome = Outcome(
        task_id="task-1",
        status="cancelled" if end == "nobodys-answer" else "completed",
        idempotency_key="question-1",
    )
    await store.intake.answer(outcome, found_by="callback", route=route(1))
    async with Dispatcher(store.leases, {"shelf": shelf}, observer=observer).running(), asyncio.timeout(10):
        while "lease lost to another relay" not in caplog.text:
            await asyncio.sleep(0.02)
    for untrue in ("delivered task", "parked task", "delivery failed", "caller is gone"):
        assert untrue not in caplog.text
    counted = [line for line in observer.metrics.text({}, 0).decode().splitlines() if "deliveries_total{" in line]
    assert counted == ['awaithumans_relay_deliveries_total{engine="shelf",result="lease_lost"} 1.0']
    (wait,) = await store.queries.find("task-1")
    assert (wait.state, wait.last_error) == ("answered", None)


async def test_slow_request_does_not_delay_shutdown(tmp_path: Path) -> None:
    """On SIGTERM the relay closes a connection whose body arrives slowly, and exits before it is killed."""
    port = free_port()
    env = {"AWAITHUMANS_RELAY_SECRET": secrets.token_urlsafe(32), "AWAITHUMANS_PAYLOAD_KEY": secrets.token_urlsafe(32)}
    env |= {"AWAITHUMANS_ADMIN_API_TOKEN": "t"}
    relay = Process(
        [tool("awaithumans-relay"), "serve", "--port", str(port), "--temporal", "127.0.0.1:9"], tmp_path, env
    )
    relay.start()
    try:
        await relay.answers(f"http://127.0.0.1:{port}/healthz")
        _, dawdler = await asyncio.open_connection("127.0.0.1", port)
        dawdler.write(b"POST /callbacks/none HTTP/1.1\r\nHost: relay\r\nContent-Length: 9\r\n\r\n1")
        await asyncio.sleep(0.5)
        os.kill(relay.pid, signal.SIGTERM)
        async with asyncio.timeout(HANG_UP_SECONDS + 5):
            while relay.alive:
                await asyncio.sleep(0.1)
        dawdler.close()
    finally:
        await asyncio.to_thread(relay.stop)


async def test_caller_that_has_the_answer_gets_no_second_delivery(store: Store) -> None:
    """The engine is asked first; an operator's redrive is delivered without asking."""

    class Remembers(CollectingEngine):
        checked = 0

        async def has_answer(self, route: Route) -> bool:
            self.checked += 1
            return bool(self.held)

    shelf = Remembers()
    await store.intake.register("task-1", route(1), 900)
    await answered(store, 1)
    dispatcher = Dispatcher(store.leases, {"shelf": shelf})
    async with dispatcher.running():
        await until(store, delivered=1)
        assert (shelf.calls, shelf.checked) == (1, 0)
        await store.intake.register("task-1", route(1), 900)
        dispatcher.wake()
        await until(store, delivered=1)
        assert (shelf.calls, shelf.checked) == (1, 1)
        shelf.held.clear()  # the engine restarted and no longer knows
        await store.intake.register("task-1", route(1), 900)
        dispatcher.wake()
        await shelf.until(1)
        await until(store, delivered=1)
        assert (shelf.calls, shelf.checked) == (2, 2)
