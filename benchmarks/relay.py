"""Measure how fast the relay acknowledges callbacks and wakes callers, beside the minimum and the official adapters.

All sides are measured in turn in one run. They are compared as ratios of the same repeat, because absolute figures
depend on the machine and its other load. `--only` chooses among these parts:

callbacks         Callbacks per second and their latency. `bare` is a FastAPI route that reads the body and checks its
                  HMAC. The relay stores the answer on disk (SQLite, synchronous=FULL) before it acknowledges, and
                  delivers it concurrently. The official adapters have their documented receivers. Then the relay is
                  measured again while 64 wakes of nine seconds are in progress.
resumes           LangGraph threads resumed per second. `bare` is a loop of `graph.ainvoke(Command(resume=...))` around
                  a plain `interrupt` with an AsyncSqliteSaver and LangGraph's default durability. A second loop uses
                  durability "sync", as the engine does. A third loop resumes the engine's own graph with "sync", but
                  without the write that the engine awaits before any node runs.
resumes-postgres  The same with an AsyncPostgresSaver, whose server waits for the disk at each commit.
signals           Temporal workflows signalled per second, 64 at once. `bare` sends raw signals to the dev server.

Examples:
    python -m benchmarks.relay
    python -m benchmarks.relay --repeats 1 --only signals --json figures.json
"""

import asyncio
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devservers import HumansServer, Process, TemporalServer, free_port, started
from langgraph.checkpoint.base import BaseCheckpointSaver
from temporalio.client import Client
from tests.support.postgres import PostgresServer

from awaithumans_core import Route, Settings
from awaithumans_relay.runtime.tuning import tune
from awaithumans_relay.store import Store
from awaithumans_relay.store.schedule import MAX_CHECK_SECONDS
from benchmarks import _wakes
from benchmarks._callbacks import Callback, callback_for, new_callbacks, register, relay_requests, requests_to
from benchmarks._load_sender import ROOT, LoadResult, request, send_load
from benchmarks._official_receiver import official_receiver
from benchmarks._report import Claim, Spread, argument_parser, claim_line, columns, names_among, positive, progress
from benchmarks._wakes import BARE, BARE_SYNC, DISPATCHER, ENGINE, OFFICIAL, SAME_GRAPH_SYNC

RELAY, BUSY, OFFICIAL_TEMPORAL, OFFICIAL_GRAPH = (
    "relay",
    "relay, slow wakes in progress",
    "official Temporal",
    "official LangGraph",
)
THREADS, THREADS_POSTGRES = "threads resumed per second, SQLite", "threads resumed per second, PostgreSQL"
CONCURRENCIES = [64, 16]
SLOW = 64
"""Number of slow wakes in progress."""
OFFICIAL_DIVISOR = 8
"""The official receivers get an eighth of the callbacks and threads, because each of theirs takes longer."""


@dataclass
class Figures:
    """Figures by metric and side, one for each repeat."""

    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict[str, dict[str, list[float]]])

    def record(self, metric: str, side: str, figure: float) -> None:
        self.rates.setdefault(metric, {}).setdefault(side, []).append(figure)
        progress(metric, f"{side} {figure:.1f}")

    def ratios(self, metric: str, side: str, reference: str | None = None) -> Spread:
        sides = self.rates[metric]
        bare = sides[reference or (BARE_SYNC if BARE_SYNC in sides else BARE)]
        return Spread.of([mine / other for mine, other in zip(sides[side], bare, strict=True)])


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


async def callbacks(servers: Servers, figures: Figures, count: int, stack: AsyncExitStack) -> None:
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

    for concurrency in CONCURRENCIES:
        fast = await servers.register_callbacks("fast", count)
        sides = {BARE: bare, RELAY: relay, OFFICIAL_TEMPORAL: official_temporal, OFFICIAL_GRAPH: official_graph}
        for side, measure in sides.items():
            result = await measure()
            _record(figures, concurrency, side, result)
        await servers.wait_until_delivered()
    slow, fast = await servers.register_callbacks("slow", SLOW), await servers.register_callbacks("fast", count)
    await send_load(servers.ports[RELAY], SLOW, relay_requests(slow, servers.settings), servers.folder)
    _record(figures, CONCURRENCIES[-1], BUSY, await relay())
    await servers.wait_until_delivered()


def _record(figures: Figures, concurrency: int, side: str, result: LoadResult) -> None:
    if set(result.statuses) != {"200"}:
        raise RuntimeError(f"{side} answered {result.statuses}")
    figures.record(f"callbacks per second, {concurrency} at once", side, result.rate)
    figures.record(f"p99 of {concurrency} at once (ms)", side, result.percentile(0.99))
    figures.record(f"CPU share of the sender, {concurrency} at once", side, result.cpu / result.seconds)


async def _graphs(
    servers: Servers, stack: AsyncExitStack, saver: AbstractAsyncContextManager[BaseCheckpointSaver[Any]]
) -> Mapping[str, object]:
    graphs = _wakes.compiled_graphs(servers.settings, servers.humans.url, servers.humans.token, saver)
    return await stack.enter_async_context(graphs)


