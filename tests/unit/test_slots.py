"""Concurrency slots of the graph engine: N at a time, and a long run blocks no others."""

import asyncio

from awaithumans_adapters.langgraph.graph_engine.slots import Slots


async def test_slots_are_given_in_order_of_arrival() -> None:
    """Every run gets a slot in order, and a failed run returns its slot."""
    slots, here, most, order = Slots(2, 60.0), 0, 0, list[int]()

    async def one(number: int) -> None:
        nonlocal here, most
        async with slots.slot():
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


async def test_long_run_loses_its_slot() -> None:
    """A slot expires after its time, and a run that continues afterwards does not return it a second time."""
    slots, long = Slots(1, 0.01), asyncio.Event()

    async def takes_long() -> None:
        async with slots.slot():
            await long.wait()

    first, second = asyncio.create_task(takes_long()), asyncio.create_task(takes_long())
    async with asyncio.timeout(30):
        async with slots.slot():
            assert not first.done()
            assert not second.done()
        long.set()
        await asyncio.gather(first, second)


async def test_cancelled_run_returns_its_slot() -> None:
    """A run that is cancelled before or during its slot leaves it to the next one."""
    slots, forever = Slots(1, 60.0), asyncio.Event()

    async def stays() -> None:
        async with slots.slot():
            await forever.wait()

    here, queued = asyncio.create_task(stays()), asyncio.create_task(stays())
    await asyncio.sleep(0)
    for each in (queued, here):
        each.cancel()
    await asyncio.gather(here, queued, return_exceptions=True)
    async with asyncio.timeout(30), slots.slot():
        pass


def test_each_event_loop_has_its_own_slots() -> None:
    """An engine may outlive its event loop, in tests or in a notebook."""
    slots = Slots(1, 60.0)

    async def two() -> None:
        async def one() -> None:
            async with slots.slot():
                await asyncio.sleep(0)

        await asyncio.gather(one(), one())

    asyncio.run(two())
    asyncio.run(two())
