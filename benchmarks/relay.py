"""How fast the relay acknowledges callbacks and wakes callers, beside the minimum and the official adapters.

All sides are measured in turn and compared as ratios of the same repeat. Each server has a process of its own under
uvicorn (uvloop, httptools). So has the sender, which must not be the bottleneck.

- Callbacks: `bare` is a FastAPI route that reads the body and checks its HMAC. The relay stores the answer on disk
  (SQLite, synchronous=FULL) before it acknowledges, and delivers it concurrently to an engine that accepts it
  immediately. The official adapters have their documented receivers, with a Temporal dev server and with a graph on a
  SQLite saver, so they do more work per request than the relay. Then the relay is measured again while 64 wakes of nine
  seconds are in progress. An acknowledgement costs more than the bare route because of two proofs, one row, a share of
  a commit, and two threads of one interpreter that wait for each other.
- Threads: LangGraph threads are resumed one by one. `bare` is a loop of `graph.ainvoke(Command(resume=...))` around a
  plain `interrupt`, with LangGraph's default durability. A second loop uses durability "sync", as the engine does. A
  third loop resumes the engine's own graph with "sync". The engine makes the same requests to the checkpointer as that
  loop: one read and five writes. But it awaits the write of the answer before any node runs, and first classifies the
  state of the thread, so that nothing that runs beside the question is run twice. A loop that reads, awaits that write
  and then runs was as fast as the third loop (ratio 1.04 on SQLite, 0.96 to 1.0 on PostgreSQL, without waiting for a
  disk). So the classification is the cost of the engine: about 0.5 ms of Python in a resume of 3.5 ms. On a slow disk
  its share is smaller. The node finds its question again in a LangGraph task, and checks it. The dispatcher leases the
  wait and records the delivery. PostgreSQL waits for the disk at each commit.
- Workflows: Temporal workflows are signalled, 64 at once. `bare` sends raw signals to the dev server.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from devservers import HumansServer, Process, TemporalServer, free_port, started
from langgraph.checkpoint.base import BaseCheckpointSaver
from temporalio.client import Client
from tests.support.postgres import PostgresServer

from awaithumans_core import Route, Settings
from awaithumans_core.schedule import MAX_CHECK_SECONDS
from awaithumans_relay.runtime.tuning import tune
from awaithumans_relay.store import Store
from benchmarks import _wakes
from benchmarks._callbacks import Callback, callback_for, new_callbacks, register, relay_requests, requests_to
from benchmarks._load_sender import ROOT, LoadResult, request, send_load
from benchmarks._official_receiver import official_receiver
from benchmarks._wakes import BARE, DISPATCHER, ENGINE, OFFICIAL, SAME_GRAPH_SYNC
from benchmarks.book.rows import Benchmark, Bound, Claim, Row
from benchmarks.book.run import Run

RELAY, BUSY, OFFICIAL_TEMPORAL, OFFICIAL_GRAPH = (
    "relay",
    "relay, slow wakes in progress",
    "official Temporal",
    "official LangGraph",
)
MANY_AT_ONCE, SOME_AT_ONCE = 64, 16
SLOW = 64
"""Number of slow wakes in progress."""
OFFICIAL_DIVISOR = 8
"""The official receivers get an eighth of the callbacks and threads, because each of theirs takes longer."""


def claim(side: str, bound: Bound, value: float, to: str = BARE, goal: float | None = None) -> Claim:
    return Claim(side=side, bound=bound, value=value, to=to, goal=goal)


RATES = {
    MANY_AT_ONCE: Row(
        name="relay.callbacks-64",
        title="Callbacks acknowledged, 64 at once",
        unit="per second",
        reference=BARE,
        claims=(claim(RELAY, "at least", 0.4, goal=0.6),),
    ),
    SOME_AT_ONCE: Row(
        name="relay.callbacks-16",
        title="Callbacks acknowledged, 16 at once",
        unit="per second",
        reference=BARE,
    ),
}
P99 = {
    MANY_AT_ONCE: Row(
        name="relay.p99-64",
        title="Latency of callbacks, 64 at once",
        unit="ms",
        what="99th percentile.",
        reference=BARE,
    ),
    SOME_AT_ONCE: Row(
        name="relay.p99-16",
        title="Latency of callbacks, 16 at once",
        unit="ms",
        what="99th percentile. In quiet runs the ratio was between 1.9 and 4.9, with medians of 2.9 and 3.4.",
        reference=BARE,
        claims=(claim(RELAY, "at most", 5, goal=2), claim(BUSY, "at most", 2, RELAY)),
    ),
}
SENDER = Row(
    name="relay.sender",
    title="CPU of the process that sends the callbacks",
    unit="% of a core",
    what="Near 100 % the sender would be the bottleneck.",
)
THREADS = Row(
    name="relay.threads-sqlite",
    title="LangGraph threads resumed, SQLite",
    unit="per second",
    reference=SAME_GRAPH_SYNC,
    claims=(
        claim(ENGINE, "at least", 0.75, SAME_GRAPH_SYNC, goal=0.9),
        claim(DISPATCHER, "at least", 0.6, SAME_GRAPH_SYNC, goal=0.9),
    ),
)
THREADS_POSTGRES = Row(
    name="relay.threads-postgres",
    title="LangGraph threads resumed, PostgreSQL",
    unit="per second",
    reference=SAME_GRAPH_SYNC,
    claims=(claim(ENGINE, "at least", 0.7, SAME_GRAPH_SYNC, goal=0.9),),
)
SIGNALS = Row(
    name="relay.signals",
    title="Temporal workflows signalled, 64 at once",
    unit="per second",
    reference=BARE,
    claims=(claim(ENGINE, "at least", 0.9), claim(DISPATCHER, "at least", 0.9)),
)


class Servers:
    """The servers of a run, each in a process of its own on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.humans, self.temporal = HumansServer(folder / "humans"), TemporalServer(folder / "temporal")
        self.ports = {side: free_port() for side in (BARE, RELAY, OFFICIAL)}
        self.env = {
            "AWAITHUMANS_PAYLOAD_KEY": self.humans.payload_key,
            "AWAITHUMANS_RELAY_SECRET": secrets.token_urlsafe(32),
            "AWAITHUMANS_URL": self.humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": self.humans.token,
            "AWAITHUMANS_RELAY_URL": f"http://127.0.0.1:{self.ports[RELAY]}",
        }
        self.settings = Settings.load(
            url=self.humans.url,
            admin_api_token=self.humans.token,
            payload_key=self.humans.payload_key,
            relay_secret=self.env["AWAITHUMANS_RELAY_SECRET"],
            relay_url=self.env["AWAITHUMANS_RELAY_URL"],
        )
        self.store = Store(f"sqlite:///{folder / 'relay.db'}")

    async def start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(started(self.humans, self.temporal))
        await self.store.start()
        stack.push_async_callback(self.store.stop)
        for side, port in self.ports.items():
            process = Process(
                [sys.executable, "-m", "benchmarks._callback_servers", side, str(port), str(self.folder)],
                self.folder,
                self.env | {"PYTHONPATH": str(ROOT)},
                log=f"{side}.log",
            )
            process.start()
            stack.callback(process.stop)
            await process.answers(f"http://127.0.0.1:{port}/openapi.json")

    async def register_callbacks(self, engine: str, count: int) -> list[Callback]:
        created = new_callbacks(engine, count, self.humans.payload_key)
        await register(created, self.store)
        return created

    async def wait_until_delivered(self) -> None:
        """Wait until the relay has delivered every answer to its fast engine."""
        while any(
            wait.route.engine == "fast" for wait in await self.store.queries.listed(states=["answered"], limit=1000)
        ):
            await asyncio.sleep(0.1)

    async def postpone_checks(self) -> None:
        """Postpone the relay's checks of open waits, because checking new waits uses a large part of a CPU."""
        await self.store.checks.postpone(
            await self.store.queries.listed(states=["open"], limit=100_000), MAX_CHECK_SECONDS
        )


