"""What one wait for a person costs in Temporal, beside the official adapter and a bare signal wait.

All sides share one Temporal dev server, one awaithumans server and one question. Three things are measured:

1. One wait: asked, answered by a person through the server's API, and called back. The figures of its history are
   events, bytes, and the actions that Temporal Cloud bills. An answer that the sweep finds has 66 bytes more than one
   that is called back, because the task's record contains the time of its creation and its timeout. 67 bytes of each
   mode are the id of the workflow's original run, by which the activity notices a reset.
2. Replay: that history is replayed many times with all sides in turn. A worker does the same when it does not have the
   workflow in its cache. A replay loads the workflow's file in the sandbox, which takes most of its time.
3. Cold start: many workflows are started before their worker, which is a new process for each measurement. The clock
   starts when the worker runs.
   - On a worker that runs workflows only, it stops when each workflow has scheduled its activity. This shows what
     asking adds to a start.
   - On a worker that also runs activities, it stops when all workflows wait. This includes HTTP calls to two servers on
     the same cores. A start that takes longer than the limit is measured as far as it came.

`bare` is a signal wait that loads only the SDK. The other sides without a question have the shape of this package's
workflows and share a file with them. The activity of `no-op` does nothing, and the activity of `by-hand` makes the two
HTTP calls of a question and nothing else. The official adapter loads its form module inside every sandbox, which makes
workflow tasks fail.
"""

import asyncio
import secrets
import time
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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
from benchmarks._sides import ACTIVITY, BARE, BY_HAND, MODES, NO_OP, OFFICIAL, OWN_FILE, SIDES, SIGNAL, ServerAddresses
from benchmarks._temporal_worker import WorkerProcess, WorkerStatus, worker_process
from benchmarks._workflows import Decision
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

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
MAX_START_RATIO = 1.3
"""Asking adds less than the noise of a cold start: ratios between 0.90 and 1.23 were measured."""


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


def limits(values: Mapping[str, float]) -> tuple[Claim, ...]:
    """Return the claim that the figure of each mode is at most its value."""
    return tuple(Claim(side=mode, bound="at most", value=value) for mode, value in values.items())


EVENTS = Row(name="temporal-cost.events", title="Events of one wait", unit="events", claims=limits(MAX_EVENTS))
BYTES = Row(
    name="temporal-cost.bytes",
    title="History of one wait",
    unit="bytes",
    what="The server's own figure, or the sum of the events if that is larger.",
    claims=limits(MAX_BYTES),
)
ACTIONS = Row(
    name="temporal-cost.actions",
    title="Billed actions of one wait",
    unit="actions",
    what="As Temporal Cloud counts them.",
    claims=limits(MAX_ACTIONS),
)
REPLAY = Row(
    name="temporal-cost.replay",
    title="Replay of one wait",
    unit="ms",
    reference=BARE,
    claims=limits(dict.fromkeys(MODES, MAX_REPLAY_MS)),
)
ASKING = {
    mode: Row(
        name=f"temporal-cost.start-{mode}",
        title=f"Cold start of 40 workflows without activities, {mode} mode",
        unit="s",
        what="Until each has scheduled the activity that asks.",
        reference=NO_OP[mode],
        claims=(Claim(side=mode, bound="at most", value=MAX_START_RATIO, goal=1.1, to=NO_OP[mode]),),
    )
    for mode in MODES
}
COLD = {
    mode: Row(
        name=f"temporal-cost.cold-{mode}",
        title=f"Cold start of 40 workflows, {mode} mode",
        unit="s",
        what="Until each waits, or until the limit.",
        reference=BY_HAND[mode],
    )
    for mode in MODES
}
COLD_CPU = {
    mode: Row(
        name=f"temporal-cost.cold-cpu-{mode}",
        title=f"CPU of a worker that starts 40 workflows, {mode} mode",
        unit="s",
        reference=BY_HAND[mode],
    )
    for mode in MODES
}
FAILURES = Row(
    name="temporal-cost.failures",
    title="Failures in a cold start of 40 workflows",
    unit="workflows",
    what=f"Workflows that do not wait after {COLD_SECONDS:.0f} s, and workflows with a failed workflow task.",
    claims=tuple(Claim(side=mode, bound="at most", value=0, of="maximum") for mode in MODES),
)


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


