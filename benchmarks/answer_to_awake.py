"""The time from a person's answer until the caller is awake, beside the official callback and a bare long-poll.

Three sides ask the same question, each on an awaithumans server of its own that keeps 10,000 ended tasks:

- `ours`: a Temporal workflow in signal mode. Its relay learns of the answer by the server's callback or by its sweep.
- `official callback`: a Temporal workflow of the official adapter, whose receiver waits for the server's callback.
- `bare long-poll`: one connection for each wait, which asks the server again every 25 s.

A number of waits is opened, four at a time. After each of the given times a part of them is answered, spread over up to
five seconds. A single wait is opened and answered several times. The delay runs from just before the answer is sent to
the server until the workflow has ended, by the clock of its history, or until the poll returns. The server delivers
callbacks from a queue that wakes every five seconds. A long-poll holds a connection for as long as the person thinks.
"""

import asyncio
import itertools
import random
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx
from devservers import HumansServer, RelayServer, TemporalServer, started
from temporalio.client import Client

from benchmarks import _sides
from benchmarks._kept_tasks import create_task, keep_ended_tasks
from benchmarks._official_receiver import official_receiver
from benchmarks._sides import SIDES, ServerAddresses
from benchmarks._temporal_worker import worker_process
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

OURS, OFFICIAL, LONG_POLL = "ours", "official callback", "bare long-poll"
WAITS = (1, 12, 50)
AFTER = (2, 5, 20, 60)
"""Seconds after which a part of the waits is answered."""
ROUNDS_OF_ONE = {2: 6, 5: 3, 20: 1, 60: 1}
"""How often a single wait is opened and answered after this time."""
KEPT_TASKS = 10_000
CYCLE_SECONDS = 5.0
"""The server's queue of callbacks wakes this often. Answers are spread over its cycle, as far as their age allows."""
ASKING_SECONDS = 60.0
"""Limit of asking. Workflow tasks of the official adapter fail on a busy machine. What it has asked is measured."""
ASKED_AT_ONCE = 4
AWAKE_SECONDS = 60.0
MAX_SECONDS = {2: 1.5, 5: 1.5, 20: 1.5, 60: 3.5}
MEDIAN_SECONDS = {2: 0.7, 5: 0.7, 20: 0.7}
Awake = Callable[[], Awaitable[float]]
"""Waits until the caller is awake and returns the time at which it was."""


def _row(waits: int, after: int) -> Row:
    claims = [Claim(side=OURS, bound="at most", value=MAX_SECONDS[after], of="maximum")]
    if after in MEDIAN_SECONDS:
        claims.insert(0, Claim(side=OURS, bound="at most", value=MEDIAN_SECONDS[after]))
    return Row(
        name=f"answer-to-awake.{waits}-{after}",
        title=f"From an answer after {after} s to the caller, {waits} {'wait' if waits == 1 else 'waits'} open",
        unit="s",
        reference=LONG_POLL,
        claims=tuple(claims),
    )


ROWS = {(waits, after): _row(waits, after) for waits in WAITS for after in AFTER}


@dataclass(frozen=True)
class Asked:
    """A question that waits for its answer."""

    task_id: str
    awake: Awake


class Side(Protocol):
    """Asks questions and observes when their callers are awake."""

    people: httpx.AsyncClient

    async def ask(self, count: int) -> list[Asked]:
        """Ask questions and return when all of them wait."""
        ...


class Workflows:
    """Workflows on a worker of their own, which ask one question each."""

    def __init__(self, side: str, people: httpx.AsyncClient, client: Client, addresses: ServerAddresses) -> None:
        self.people = people
        self._side, self._client, self._addresses = SIDES[side], client, addresses
        self._orders, self._queue = itertools.count(1), f"awake-{side}"

    async def ask(self, count: int) -> list[Asked]:
        orders = list(itertools.islice(self._orders, count))
        asked: dict[int, str] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(ASKING_SECONDS):
                for some in (orders[at : at + ASKED_AT_ONCE] for at in range(0, count, ASKED_AT_ONCE)):
                    await asyncio.gather(*map(self._start, some))
                    while not set(some) <= set(asked):
                        await asyncio.sleep(0.1)
                        asked |= await self._tasks(orders)
        return [Asked(task, partial(self._awake, order)) for order, task in asked.items()]

    async def _start(self, order: int) -> None:
        argument = self._side.argument(order, self._addresses)
        await self._client.start_workflow(
            self._side.workflow.__name__, argument, id=f"{self._queue}-{order}", task_queue=self._queue
        )

    async def _tasks(self, orders: Sequence[int]) -> dict[int, str]:
        """Return the open tasks of these orders."""
        page = await self.people.get("/api/tasks", params={"status": "created", "limit": 200})
        tasks = {int(task["payload"]["order"]): str(task["id"]) for task in page.raise_for_status().json()}
        return {order: tasks[order] for order in orders if order in tasks}

    async def _awake(self, order: int) -> float:
        handle = self._client.get_workflow_handle(f"{self._queue}-{order}")
        await handle.result()
        closed = (await handle.describe()).close_time
        assert closed is not None
        return closed.timestamp()


