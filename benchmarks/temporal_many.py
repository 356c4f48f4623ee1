"""Measure thousands of workflows that wait for a person on one worker, and check that every answer arrives once.

Temporal, the awaithumans server, the relay (started by its command line) and the worker have processes of their own.
There are four phases:

1. Ask. All workflows are started, and each asks one question. The phase ends when the relay has every wait and the
   worker is idle.
2. Wait. No task is answered, so the CPU time of the processes is the cost of waiting.
3. Answer. A person answers all tasks through the server's API, in random order and several at once. Each answer is
   different and follows from the number of the order.
4. Finish. Answers arrive by callbacks and by the relay's sweep until every workflow has ended. Before it ends, each
   workflow records its answer with an activity that appends a line to a file. These lines are counted.

The claims are that no answer is lost, that none is recorded twice, and that none reaches another question. The exit
status is 1 if one of them fails.

Examples:
    python -m benchmarks.temporal_many
    python -m benchmarks.temporal_many --mode activity --workflows 60 --seconds 5 --json figures.json
"""

import argparse
import asyncio
import json
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from devservers import HumansServer, RelayServer, TemporalServer, started
from temporalio.client import Client, WorkflowHandle

from benchmarks._meters import cpu_per_minute, memory
from benchmarks._people import answer_all, open_tasks
from benchmarks._report import Claim, argument_parser, claim_line, columns, positive, progress
from benchmarks._sides import MANY, MODES, SIDES, SIGNAL, ServerAddresses
from benchmarks._temporal_worker import WorkerProcess, worker_process
from benchmarks._workflows_many import ANSWERS_FILE

QUEUE = "many"
CONCURRENCY = 32
"""Concurrent requests to Temporal."""
ASKING_SECONDS = 600.0
ENDING_SECONDS = 600.0
"""Limits of the first and the last phase."""
IDLE_SECONDS = 2.0
"""The worker is idle when it has used almost no CPU for this time. No activity or task is in progress then."""
IDLE_CPU = 0.05


@dataclass
class Result:
    """Figures of one run."""

    mode: str
    workflows: int
    asking_seconds: float
    """From the first start until the relay had registered every wait."""
    memory_before: float
    """Memory of the worker in megabytes, before the first workflow was started."""
    memory: float
    """Memory of the worker in megabytes, while all workflows wait."""
    waiting: dict[str, float]
    """CPU seconds per minute of each process in the second phase."""
    answering_seconds: float
    answers: int
    ending_seconds: float
    """From the first answer until the last workflow had ended, or time was up."""
    ended: int
    """Workflows that completed."""
    lost: int
    doubled: int
    swapped: int


@dataclass(frozen=True)
class Servers:
    humans: HumansServer
    temporal: TemporalServer
    relay: RelayServer
    worker: WorkerProcess
    client: Client
    answers: Path
    """The file in which workflows record their answers."""

    @property
    def pids(self) -> dict[str, int]:
        return {
            "worker": self.worker.pid,
            "relay": self.relay.process.pid,
            "Temporal": self.temporal.process.pid,
            "awaithumans server": self.humans.process.pid,
        }


@asynccontextmanager
async def serving(mode: str, folder: Path) -> AsyncGenerator[Servers]:
    secret = secrets.token_urlsafe(32)
    humans, temporal = HumansServer(folder / "humans"), TemporalServer(folder / "temporal")
    relay = RelayServer(folder / "relay", humans, ["--temporal", temporal.address], secret=secret)
    answers = folder / "answers"
    answers.touch()
    env = {
        "AWAITHUMANS_URL": humans.url,
        "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
        "AWAITHUMANS_RELAY_URL": relay.url,
        "AWAITHUMANS_RELAY_SECRET": secret,
        ANSWERS_FILE: str(answers),
    }
    async with (
        started(humans, temporal, relay),
        worker_process(MANY[mode], temporal.address, QUEUE, env) as (worker, _),
    ):
        yield Servers(humans, temporal, relay, worker, await SIDES[MANY[mode]].client(temporal.address), answers)


def expected(order: int) -> Mapping[str, Any]:
    """Return the answer to the question about this order, which is different for each order."""
    return {"approved": order % 3 != 0, "note": f"note-{order * 7919 + 13}"}


def line(order: int) -> str:
    """Return the line that the workflow of this order must record."""
    answer = expected(order)
    return f"{workflow_id(order)} {answer['approved']} {answer['note']}"


def workflow_id(order: int) -> str:
    return f"{QUEUE}-{order}"


# --- the phases -----------------------------------------------------------------------------------------------------


async def ask_all(servers: Servers, options: argparse.Namespace) -> float:
    """Start all workflows and wait until each waits. Return the seconds until the relay had registered all."""
    began = time.monotonic()
    async with asyncio.timeout(ASKING_SECONDS), httpx.AsyncClient() as http:
        await start_all(servers, options)
        while (await registered_waits(servers, http)) < options.workflows:
            await asyncio.sleep(0.2)
        took = time.monotonic() - began
        await wait_until_idle(servers)
    return took


async def start_all(servers: Servers, options: argparse.Namespace) -> None:
    side, addresses = SIDES[MANY[options.mode]], ServerAddresses(servers.humans.url, servers.humans.token)
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(order: int) -> WorkflowHandle[Any, Any]:
        async with gate:
            return await servers.client.start_workflow(
                side.workflow.__name__, side.argument(order, addresses), id=workflow_id(order), task_queue=QUEUE
            )

    await asyncio.gather(*map(one, range(options.workflows)))


