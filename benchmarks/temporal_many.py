"""Workflows that wait for a person on one worker and are all answered: every answer must arrive once.

Temporal, the awaithumans server, the relay (started by its command line) and the worker have processes of their own.
Each mode is measured on new servers. There are four phases:

1. Ask. All workflows are started, and each asks one question. The phase ends when the relay has every wait and the
   worker is idle.
2. Wait. No task is answered, so the CPU time of the processes is the cost of waiting. The waits are minutes old.
3. Answer. A person answers all tasks through the server's API, in random order and several at once. Each answer is
   different and follows from the number of the order.
4. Finish. Answers arrive by callbacks and by the relay's sweep until every workflow has ended. Before it ends, each
   workflow records its answer with an activity that appends a line to a file. These lines are counted.

A worker keeps 1,000 workflows in its cache by default, so its memory grows by the size of a thousand workflows.
"""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from devservers import HumansServer, RelayServer, TemporalServer, started
from temporalio.client import Client, WorkflowHandle

from benchmarks._meters import cpu_per_minute, memory
from benchmarks._people import answer_all, open_tasks
from benchmarks._sides import MANY, MODES, SIDES, ServerAddresses
from benchmarks._temporal_worker import WorkerProcess, worker_process
from benchmarks._workflows_many import ANSWERS_FILE
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

QUEUE = "many"
CONCURRENCY = 32
"""Concurrent requests to Temporal."""
ASKING_SECONDS = 600.0
ENDING_SECONDS = 600.0
"""Limits of the first and the last phase."""
IDLE_SECONDS = 2.0
"""The worker is idle when it has used almost no CPU for this time. No activity or task is in progress then."""
IDLE_CPU = 0.05


LOST, DOUBLED, SWAPPED = "lost", "recorded twice", "of another workflow"

ASKING = Row(name="temporal-many.asking", title="Time until 1,000 workflows wait on one worker", unit="s")
MEMORY = Row(
    name="temporal-many.memory",
    title="Memory of a worker on which 1,000 workflows wait",
    unit="MB",
    what="The growth since the first workflow was started.",
)
CPU = Row(
    name="temporal-many.cpu",
    title="CPU while 1,000 workflows wait",
    unit="s per minute",
    what="The CPU of the relay and of the awaithumans server is the cost of the sweep.",
)
ENDING = Row(
    name="temporal-many.ending",
    title="Time from the first of 1,000 answers to the end of the last workflow",
    unit="s",
    what="It includes the time in which the server accepts the answers.",
)
ERRORS = Row(
    name="temporal-many.errors",
    title="Wrong effects of 1,000 answers",
    unit="workflows",
    claims=tuple(
        Claim(side=f"{mode}, {kind}", bound="at most", value=0, of="maximum")
        for mode in MODES
        for kind in (LOST, DOUBLED, SWAPPED)
    ),
)


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


async def ask_all(servers: Servers, mode: str, count: int) -> float:
    """Start all workflows and wait until each waits. Return the seconds until the relay had registered all."""
    began = time.monotonic()
    async with asyncio.timeout(ASKING_SECONDS), httpx.AsyncClient() as http:
        await start_all(servers, mode, count)
        while (await registered_waits(servers, http)) < count:
            await asyncio.sleep(0.2)
        took = time.monotonic() - began
        await wait_until_idle(servers)
    return took


async def start_all(servers: Servers, mode: str, count: int) -> None:
    side, addresses = SIDES[MANY[mode]], ServerAddresses(servers.humans.url, servers.humans.token)
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(order: int) -> WorkflowHandle[Any, Any]:
        async with gate:
            return await servers.client.start_workflow(
                side.workflow.__name__, side.argument(order, addresses), id=workflow_id(order), task_queue=QUEUE
            )

    await asyncio.gather(*map(one, range(count)))


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
                await asyncio.sleep(0.5)
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


async def measure(run: Run) -> None:
    for repeat in run.repeats():
        for mode in MODES:
            await measure_mode(run, mode, run.folder / f"{mode}-{repeat}")


async def measure_mode(run: Run, mode: str, folder: Path) -> None:
    count = run.size(1000, 40)
    folder.mkdir()
    async with serving(mode, folder) as servers:
        before = memory(servers.worker.pid)
        run.record(ASKING, mode, await ask_all(servers, mode, count))
        waiting = await cpu_per_minute(servers.pids, run.size(30.0, 3.0))
        for process, spent in waiting.items():
            run.record(CPU, f"{mode}, {process}", spent)
        run.record(MEMORY, mode, memory(servers.worker.pid) - before)
        began = time.monotonic()
        answers = await answer_everything(servers)
        run.progress(f"{mode}: {answers} of {count} answered after {time.monotonic() - began:.0f} s")
        completed = await wait_until_ended(servers, count)
        run.record(ENDING, mode, time.monotonic() - began)
        lost, doubled, swapped = answer_errors(recorded_answers(servers.answers), count)
    run.record(ERRORS, f"{mode}, {LOST}", max(lost, count - completed))
    run.record(ERRORS, f"{mode}, {DOUBLED}", doubled)
    run.record(ERRORS, f"{mode}, {SWAPPED}", swapped)


BENCHMARK = Benchmark(
    name="temporal-many",
    title="Temporal: many workflows that wait at the same time",
    description=__doc__,
    rows=(ASKING, MEMORY, CPU, ENDING, ERRORS),
    measure=measure,
    minutes=12,
)
