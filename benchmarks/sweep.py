"""Measure what the relay's sweep of open waits costs, and how fast it finds answers that are not called back in time.

A real awaithumans server has `--waits` open tasks. One task is created through the API and the others are copied in the
database, because creating them all takes minutes. A new relay process is started for each of these phases:

1. no waits            The base load of both processes.
2. waits of a day      The waits are a day old, so each is checked every nine minutes.
3. all opened just now Each wait is due every second, so the budget limits the checks.
4. answers             The waits are a day old, and people answer some of them as fast as the server accepts answers.
                       The delay of an answer runs from just before it is sent to the server until the relay has
                       delivered it to its engine.

CPU time is the kernel's figure, and requests are counted in the server's access log. Two claims are checked, and the
exit status is 1 if one of them fails.

Examples:
    python -m benchmarks.sweep
    python -m benchmarks.sweep --waits 500 --answers 50 --seconds 10 --json figures.json
"""

import argparse
import asyncio
import json
import random
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from devservers import HumansServer, Process, free_port, started
from pydantic import BaseModel
from sqlalchemy import bindparam, select, update

from awaithumans_core import HumanTask, Route, TaskClient
from awaithumans_core.schedule import JITTER, SHARE, interval
from awaithumans_core.settings import Settings
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.store.table.schema import waits
from benchmarks._meters import Cost, Meter
from benchmarks._people import ALREADY_ENDED, CONCURRENCY, MAX_TRIES, RETRY_SECONDS
from benchmarks._report import Claim, argument_parser, claim_line, columns, positive, progress

ROOT = Path(__file__).resolve().parents[1]
DAY_SECONDS = 24 * 3600.0
MONTH_SECONDS = 30 * 24 * 3600
MAX_WAKE_SECONDS = 10.0
CATCH_UP_SECONDS = 5.0
DELIVERY_SECONDS = 90.0


class Decision(BaseModel):
    """Response class of the question."""

    approved: bool


TASK = HumanTask(
    task="May this be done?", payload={"order": 1}, response_schema=Decision, timeout_seconds=MONTH_SECONDS
)


@dataclass(frozen=True)
class WaitingPhase:
    """Figures of a phase without answers."""

    name: str
    planned: float | None
    """Checks per minute by the schedule. One page of a list may serve many."""
    cost: Cost


@dataclass(frozen=True)
class AnsweringPhase:
    """Figures of the phase in which people answer."""

    answers: int
    giving_seconds: float
    delays: list[float]
    requests: int
    """Requests of the relay until the last answer was delivered."""
    by_callback: int


