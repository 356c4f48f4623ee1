"""A hundred thousand open waits in one relay: simulated over weeks, and measured for a shorter time on a real server.

The real run: a server keeps `--kept` tasks of the last seven days in its SQLite file, of which a relay process waits
for `--waits`. The costs of requests are measured first. Then people answer in a burst, and the time from each answer to
its delivery is measured, with the server's share of a core.

The simulation follows the schedule, the budget and the choice of ways of `awaithumans_core.schedule` on a virtual
clock, with the costs that were measured, or that of a quiet machine with `--no-real`. People answer on the dashboard,
which is called back, and by mail, which is not. There are bursts, and the server is down for a day.

The waits that a relay checks in a second are simulated as one group, youngest first. So a month takes minutes. The same
simulation is run with the ages and costs of the real run, and the time that requests take is compared.

Examples:
    python -m benchmarks.scale
    python -m benchmarks.scale --waits 500 --kept 2000 --seconds 30 --days 2 --simulated 10000 --json scale.json
"""

import argparse
import asyncio
import json
import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from devservers import HumansServer, started
from sqlalchemy import bindparam, select, update

from awaithumans_core import Route
from awaithumans_core.schedule import MAX_CHECK_SECONDS, Budget, interval
from awaithumans_relay.store import Store
from awaithumans_relay.store.table.schema import waits
from benchmarks._kept_tasks import copy_task, create_task
from benchmarks._meters import cpu_per_minute
from benchmarks._report import argument_parser, columns, positive, progress
from benchmarks.sweep import Workload

DAY = 24 * 3600.0
WEEK = 7 * DAY
PAGE = 200
STEP_SECONDS = 10.0
"""Step of the virtual clock. What is due within a step is one group."""
QUIET = {"read": 0.0028, "page": 0.045, "row": 0.0001, "offset": 0.0000025}
"""Seconds of a read, of a page, for each of its rows and for each task of its offset: 200,000 tasks, quiet machine."""


@dataclass(frozen=True)
class Costs:
    """What requests take, in seconds."""

    read: float
    page: float
    row: float
    offset: float

    def pages(self, count: int, first: int = 0) -> float:
        """Return the seconds of reading this many open tasks by pages."""
        pages = math.ceil(count / PAGE)
        return pages * (self.page + self.row * PAGE + self.offset * (first + PAGE * (pages - 1) / 2))

    def cheapest(self, count: int, first: int, share: float) -> float:
        """Return the seconds of checking this many waits that lie together in the list of open tasks.

        Args:
            count: Number of waits.
            first: Number of younger ones.
            share: Which share of the open tasks is ours.
        """
        return min(count * self.read, self.pages(math.ceil(count / share), int(first / share)))


@dataclass
class Simulated:
    """The result of a simulation."""

    waits: int
    days: float
    delays: list[float] = field(default_factory=list[float])
    """Seconds from each answer until it was seen, by callback or check."""
    beyond: int = 0
    """How many were seen later than promised, outside of the outage."""
    busy: float = 0.0
    """Seconds of all requests."""
    mailed: list[float] = field(default_factory=list[float])
    """The delays of answers that are not called back."""

    @property
    def share(self) -> float:
        return self.busy / (self.days * DAY)


def simulate(
    ages: Sequence[float], days: float, costs: Costs, share: float, *, answers: bool = True, seed: int = 1
) -> Simulated:
    """Simulate a relay with open waits of these ages. Each one that is answered is replaced by a new one."""
    chance = random.Random(seed)  # noqa: S311 - a model of people
    result = Simulated(len(ages), days)
    budget = Budget.full(0.0, share)
    classes = _Classes(ages)
    outage = (10 * DAY, 11 * DAY) if days > 11 else (math.inf, math.inf)
    now, step = 0.0, STEP_SECONDS
    rate = len(ages) / WEEK if answers else 0.0
    while now < days * DAY:
        now += step
        budget.refill(now)
        if not outage[0] <= now < outage[1]:
            result.busy += classes.check(now, budget, costs)
            burst = 300 if answers and now % DAY < step else 0
            expected = rate * step
            count = int(expected) + (chance.random() < expected % 1) + burst
            for _ in range(count):
                _answer(classes, chance, now, result)
    return result


