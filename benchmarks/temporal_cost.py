"""Measure what one wait for a person costs in Temporal, beside the official adapter and a bare signal wait.

All sides share one Temporal dev server, one awaithumans server and one question. Three things are measured:

1. One wait: asked, answered by a person through the server's API, and called back. The figures of its history are
   events, bytes, and the actions that Temporal Cloud bills.
2. Replay: that history is replayed many times with all sides in turn. A worker does the same when it does not have the
   workflow in its cache.
3. Cold start: many workflows are started before their worker, which is a new process for each measurement. The clock
   starts when the worker runs.
   - On a worker that runs workflows only, it stops when each workflow has scheduled its activity. This shows what
     asking adds to a start.
   - On a worker that also runs activities, it stops when all workflows wait. This includes HTTP calls to two servers on
     the same cores. A start that takes longer than the limit is measured as far as it came.

Workflows of the same shape from the same file are measured in turn with those of this package. The activity of `no-op`
does nothing, and the activity of `by-hand` makes the two HTTP calls of a question and nothing else.

Absolute figures depend on the machine, so compare the ratios. The claims about this package are checked, and the exit
status is 1 if one of them fails.

Examples:
    python -m benchmarks.temporal_cost
    python -m benchmarks.temporal_cost --modes signal --repeats 1 --workflows 10 --json figures.json
"""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
from devservers import HumansServer, RelayServer, TemporalServer, started
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer

from awaithumans_core import HumanTask, HumanTasks, Route, Settings
from benchmarks._histories import HistorySize, failed_workflow_task, first_event_time, history_size
from benchmarks._official_receiver import official_receiver
from benchmarks._people import answer_task, open_tasks
from benchmarks._report import Claim, Spread, argument_parser, claim_line, columns, positive, progress
from benchmarks._sides import ACTIVITY, BARE, BY_HAND, MODES, NO_OP, OFFICIAL, OWN_FILE, SIDES, SIGNAL, ServerAddresses
from benchmarks._temporal_worker import WorkerProcess, WorkerStatus, worker_process
from benchmarks._workflows import Decision

NAMESPACE = "default"
ANSWER = {"approved": True, "note": "as ordered"}
WAIT_SECONDS = 60.0
"""Limit of each step of a wait. A callback takes about five seconds."""
COLD_SECONDS = 20.0
"""Limit of a cold start. One that takes longer is measured as far as it came."""
REPLAYS = 20

MAX_EVENTS = {SIGNAL: 17, ACTIVITY: 11}
MAX_ACTIONS = {SIGNAL: 4, ACTIVITY: 2}
MAX_BYTES = {SIGNAL: 3328, ACTIVITY: 3072}
"""An answer that the sweep finds is 66 bytes larger than one that is called back: the task's record has more fields."""
MAX_REPLAY_MS = 25.0
MAX_COLD_RATIO = 1.10


@dataclass(frozen=True)
class ColdStart:
    """Figures of one cold start."""

    workflows: int
    waited: int
    """Workflows that waited at the end, or when time was up."""
    asking_seconds: float
    """From the start of the worker until the last workflow had scheduled its activity, in its first task."""
    seconds: float
    """From the start of the worker until the last workflow waited."""
    cpu: float
    """CPU seconds of the worker."""
    failed: int
    """Workflows with a failed workflow task."""


@dataclass
class Result:
    """Figures of one run, by the name of the side."""

    sizes: dict[str, HistorySize]
    replays: dict[str, list[float]]
    """Milliseconds of each replay."""
    cold_starts: dict[str, list[ColdStart]]
    starts: dict[str, list[float]]
    """Seconds until all workflows have scheduled their activity, on a worker that runs workflows only."""


@dataclass(frozen=True)
class Servers:
    """The servers and the secret that all sides of a run share."""

    humans: HumansServer
    temporal: TemporalServer
    folder: Path
    receiver: str
    """Address that receives the callbacks of the official adapter."""
    secret: str

    @property
    def addresses(self) -> ServerAddresses:
        return ServerAddresses(self.humans.url, self.humans.token, self.receiver)

    @asynccontextmanager
    async def relay(self, name: str) -> AsyncGenerator[tuple[RelayServer, Mapping[str, str]]]:
        """Run a new relay without waits for one measurement. Also yield the settings of its callers."""
        relay = RelayServer(self.folder / name, self.humans, ["--temporal", self.temporal.address], secret=self.secret)
        async with started(relay):
            yield (
                relay,
                {
                    "AWAITHUMANS_URL": self.humans.url,
                    "AWAITHUMANS_ADMIN_API_TOKEN": self.humans.token,
                    "AWAITHUMANS_RELAY_URL": relay.url,
                    "AWAITHUMANS_RELAY_SECRET": self.secret,
                },
            )


