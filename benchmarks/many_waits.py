"""What it costs one process to wait for many answers, beside the official SDK.

Each client (`TaskClient.as_completed` of this package, `asyncio.gather` over the official `await_human`) runs in a
process of its own, with a real awaithumans server of its own that starts empty. There are three phases:

1. Ask. The client creates all tasks. The phase ends when the server has every task, or after 75 s.
2. Wait. No task is answered, so the CPU time of server and client is the cost of waiting. The phase ends early if every
   question has failed, so that a client that has given up does not look cheap.
3. Answer. One person answers the tasks one by one, in the same random order for both clients. The delay of an answer
   runs from just before it is sent to the server until the client has it as a typed value. Both processes read the
   same clock.

CPU time and memory are the kernel's figures for the process. Requests are lines of the server's access log, where a
long poll is logged when it ends.

At 1,000 questions the official SDK is overloaded: it creates an HTTP client with a TLS context for each question, the
server reads each polled task every second and does not answer the polls in time, and most questions fail. At 60
questions it works. The cost of waiting grows with the number of questions for the official SDK only, so a quick run
does not show the difference.
"""

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devservers import HumansServer, started

from benchmarks._meters import Cost, Meter
from benchmarks._people import answer_task, open_tasks
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

ROOT = Path(__file__).resolve().parents[1]
OURS, OFFICIAL = "ours", "official"

ASKING_SECONDS = 75.0
"""Limit of the first phase. A client that has not asked every question by then is measured with those it has asked."""
ANSWERING_SECONDS = 45.0
SEEING_SECONDS = 60.0
"""Limits of the third phase: for giving the answers, and for the client to receive the last of them."""

MAX_CONNECTIONS = 20
MAX_CPU_RATIO = 0.1
MAX_DELAY_SECONDS = 5.0
MAX_DELAY_SHARE = 0.05


@dataclass(frozen=True)
class GivenAnswer:
    """An answer that a person has given."""

    order: int
    created_at: float
    sent_at: float

    @property
    def max_delay(self) -> float:
        """Return the maximum delay in seconds that the claim allows for this answer."""
        return MAX_DELAY_SECONDS + MAX_DELAY_SHARE * (self.sent_at - self.created_at)