class _Classes:
    """Open waits in classes of ages. A class is checked in turn, so an answer waits for its next turn."""

    BOUNDS = (60.0, 600.0, 3600.0, 4 * 3600.0, math.inf)

    def __init__(self, ages: Sequence[float]) -> None:
        self.counts = [0] * len(self.BOUNDS)
        for age in ages:
            self.counts[self.of(age)] += 1
        self.means = [30.0, 300.0, 1800.0, 2.5 * 3600.0, 3.5 * DAY]
        self.periods = [interval(mean) for mean in self.means]
        """Seconds between two checks of a wait of each class, as it really was lately."""
        self.done = [1.0] * len(self.BOUNDS)
        """Which share of the due checks of each class the budget allowed lately."""
        self.credit = [0.0] * len(self.BOUNDS)

    def of(self, age: float) -> int:
        return next(place for place, bound in enumerate(self.BOUNDS) if age < bound)

    def check(self, now: float, budget: Budget, costs: Costs) -> float:
        """Check what is due since the last call, youngest first, and return the seconds that it took."""
        spent, younger = 0.0, 0
        # A quarter of the budget is for the oldest.
        reserve = max(0.0, budget.left) / 4
        for place, count in enumerate(self.counts):
            last = place + 1 == len(self.counts)
            left = max(0.0, budget.left - (0.0 if last else reserve))
            target = interval(self.means[place]) * 0.95
            if count:
                whole = costs.cheapest(count, younger, 0.9)
                wanted = whole / target * min(now - self.credit[place], target)
                used = min(wanted, left)
                budget.spend(used)
                spent += used
                done = used / wanted if wanted else 1.0
                self.done[place] += 0.02 * (done - self.done[place])
                self.periods[place] = target / max(self.done[place], 1e-3)
            self.credit[place] = now
            younger += count
        return spent


def _answer(classes: _Classes, chance: random.Random, now: float, result: Simulated) -> None:
    """Let one person answer. A third of them answers by mail, which is not called back."""
    took = min(chance.lognormvariate(math.log(2 * 3600.0), 2.2), 30 * DAY)
    period = classes.periods[classes.of(took)]
    delay = chance.uniform(0.0, period)
    if chance.random() < 1 / 3:
        result.mailed.append(delay)
    else:
        delay = min(delay, chance.uniform(0.5, 5.0))
    result.delays.append(delay)
    result.beyond += delay > min(max(1.0, 0.05 * took), 15 * 60.0) + 1.0


# --- the real run


@dataclass(frozen=True)
class Real:
    """Figures of the real run."""

    waits: int
    kept: int
    costs: Costs
    measured: dict[str, float]
    """Median seconds of each kind of request."""
    seconds: float
    busy: float
    """Share of the time that the relay's requests took."""
    server_cpu: float
    relay_cpu: float
    late_waits: float
    late_seconds: float
    delays: list[float]
    by_callback: int


async def measured_costs(http: httpx.AsyncClient, one: str, open_tasks: int) -> dict[str, float]:
    async def median(url: str) -> float:
        times = list[float]()
        for _ in range(9):
            began = time.perf_counter()
            (await http.get(url)).raise_for_status()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    last = max(0, open_tasks - PAGE)
    return {
        "one task": await median(f"/api/tasks/{one}"),
        "ended, 25": await median("/api/tasks?terminal=true&limit=25"),
        "ended, 200": await median("/api/tasks?terminal=true&limit=200"),
        "open, 25": await median("/api/tasks?status=created&limit=25"),
        "open, 200": await median("/api/tasks?status=created&limit=200"),
        "open, 200, offset half": await median(f"/api/tasks?status=created&limit=200&offset={last // 2}"),
        "open, 200, the last": await median(f"/api/tasks?status=created&limit=200&offset={last}"),
    }


def fitted(measured: dict[str, float], open_tasks: int) -> Costs:
    row = max(0.0, (measured["open, 200"] - measured["open, 25"]) / 175)
    offset = max(0.0, (measured["open, 200, the last"] - measured["open, 200"]) / max(1, open_tasks - PAGE))
    return Costs(measured["one task"], max(0.0, measured["open, 25"] - 25 * row), row, offset)


