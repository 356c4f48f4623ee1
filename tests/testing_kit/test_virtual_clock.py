"""`VirtualClock`: when it advances, which sleepers it wakes, and what it leaves behind."""

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from awaithumans_core.testing import VirtualClock
from awaithumans_core.testing.clock import EXPECTED_ACTION_SECONDS
from tests.testing_kit.questions import DAY, threads, until, until_sync

CALM = 0.05
"""Real seconds without activity in tests that read the clock after waking, because a busy machine is slow."""


async def naps(clock: VirtualClock, *seconds: float) -> list[float]:
    """Sleep for all of these times concurrently and return the order of waking."""
    woken: list[float] = []

    async def nap(for_seconds: float) -> None:
        await clock.sleep(for_seconds)
        woken.append(for_seconds)

    await asyncio.gather(*map(nap, seconds))
    return woken


async def asleep(clock: VirtualClock, *seconds: float) -> list["asyncio.Task[None]"]:
    """Return sleepers that have started to sleep."""
    tasks = [asyncio.create_task(clock.sleep(each)) for each in seconds]
    await asyncio.sleep(0)
    return tasks


async def test_clock_does_not_advance_without_sleepers() -> None:
    """Real time alone does not advance the clock."""
    clock = VirtualClock()
    await asyncio.sleep(0.03)
    assert clock.now() == 0.0


async def test_month_of_sleep_takes_a_moment() -> None:
    """Sleeping takes no real time, and the clock shows the time that has passed."""
    clock = VirtualClock()
    await clock.sleep(30 * DAY)
    assert clock.now() == 30 * DAY


def test_month_of_sleep_in_a_thread_takes_a_moment() -> None:
    """A thread without an event loop sleeps for a month in a moment."""
    clock = VirtualClock()
    clock.sleep_sync(30 * DAY)
    assert clock.now() == 30 * DAY


async def test_clock_jumps_to_the_earliest_sleeper() -> None:
    """No sleeper sleeps longer than it asked for because of others."""
    clock = VirtualClock(quiet=CALM)
    later = asyncio.create_task(clock.sleep(100.0))
    await clock.sleep(10.0)
    assert clock.now() == 10.0
    await later
    assert clock.now() == 100.0


async def test_sleepers_wake_in_order_of_time() -> None:
    """The time of waking decides the order, not the order of arrival."""
    assert await naps(VirtualClock(), 50.0, 10.0, 40.0, 20.0, 30.0) == [10.0, 20.0, 30.0, 40.0, 50.0]


async def test_sleepers_of_one_moment_wake_in_order_of_arrival() -> None:
    """The order is deterministic, so a test gives the same result every time."""
    clock, woken = VirtualClock(), list[int]()

    async def nap(place: int) -> None:
        await clock.sleep(10.0)
        woken.append(place)

    await asyncio.gather(*map(nap, range(20)))
    assert woken == list(range(20))


