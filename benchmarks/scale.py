"""A hundred thousand open waits in one relay: simulated for days, and measured for minutes on a real server.

The real run: a server keeps `--kept` tasks of the last seven days in its SQLite file, of which a relay process waits
for `--waits`. What the relay's requests take is measured. Then people answer in a burst, and the time from each answer
to its delivery is measured. The run ends after `--minutes`, whatever is left.

The simulation makes the decisions of `awaithumans_core.schedule` on a virtual clock, with the costs of requests that
were measured before and after the real run, or those of a quiet machine with `--no-real`. Three of four questions are
answered, after two hours in the median, a third of them by mail, which is not called back. The others time out after
thirty days. So the ages of the open waits are those of a service that has run for long. The server is down for a day
if more than eleven are simulated.

The model: a simulation with the waits, ages, costs and length of the real run. The time that requests take must agree
within a fifth. The machine must be quiet, because the costs must stay what they were.

Examples:
    python -m benchmarks.scale
    python -m benchmarks.scale --waits 500 --kept 2000 --seconds 60 --simulated 10000 --json scale.json
    python -m benchmarks.scale --no-real --percent 6 --days 30 --simulated 100000
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
from devservers import HumansServer, started
from sqlalchemy import bindparam, select, update

from awaithumans_core import Route
from awaithumans_core.schedule import interval
from awaithumans_relay.store import Store
from awaithumans_relay.store.table.schema import waits
from benchmarks._kept_tasks import copy_task, create_task
from benchmarks._meters import cpu_per_minute
from benchmarks._report import argument_parser, columns, positive, progress
from benchmarks._simulated_relay import DAY, ServerCosts, Simulated, SimulatedRelay, steady
from benchmarks.sweep import Workload

WEEK = 7 * DAY
PAGE = 200
QUIET = ServerCosts(read=0.0028, page=0.045, row=0.0001, offset=0.0000025)
"""Costs of a server that keeps 200,000 tasks, on a quiet machine."""
OURS = 0.9
"""Share of the open tasks that the simulated relay waits for. In the real run it waits for all."""
BURST_SECONDS = 180.0
"""Seconds of the real run that are kept for the burst of answers."""
MODELS = 3
"""Number of simulations of the real run."""
WARM_UP_SECONDS = 4 * 3600.0
"""Simulated seconds before the figures begin."""


# --- the real run


@dataclass(frozen=True)
class Real:
    """Figures of the real run."""

    waits: int
    kept: int
    costs: ServerCosts
    measured: dict[str, float]
    """Seconds of each kind of request: the mean of the medians before and after the run."""
    seconds: float
    """Time from the start of the relay to the burst."""
    busy: float
    """Share of this time that the relay's requests took."""
    requests: dict[str, float]
    """Number of the relay's requests in this time."""
    server_cpu: float
    relay_cpu: float
    late_waits: float
    late_seconds: float
    answers: int
    """Answers of the burst."""
    delays: list[float]
    """Seconds until they were delivered, of those that were."""
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


def fitted(measured: dict[str, float], open_tasks: int) -> ServerCosts:
    row = max(0.0, (measured["open, 200"] - measured["open, 25"]) / 175)
    offset = max(0.0, (measured["open, 200, the last"] - measured["open, 200"]) / max(1, open_tasks - PAGE))
    return ServerCosts(measured["one task"], max(0.0, measured["open, 25"] - 25 * row), row, offset)