class LongPolls:
    """One held connection for each wait."""

    def __init__(self, people: httpx.AsyncClient, url: str) -> None:
        self.people = people
        self._url = url

    async def ask(self, count: int) -> list[Asked]:
        tasks = [await create_task(self.people) for _ in range(count)]
        # Each wait begins to poll at once, not when its answer has been sent.
        return [Asked(task, partial(asyncio.shield, asyncio.ensure_future(self._poll(task)))) for task in tasks]

    async def _poll(self, task_id: str) -> float:
        async with httpx.AsyncClient(base_url=self._url, headers=self.people.headers, timeout=40.0) as http:
            while True:
                reply = await http.get(f"/api/tasks/{task_id}/poll", params={"timeout": 25})
                if reply.raise_for_status().json()["status"] == "completed":
                    return time.time()


# --- the servers of each side -----------------------------------------------------------------------------------------


@asynccontextmanager
async def sides(folder: Path, kept: int) -> AsyncGenerator[dict[str, Side]]:
    humans = {
        side: HumansServer(folder / f"humans-{number}") for number, side in enumerate((OURS, OFFICIAL, LONG_POLL))
    }
    temporal, secret = TemporalServer(folder / "temporal"), secrets.token_urlsafe(32)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(started(temporal, *humans.values()))
        people = {side: await stack.enter_async_context(_client(server)) for side, server in humans.items()}
        for side, server in humans.items():
            await keep_ended_tasks(server, people[side], kept)
        relay = RelayServer(folder / "relay", humans[OURS], ["--temporal", temporal.address], secret=secret)
        await stack.enter_async_context(started(relay))
        receiver = await stack.enter_async_context(
            official_receiver(humans[OFFICIAL], temporal.address, folder / "receiver")
        )
        env = {
            "AWAITHUMANS_URL": humans[OURS].url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans[OURS].token,
            "AWAITHUMANS_RELAY_URL": relay.url,
            "AWAITHUMANS_RELAY_SECRET": secret,
        }
        found: dict[str, Side] = {LONG_POLL: LongPolls(people[LONG_POLL], humans[LONG_POLL].url)}
        for side, name, variables in ((OURS, _sides.SIGNAL, env), (OFFICIAL, _sides.OFFICIAL, {})):
            await stack.enter_async_context(worker_process(name, temporal.address, f"awake-{name}", variables))
            addresses = ServerAddresses(humans[side].url, humans[side].token, receiver)
            client = await SIDES[name].client(temporal.address)
            found[side] = Workflows(name, people[side], client, addresses)
        yield {side: found[side] for side in (OURS, OFFICIAL, LONG_POLL)}


def _client(server: HumansServer) -> httpx.AsyncClient:
    """Return a client that uses no connection which the server may have closed, so that nothing must be repeated."""
    return httpx.AsyncClient(
        base_url=server.url,
        headers={"Authorization": f"Bearer {server.token}"},
        limits=httpx.Limits(keepalive_expiry=1.0),
        timeout=30.0,
    )


# --- the measurement --------------------------------------------------------------------------------------------------


async def measure(run: Run) -> None:
    wanted = [waits for waits in WAITS if run.wants(*(ROWS[waits, after] for after in AFTER))]
    async with sides(run.folder, run.size(KEPT_TASKS, 100)) as found:
        # The sides hardly use a CPU while they wait, so all of them wait at the same time.
        if run.quick:
            await asyncio.gather(*(_measure(run, side, found[side], wanted) for side in found))
            return
        for waits in wanted:
            await asyncio.gather(*(_measure(run, side, found[side], [waits]) for side in found))


async def _measure(run: Run, name: str, side: Side, waits: Sequence[int]) -> None:
    parts = (_rounds(run, name, side) if count == 1 else _together(run, name, side, count) for count in waits)
    if run.quick:
        await asyncio.gather(*parts)
    else:
        for part in parts:
            await part


async def _rounds(run: Run, name: str, side: Side) -> None:
    """Open and answer one wait at a time."""
    rounds = [after for after, count in ROUNDS_OF_ONE.items() for _ in range(run.size(count, 1))]

    async def one(after: int) -> None:
        await asyncio.sleep(random.uniform(0, CYCLE_SECONDS))  # noqa: S311
        for asked in await side.ask(1):
            run.record(ROWS[1, after], name, await _delay(side, asked, after))

    if run.quick:
        await asyncio.gather(*map(one, rounds))
    else:
        for after in rounds:
            await one(after)


async def _together(run: Run, name: str, side: Side, waits: int) -> None:
    """Open waits together, and answer a part of them after each time."""
    asked = await side.ask(run.size(waits, len(AFTER)))
    after = [AFTER[place % len(AFTER)] for place in range(len(asked))]
    delays = await asyncio.gather(*(_delay(side, one, seconds) for one, seconds in zip(asked, after, strict=True)))
    for seconds in AFTER:
        found = [delay for delay, its in zip(delays, after, strict=True) if its == seconds]
        run.record(ROWS[waits, seconds], name, *found)


async def _delay(side: Side, asked: Asked, after: float) -> float:
    """Answer after this time or a little later. Return the seconds until the caller was awake."""
    await asyncio.sleep(after + random.uniform(0, min(CYCLE_SECONDS, after / 2)))  # noqa: S311
    sent = time.time()
    body = {"response": {"approved": True, "note": None}}
    (await side.people.post(f"/api/tasks/{asked.task_id}/complete", json=body)).raise_for_status()
    async with asyncio.timeout(AWAKE_SECONDS):
        return await asked.awake() - sent


BENCHMARK = Benchmark(
    name="answer-to-awake",
    title="From a person's answer to the caller",
    description=__doc__,
    rows=tuple(ROWS.values()),
    measure=measure,
    minutes=12,
)