async def test_repeated_sleep_and_long_sleep_keep_their_times() -> None:
    """A short repeated sleep and a long sleep each keep their own intervals."""
    clock, seen = VirtualClock(quiet=CALM), list[tuple[str, float]]()

    async def rhythm(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            seen.append((name, clock.now()))

    await asyncio.gather(rhythm("short", 2.0, 4), rhythm("long", 5.0, 1))
    assert seen == [("short", 2.0), ("short", 4.0), ("long", 5.0), ("short", 6.0), ("short", 8.0)]


@pytest.mark.parametrize("seconds", [0.0, -1.0], ids=["none", "less than none"])
async def test_sleep_of_zero_or_less_ends_immediately(seconds: float) -> None:
    """Such a sleep ends, and time does not go back."""
    clock = VirtualClock()
    await clock.sleep(seconds)
    clock.sleep_sync(seconds)
    assert clock.now() == 0.0


async def test_clock_without_auto_advances_by_advance_only() -> None:
    """A test that is slow between two steps loses no virtual time."""
    clock = VirtualClock(auto=False)
    (sleeper,) = await asleep(clock, 10.0)
    await asyncio.sleep(0.04)
    assert clock.now() == 0.0
    assert not sleeper.done()
    clock.advance(10.0)
    await sleeper
    assert clock.now() == 10.0


async def test_advance_wakes_due_sleepers_only() -> None:
    """The last moment is included, and the one after it is not."""
    clock = VirtualClock(auto=False)
    before, at, after = await asleep(clock, 9.0, 10.0, 10.5)
    clock.advance(10.0)
    await asyncio.gather(before, at)
    await asyncio.sleep(0.02)
    assert not after.done()
    clock.advance(0.5)
    await after


async def test_advance_wakes_sleepers_in_order() -> None:
    """One large step wakes sleepers in the same order as many small steps."""
    clock = VirtualClock(auto=False)
    napping = asyncio.create_task(naps(clock, 30.0, 10.0, 20.0))
    await asyncio.sleep(0.01)
    clock.advance(100.0)
    assert await napping == [10.0, 20.0, 30.0]


async def test_advance_works_with_auto() -> None:
    """A test may advance a clock that also advances by itself."""
    clock = VirtualClock(quiet=60.0)
    (sleeper,) = await asleep(clock, 10.0)
    clock.advance(10.0)
    await sleeper
    assert clock.now() == 10.0


async def test_listeners_are_notified_of_every_advance() -> None:
    """A held poll learns that its time is over although it does not sleep."""
    clock, heard = VirtualClock(), list[float]()
    clock.on_change(lambda: heard.append(clock.now()))
    await naps(clock, 1.0, 2.0)
    await until(lambda: len(heard) == 2)
    clock.advance(5.0)
    assert heard == [1.0, 2.0, 7.0]


async def test_busy_stops_the_clock() -> None:
    """While work is in progress, no time passes."""
    clock = VirtualClock()
    with clock.busy():
        (sleeper,) = await asleep(clock, 10.0)
        await asyncio.sleep(0.05)
        assert clock.now() == 0.0
    await sleeper
    assert clock.now() == 10.0


async def test_busy_stops_the_clock_until_all_work_is_done() -> None:
    """Time passes only after both of two pieces of work are done."""
    clock = VirtualClock()
    with clock.busy():
        with clock.busy():
            (sleeper,) = await asleep(clock, 10.0)
        await asyncio.sleep(0.05)
        assert not sleeper.done()
    await sleeper


async def test_idle_inside_busy_lets_time_pass() -> None:
    """Work that is only waiting does not stop the clock."""
    clock = VirtualClock()
    with clock.busy(), clock.idle():
        await clock.sleep(10.0)
    assert clock.now() == 10.0


async def test_failed_work_restarts_the_clock() -> None:
    """An error during work does not stop the clock for ever."""
    clock = VirtualClock()
    with pytest.raises(ZeroDivisionError), clock.busy(), clock.idle():
        raise ZeroDivisionError
    await clock.sleep(10.0)


async def test_activity_postpones_a_jump() -> None:
    """While activities follow each other closely, time does not advance."""
    clock = VirtualClock(quiet=0.2)
    (sleeper,) = await asleep(clock, 10.0)
    for _ in range(6):
        await asyncio.sleep(0.05)
        with clock.busy():
            pass
        assert clock.now() == 0.0
    await sleeper


def test_threads_and_event_loops_share_a_clock() -> None:
    """Sleepers of three threads and of three event loops wake in one common order."""
    clock, woken = VirtualClock(auto=False), list[float]()
    guard = threading.Lock()

    def note(seconds: float) -> None:
        with guard:
            woken.append(seconds)

    def in_a_thread(seconds: float) -> None:
        clock.sleep_sync(seconds)
        note(seconds)

    async def in_a_loop(*seconds: float) -> None:
        async def nap(each: float) -> None:
            await clock.sleep(each)
            note(each)

        await asyncio.gather(*map(nap, seconds))

    with ThreadPoolExecutor(6) as pool:
        done = [pool.submit(in_a_thread, seconds) for seconds in (1.0, 4.0, 7.0)]
        done += [pool.submit(asyncio.run, in_a_loop(*each)) for each in ((2.0, 8.0), (3.0, 9.0), (5.0, 6.0))]
        for moment in range(1, 10):
            until_sync(lambda: clock.now() or len(clock._sleepers) == 9)
            clock.advance(1.0)
            until_sync(lambda moment=moment: len(woken) == moment)  # type: ignore[misc]  # a loop's closure
        for each in done:
            each.result()
    assert woken == [float(moment) for moment in range(1, 10)]


def test_threads_and_event_loops_share_a_clock_with_auto() -> None:
    """Every sleeper in every thread and loop is woken, and time passes once for all."""
    clock = VirtualClock()

    async def in_a_loop() -> None:
        await asyncio.gather(*(clock.sleep(seconds) for seconds in (10.0, 20.0, DAY)))

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(clock.sleep_sync, seconds) for seconds in (15.0, DAY)]
        done += [pool.submit(asyncio.run, in_a_loop()) for _ in range(2)]
        for each in done:
            each.result(10.0)
    assert DAY <= clock.now() <= 2 * DAY


