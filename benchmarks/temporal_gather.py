"""How long it takes until many questions of one workflow in one `asyncio.gather` are open.

Temporal, the awaithumans server, the relay (started by its command line) and the worker have processes of their own.
Each side opens its questions in one workflow, on a worker of its own:

- `gather-signal`, `gather-activity`: `await_human` in each mode.
- `gather-plain`: activities that do nothing, each followed by a timer.
- `gather-by-hand`: activities that make the two HTTP calls of a question, each followed by a timer. These calls alone
  take about three times as long as activities that do nothing.

The time runs from the start of the workflow until the last timer has started, by the clock of the history. Activity
mode has no timer, so there it runs until the relay has registered the last question.

Workflow tasks that failed or timed out are counted. A task that takes longer than two seconds fails with TMPRL1101. Two
kinds are not counted, because activities that do nothing have them too: tasks that Temporal's server closes itself
because more than 100 events arrived during the task, and tasks that it did not hand to the worker within the ten
seconds of a sticky queue.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from devservers import HumansServer, RelayServer, TemporalServer, started
from temporalio.api.enums.v1 import EventType, TimeoutType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHandle, WorkflowHistory

from benchmarks._sides import ACTIVITY, GATHER, GATHER_BY_HAND, GATHER_PLAIN, SIDES, SIGNAL, ServerAddresses
from benchmarks._temporal_worker import worker_process
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

SIZES = (300, 1000)
QUICK_SIZE = 20
NAMES = [GATHER_PLAIN, GATHER_BY_HAND, *GATHER.values()]
LIMIT_SECONDS = 180.0
"""Limit of the time in which one workflow opens its questions."""
MAX_RATIO = 2.5
FAILED = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
TIMED_OUT = EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT
CLOSED_BY_SERVER = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND
NOT_STARTED = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START


@dataclass(frozen=True)
class Opened:
    """Figures of one workflow that opened its questions."""

    opened: int
    """Questions that were open at the end, or when time was up."""
    seconds: float
    failed_tasks: int


def seconds_row(size: int) -> Row:
    return Row(
        name=f"temporal-gather.{size}",
        title=f"Time until {size:,} questions of one workflow are open",
        unit="s",
        reference=GATHER_BY_HAND,
        claims=tuple(
            Claim(side=GATHER[mode], bound="at most", value=MAX_RATIO, to=GATHER_BY_HAND) for mode in (SIGNAL, ACTIVITY)
        ),
    )


SECONDS = {size: seconds_row(size) for size in SIZES}
FAILURES = Row(
    name="temporal-gather.failures",
    title="Failures while a workflow opens many questions",
    unit="questions and workflow tasks",
    what="Questions that were not open in time, and workflow tasks that failed. Each size is a repeat.",
    claims=tuple(Claim(side=GATHER[mode], bound="at most", value=0, of="maximum") for mode in (SIGNAL, ACTIVITY)),
)


async def open_questions(name: str, count: int, humans: HumansServer, temporal: TemporalServer, folder: Path) -> Opened:
    """Start one workflow and wait until its questions are open."""
    secret, queue = secrets.token_urlsafe(32), f"{name}-{secrets.token_hex(4)}"
    relay = RelayServer(folder / queue, humans, ["--temporal", temporal.address], secret=secret)
    env = {
        "AWAITHUMANS_URL": humans.url,
        "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
        "AWAITHUMANS_RELAY_URL": relay.url,
        "AWAITHUMANS_RELAY_SECRET": secret,
    }
    side = SIDES[name]
    async with started(relay), worker_process(name, temporal.address, queue, env) as _:
        client = await side.client(temporal.address)
        began = time.time()
        handle = await client.start_workflow(
            side.workflow.__name__,
            side.argument(count, ServerAddresses(humans.url, humans.token)),
            id=queue,
            task_queue=queue,
        )
        opened, until = 0, began
        while opened < count and time.time() - began < LIMIT_SECONDS:
            await asyncio.sleep(0.5)
            opened, until = await (timers(handle) if side.timer else registered(relay))
        failed = failed_tasks(await handle.fetch_history())
        await handle.terminate()
    return Opened(opened, max(0.0, until - began), failed)


async def timers(handle: WorkflowHandle[object, object]) -> tuple[int, float]:
    """Return the number of started timers and the time at which the last of them started."""
    started_at = [
        event.event_time.seconds + event.event_time.nanos / 1e9
        for event in (await handle.fetch_history()).events
        if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED
    ]
    return len(started_at), max(started_at, default=0.0)


async def registered(relay: RelayServer) -> tuple[int, float]:
    """How many waits the relay has, and the time now."""
    async with httpx.AsyncClient() as http:
        waits: Mapping[str, int] = (await http.get(f"{relay.url}/readyz", timeout=30.0)).json()["waits"]
    return sum(waits.values()), time.time()


def failed_tasks(history: WorkflowHistory) -> int:
    """Workflow tasks that a worker failed, or did not complete in time."""
    failures = [event.workflow_task_failed_event_attributes for event in history.events if event.event_type == FAILED]
    timeouts = [
        event.workflow_task_timed_out_event_attributes for event in history.events if event.event_type == TIMED_OUT
    ]
    return sum(failure.cause != CLOSED_BY_SERVER for failure in failures) + sum(
        timeout.timeout_type != NOT_STARTED for timeout in timeouts
    )


async def measure(run: Run) -> None:
    humans, temporal = HumansServer(run.folder / "humans"), TemporalServer(run.folder / "temporal")
    async with started(humans, temporal):
        for size, row in SECONDS.items():
            if not run.wants(row, FAILURES):
                continue
            count = run.size(size, QUICK_SIZE)
            for _ in run.repeats():
                for name in NAMES:
                    opened = await open_questions(name, count, humans, temporal, run.folder)
                    run.record(row, name, opened.seconds)
                    run.record(FAILURES, name, count - opened.opened + opened.failed_tasks)


BENCHMARK = Benchmark(
    name="temporal-gather",
    title="Temporal: many questions in one workflow",
    description=__doc__,
    rows=(*SECONDS.values(), FAILURES),
    measure=measure,
    minutes=8,
)
