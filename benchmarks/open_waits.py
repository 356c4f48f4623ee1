"""What open waits cost the awaithumans server, beside a bare long-poll for each of them.

The relay learns of answers that are not called back by asking the server: seldom for an old wait, often for a new one,
and within a budget. A real server has the open tasks, which are a day old for the relay. They are copied in the
server's database, because creating them all takes minutes. A relay in a process of its own waits for them.

A bare long-poll holds one connection for each task, and the server reads each polled task once a second. 500 of them
fail with read timeouts, so it is measured with the small numbers only, on a server of its own.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

import httpx
from devservers import HumansServer, started

from awaithumans_core import Route
from benchmarks._kept_tasks import create_task
from benchmarks._meters import cpu_per_minute
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run
from benchmarks.sweep import CATCH_UP_SECONDS, DAY_SECONDS, PERCENT_OF_A_CORE, Workload

NO_WAITS, OURS, LONG_POLL = "no waits", "ours", "bare long-poll"
WAITS = (1, 100, 5_000, 20_000)
LONG_POLLS = (1, 100)


def counted(waits: int) -> str:
    return "1 wait" if waits == 1 else f"{waits:,} waits"


SERVER = {
    waits: Row(
        name=f"open-waits.{waits}",
        title=f"CPU of the server with {counted(waits)}",
        unit="% of a core",
        reference=NO_WAITS,
        claims=(Claim(side=OURS, bound="at most", value=3.0, goal=2.0),),
    )
    for waits in WAITS
}
RELAY = Row(
    name="open-waits.relay",
    title="CPU of the relay with open waits",
    unit="% of a core",
)


async def measure(run: Run) -> None:
    humans, polled = HumansServer(run.folder / "humans"), HumansServer(run.folder / "polled")
    async with started(humans):
        workload, routes = Workload(run.folder, humans), list[Route]()
        for waits in WAITS:
            if run.wants(SERVER[waits], RELAY):
                # The server keeps the tasks of the smaller numbers, so only the difference is created.
                routes += await workload.create_tasks(run.size(waits, min(waits, 200)) - len(routes))
                await _measure_sweep(run, workload, routes, waits)
    async with started(polled):
        for waits in LONG_POLLS:
            if run.wants(SERVER[waits]):
                await _measure_long_polls(run, polled, waits)


async def _measure_sweep(run: Run, workload: Workload, routes: Sequence[Route], waits: int) -> None:
    server, seconds = {"server": workload.humans.process.pid}, run.size(20.0, 3.0)
    for repeat in run.repeats():
        idle = await cpu_per_minute(server, seconds)
        async with workload.relay(f"{waits}-{repeat}", routes, DAY_SECONDS) as (relay, _):
            await asyncio.sleep(CATCH_UP_SECONDS)  # the relay first checks what came due while it started
            spent = await cpu_per_minute({**server, "relay": relay.pid}, seconds)
        run.record(SERVER[waits], NO_WAITS, idle["server"] * PERCENT_OF_A_CORE)
        run.record(SERVER[waits], OURS, spent["server"] * PERCENT_OF_A_CORE)
        run.record(RELAY, counted(waits), spent["relay"] * PERCENT_OF_A_CORE)


async def _measure_long_polls(run: Run, humans: HumansServer, waits: int) -> None:
    async with humans.people() as people:
        tasks = [await create_task(people) for _ in range(waits)]
    for _ in run.repeats():
        async with _long_polls(humans, tasks):
            await asyncio.sleep(CATCH_UP_SECONDS)
            spent = await cpu_per_minute({"server": humans.process.pid}, run.size(20.0, 3.0))
        run.record(SERVER[waits], LONG_POLL, spent["server"] * PERCENT_OF_A_CORE)


@asynccontextmanager
async def _long_polls(humans: HumansServer, tasks: Sequence[str]) -> AsyncGenerator[None]:
    """Hold one connection for each task for the duration of the block."""
    headers = {"Authorization": f"Bearer {humans.token}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=humans.url, headers=headers, limits=limits, timeout=40.0) as http:

        async def poll(task: str) -> None:
            while True:
                with suppress(httpx.RequestError):
                    (await http.get(f"/api/tasks/{task}/poll", params={"timeout": 25})).raise_for_status()

        polls = [asyncio.create_task(poll(task)) for task in tasks]
        try:
            yield
        finally:
            for each in polls:
                each.cancel()
            await asyncio.gather(*polls, return_exceptions=True)


BENCHMARK = Benchmark(
    name="open-waits",
    title="Open waits",
    description=__doc__,
    rows=(*SERVER.values(), RELAY),
    measure=measure,
    minutes=8,
)