async def test_cancelled_sleep_leaves_nothing_behind() -> None:
    """Time does not stop at the time of a cancelled sleeper."""
    clock, heard = VirtualClock(quiet=CALM), list[float]()
    clock.on_change(lambda: heard.append(clock.now()))
    (cancelled,) = await asleep(clock, 5.0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await clock.sleep(100.0)
    await until(lambda: heard)
    assert heard == [100.0]


async def test_sleep_ended_by_a_timeout_leaves_nothing_behind() -> None:
    """A real timeout around a sleep is handled like any other cancellation."""
    clock = VirtualClock(auto=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await clock.sleep(5.0)
    assert not clock._sleepers


def test_sleeper_of_a_closed_event_loop_stops_no_other() -> None:
    """A sleeper whose loop was closed does not keep the others from waking."""
    clock, loop = VirtualClock(auto=False), asyncio.new_event_loop()
    sleeper = loop.create_task(clock.sleep(1.0))
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(clock.sleep_sync, 2.0)
        until_sync(lambda: len(clock._sleepers) == 2)
        clock.advance(2.0)
        other.result(5.0)
    assert not sleeper.done()
    sleeper._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant to be left like this


async def test_clock_waits_for_a_slow_event_loop() -> None:
    """Time does not jump past what a slow loop is about to do."""
    clock, seen = VirtualClock(), list[float]()

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append(clock.now())

    later = asyncio.create_task(nap(10.0))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - the loop is held up
    await nap(1.0)
    await later
    assert seen == [1.0, 10.0]


async def test_clock_waits_for_messages_between_slow_event_loops() -> None:
    """Time does not jump while a request or its reply is on its way between two loops."""
    clock, here, seen = VirtualClock(), asyncio.get_running_loop(), list[float]()

    async def nap(seconds: float) -> None:
        await clock.sleep(seconds)
        seen.append(clock.now())

    async def there() -> None:
        clock.now()
        stop = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    def hop(loops: list[asyncio.AbstractEventLoop], arrived: asyncio.Event) -> None:
        time.sleep(0.05)  # the loop is held up
        if loops:
            loops[0].call_soon_threadsafe(hop, loops[1:], arrived)
        else:
            arrived.set()

    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    server = asyncio.create_task(asyncio.to_thread(asyncio.run, there()))
    other, stop = await asyncio.wrap_future(ready)
    later, arrived = asyncio.create_task(nap(10.0)), asyncio.Event()
    await asyncio.sleep(0)
    other.call_soon_threadsafe(hop, [here, other, here], arrived)
    await arrived.wait()
    await nap(1.0)
    await later
    other.call_soon_threadsafe(stop.set)
    await server
    assert seen == [1.0, 10.0]


def test_clock_waits_for_a_thread_that_computes() -> None:
    """Time does not jump while a thread that was woken computes before it acts, however long that takes."""
    clock, seen = VirtualClock(), list[float]()

    def client() -> None:
        clock.sleep_sync(1.0)
        until = time.process_time() + 4 * EXPECTED_ACTION_SECONDS
        while time.process_time() < until:
            pass
        clock.sleep_sync(1.0)
        seen.append(clock.now())

    later = threading.Thread(target=clock.sleep_sync, args=(10.0,))
    threads = [threading.Thread(target=client), later]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [2.0]


async def test_thousands_of_sleepers_wake_in_order() -> None:
    """Three thousand sleepers at ten moments wake in the order of their moments."""
    clock = VirtualClock()
    woken = await naps(clock, *(float(1 + place % 10) for place in range(3000)))
    assert woken == sorted(woken)
    assert len(woken) == 3000


async def test_thread_ends_with_the_last_sleeper() -> None:
    """The thread that advances time ends with its last sleeper and starts again with the next."""
    before, clock = threads(), VirtualClock()
    for _ in range(2):
        (sleeper,) = await asleep(clock, 1.0)
        assert len(threads() - before) == 1
        await sleeper
        await until(lambda: threads() <= before)


async def test_thread_ends_when_the_sleep_is_cancelled() -> None:
    """The thread ends although no sleeper wakes."""
    before, clock = threads(), VirtualClock()
    (sleeper,) = await asleep(clock, 1.0)
    sleeper.cancel()
    await until(lambda: threads() <= before)
    assert clock.now() == 0.0


async def test_clock_without_auto_starts_no_thread() -> None:
    """A clock that only a test advances needs no thread."""
    before, clock = threads(), VirtualClock(auto=False)
    (sleeper,) = await asleep(clock, 1.0)
    assert threads() <= before
    clock.advance(1.0)
    await sleeper


def test_advance_sets_the_time_before_waking() -> None:
    """Every woken sleeper sees the new time, and sleepers beyond it sleep on."""
    clock, seen = VirtualClock(auto=False), list[float]()

    def nap(seconds: float) -> None:
        clock.sleep_sync(seconds)
        seen.append(clock.now())

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(nap, seconds) for seconds in (1.0, 2.0, 11.0)]
        until_sync(lambda: len(clock._sleepers) == 3)
        clock.advance(10.0)
        for each in done[:2]:
            each.result()
        assert not done[2].done()
        clock.advance(1.0)
    assert seen == [10.0, 10.0, 11.0]


def test_negative_advance_is_refused() -> None:
    """Time only increases."""
    clock = VirtualClock(auto=False)
    clock.advance(10.0)
    with pytest.raises(ValueError, match="-5"):
        clock.advance(-5.0)