class Workload:
    """A server with open tasks, and relays that wait for their answers."""

    def __init__(self, folder: Path, humans: HumansServer) -> None:
        self.folder = folder
        self.humans = humans
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.secret = secrets.token_urlsafe(32)
        self.settings = Settings.load(
            url=humans.url,
            admin_api_token=humans.token,
            payload_key=humans.payload_key,
            relay_url=self.url,
            relay_secret=self.secret,
        )

    async def create_tasks(self, count: int) -> list[Route]:
        """Create open tasks and return their routes. Each route has the task id as its target."""
        async with TaskClient(settings=self.settings) as client:
            first = (await client.create(TASK)).task_id
        routes = [Route("accepting", {"task_id": secrets.token_hex(16)}, secrets.token_hex(16)) for _ in range(count)]
        signer = self.settings.signer()
        with closing(sqlite3.connect(self.humans.folder / "tasks.db", timeout=30)) as db, db:
            names = [row[1] for row in db.execute("PRAGMA table_info(tasks)")]
            changed = ("id", "idempotency_key", "callback_url")
            copied = ", ".join(name for name in names if name not in changed)
            db.executemany(
                f"INSERT INTO tasks ({', '.join(changed)}, {copied}) SELECT ?, ?, ?, {copied} FROM tasks WHERE id = ?",  # noqa: S608
                [
                    (
                        route.target["task_id"],
                        route.idempotency_key,
                        f"{self.url}/callbacks/{signer.issue(route)}",
                        first,
                    )
                    for route in routes
                ],
            )
        return routes

    @asynccontextmanager
    async def relay(self, name: str, routes: Sequence[Route], age: float) -> AsyncGenerator[tuple[Process, Store]]:
        """Run a relay with waits of this age that come due within one check interval, or at once if age is 0."""
        folder = self.folder / name
        folder.mkdir()
        database = f"sqlite:///{folder / 'relay.db'}"
        store = Store(database, clock=lambda: time.time() - age)
        await store.start()
        await asyncio.gather(
            *(store.intake.register(route.target["task_id"], route, MONTH_SECONDS) for route in routes)
        )
        now, span = time.time(), check_interval(age) if age else 0.0
        planned = update(waits).where(waits.c.task_id == bindparam("task")).values(next_check_at=bindparam("due"))
        rows = [
            {"task": route.target["task_id"], "due": now + span * random.random()}  # noqa: S311
            for route in routes
        ]
        if rows:
            await store.database.write(lambda db: db.execute(planned, rows).rowcount)
        environment = {f"AWAITHUMANS_{key}": value for key, value in self._environment().items()}
        process = Process(
            [sys.executable, "-m", "benchmarks._accepting_relay", str(self.port), database],
            folder,
            {**environment, "PYTHONPATH": str(ROOT)},
        )
        process.start()
        try:
            await process.answers(f"{self.url}/readyz")
            yield process, store
        finally:
            await asyncio.to_thread(process.stop)
            await store.stop()

    def _environment(self) -> dict[str, str]:
        return {
            "URL": self.humans.url,
            "ADMIN_API_TOKEN": self.humans.token,
            "PAYLOAD_KEY": self.humans.payload_key,
            "RELAY_SECRET": self.secret,
            "RELAY_URL": self.url,
        }

    def meter(self, relay: Process) -> Meter:
        return Meter(self.humans.process.pid, relay.pid, self.humans.port, self.humans.folder / "server.log")


def check_interval(age: float) -> float:
    """Return the seconds between two checks of a wait of this age, by the schedule and with mean jitter."""
    return interval(age) * (1 - JITTER / 2)


async def measure_waiting(
    workload: Workload, name: str, routes: Sequence[Route], age: float, seconds: float
) -> WaitingPhase:
    progress("sweep", f"{name}: {len(routes)} waits, {seconds:.0f} s")
    async with workload.relay(name.replace(" ", "-"), routes, age) as (relay, _):
        await asyncio.sleep(CATCH_UP_SECONDS)  # the relay first checks what came due while it started
        cost = await workload.meter(relay).cost(seconds, asyncio.Event())
    assert cost is not None
    planned = 60 * len(routes) / check_interval(age)
    return WaitingPhase(name, planned, cost)


async def measure_answering(workload: Workload, routes: Sequence[Route], count: int) -> AnsweringPhase:
    progress("sweep", f"{count} of {len(routes)} are answered")
    given: dict[str, float] = {}
    gate = asyncio.Semaphore(CONCURRENCY)
    log = workload.humans.folder / "server.log"
    async with workload.relay("answered", routes, DAY_SECONDS) as (_, store), workload.humans.people() as http:

        async def answer(task_id: str) -> None:
            async with gate:
                body = {"response": {"approved": True}, "completed_by_email": "anna@example.com"}
                for _ in range(MAX_TRIES):  # the server may be too busy to accept it
                    sent = time.time()
                    status = (await http.post(f"/api/tasks/{task_id}/complete", json=body)).status_code
                    if status != ALREADY_ENDED:
                        given[task_id] = sent
                    if status < 500:
                        return
                    await asyncio.sleep(RETRY_SECONDS)
                raise RuntimeError(f"the server does not accept the answer to task {task_id}")

        before, began = _read_requests(log), time.time()
        chosen = random.sample([route.target["task_id"] for route in routes], count)
        await asyncio.gather(*map(answer, chosen))
        giving = time.time() - began
        async with asyncio.timeout(DELIVERY_SECONDS):
            while (await store.queries.counts()).get(WaitState.DELIVERED, 0) < count:
                await asyncio.sleep(0.2)
        requests = _read_requests(log) - before
        delivered = await store.database.read(
            lambda db: list(
                db.execute(
                    select(waits.c.task_id, waits.c.delivered_at, waits.c.found_by).where(waits.c.delivered_at > 0)
                )
            )
        )
    delays = sorted(at - given[task_id] for task_id, at, _ in delivered)
    return AnsweringPhase(count, giving, delays, requests, sum(by == "callback" for _, _, by in delivered))