@asynccontextmanager
async def serving(folder: Path) -> AsyncGenerator[Servers]:
    humans, temporal = HumansServer(folder / "humans"), TemporalServer(folder / "temporal")
    async with (
        started(humans, temporal),
        official_receiver(humans, temporal.address, folder / "receiver") as receiver,
    ):
        yield Servers(humans, temporal, folder, receiver, secrets.token_urlsafe(32))


async def start(name: str, servers: Servers, queue: str, orders: Sequence[int]) -> list[WorkflowHandle[Any, Any]]:
    side = SIDES[name]
    client = await side.client(servers.temporal.address)
    return await asyncio.gather(
        *(
            client.start_workflow(
                side.workflow.__name__, side.argument(order, servers.addresses), id=f"{queue}-{order}", task_queue=queue
            )
            for order in orders
        )
    )


# --- one wait -------------------------------------------------------------------------------------------------------


async def one_wait(name: str, servers: Servers) -> tuple[HistorySize, WorkflowHistory]:
    """Ask and answer one question and return the history of the workflow."""
    queue = f"wait-{name}"
    async with (
        servers.relay(queue) as (_, env),
        worker_process(name, servers.temporal.address, queue, env) as (worker, _),
        servers.humans.people() as people,
        asyncio.timeout(WAIT_SECONDS),
    ):
        [handle] = await start(name, servers, queue, [1])
        await wait_until_waiting(name, [handle], worker)
        if name in {BARE, *NO_OP.values()}:
            await handle.signal("answer", ANSWER)
        else:
            [task] = await open_tasks(people)
            assert await answer_task(people, task, ANSWER)
        assert await handle.result() is ANSWER["approved"]
        history = await handle.fetch_history()
        return await history_size(handle, history), history


async def wait_until_waiting(name: str, handles: Sequence[WorkflowHandle[Any, Any]], worker: WorkerProcess) -> None:
    """Wait until all workflows wait. Temporal is polled only after the worker has finished its part."""
    while name != BARE and (await worker.status()).workflows_with_ended_activity < len(handles):
        await asyncio.sleep(0.1)
    while SIDES[name].timer and not all(map(waiting_time, await histories(handles))):
        await asyncio.sleep(0.2)


def waiting_time(history: WorkflowHistory) -> float | None:
    return first_event_time(history, EventType.EVENT_TYPE_TIMER_STARTED)


def asking_time(history: WorkflowHistory) -> float | None:
    return first_event_time(history, EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)


async def histories(handles: Sequence[WorkflowHandle[Any, Any]]) -> list[WorkflowHistory]:
    return await asyncio.gather(*(handle.fetch_history() for handle in handles))


# --- replay ---------------------------------------------------------------------------------------------------------


async def replays(found: Mapping[str, WorkflowHistory]) -> dict[str, list[float]]:
    """Return the milliseconds of each replay. The first round is a warm-up and is not counted."""
    took: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(1 + REPLAYS):
        for name, history in found.items():
            took[name].append(await replay(name, history))
    return {name: each[1:] for name, each in took.items()}


async def replay(name: str, history: WorkflowHistory) -> float:
    side = SIDES[OWN_FILE.get(name, name)]
    # The namespace is part of the question's identity.
    replayer = Replayer(workflows=[side.workflow], plugins=side.plugins(), namespace=NAMESPACE)
    began = time.perf_counter()
    await replayer.replay_workflow(history)
    return (time.perf_counter() - began) * 1000


# --- many at once on a cold worker ----------------------------------------------------------------------------------


async def measure_cold_start(name: str, servers: Servers, count: int, repeat: str) -> ColdStart:
    queue = f"cold-{name}-{repeat}"
    async with servers.relay(queue) as (relay, env):
        await warm_up_servers(relay, servers)
        handles = await start(name, servers, queue, range(count))
        async with worker_process(name, servers.temporal.address, queue, env) as (worker, started_status):
            with suppress(TimeoutError):
                async with asyncio.timeout(COLD_SECONDS):
                    await wait_until_waiting(name, handles, worker)
            status = await worker.status()
            found_histories = await histories(handles)
        if name in MODES or name in BY_HAND.values():
            await check_registered(relay, count)
        await asyncio.gather(*(handle.terminate() for handle in handles))
    return cold_start(name, started_status, status, found_histories)


