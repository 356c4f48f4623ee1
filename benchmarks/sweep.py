"""What the relay's sweep of open waits costs, and how fast it finds answers that are not called back in time.

A real awaithumans server has 5,000 open tasks. One task is created through the API and the others are copied in the
database, because creating them all takes minutes. A new relay process is started for each of these phases:

- `no waits`: the base load of both processes.
- `waits of a day`: each of them is checked every nine minutes.
- `all opened just now`: each of them is due every second, so the budget limits the checks.

Then people answer 300 of the waits of a day as fast as the server accepts answers, with eight requests at once. The
delay of an answer runs from just before it is sent to the server until the relay has delivered it to its engine.

CPU time is the kernel's figure, and requests are counted in the server's access log. One page of a list serves many
checks.
"""

import asyncio
import random
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from devservers import HumansServer, Process, free_port, started
from pydantic import BaseModel
from sqlalchemy import bindparam, select, update

from awaithumans_core import HumanTask, Route, TaskClient
from awaithumans_core.schedule import JITTER, SHARE, interval
from awaithumans_core.settings import Settings
from awaithumans_relay.store import Store, WaitState
from awaithumans_relay.store.table.schema import waits
from benchmarks._kept_tasks import copy_task
from benchmarks._meters import Cost, Meter
from benchmarks._people import ALREADY_ENDED, CONCURRENCY, MAX_TRIES, RETRY_SECONDS
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

ROOT = Path(__file__).resolve().parents[1]
DAY_SECONDS = 24 * 3600.0
MONTH_SECONDS = 30 * 24 * 3600
MAX_WAKE_SECONDS = 10.0
CATCH_UP_SECONDS = 5.0
DELIVERY_SECONDS = 90.0
PERCENT_OF_A_CORE = 100 / 60
"""Factor from CPU seconds per minute."""


class Decision(BaseModel):
    """Response class of the question."""

    approved: bool


TASK = HumanTask(
    task="May this be done?", payload={"order": 1}, response_schema=Decision, timeout_seconds=MONTH_SECONDS
)


NO_WAITS, OLD, NEW, ANSWERED = "no waits", "waits of a day", "all opened just now", "answered"

SERVER = Row(
    name="sweep.server-cpu",
    title="CPU that 5,000 open waits add to the server",
    unit="% of a core",
    what="Without the base load. A minute may also use what the minute before it has saved.",
    claims=tuple(Claim(side=side, bound="at most", value=2 * 100 * SHARE, goal=100 * SHARE) for side in (OLD, NEW)),
)
RELAY = Row(name="sweep.relay-cpu", title="CPU of a relay with 5,000 open waits", unit="% of a core")
REQUESTS = Row(
    name="sweep.requests",
    title="Requests of a relay with 5,000 open waits",
    unit="per minute",
    what="Beside the checks that are due by the schedule.",
)
DELAY = Row(
    name="sweep.delay",
    title="Delay of 300 answers among 5,000 open waits",
    unit="s",
    claims=(Claim(side=ANSWERED, bound="at most", value=MAX_WAKE_SECONDS, of="maximum"),),
)
ANSWER_REQUESTS = Row(
    name="sweep.answer-requests",
    title="Requests of the relay until 300 answers among 5,000 waits are delivered",
    unit="requests",
    what="It includes the requests of the schedule in this time.",
)


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
        self.percent = 100 * SHARE
        """Budget of the relay, in percent of the time."""
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
        copy_task(
            self.humans,
            first,
            ("id", "idempotency_key", "callback_url"),
            [
                (route.target["task_id"], route.idempotency_key, f"{self.url}/callbacks/{signer.issue(route)}")
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
            "RELAY_SWEEP_PERCENT": str(self.percent),
        }

    def meter(self, relay: Process) -> Meter:
        return Meter(self.humans.process.pid, relay.pid, self.humans.port, self.humans.folder / "server.log")


def check_interval(age: float) -> float:
    """Return the seconds between two checks of a wait of this age, by the schedule and with mean jitter."""
    return interval(age) * (1 - JITTER / 2)


async def measure_waiting(workload: Workload, name: str, routes: Sequence[Route], age: float, seconds: float) -> Cost:
    async with workload.relay(name.replace(" ", "-"), routes, age) as (relay, _):
        await asyncio.sleep(CATCH_UP_SECONDS)  # the relay first checks what came due while it started
        cost = await workload.meter(relay).cost(seconds, asyncio.Event())
    assert cost is not None
    return cost


async def measure_answering(workload: Workload, routes: Sequence[Route], count: int) -> AnsweringPhase:
    given: dict[str, float] = {}
    gate = asyncio.Semaphore(CONCURRENCY)
    log = workload.humans.folder / "server.log"
    async with workload.relay(ANSWERED, routes, DAY_SECONDS) as (_, store), workload.humans.people() as http:

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


async def measure(run: Run) -> None:
    humans, seconds = HumansServer(run.folder / "humans"), run.size(20.0, 3.0)
    async with started(humans):
        workload = Workload(run.folder, humans)
        routes = await workload.create_tasks(run.size(5000, 200))
        if run.wants(SERVER, RELAY, REQUESTS):
            base = await measure_waiting(workload, NO_WAITS, [], 0.0, seconds)
            run.record(RELAY, NO_WAITS, base.client_cpu * PERCENT_OF_A_CORE)
            for side, age in ((OLD, DAY_SECONDS), (NEW, 0.0)):
                cost = await measure_waiting(workload, side, routes, age, seconds)
                run.record(SERVER, side, max(0.0, cost.server_cpu - base.server_cpu) * PERCENT_OF_A_CORE)
                run.record(RELAY, side, cost.client_cpu * PERCENT_OF_A_CORE)
                run.record(REQUESTS, f"{side}, due", 60 * len(routes) / check_interval(age))
                run.record(REQUESTS, side, cost.requests)
        if run.wants(DELAY, ANSWER_REQUESTS):
            answered = await measure_answering(workload, routes, run.size(300, 30))
            run.progress(f"{answered.by_callback} of {answered.answers} answers were called back")
            run.record(DELAY, ANSWERED, *answered.delays)
            run.record(ANSWER_REQUESTS, ANSWERED, answered.requests)


BENCHMARK = Benchmark(
    name="sweep",
    title="The relay's sweep",
    description=__doc__,
    rows=(SERVER, RELAY, REQUESTS, DELAY, ANSWER_REQUESTS),
    measure=measure,
    minutes=8,
)