async def measure(folder: Path, options: argparse.Namespace, ages: Sequence[float]) -> Real:
    humans = HumansServer(folder / "humans")
    async with started(humans), humans.people() as http:
        workload = Workload(folder, humans)
        progress("scale", f"{options.kept} tasks are inserted")
        routes = [Route("accepting", {"task_id": secrets.token_hex(16)}, secrets.token_hex(16)) for _ in ages]
        await _insert(humans, http, workload, routes, ages, options.kept - len(ages))
        measured = await measured_costs(http, routes[0].target["task_id"], len(ages))
        async with workload.relay("relay", [], 0.0) as (relay, store):
            await _register(store, routes, ages)
            before = await _sweep_figures(workload.url)
            began = time.monotonic()
            progress("scale", f"{len(ages)} waits, {options.seconds} s, then {options.answers} answers")
            cpu = await cpu_per_minute({"server": humans.process.pid, "relay": relay.pid}, options.seconds)
            seconds = time.monotonic() - began
            after = await _sweep_figures(workload.url)
            delays, by_callback = await _burst(http, store, routes, min(options.answers, len(routes)))
    return Real(
        waits=len(ages),
        kept=options.kept,
        costs=fitted(measured, len(ages)),
        measured=measured,
        seconds=seconds,
        busy=(after["sweep_request_seconds"] - before["sweep_request_seconds"]) / seconds,
        server_cpu=cpu["server"] / 60,
        relay_cpu=cpu["relay"] / 60,
        late_waits=after["sweep_late_waits"],
        late_seconds=after["sweep_late_seconds"],
        delays=delays,
        by_callback=by_callback,
    )


async def _insert(
    humans: HumansServer,
    http: httpx.AsyncClient,
    workload: Workload,
    routes: Sequence[Route],
    ages: Sequence[float],
    others: int,
) -> None:
    """Insert our open tasks, and as many others that have ended, each at its time of the last seven days."""
    open_task, ended_task = await create_task(http), await create_task(http)
    (await http.post(f"/api/tasks/{ended_task}/complete", json={"response": {"approved": True}})).raise_for_status()
    now, signer = datetime.now(UTC).replace(tzinfo=None), workload.settings.signer()

    def moment(age: float) -> str:
        return (now - timedelta(seconds=age)).strftime("%Y-%m-%d %H:%M:%S.%f")

    columns_of_ours = ("id", "idempotency_key", "created_at", "callback_url")
    ours = [
        (
            route.target["task_id"],
            route.idempotency_key,
            moment(age),
            f"{workload.url}/callbacks/{signer.issue(route)}",
        )
        for route, age in zip(routes, ages, strict=True)
    ]
    copy_task(humans, open_task, columns_of_ours, ours)
    ended = [
        (secrets.token_hex(16), secrets.token_hex(16), moment(random.uniform(0, WEEK)))  # noqa: S311
        for _ in range(max(0, others))
    ]
    copy_task(humans, ended_task, ("id", "idempotency_key", "created_at"), ended)


async def _register(store: Store, routes: Sequence[Route], ages: Sequence[float]) -> None:
    """Register the waits with their ages, each at a random moment between two checks."""
    await asyncio.gather(*(store.intake.register(r.target["task_id"], r, int(30 * DAY)) for r in routes))
    now = time.time()
    rows = [
        {
            "task": route.target["task_id"],
            "created": now - age,
            "due": now + random.random() * interval(age),  # noqa: S311
        }
        for route, age in zip(routes, ages, strict=True)
    ]
    aged = (
        update(waits)
        .where(waits.c.task_id == bindparam("task"))
        .values(created_at=bindparam("created"), next_check_at=bindparam("due"))
    )
    await store.database.write(lambda db: db.execute(aged, rows).rowcount)


async def _sweep_figures(url: str) -> dict[str, float]:
    await asyncio.sleep(10.5)  # the relay reads them every ten seconds
    async with httpx.AsyncClient() as http:
        lines = (await http.get(f"{url}/metrics")).text.splitlines()
    prefix = "awaithumans_relay_"
    found = dict(line.removeprefix(prefix).split() for line in lines if line.startswith(f"{prefix}sweep_"))
    return {name: float(value) for name, value in found.items()}


async def _burst(http: httpx.AsyncClient, store: Store, routes: Sequence[Route], count: int) -> tuple[list[float], int]:
    """Answer some of the questions at once, and return the delays of the deliveries and how many were called back."""
    given = dict[str, float]()
    gate = asyncio.Semaphore(4)

    async def answer(task_id: str) -> None:
        async with gate:
            sent = time.time()
            body = {"response": {"approved": True}, "completed_by_email": "anna@example.com"}
            reply = await http.post(f"/api/tasks/{task_id}/complete", json=body)
            if reply.status_code < 300:
                given[task_id] = sent

    await asyncio.gather(*(answer(route.target["task_id"]) for route in random.sample(list(routes), count)))
    delivered = select(waits.c.task_id, waits.c.delivered_at, waits.c.found_by).where(waits.c.delivered_at > 0)
    async with asyncio.timeout(MAX_CHECK_SECONDS * 3):
        while len(found := await store.database.read(lambda db: list(db.execute(delivered)))) < len(given):
            await asyncio.sleep(0.5)
    return sorted(at - given[task_id] for task_id, at, _ in found if task_id in given), sum(
        how == "callback" for _, _, how in found
    )


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else math.nan