def _read_requests(log: Path) -> int:
    """Count the requests that read tasks. Only the relay sends them."""
    return log.read_bytes().count(b'"GET /api/tasks')


def claims(results: Sequence[WaitingPhase], answered: AnsweringPhase) -> list[Claim]:
    slowest = max(answered.delays)
    base = results[0].cost.server_cpu
    # A minute may also use what a minute before it has saved.
    kept = all(each.cost.server_cpu - base <= 2 * 60 * SHARE for each in results)
    return [
        Claim(f"open waits take the server at most {100 * SHARE:g} % of a core", kept),
        Claim(f"every answer is delivered within {MAX_WAKE_SECONDS:.0f} s", slowest <= MAX_WAKE_SECONDS),
    ]


def report(results: Sequence[WaitingPhase], answered: AnsweringPhase) -> bool:
    """Print figures and claims, and return whether every claim holds."""
    checked = claims(results, answered)
    rows = [("per minute", "checks due", "requests", "relay CPU (s)", "server CPU (s)")]
    for each in results:
        planned = "-" if each.planned is None else f"{each.planned:.0f}"
        rows.append(
            (
                each.name,
                planned,
                f"{each.cost.requests:.0f}",
                f"{each.cost.client_cpu:.2f}",
                f"{each.cost.server_cpu:.2f}",
            )
        )
    print("\n" + columns(rows, (24, 16, 14, 16, 16)))
    delays = answered.delays
    print(
        f"\n{answered.answers} answers given in {answered.giving_seconds:.1f} s; delivered after "
        f"{delays[0]:.1f} / {delays[len(delays) // 2]:.1f} / {delays[-1]:.1f} s (min, median, max), "
        f"{answered.by_callback} of them by callback; {answered.requests} requests by the relay\n"
    )
    print(*map(claim_line, checked), sep="\n")
    return all(claim.holds is not False for claim in checked)


async def run(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        humans = HumansServer(Path(folder, "humans"))
        async with started(humans):
            workload = Workload(Path(folder), humans)
            routes = await workload.create_tasks(options.waits)
            results = [
                await measure_waiting(workload, "no waits", [], 0.0, options.seconds),
                await measure_waiting(workload, "waits of a day", routes, DAY_SECONDS, options.seconds),
                await measure_waiting(workload, "all opened just now", routes, 0.0, options.seconds),
            ]
            answered = await measure_answering(workload, routes, min(options.answers, options.waits))
    if options.json:
        figures = {"waiting": list(map(asdict, results)), "answering": asdict(answered)}
        options.json.write_text(json.dumps(figures, indent=2))
    return report(results, answered)


def arguments() -> argparse.Namespace:
    parser = argument_parser("sweep", __doc__)
    parser.add_argument("--waits", type=positive, default=5000, help="number of open waits (default: 5000)")
    parser.add_argument(
        "--answers", type=positive, default=300, help="number of answers in the last phase (default: 300)"
    )
    parser.add_argument(
        "--seconds", type=positive, default=60, help="length of each phase without answers (default: 60)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError, httpx.HTTPError) as ended:
        print(f"ended: {ended!r}", file=sys.stderr)
        sys.exit(130)