async def callbacks(servers: Servers, run: Run, stack: AsyncExitStack) -> None:
    count = run.size(2000, 200)
    receiver = await stack.enter_async_context(
        official_receiver(servers.humans, servers.temporal.address, servers.folder / "r")
    )
    client = await Client.connect(servers.temporal.address)
    graph = (await _graphs(servers, stack, _wakes.sqlite_saver(servers.folder)))[OFFICIAL]
    key = servers.humans.payload_key

    async def official_temporal() -> LoadResult:
        ids = await _wakes.start_workflows(client, count // OFFICIAL_DIVISOR)
        sent = [callback_for(Route("temporal", {"workflow_id": each}, f"temporal:{each}"), key) for each in ids]
        path = "/awaithumans/callback?wf="
        requests = [request(path + each.route.target["workflow_id"], each.body, each.headers) for each in sent]
        return await send_load(int(receiver.rpartition(":")[2]), concurrency, requests, servers.folder)

    async def official_graph() -> LoadResult:
        sent = await _wakes.interrupt_threads(graph, count // OFFICIAL_DIVISOR // OFFICIAL_DIVISOR, key)
        requests = [request(f"/callback?thread={thread}", each.body, each.headers) for thread, each in sent.items()]
        return await send_load(servers.ports[OFFICIAL], concurrency, requests, servers.folder)

    async def relay() -> LoadResult:
        return await send_load(
            servers.ports[RELAY], concurrency, relay_requests(fast, servers.settings), servers.folder
        )

    async def bare() -> LoadResult:
        return await send_load(servers.ports[BARE], concurrency, requests_to("/callback", fast), servers.folder)

    for concurrency in (MANY_AT_ONCE, SOME_AT_ONCE):
        fast = await servers.register_callbacks("fast", count)
        sides = {BARE: bare, RELAY: relay, OFFICIAL_TEMPORAL: official_temporal, OFFICIAL_GRAPH: official_graph}
        for side, measure in sides.items():
            result = await measure()
            _record(run, concurrency, side, result)
        await servers.wait_until_delivered()
    slow, fast = await servers.register_callbacks("slow", SLOW), await servers.register_callbacks("fast", count)
    await send_load(servers.ports[RELAY], SLOW, relay_requests(slow, servers.settings), servers.folder)
    _record(run, SOME_AT_ONCE, BUSY, await relay())
    await servers.wait_until_delivered()


def _record(run: Run, concurrency: int, side: str, result: LoadResult) -> None:
    if set(result.statuses) != {"200"}:
        raise RuntimeError(f"{side} answered {result.statuses}")
    run.record(RATES[concurrency], side, result.rate)
    run.record(P99[concurrency], side, result.percentile(0.99))
    run.record(SENDER, f"{side}, {concurrency} at once", 100 * result.cpu / result.seconds)


async def _graphs(
    servers: Servers, stack: AsyncExitStack, saver: AbstractAsyncContextManager[BaseCheckpointSaver[Any]]
) -> Mapping[str, object]:
    graphs = _wakes.compiled_graphs(servers.settings, servers.humans.url, servers.humans.token, saver)
    return await stack.enter_async_context(graphs)


async def resumes(servers: Servers, run: Run, stack: AsyncExitStack) -> None:
    await _resumes(THREADS, _wakes.sqlite_saver(servers.folder), servers, run, stack)


async def resumes_postgres(servers: Servers, run: Run, stack: AsyncExitStack) -> None:
    postgres = PostgresServer(durable=True)
    stack.callback(postgres.stop)
    await _resumes(THREADS_POSTGRES, _wakes.postgres_saver(postgres.database()), servers, run, stack)


async def _resumes(
    row: Row,
    saver: AbstractAsyncContextManager[BaseCheckpointSaver[Any]],
    servers: Servers,
    run: Run,
    stack: AsyncExitStack,
) -> None:
    graphs, count = await _graphs(servers, stack, saver), run.size(400, 16)
    for side in _wakes.RESUMES:
        key, threads = servers.humans.payload_key, count // OFFICIAL_DIVISOR if side == OFFICIAL else count
        rate = await _wakes.resume_rate(side, graphs[side], threads, key, servers.folder, servers.postpone_checks)
        run.record(row, side, rate)


async def signals(servers: Servers, run: Run, _: AsyncExitStack) -> None:
    client = await Client.connect(servers.temporal.address)
    for side in _wakes.SIDES:
        rate = await _wakes.signal_rate(side, client, run.size(1000, 100), servers.humans.payload_key, servers.folder)
        run.record(SIGNALS, side, rate)


PARTS = {
    callbacks: (*RATES.values(), *P99.values(), SENDER),
    resumes: (THREADS,),
    resumes_postgres: (THREADS_POSTGRES,),
    signals: (SIGNALS,),
}
"""Parts of the benchmark, each with the rows that it records."""


async def measure(run: Run) -> None:
    tune()  # this process wakes threads and workflows in place of the relay's process
    async with AsyncExitStack() as stack:
        servers = Servers(run.folder)
        os.environ["AWAITHUMANS_PAYLOAD_KEY"] = servers.humans.payload_key  # the official adapter reads it there
        await servers.start(stack)
        for _ in run.repeats():
            for part, rows in PARTS.items():
                if run.wants(*rows):
                    async with AsyncExitStack() as held:
                        await part(servers, run, held)


BENCHMARK = Benchmark(
    name="relay",
    title="The relay: acknowledging callbacks and waking callers",
    description=__doc__,
    rows=tuple(row for rows in PARTS.values() for row in rows),
    measure=measure,
    repeats=3,
    minutes=12,
)