@dataclass
class ClientProcess:
    """The client process and the results that it has reported so far."""

    process: asyncio.subprocess.Process
    seen: dict[int, float] = field(default_factory=dict[int, float])
    failed: dict[int, str] = field(default_factory=dict[int, str])
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def ready(self) -> bool:
        assert self.process.stdout is not None
        return bool(await self.process.stdout.readline())

    def start(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    async def read_results(self) -> None:
        """Read the results that the process writes until its output ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            result = json.loads(line)
            if result["failed"]:
                self.failed[result["order"]] = result["failed"]
            else:
                self.seen[result["order"]] = result["at"]
        self.ended.set()

    def has_result(self, order: int) -> bool:
        return order in self.seen or order in self.failed


@dataclass
class Result:
    """Figures of one client."""

    asking_seconds: float
    waiting: Cost | None
    """Cost of the second phase. None if every question had failed before."""
    connections: int
    memory_before: float
    memory: float
    delays: list[float]
    """Seconds of delay of each answer that the client received, sorted."""
    seen_too_late: int
    never_seen: int
    failed: int


SERVER_CPU = Row(
    name="many-waits.server-cpu",
    title="CPU of the server while 1,000 questions wait in one process",
    unit="s per minute",
    reference=OFFICIAL,
    claims=(Claim(side=OURS, bound="at most", value=MAX_CPU_RATIO, to=OFFICIAL),),
)
CLIENT_CPU = Row(
    name="many-waits.client-cpu",
    title="CPU of the client while 1,000 questions wait in one process",
    unit="s per minute",
    reference=OFFICIAL,
)
REQUESTS = Row(
    name="many-waits.requests",
    title="Requests while 1,000 questions wait in one process",
    unit="per minute",
    reference=OFFICIAL,
)
CONNECTIONS = Row(
    name="many-waits.connections",
    title="Connections of one process that waits for 1,000 questions",
    unit="connections",
    what="Maximum of the whole run.",
    reference=OFFICIAL,
    claims=(Claim(side=OURS, bound="at most", value=MAX_CONNECTIONS, of="maximum"),),
)
MEMORY = Row(
    name="many-waits.memory",
    title="Memory of one process that waits for 1,000 questions",
    unit="MB",
    what="Maximum less the memory before the first question.",
    reference=OFFICIAL,
)
ASKING = Row(
    name="many-waits.asking",
    title="Time in which one process asks 1,000 questions",
    unit="s",
    what=f"At most {ASKING_SECONDS:.0f} s, after which those that are asked are measured.",
    reference=OFFICIAL,
)
DELAY = Row(
    name="many-waits.delay",
    title="Delay of 300 answers to 1,000 questions of one process",
    unit="s",
    what="Only answers that arrived.",
    reference=OFFICIAL,
)
FAILURES = Row(
    name="many-waits.failures",
    title="Questions that failed and answers that came late or never",
    unit="of 1,000",
    what=f"An answer is late after {MAX_DELAY_SECONDS:g} s plus {MAX_DELAY_SHARE:.0%} of its wait.",
    claims=(Claim(side=OURS, bound="at most", value=0, of="maximum"),),
)


# --- one client -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def client_process(side: str, server: HumansServer, tasks: int, errors: Path) -> AsyncGenerator[ClientProcess]:
    """Run the client process for the duration of the block. It is ready to ask when the block begins."""
    command = [sys.executable, "-m", "benchmarks._client_process", side, server.url, str(tasks)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWAITHUMANS_")}
    with errors.open("wb") as error_output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=error_output,
            cwd=ROOT,
            env=kept | {"AWAITHUMANS_ADMIN_API_TOKEN": server.token},
        )
    client = ClientProcess(process)
    try:
        if not await client.ready():
            raise RuntimeError(f"the client process ended before it asked:\n{errors.read_text()[-2000:]}")
        yield client
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def background(*coroutines: Any) -> AsyncGenerator[None]:
    """Run coroutines as tasks for the duration of the block."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure_client(run: Run, side: str, folder: Path) -> Result:
    tasks, seconds, answers = run.size(1000, 60), run.size(45.0, 5.0), run.size(300, 60)
    server = HumansServer(folder / "server")
    async with started(server), client_process(side, server, tasks, folder / "client.log") as client:
        log = server.process.folder / server.process.log
        meter = Meter(server.process.pid, client.process.pid, server.port, log)
        before = meter.memory_now()
        async with background(client.read_results(), meter.watch()):
            began = time.monotonic()
            client.start()
            asked = await wait_until_asked(server, tasks, client)
            asking_seconds = time.monotonic() - began
            run.progress(f"{side}: {asked} of {tasks} asked in {asking_seconds:.0f} s; now waiting without answers")
            waiting = await meter.cost(seconds, client.ended)
            run.progress(f"{side}: {tasks - len(client.failed)} questions have not failed; now a person answers")
            given = await answer_some(server, answers)
            run.progress(f"{side}: {len(given)} answered; waiting until the client has received them")
            await wait_until_seen(given, client)
        return Result(
            asking_seconds=asking_seconds,
            waiting=waiting,
            connections=meter.connections,
            memory_before=before,
            memory=meter.memory,
            delays=sorted(measured_delays(given, client)),
            seen_too_late=sum(
                client.seen[one.order] - one.sent_at > one.max_delay for one in given if one.order in client.seen
            ),
            never_seen=sum(one.order not in client.seen for one in given),
            failed=len(client.failed),
        )


async def wait_until_asked(server: HumansServer, tasks: int, client: ClientProcess) -> int:
    """Wait until every question has a task or has failed, or time is up. Return the number of tasks."""
    log = server.process.folder / server.process.log
    until = time.monotonic() + ASKING_SECONDS
    while True:
        created = log.read_bytes().count(b'"POST /api/tasks HTTP/1.1" 201')
        if created + len(client.failed) >= tasks or client.ended.is_set() or time.monotonic() > until:
            return created
        await asyncio.sleep(0.5)


async def answer_some(server: HumansServer, limit: int) -> list[GivenAnswer]:
    """Answer one task at a time until the limit is reached or time is up."""
    given: list[GivenAnswer] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWERING_SECONDS), server.people() as http:
            tasks = await open_tasks(http)
            random.Random(1).shuffle(tasks)  # noqa: S311  # the same order for both sides
            for task in tasks[:limit]:
                at = time.time()
                if await answer_task(http, task, {"approved": True}):
                    given.append(GivenAnswer(task["payload"]["order"], timestamp(task["created_at"]), at))
    return given


async def wait_until_seen(given: Sequence[GivenAnswer], client: ClientProcess) -> None:
    """Wait until the client has a result for each answered task, has ended, or time is up."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SEEING_SECONDS):
            while not client.ended.is_set() and not all(client.has_result(one.order) for one in given):
                await asyncio.sleep(0.1)


def measured_delays(given: Sequence[GivenAnswer], client: ClientProcess) -> list[float]:
    return [client.seen[one.order] - one.sent_at for one in given if one.order in client.seen]


def timestamp(text: str) -> float:
    """Parse a time of the server. It is UTC, with or without an offset."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


# --- both clients -----------------------------------------------------------------------------------------------------


async def measure(run: Run) -> None:
    raise_open_file_limit()
    for repeat in run.repeats():
        for side in (OURS, OFFICIAL):
            record(run, side, await measure_client(run, side, run.folder / f"{side}-{repeat}"))


def record(run: Run, side: str, result: Result) -> None:
    run.record(ASKING, side, result.asking_seconds)
    if result.waiting is not None:
        run.record(SERVER_CPU, side, result.waiting.server_cpu)
        run.record(CLIENT_CPU, side, result.waiting.client_cpu)
        run.record(REQUESTS, side, result.waiting.requests)
    run.record(CONNECTIONS, side, result.connections)
    run.record(MEMORY, side, result.memory - result.memory_before)
    run.record(DELAY, side, *result.delays)
    run.record(FAILURES, side, result.failed + result.seen_too_late + result.never_seen)


def raise_open_file_limit() -> None:
    """Allow as many open files as possible, because each connection is one and the shell's limit may be low."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


BENCHMARK = Benchmark(
    name="many-waits",
    title="Waiting for many answers in one process",
    description=__doc__,
    rows=(SERVER_CPU, CLIENT_CPU, REQUESTS, CONNECTIONS, MEMORY, ASKING, DELAY, FAILURES),
    measure=measure,
    minutes=8,
)