async def replays(run: Run, found: Mapping[str, WorkflowHistory]) -> None:
    """Record the milliseconds of each replay. The first round is a warm-up and is not counted."""
    took: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(1 + run.size(REPLAYS, 2)):
        for name, history in found.items():
            took[name].append(await replay(name, history))
    for name, each in took.items():
        run.record(REPLAY, name, *each[1:])


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
        if status.workflows_with_ended_activity == count and (name in MODES or name in BY_HAND.values()):
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


async def measure_starts(run: Run, servers: Servers, count: int) -> None:
    """Measure the sides in turn. Each repeat begins with another side."""
    rows = {side: row for mode, row in ASKING.items() for side in (NO_OP[mode], mode)}
    names = [name for name, row in rows.items() if run.wants(row)]
    if not run.quick:
        await measure_workflows_only(names[0], servers, count, "warm-up")
    for repeat in run.repeats():
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            run.record(rows[name], name, await measure_workflows_only(name, servers, count, str(repeat)))


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


async def measure_cold_starts(run: Run, servers: Servers, count: int) -> None:
    """Measure compared sides one after the other, in rotating order. The official adapter is last in each repeat."""
    modes = [mode for mode in MODES if run.wants(COLD[mode], COLD_CPU[mode], FAILURES)]
    if not run.quick:
        await measure_cold_start(NO_OP[modes[0]], servers, count, "warm-up")
    for repeat in run.repeats():
        first = repeat % 3
        for mode in modes:
            names = [NO_OP[mode], mode, BY_HAND[mode]]
            for name in names[first:] + names[:first]:
                record(run, mode, name, await measure_cold_start(name, servers, count, str(repeat)))
        official = await measure_cold_start(OFFICIAL, servers, count, str(repeat))
        record(run, SIGNAL, OFFICIAL, official)


def record(run: Run, mode: str, name: str, measured: ColdStart) -> None:
    run.record(COLD[mode], name, measured.seconds)
    run.record(COLD_CPU[mode], name, measured.cpu)
    run.record(FAILURES, name, measured.workflows - measured.waited + measured.failed)


# --- all of it ------------------------------------------------------------------------------------------------------


async def measure(run: Run) -> None:
    # The sandbox warns at every replay that the official adapter loads its forms late.
    warnings.filterwarnings("ignore", message="Module awaithumans", category=UserWarning)
    count = run.size(40, 8)
    async with serving(run.folder) as servers:
        if run.wants(EVENTS, BYTES, ACTIONS, REPLAY):
            await measure_one_wait(run, servers)
        if run.wants(*ASKING.values()):
            await measure_starts(run, servers, count)
        if run.wants(*COLD.values(), *COLD_CPU.values(), FAILURES):
            await measure_cold_starts(run, servers, count)


async def measure_one_wait(run: Run, servers: Servers) -> None:
    found: dict[str, WorkflowHistory] = {}
    for name in [*MODES, OFFICIAL, NO_OP[SIGNAL], BARE]:
        measured, found[name] = await one_wait(OWN_FILE.get(name, name), servers)
        run.record(EVENTS, name, measured.events)
        run.record(BYTES, name, max(measured.bytes, measured.event_bytes))
        run.record(ACTIONS, name, measured.actions)
    if run.wants(REPLAY):
        await replays(run, found)


BENCHMARK = Benchmark(
    name="temporal-cost",
    title="Temporal: what one wait costs",
    description=__doc__,
    rows=(EVENTS, BYTES, ACTIONS, REPLAY, *ASKING.values(), *COLD.values(), *COLD_CPU.values(), FAILURES),
    measure=measure,
    repeats=3,
    minutes=10,
)
