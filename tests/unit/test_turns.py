"""Slots: so many at once, and whoever takes longer keeps nobody waiting."""

import asyncio

from awaithumans_adapters.langgraph.graph_engine.slots import Slots


async def test_so_many_at_once() -> None:
    """Everybody has a turn, in the order in which they came; what fails gives its turn back."""
    turns, here, most, order = Slots(2, 60.0), 0, 0, list[int]()

    async def one(number: int) -> None:
        nonlocal here, most
        async with turns.slot():
            order.append(number)
            here += 1
            most = max(most, here)
            await asyncio.sleep(0)
            here -= 1
            if number % 2:
                raise ZeroDivisionError

    ended = await asyncio.gather(*map(one, range(10)), return_exceptions=True)
    assert [isinstance(each, ZeroDivisionError) for each in ended] == [False, True] * 5
    assert (most, order) == (2, list(range(10)))


async def test_what_takes_long_keeps_nobody_waiting() -> None:
    """A turn ends with its time, and what goes on after it gives nothing back a second time."""
    turns, long = Slots(1, 0.01), asyncio.Event()

    async def takes_long() -> None:
        async with turns.slot():
            await long.wait()

    first, second = asyncio.create_task(takes_long()), asyncio.create_task(takes_long())
    async with asyncio.timeout(30):
        async with turns.slot():
            assert not first.done()
            assert not second.done()
        long.set()
        await asyncio.gather(first, second)


async def test_whoever_gives_up_takes_no_turn() -> None:
    """Cancelled before its turn, or in it: the next one has it."""
    turns, forever = Slots(1, 60.0), asyncio.Event()

    async def stays() -> None:
        async with turns.slot():
            await forever.wait()

    here, queued = asyncio.create_task(stays()), asyncio.create_task(stays())
    await asyncio.sleep(0)
    for each in (queued, here):
        each.cancel()
    await asyncio.gather(here, queued, return_exceptions=True)
    async with asyncio.timeout(30), turns.slot():
        pass


def test_each_event_loop_has_turns_of_its_own() -> None:
    """An engine may outlive the loop it was used in, in tests or in a notebook."""
    turns = Slots(1, 60.0)

    async def two() -> None:
        async def one() -> None:
            async with turns.slot():
                await asyncio.sleep(0)

        await asyncio.gather(one(), one())

    asyncio.run(two())
    asyncio.run(two())