def report(real: Real | None, model: Simulated | None, simulated: Sequence[Simulated]) -> bool:
    """Print all figures, and return whether the model agrees with the real run."""
    agrees = True
    if real is not None:
        print(columns([("request", "ms"), *((k, f"{1000 * v:.1f}") for k, v in real.measured.items())], (28, 10)))
        print(
            f"\n{real.waits} waits, {real.kept} tasks kept, {real.seconds:.0f} s: requests {100 * real.busy:.2f} % of "
            f"the time; server CPU {100 * real.server_cpu:.2f} %, relay CPU {100 * real.relay_cpu:.2f} % of a core; "
            f"{real.late_waits:.0f} waits late, by up to {real.late_seconds:.0f} s\n"
            f"burst of {len(real.delays)} answers: seen after {quantile(real.delays, 0.5):.1f} s (median), "
            f"{quantile(real.delays, 0.99):.1f} s (p99); {real.by_callback} by callback\n"
        )
    if real is not None and model is not None:
        agrees = abs(model.share - real.busy) <= 0.2 * real.busy
        print(
            f"model of the real run: requests {100 * model.share:.2f} % of the time: "
            f"{'within' if agrees else 'NOT within'} 20 %\n"
        )
    rows = [("simulated waits", "days", "requests", "p50", "p99", "p99, mail", "beyond the promise")]
    rows += [
        (
            f"{each.waits:,}",
            f"{each.days:g}",
            f"{100 * each.share:.2f} %",
            f"{quantile(each.delays, 0.5):.1f} s",
            f"{quantile(each.delays, 0.99):.0f} s",
            f"{quantile(each.mailed, 0.99):.0f} s",
            f"{100 * each.beyond / max(1, len(each.delays)):.1f} %",
        )
        for each in simulated
    ]
    print(columns(rows, (18, 8, 12, 10, 10, 12, 20)))
    return agrees


async def run(options: argparse.Namespace) -> bool:
    real, model = None, None
    share = options.percent / 100
    costs = Costs(**QUIET)
    if options.real:
        ages = [WEEK * (number + 0.5) / options.waits for number in range(options.waits)]
        with tempfile.TemporaryDirectory() as folder:
            real = await measure(Path(folder), options, ages)
        costs = real.costs
        model = simulate(ages, real.seconds / DAY, costs, share, answers=False)
    simulated = [
        simulate([WEEK * (number + 0.5) / count for number in range(count)], options.days, costs, share)
        for count in options.simulated
    ]
    if options.json:
        shown = [
            {
                "waits": each.waits,
                "days": each.days,
                "share": each.share,
                **{f"p{int(100 * q)}": quantile(each.delays, q) for q in (0.5, 0.99)},
                "mail_p99": quantile(each.mailed, 0.99),
                "beyond": each.beyond / max(1, len(each.delays)),
            }
            for each in simulated
        ]
        figures = {"real": None if real is None else asdict(real), "model": model and model.share, "simulated": shown}
        options.json.write_text(json.dumps(figures, indent=2))
    return report(real, model, simulated)


def arguments() -> argparse.Namespace:
    parser = argument_parser("scale", __doc__)
    parser.add_argument("--waits", type=positive, default=20_000, help="open waits of the real run (default: 20000)")
    parser.add_argument("--kept", type=positive, default=200_000, help="tasks that the server keeps (default: 200000)")
    parser.add_argument("--answers", type=positive, default=300, help="answers of the burst (default: 300)")
    parser.add_argument("--seconds", type=positive, default=600, help="length of the real run (default: 600)")
    parser.add_argument("--percent", type=float, default=2.0, help="budget, in percent of the time (default: 2)")
    parser.add_argument("--days", type=float, default=30.0, help="simulated days (default: 30)")
    parser.add_argument(
        "--simulated", type=positive, nargs="+", default=[100_000, 1_000_000], help="numbers of simulated waits"
    )
    parser.add_argument("--no-real", dest="real", action="store_false", help="simulate only, with usual costs")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError, httpx.HTTPError) as ended:
        print(f"ended: {ended!r}", file=sys.stderr)
        sys.exit(130)