async def resumes(servers: Servers, figures: Figures, count: int, stack: AsyncExitStack) -> None:
    await _resumes(THREADS, _wakes.sqlite_saver(servers.folder), servers, figures, count, stack)


async def resumes_postgres(servers: Servers, figures: Figures, count: int, stack: AsyncExitStack) -> None:
    postgres = PostgresServer(durable=True)
    stack.callback(postgres.stop)
    await _resumes(THREADS_POSTGRES, _wakes.postgres_saver(postgres.database()), servers, figures, count, stack)


async def _resumes(
    metric: str,
    saver: AbstractAsyncContextManager[BaseCheckpointSaver[Any]],
    servers: Servers,
    figures: Figures,
    count: int,
    stack: AsyncExitStack,
) -> None:
    graphs = await _graphs(servers, stack, saver)
    for side in _wakes.RESUMES:
        key, threads = servers.humans.payload_key, count // OFFICIAL_DIVISOR if side == OFFICIAL else count
        rate = await _wakes.resume_rate(side, graphs[side], threads, key, servers.folder, servers.postpone_checks)
        figures.record(metric, side, rate)


async def signals(servers: Servers, figures: Figures, count: int, _: AsyncExitStack) -> None:
    client = await Client.connect(servers.temporal.address)
    for side in _wakes.SIDES:
        rate = await _wakes.signal_rate(side, client, count, servers.humans.payload_key, servers.folder)
        figures.record("workflows signalled per second", side, rate)


PARTS = {
    "callbacks": (callbacks, 2000),
    "resumes": (resumes, 400),
    "resumes-postgres": (resumes_postgres, 400),
    "signals": (signals, 1000),
}
"""Parts of the benchmark, each with its number of callbacks, threads or workflows per repeat."""


def claims(figures: Figures) -> list[Claim]:
    def at_least(metric: str, side: str, minimum: float, reference: str = BARE) -> Claim | None:
        if metric not in figures.rates:
            return None
        text = f"{metric}: {side} reaches at least {minimum} of the rate of {reference} (median)"
        return Claim(text, figures.ratios(metric, side, reference).median >= minimum)

    checked = [
        at_least("callbacks per second, 64 at once", RELAY, 0.4),
        at_least(THREADS, ENGINE, 0.75, SAME_GRAPH_SYNC),
        at_least(THREADS, DISPATCHER, 0.6, SAME_GRAPH_SYNC),
        at_least(THREADS_POSTGRES, ENGINE, 0.7, SAME_GRAPH_SYNC),
        at_least("workflows signalled per second", ENGINE, 0.9),
        at_least("workflows signalled per second", DISPATCHER, 0.9),
    ]
    if (p99 := "p99 of 16 at once (ms)") in figures.rates:
        within = figures.ratios(p99, RELAY).median
        checked.append(Claim(f"{p99}: the relay's is at most 3 times the bare route's (median)", within <= 3))
        beside = figures.ratios(p99, BUSY).median
        checked.append(Claim("with slow wakes in progress it is at most twice that", beside <= 2 * within))
    return [claim for claim in checked if claim is not None]


def table(figures: Figures) -> str:
    rows = [["", "min / median / max", "to bare: min / median / max"]]
    for metric, sides in figures.rates.items():
        rows.append([metric, "", ""])
        for side, rates in sides.items():
            ratio = "" if side == BARE and BARE_SYNC not in sides else figures.ratios(metric, side).text(2)
            rows.append([f"  {side}", Spread.of(rates).text(2 if max(rates) < 10 else 0), ratio])
    return columns(rows, [48, 28, 32])


async def run(repeats: int, only: Sequence[str]) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            servers = Servers(Path(folder))
            os.environ["AWAITHUMANS_PAYLOAD_KEY"] = servers.humans.payload_key  # the official adapter reads it there
            await servers.start(stack)
            for _ in range(repeats):
                for name in only:
                    measure, count = PARTS[name]
                    async with AsyncExitStack() as held:
                        await measure(servers, figures, count, held)
    return figures


def main() -> None:
    parser = argument_parser("relay", __doc__)
    parser.add_argument("--repeats", type=positive, default=5, help="number of repeats (default: 5)")
    parser.add_argument(
        "--only",
        type=names_among(PARTS),
        default=list(PARTS),
        metavar="PARTS",
        help="parts, separated by commas (default: all)",
    )
    options = parser.parse_args()
    tune()  # this process wakes threads and workflows in place of the relay's process
    figures = asyncio.run(run(options.repeats, options.only))
    print(table(figures))
    checked = claims(figures)
    print("\n".join(claim_line(claim) for claim in checked))
    if options.json:
        options.json.write_text(json.dumps(asdict(figures), indent=1))
    sys.exit(any(claim.holds is False for claim in checked))


if __name__ == "__main__":
    main()