async def measure_workflows_only(name: str, servers: Servers, count: int, repeat: str) -> float:
    """Return the seconds until all workflows have scheduled their activity, on a cold worker without activities."""
    queue = f"workflows-only-{name}-{repeat}"
    handles = await start(name, servers, queue, range(count))
    async with worker_process(name, servers.temporal.address, queue, {}, workflows_only=True) as (_, started_status):
        async with asyncio.timeout(COLD_SECONDS):
            while len(asked := [at for at in map(asking_time, await histories(handles)) if at]) < count:
                await asyncio.sleep(0.5)
    await asyncio.gather(*(handle.terminate() for handle in handles))
    return max(asked) - started_status.time


async def measure_starts(servers: Servers, options: argparse.Namespace) -> dict[str, list[float]]:
    """Measure the sides in turn. Each repeat begins with another side."""
    names = list(chain(*([NO_OP[mode], mode] for mode in options.modes)))
    await measure_workflows_only(names[0], servers, options.workflows, "warm-up")
    found: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(options.repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(await measure_workflows_only(name, servers, options.workflows, str(repeat)))
            progress(name, f"{options.workflows} have asked after {found[name][-1]:.2f} s")
    return found


def cold_start(
    name: str, started_status: WorkerStatus, status: WorkerStatus, found_histories: Sequence[WorkflowHistory]
) -> ColdStart:
    asked = [at for at in map(asking_time, found_histories) if at]
    waited = [at for at in map(waiting_time, found_histories) if at]
    timer = SIDES[name].timer
    return ColdStart(
        workflows=len(found_histories),
        waited=len(waited) if timer else status.workflows_with_ended_activity,
        asking_seconds=max(asked, default=started_status.time) - started_status.time,
        seconds=(max(waited, default=started_status.time) if timer else status.last_activity_ended_at)
        - started_status.time,
        cpu=status.cpu - started_status.cpu,
        failed=sum(map(failed_workflow_task, found_histories)),
    )


async def warm_up_servers(relay: RelayServer, servers: Servers) -> None:
    """Ask one question, so that only the worker is cold and the servers are not."""
    settings = Settings.load(
        url=servers.humans.url,
        admin_api_token=servers.humans.token,
        relay_url=relay.url,
        relay_secret=servers.secret,
    )
    question = HumanTask(task="Warm up?", response_schema=Decision)
    route = Route("temporal", {"namespace": NAMESPACE, "workflow_id": "warm-up"}, question.idempotency_key)
    await HumanTasks(settings).open(question.body(), route)


async def check_registered(relay: RelayServer, count: int) -> None:
    """Check that all workflows have registered their wait at the relay."""
    async with httpx.AsyncClient() as http:
        waits = (await http.get(f"{relay.url}/readyz")).json()["waits"]
    assert waits["open"] == count + 1, f"the relay has {waits}, expected {count + 1} open waits"


async def measure_cold_starts(servers: Servers, options: argparse.Namespace) -> dict[str, list[ColdStart]]:
    """Measure compared sides one after the other, in rotating order. The official adapter is last in each repeat."""
    groups = [[NO_OP[mode], mode, BY_HAND[mode]] for mode in options.modes]
    found: dict[str, list[ColdStart]] = {name: [] for name in [*chain(*groups), OFFICIAL]}
    await measure_cold_start(groups[0][0], servers, options.workflows, "warm-up")
    for repeat in range(options.repeats):
        first = repeat % 3
        for name in [*chain(*(group[first:] + group[:first] for group in groups)), OFFICIAL]:
            measured = await measure_cold_start(name, servers, options.workflows, str(repeat))
            found[name].append(measured)
            waited = f"{measured.waited} of {measured.workflows} wait"
            progress(name, f"{waited} after {measured.seconds:.2f} s, {measured.cpu:.2f} s of CPU")
    return found


# --- all of it ------------------------------------------------------------------------------------------------------


def wait_table(result: Result) -> str:
    rows: list[Sequence[str]] = [("one wait", "events", "bytes", "(sent)", "actions", "replay (ms)")]
    for name, measured in result.sizes.items():
        counts = (str(figure) for figure in (measured.events, measured.bytes, measured.event_bytes, measured.actions))
        rows.append((name, *counts, Spread.of(result.replays[name]).text(1)))
    return columns(rows, [18, 8, 8, 8, 9, 26])


def cold_table(cold_starts: Mapping[str, Sequence[ColdStart]]) -> str:
    rows: list[Sequence[str]] = [("cold start", "waiting", "all asked (s)", "all wait (s)", "worker CPU (s)", "failed")]
    for name, measured in cold_starts.items():
        rows.append(
            (
                name,
                "/".join(str(each.waited) for each in measured),
                *(cold_spread(measured, figure).text(2) for figure in ("asking_seconds", "seconds", "cpu")),
                "/".join(str(each.failed) for each in measured),
            )
        )
    for other in (NO_OP, BY_HAND):
        for mode in MODES:
            if mode in cold_starts:
                ratios = (
                    ratio(cold_starts, mode, other[mode], figure) for figure in ("asking_seconds", "seconds", "cpu")
                )
                rows.append((f"{mode} to {other[mode]}", "", *(f"{each:.2f}" for each in ratios), ""))
    return columns(rows, [29, 16, 21, 21, 21, 16])


def start_table(found: Mapping[str, Sequence[float]]) -> str:
    rows: list[Sequence[str]] = [("start, workflows only", "all asked (s)")]
    rows += [(name, Spread.of(measured).text(2)) for name, measured in found.items()]
    rows += [(f"{mode} to {NO_OP[mode]}", f"{start_ratio(found, mode):.2f}") for mode in MODES if mode in found]
    return columns(rows, [29, 21])


def start_ratio(found: Mapping[str, Sequence[float]], mode: str) -> float:
    """Return the ratio of the medians."""
    return Spread.of(found[mode]).median / Spread.of(found[NO_OP[mode]]).median


def cold_spread(measured: Sequence[ColdStart], figure: str) -> Spread:
    return Spread.of([getattr(each, figure) for each in measured])


def ratio(cold_starts: Mapping[str, Sequence[ColdStart]], side: str, other: str, figure: str) -> float:
    """Return the ratio of the medians."""
    return cold_spread(cold_starts[side], figure).median / cold_spread(cold_starts[other], figure).median


def claims(mode: str, result: Result, count: int) -> list[Claim]:
    measured, cold_starts = result.sizes[mode], result.cold_starts
    largest_bytes, replayed = max(measured.bytes, measured.event_bytes), Spread.of(result.replays[mode]).median
    bare = Spread.of(result.replays[BARE]).median
    checks = [
        (f"at most {MAX_EVENTS[mode]} events", measured.events <= MAX_EVENTS[mode]),
        (f"at most {MAX_ACTIONS[mode]} billable actions", measured.actions <= MAX_ACTIONS[mode]),
        (f"at most {MAX_BYTES[mode]} bytes of history", largest_bytes <= MAX_BYTES[mode]),
        (f"replayed in at most {MAX_REPLAY_MS:.0f} ms (bare: {bare:.1f})", replayed <= MAX_REPLAY_MS),
        (
            f"{count} start on a cold worker within 10 % of the time of {NO_OP[mode]}",
            start_ratio(result.starts, mode) <= MAX_COLD_RATIO,
        ),
        (
            "no workflow task of a cold start failed",
            all(each.waited == each.workflows and not each.failed for each in cold_starts[mode]),
        ),
    ]
    return [Claim(f"{mode}: {text}", holds) for text, holds in checks]


async def measure(options: argparse.Namespace, servers: Servers) -> Result:
    sizes: dict[str, HistorySize] = {}
    found: dict[str, WorkflowHistory] = {}
    for name in [*options.modes, OFFICIAL, NO_OP[SIGNAL], BARE]:
        progress(name, "measuring one wait")
        sizes[name], found[name] = await one_wait(OWN_FILE.get(name, name), servers)
    progress("all", f"replaying {REPLAYS} times each")
    took = await replays(found)
    start_seconds = await measure_starts(servers, options)
    return Result(sizes, took, await measure_cold_starts(servers, options), start_seconds)


async def run(options: argparse.Namespace) -> bool:
    main_task = asyncio.current_task()
    assert main_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
    # The sandbox warns at every replay that the official adapter loads its forms late.
    warnings.filterwarnings("ignore", message="Module awaithumans", category=UserWarning)
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as servers:
            result = await measure(options, servers)
    checked = [claim for mode in options.modes for claim in claims(mode, result, options.workflows)]
    if options.json:
        options.json.write_text(json.dumps(asdict(result) | {"claims": list(map(asdict, checked))}, indent=2))
    tables = (wait_table(result), start_table(result.starts), cold_table(result.cold_starts))
    print("", *chain(*((table, "") for table in tables)), *map(claim_line, checked), sep="\n")
    return all(claim.holds is not False for claim in checked)


def arguments() -> argparse.Namespace:
    parser = argument_parser("temporal_cost", __doc__)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="modes of this package (default: all)")
    parser.add_argument("--repeats", type=positive, default=5, help="cold starts of each side (default: 5)")
    parser.add_argument("--workflows", type=positive, default=40, help="workflows of each cold start (default: 40)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
