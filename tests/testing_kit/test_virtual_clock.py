"""A clock on which waiting takes no time: when it moves, whom it wakes, and what it leaves behind."""

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from awaithumans_core.testing import VirtualClock
from tests.testing_kit.questions import DAY, threads, until, until_sync

CALM = 0.05
"""Real seconds of quiet in tests that look at the clock after they were woken: a busy machine takes its time."""


async def naps(clock: VirtualClock, *seconds: float) -> list[float]:
    """Sleep so long, all at once; in which order they woke."""
    woken: list[float] = []

    async def nap(for_seconds: float) -> None:
        await clock.sleep(for_seconds)
        woken.append(for_seconds)

    await asyncio.gather(*map(nap, seconds))
    return woken


async def asleep(clock: VirtualClock, *seconds: float) -> list["asyncio.Task[None]"]:
    """Sleepers that have gone to sleep."""
    tasks = [asyncio.create_task(clock.sleep(each)) for each in seconds]
    await asyncio.sleep(0)
    return tasks


async def test_it_stands_still_while_nobody_sleeps() -> None:
    """Real time alone moves nothing."""
    clock = VirtualClock()
    await asyncio.sleep(0.03)
    assert clock.now() == 0.0


async def test_a_month_passes_in_a_moment() -> None:
    """Waiting takes no real time, and the clock shows the time that has passed."""
    clock = VirtualClock()
    await clock.sleep(30 * DAY)
    assert clock.now() == 30 * DAY


def test_a_month_passes_in_a_moment_for_a_thread() -> None:
    """The same for those who have no event loop."""
    clock = VirtualClock()
    clock.sleep_sync(30 * DAY)
    assert clock.now() == 30 * DAY


async def test_it_jumps_to_the_earliest_sleeper() -> None:
    """Nobody sleeps longer than was asked for because others do."""
    clock = VirtualClock(quiet=CALM)
    later = asyncio.create_task(clock.sleep(100.0))
    await clock.sleep(10.0)
    assert clock.now() == 10.0
    await later
    assert clock.now() == 100.0


async def test_sleepers_wake_in_the_order_of_their_time() -> None:
    """Whoever came first does not matter, the moment does."""
    assert await naps(VirtualClock(), 50.0, 10.0, 40.0, 20.0, 30.0) == [10.0, 20.0, 30.0, 40.0, 50.0]


async def test_sleepers_of_one_moment_wake_in_the_order_they_came() -> None:
    """There is no chance in it, so a test gives the same result every time."""
    clock, woken = VirtualClock(), list[int]()

    async def nap(place: int) -> None:
        await clock.sleep(10.0)
        woken.append(place)

    await asyncio.gather(*map(nap, range(20)))
    assert woken == list(range(20))


async def test_those_who_sleep_again_meet_those_who_still_sleep() -> None:
    """A short sleep that is repeated and a long one keep their own rhythm."""
    clock, seen = VirtualClock(quiet=CALM), list[tuple[str, float]]()

    async def rhythm(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await clock.sleep(seconds)
            seen.append((name, clock.now()))

    await asyncio.gather(rhythm("short", 2.0, 4), rhythm("long", 5.0, 1))
    assert seen == [("short", 2.0), ("short", 4.0), ("long", 5.0), ("short", 6.0), ("short", 8.0)]


@pytest.mark.parametrize("seconds", [0.0, -1.0], ids=["none", "less than none"])
async def test_no_time_to_wait_is_no_time(seconds: float) -> None:
    """A pause that has shrunk to nothing ends, and time does not go back."""
    clock = VirtualClock()
    await clock.sleep(seconds)
    clock.sleep_sync(seconds)
    assert clock.now() == 0.0


async def test_without_auto_only_advance_moves_it() -> None:
    """A test that takes its time between two steps loses none."""
    clock = VirtualClock(auto=False)
    (sleeper,) = await asleep(clock, 10.0)
    await asyncio.sleep(0.04)
    assert clock.now() == 0.0
    assert not sleeper.done()
    clock.advance(10.0)
    await sleeper
    assert clock.now() == 10.0


async def test_advance_wakes_those_who_are_due_and_no_others() -> None:
    """The last moment belongs to it, the one after it does not."""
    clock = VirtualClock(auto=False)
    before, at, after = await asleep(clock, 9.0, 10.0, 10.5)
    clock.advance(10.0)
    await asyncio.gather(before, at)
    await asyncio.sleep(0.02)
    assert not after.done()
    clock.advance(0.5)
    await after


async def test_advance_wakes_in_order() -> None:
    """One big step has the order of many small ones."""
    clock = VirtualClock(auto=False)
    napping = asyncio.create_task(naps(clock, 30.0, 10.0, 20.0))
    await asyncio.sleep(0.01)
    clock.advance(100.0)
    assert await napping == [10.0, 20.0, 30.0]


async def test_advance_works_where_time_moves_by_itself() -> None:
    """A test may hurry a clock that would have come there anyway."""
    clock = VirtualClock(quiet=60.0)
    (sleeper,) = await asleep(clock, 10.0)
    clock.advance(10.0)
    await sleeper
    assert clock.now() == 10.0


async def test_listeners_hear_of_every_move() -> None:
    """A held poll learns that its time is over, though nobody has slept for it."""
    clock, heard = VirtualClock(), list[float]()
    clock.on_change(lambda: heard.append(clock.now()))
    await naps(clock, 1.0, 2.0)
    await until(lambda: len(heard) == 2)
    clock.advance(5.0)
    assert heard == [1.0, 2.0, 7.0]


async def test_busy_holds_time_back() -> None:
    """While somebody works, nobody's time runs out."""
    clock = VirtualClock()
    with clock.busy():
        (sleeper,) = await asleep(clock, 10.0)
        await asyncio.sleep(0.05)
        assert clock.now() == 0.0
    await sleeper
    assert clock.now() == 10.0


async def test_busy_holds_time_back_until_the_last_has_finished() -> None:
    """Two at work are two."""
    clock = VirtualClock()
    with clock.busy():
        with clock.busy():
            (sleeper,) = await asleep(clock, 10.0)
        await asyncio.sleep(0.05)
        assert not sleeper.done()
    await sleeper


async def test_idle_lets_it_go_on() -> None:
    """Whoever only waits in the middle of work holds nobody up."""
    clock = VirtualClock()
    with clock.busy(), clock.idle():
        await clock.sleep(10.0)
    assert clock.now() == 10.0


async def test_work_that_fails_gives_time_back() -> None:
    """An error inside does not stop the clock for ever."""
    clock = VirtualClock()
    with pytest.raises(ZeroDivisionError), clock.busy(), clock.idle():
        raise ZeroDivisionError
    await clock.sleep(10.0)


async def test_stirring_puts_a_jump_off() -> None:
    """As long as something happens, more often than it is quiet, time stays where it is."""
    clock = VirtualClock(quiet=0.2)
    (sleeper,) = await asleep(clock, 10.0)
    for _ in range(6):
        await asyncio.sleep(0.05)
        with clock.busy():
            pass
        assert clock.now() == 0.0
    await sleeper


def test_threads_and_event_loops_share_it() -> None:
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


def test_threads_and_event_loops_share_one_that_moves_by_itself() -> None:
    """Whoever sleeps, wherever it is, is woken, and time has passed once for all of them."""
    clock = VirtualClock()

    async def in_a_loop() -> None:
        await asyncio.gather(*(clock.sleep(seconds) for seconds in (10.0, 20.0, DAY)))

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(clock.sleep_sync, seconds) for seconds in (15.0, DAY)]
        done += [pool.submit(asyncio.run, in_a_loop()) for _ in range(2)]
        for each in done:
            each.result(10.0)
    assert DAY <= clock.now() <= 2 * DAY