async def measure(folder: Path, options: argparse.Namespace, ages: Sequence[float]) -> Real:
    ends_at = time.monotonic() + 60 * options.minutes
    humans = HumansServer(folder / "humans")
    async with started(humans), humans.people() as http:
        workload = Workload(folder, humans)
        workload.percent = options.percent
        progress("scale", f"{options.kept} tasks are inserted")
        routes = [Route("accepting", {"task_id": secrets.token_hex(16)}, secrets.token_hex(16)) for _ in ages]
        await _insert(humans, http, workload, routes, ages, options.kept - len(ages))
        before = await measured_costs(http, routes[0].target["task_id"], len(ages))
        async with workload.relay("relay", [], 0.0) as (relay, store):
            await _register(store, routes, ages)
            began = time.monotonic()
            seconds = max(20.0, min(options.seconds, ends_at - began - BURST_SECONDS))
            progress("scale", f"{len(ages)} waits, {seconds:.0f} s")
            cpu = await cpu_per_minute({"server": humans.process.pid, "relay": relay.pid}, seconds)
            figures = await _sweep_figures(workload.url)
            seconds = time.monotonic() - began
            after = await measured_costs(http, routes[0].target["task_id"], len(ages))
            progress("scale", f"{options.answers} answers")
            left = max(30.0, ends_at - time.monotonic())
            answers, delays, by_callback = await _burst(http, store, routes, min(options.answers, len(routes)), left)
    measured = {request: (before[request] + after[request]) / 2 for request in before}
    return Real(
        waits=len(ages),
        kept=options.kept,
        costs=fitted(measured, len(ages)),
        measured=measured,
        seconds=seconds,
        busy=figures["sweep_request_seconds"] / seconds,
        requests={
            "read": figures["sweep_checks_total"],
            "open page": figures['sweep_pages_total{list="open"}'],
            "ended page": figures['sweep_pages_total{list="ended"}'],
        },
        server_cpu=cpu["server"] / 60,
        relay_cpu=cpu["relay"] / 60,
        late_waits=figures["sweep_late_waits"],
        late_seconds=figures["sweep_late_seconds"],
        answers=answers,
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


async def _burst(
    http: httpx.AsyncClient, store: Store, routes: Sequence[Route], count: int, seconds: float
) -> tuple[int, list[float], int]:
    """Answer some of the questions at once.

    Returns how many answers were accepted, the delays of those that were delivered within this time, and how many of
    them were called back.
    """
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
    ends_at = time.monotonic() + seconds
    while len(found := await store.database.read(lambda db: list(db.execute(delivered)))) < len(given):
        if time.monotonic() > ends_at:
            break
        await asyncio.sleep(0.5)
    delays = sorted(at - given[task_id] for task_id, at, _ in found if task_id in given)
    return len(given), delays, sum(how == "callback" for _, _, how in found)


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else math.nan


def days(ages: Sequence[float]) -> str:
    """Return the deciles of these ages as text."""
    return ", ".join(f"{quantile(ages, tenth / 10) / DAY:.2g}" for tenth in range(1, 10)) + " days"


def report(
    real: Real | None, models: Sequence[Simulated], costs: ServerCosts, share: float, simulated: Sequence[Simulated]
) -> bool:
    """Print all figures, and return whether the model agrees with the real run."""
    agrees = True
    if real is not None:
        print(columns([("request", "ms"), *((k, f"{1000 * v:.1f}") for k, v in real.measured.items())], (28, 10)))
        print(
            f"\n{real.waits} waits, {real.kept} tasks kept, {real.seconds:.0f} s: requests {100 * real.busy:.2f} % of "
            f"the time; server CPU {100 * real.server_cpu:.2f} %, relay CPU {100 * real.relay_cpu:.2f} % of a core; "
            f"{real.late_waits:.0f} waits late, by up to {real.late_seconds:.0f} s\n"
            f"burst of {real.answers} answers, {len(real.delays)} delivered: after {quantile(real.delays, 0.5):.1f} s "
            f"(median), {quantile(real.delays, 0.99):.1f} s (p99); {real.by_callback} by callback"
        )
    print(
        f"model: a read {1000 * costs.read:.1f} ms; a page {1000 * costs.page:.1f} ms, {1e6 * costs.row:.0f} us a row, "
        f"{1e6 * costs.offset:.2f} us a task of the offset; budget {100 * share:g} % of the time"
    )
    if real is not None:
        busy = statistics.mean(model.busy for model in models)
        agrees = abs(busy - real.busy) <= 0.2 * real.busy
        print(
            f"model of the real run: requests {100 * busy:.2f} % of the time: "
            f"{'within' if agrees else 'NOT within'} 20 %"
        )
        counts = [("requests", "real", "model")]
        counts += [
            (kind, f"{n:.0f}", f"{statistics.mean(model.requests.get(kind, 0) for model in models):.0f}")
            for kind, n in sorted(real.requests.items())
        ]
        print(columns(counts, (28, 10, 10)))
    rows = [("simulated waits", "days", "answers", "requests", "p50", "p99", "p99, mail", "beyond the promise")]
    rows += [
        (
            f"{each.waits:,}",
            f"{each.seconds / DAY:.2g}",
            f"{len(each.delays):,}",
            f"{100 * each.busy:.2f} %",
            f"{quantile(each.delays, 0.5):.1f} s",
            f"{quantile(each.delays, 0.99):.0f} s",
            f"{quantile(each.mailed, 0.99):.0f} s",
            f"{100 * each.beyond / max(1, len(each.delays)):.1f} %",
        )
        for each in simulated
    ]
    print("\n" + columns(rows, (18, 8, 10, 12, 10, 10, 12, 20)))
    for each in simulated:
        spent = sorted(each.spent.items(), key=lambda one: -one[1])
        print(
            f"\n{each.waits:,} waits, deciles of their ages: {days(each.ages)}\nbudget spent on: "
            + "; ".join(f"{kind} {100 * seconds / each.seconds:.2f} %" for kind, seconds in spent)
        )
    return agrees


def simulate(count: int, length: float, costs: ServerCosts, share: float) -> Simulated:
    """Simulate a relay that has run for long, after a warm-up."""
    chance = np.random.default_rng(3)
    ages, took = steady(count, chance)
    relay = SimulatedRelay(ages, took, costs, share, ours=OURS)
    relay.run(WARM_UP_SECONDS)
    relay.result = Simulated(count)
    outage = (relay.now + 10 * DAY, relay.now + 11 * DAY) if length > 11 * DAY else (math.inf, math.inf)
    return relay.run(length, outage)


async def run(options: argparse.Namespace) -> bool:
    real, models = None, list[Simulated]()
    share, costs = options.percent / 100, QUIET
    if options.real:
        ages = [WEEK * (number + 0.5) / options.waits for number in range(options.waits)]
        with tempfile.TemporaryDirectory() as folder:
            real = await measure(Path(folder), options, ages)
        costs = real.costs
        ended = (options.kept - options.waits) / WEEK
        # Which waits come due together is random, so the model is the mean of some runs.
        models = [
            SimulatedRelay(np.array(ages), None, costs, share, ended_per_second=ended, seed=seed).run(real.seconds)
            for seed in range(MODELS)
        ]
    simulated = list[Simulated]()
    for count in options.simulated:
        progress("scale", f"{count} waits are simulated")
        simulated.append(simulate(count, options.days * DAY, costs, share))
    agrees = report(real, models, costs, share, simulated)
    if options.json:
        shown = [
            {
                "waits": each.waits,
                "days": each.seconds / DAY,
                "answers": len(each.delays),
                "share": each.busy,
                **{f"p{int(100 * q)}": quantile(each.delays, q) for q in (0.5, 0.99)},
                "mail_p99": quantile(each.mailed, 0.99),
                "beyond": each.beyond / max(1, len(each.delays)),
                "age_deciles": [quantile(each.ages, tenth / 10) for tenth in range(1, 10)],
                "spent": each.spent,
            }
            for each in simulated
        ]
        figures = {
            "percent": options.percent,
            "costs": asdict(costs),
            "real": None if real is None else asdict(real),
            "models": [{"share": model.busy, "requests": model.requests} for model in models],
            "simulated": shown,
        }
        options.json.write_text(json.dumps(figures, indent=2))
    return agrees


def arguments() -> argparse.Namespace:
    parser = argument_parser("scale", __doc__)
    parser.add_argument("--waits", type=positive, default=20_000, help="open waits of the real run (default: 20000)")
    parser.add_argument("--kept", type=positive, default=200_000, help="tasks that the server keeps (default: 200000)")
    parser.add_argument("--answers", type=positive, default=300, help="answers of the burst (default: 300)")
    parser.add_argument("--seconds", type=positive, default=600, help="length of the real run (default: 600)")
    parser.add_argument("--minutes", type=positive, default=15, help="maximum length of all of it (default: 15)")
    parser.add_argument("--percent", type=float, default=2.0, help="budget, in percent of the time (default: 2)")
    parser.add_argument("--days", type=float, default=1.0, help="simulated days (default: 1)")
    parser.add_argument(
        "--simulated", type=positive, nargs="*", default=[100_000], help="numbers of simulated waits (default: 100000)"
    )
    parser.add_argument("--no-real", dest="real", action="store_false", help="simulate only, with usual costs")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError, httpx.HTTPError) as ended:
        print(f"ended: {ended!r}", file=sys.stderr)
        sys.exit(130)