async def registered_waits(servers: Servers, http: httpx.AsyncClient) -> int:
    waits = (await http.get(f"{servers.relay.url}/readyz", timeout=30.0)).json()["waits"]
    return sum(waits.values())


async def wait_until_idle(servers: Servers) -> None:
    """Wait until the worker is idle: the last activities are reported and their workflow tasks are done."""
    while True:
        before = (await servers.worker.status()).cpu
        await asyncio.sleep(IDLE_SECONDS)
        if (await servers.worker.status()).cpu - before < IDLE_CPU * IDLE_SECONDS:
            return


async def answer_everything(servers: Servers) -> int:
    async with servers.humans.people() as people:
        tasks = await open_tasks(people)
        random.Random(1).shuffle(tasks)  # noqa: S311  # the same order in every run
        return await answer_all(people, tasks, lambda task: expected(task["payload"]["order"]))


async def wait_until_ended(servers: Servers, count: int) -> int:
    """Wait until no workflow runs, or time is up. Return the number of completed workflows."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ENDING_SECONDS):
            while recorded_answers(servers.answers).total() < count or await count_workflows(servers, "Running"):
                await asyncio.sleep(1.0)
    return await count_workflows(servers, "Completed")


async def count_workflows(servers: Servers, status: str) -> int:
    return (await servers.client.count_workflows(f"ExecutionStatus = '{status}'")).count


def recorded_answers(answers: Path) -> Counter[str]:
    return Counter(answers.read_text().splitlines())


def answer_errors(lines: Counter[str], count: int) -> tuple[int, int, int]:
    """Count the workflows without a line, with several lines and with an unexpected line."""
    by_workflow: dict[str, list[str]] = {workflow_id(order): [] for order in range(count)}
    for text in lines.elements():
        by_workflow.setdefault(text.partition(" ")[0], []).append(text)
    expected_lines = {workflow_id(order): line(order) for order in range(count)}
    return (
        sum(not found for found in by_workflow.values()),
        sum(len(found) > 1 for found in by_workflow.values()),
        sum(any(text != expected_lines.get(name) for text in found) for name, found in by_workflow.items()),
    )


# --- all of it ------------------------------------------------------------------------------------------------------


async def measure(options: argparse.Namespace, folder: Path) -> Result:
    count: int = options.workflows
    async with serving(options.mode, folder) as servers:
        before = memory(servers.worker.pid)
        asking = await ask_all(servers, options)
        progress(options.mode, f"{count} wait after {asking:.0f} s; now waiting without answers")
        waiting = await cpu_per_minute(servers.pids, options.seconds)
        while_waiting = memory(servers.worker.pid)
        progress(options.mode, "now a person answers")
        began = time.monotonic()
        answers = await answer_everything(servers)
        answering = time.monotonic() - began
        progress(options.mode, f"{answers} answered after {answering:.0f} s; waiting until every workflow has ended")
        ended = await wait_until_ended(servers, count)
        ending = time.monotonic() - began
        lost, doubled, swapped = answer_errors(recorded_answers(servers.answers), count)
    return Result(
        mode=options.mode,
        workflows=count,
        asking_seconds=asking,
        memory_before=before,
        memory=while_waiting,
        waiting=waiting,
        answering_seconds=answering,
        answers=answers,
        ending_seconds=ending,
        ended=ended,
        lost=lost,
        doubled=doubled,
        swapped=swapped,
    )


def table(result: Result) -> str:
    rows: Sequence[Sequence[str]] = [
        ("workflows, all waiting at once", str(result.workflows)),
        ("time until all of them waited (s)", f"{result.asking_seconds:.1f}"),
        ("worker memory before / while they wait (MB)", f"{result.memory_before:.0f} / {result.memory:.0f}"),
        *((f"{name} CPU without answers (s per minute)", f"{spent:.2f}") for name, spent in result.waiting.items()),
        ("answers given", str(result.answers)),
        ("  time to give them (s)", f"{result.answering_seconds:.1f}"),
        ("workflows that completed", str(result.ended)),
        ("  from the first answer to the last workflow (s)", f"{result.ending_seconds:.1f}"),
        ("answers lost", str(result.lost)),
        ("answers recorded twice", str(result.doubled)),
        ("answers to another question", str(result.swapped)),
    ]
    return columns(rows, [58, 16])


def claims(result: Result) -> list[Claim]:
    all_done = result.lost == 0 and result.ended == result.answers == result.workflows
    return [
        Claim("no answer is lost, every workflow completed", all_done),
        Claim("no answer is recorded twice", result.doubled == 0),
        Claim("no answer reaches another question", result.swapped == 0),
    ]


async def run(options: argparse.Namespace) -> bool:
    main_task = asyncio.current_task()
    assert main_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
    with tempfile.TemporaryDirectory() as folder:
        result = await measure(options, Path(folder))
    checked = claims(result)
    if options.json:
        options.json.write_text(json.dumps(asdict(result) | {"claims": list(map(asdict, checked))}, indent=2))
    print(f"\nmode: {result.mode}\n", table(result), "", *map(claim_line, checked), sep="\n")
    return all(claim.holds is not False for claim in checked)


def arguments() -> argparse.Namespace:
    parser = argument_parser("temporal_many", __doc__)
    parser.add_argument("--mode", choices=MODES, default=SIGNAL, help="mode of `await_human` (default: signal)")
    parser.add_argument("--workflows", type=positive, default=2000, help="number of workflows (default: 2000)")
    parser.add_argument("--seconds", type=positive, default=60, help="length of the waiting phase (default: 60)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