async def test_a_cancelled_sleep_leaves_nothing_behind() -> None:
    """Time does not stop where nobody waits any more."""
    clock, heard = VirtualClock(quiet=CALM), list[float]()
    clock.on_change(lambda: heard.append(clock.now()))
    (cancelled,) = await asleep(clock, 5.0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await clock.sleep(100.0)
    await until(lambda: heard)
    assert heard == [100.0]


async def test_a_sleep_cut_short_by_a_timeout_leaves_nothing_behind() -> None:
    """A real timeout around a sleep is a cancellation like any other."""
    clock = VirtualClock(auto=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await clock.sleep(5.0)
    assert not clock._sleepers


def test_an_event_loop_that_is_closed_does_not_matter() -> None:
    """A sleeper whose loop was closed in its sleep does not keep the others from waking."""
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


async def test_a_slow_event_loop_is_waited_for() -> None:
    """Time does not jump over what a loop is about to do, when the machine is slow to do it."""
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


async def test_what_slow_event_loops_send_each_other_is_waited_for() -> None:
    """Time does not jump while a request is on its way to another loop, and the reply on its way back."""
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


async def test_thousands_sleep_at_once() -> None:
    """Three thousand sleepers at ten moments wake in the order of their moments."""
    clock = VirtualClock()
    woken = await naps(clock, *(float(1 + place % 10) for place in range(3000)))
    assert woken == sorted(woken)
    assert len(woken) == 3000


async def test_no_thread_is_left_when_nobody_sleeps() -> None:
    """The thread that moves time goes with its last sleeper, and comes back with the next."""
    before, clock = threads(), VirtualClock()
    for _ in range(2):
        (sleeper,) = await asleep(clock, 1.0)
        assert len(threads() - before) == 1
        await sleeper
        await until(lambda: threads() <= before)


async def test_no_thread_is_left_when_the_sleep_is_cancelled() -> None:
    """Nobody has to wake for it to go."""
    before, clock = threads(), VirtualClock()
    (sleeper,) = await asleep(clock, 1.0)
    sleeper.cancel()
    await until(lambda: threads() <= before)
    assert clock.now() == 0.0


async def test_no_thread_is_needed_without_auto() -> None:
    """Where only a test moves time, there is nothing to watch."""
    before, clock = threads(), VirtualClock(auto=False)
    (sleeper,) = await asleep(clock, 1.0)
    assert threads() <= before
    clock.advance(1.0)
    await sleeper


def test_advance_is_made_at_once() -> None:
    """Whoever is woken on the way sees the end of the way; a sleeper beyond it sleeps on."""
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


def test_time_does_not_go_back() -> None:
    """Seconds only ever grow: an advance by less than nothing is refused."""
    clock = VirtualClock(auto=False)
    clock.advance(10.0)
    with pytest.raises(ValueError, match="-5"):
        clock.advance(-5.0)
