"""Measure how long it takes until many questions of one workflow in one `asyncio.gather` are open.

Temporal, the awaithumans server, the relay (started by its command line) and the worker have processes of their own.
Each side opens each number of questions in one workflow, on a worker of its own:

gather-signal, gather-activity   `await_human` in each mode.
gather-plain                     Activities that do nothing, each followed by a timer.
gather-by-hand                   Activities that make the two HTTP calls of a question, each followed by a timer.

The time runs from the start of the workflow until the last timer has started, by the clock of the history. Activity
mode has no timer, so there it runs until the relay has registered the last question.

Workflow tasks that failed or timed out are counted. A task that takes longer than two seconds fails with TMPRL1101. Two
kinds are not counted, because activities that do nothing have them too: tasks that Temporal's server closes itself
because more than 100 events arrived during the task, and tasks that it did not hand to the worker within the ten
seconds of a sticky queue.

The claims are that no workflow task fails, and that each mode takes at most 2.5 times as long as hand-written HTTP
calls. The exit status is 1 if one of them fails.

Examples:
    python -m benchmarks.temporal_gather
    python -m benchmarks.temporal_gather --questions 100 --sides gather-by-hand gather-signal --json figures.json
"""

import argparse
import asyncio
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from devservers import HumansServer, RelayServer, TemporalServer, started
from temporalio.api.enums.v1 import EventType, TimeoutType, WorkflowTaskFailedCause
from temporalio.client import WorkflowHandle, WorkflowHistory

from benchmarks._report import Claim, argument_parser, claim_line, columns, positive, progress
from benchmarks._sides import ACTIVITY, GATHER, GATHER_BY_HAND, GATHER_PLAIN, SIDES, SIGNAL, ServerAddresses
from benchmarks._temporal_worker import worker_process

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

    name: str
    questions: int
    opened: int
    """Questions that were open at the end, or when time was up."""
    seconds: float
    worker_cpu: float
    failed_tasks: int


async def open_questions(name: str, count: int, humans: HumansServer, temporal: TemporalServer, folder: Path) -> Opened:
    """Start one workflow and wait until its questions are open."""
    secret, queue = secrets.token_urlsafe(32), f"{name}-{count}"
    relay = RelayServer(folder / queue, humans, ["--temporal", temporal.address], secret=secret)
    env = {
        "AWAITHUMANS_URL": humans.url,
        "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
        "AWAITHUMANS_RELAY_URL": relay.url,
        "AWAITHUMANS_RELAY_SECRET": secret,
    }
    side = SIDES[name]
    async with started(relay), worker_process(name, temporal.address, queue, env) as (worker, started_status):
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
        cpu = (await worker.status()).cpu - started_status.cpu
        failed = failed_tasks(await handle.fetch_history())
        await handle.terminate()
    return Opened(name, count, opened, max(0.0, until - began), cpu, failed)


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


async def measure(options: argparse.Namespace, folder: Path) -> list[Opened]:
    humans, temporal = HumansServer(folder / "humans"), TemporalServer(folder / "temporal")
    measured: list[Opened] = []
    async with started(humans, temporal):
        for count in options.questions:
            for name in options.sides:
                measured.append(await open_questions(name, count, humans, temporal, folder))
                progress(name, f"{measured[-1].opened} of {count} open after {measured[-1].seconds:.1f} s")
    return measured


def table(measured: Sequence[Opened]) -> str:
    rows: list[Sequence[str]] = [("side", "questions", "open", "seconds", "worker CPU (s)", "failed tasks")]
    for each in measured:
        figures = (each.questions, each.opened, f"{each.seconds:.1f}", f"{each.worker_cpu:.1f}", each.failed_tasks)
        rows.append((each.name, *map(str, figures)))
    return columns(rows, [18, 11, 8, 10, 16, 14])


def claims(measured: Sequence[Opened]) -> list[Claim]:
    by_hand = {each.questions: each.seconds for each in measured if each.name == GATHER_BY_HAND}
    found: list[Claim] = []
    for each in measured:
        if each.name in (GATHER[SIGNAL], GATHER[ACTIVITY]):
            about = f"{each.name}, {each.questions} questions"
            complete = each.opened == each.questions and not each.failed_tasks
            found.append(Claim(f"{about}: all open, no workflow task failed", complete))
            if each.questions in by_hand:
                ratio = each.seconds / by_hand[each.questions]
                found.append(Claim(f"{about}: {ratio:.2f} times the time of asking by hand", ratio <= MAX_RATIO))
    return found


async def run(options: argparse.Namespace) -> bool:
    main_task = asyncio.current_task()
    assert main_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
    with tempfile.TemporaryDirectory() as folder:
        measured = await measure(options, Path(folder))
    checked = claims(measured)
    if options.json:
        content = {"opened": list(map(asdict, measured)), "claims": list(map(asdict, checked))}
        options.json.write_text(json.dumps(content, indent=2))
    print("", table(measured), "", *map(claim_line, checked), sep="\n")
    return all(claim.holds is not False for claim in checked)


def arguments() -> argparse.Namespace:
    parser = argument_parser("temporal_gather", __doc__)
    parser.add_argument(
        "--questions",
        nargs="+",
        type=positive,
        default=[100, 300, 1000],
        help="numbers of questions (default: 100 300 1000)",
    )
    parser.add_argument(
        "--sides", nargs="+", choices=NAMES, default=NAMES, metavar="SIDE", help="sides to measure (default: all)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
