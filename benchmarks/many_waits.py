"""Measure what it costs one process to wait for many answers, beside the official SDK.

Each client runs in a process of its own, with a real awaithumans server of its own that starts empty. The clients are
measured one after the other, in three phases:

1. Ask. The client creates all tasks. The phase ends when the server has every task, or after 75 s.
2. Wait. No task is answered, so the CPU time of server and client is the cost of waiting. The phase ends early if every
   question has failed, so that a client that has given up does not look cheap.
3. Answer. One person answers the tasks one by one, in the same random order for both clients. The delay of an answer
   runs from just before it is sent to the server until the client has it as a typed value. Both processes read the
   same clock.

Absolute figures depend on the machine, so compare the ratios. Three claims about this package are checked, and the exit
status is 1 if one of them fails.

Examples:
    python -m benchmarks.many_waits
    python -m benchmarks.many_waits --tasks 60 --seconds 5 --json figures.json
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devservers import HumansServer, started

from benchmarks._meters import Cost, Meter
from benchmarks._people import answer_task, open_tasks
from benchmarks._report import Claim, argument_parser, claim_line, formatted, positive, progress

ROOT = Path(__file__).resolve().parents[1]
OURS, OFFICIAL = "ours", "official"

ASKING_SECONDS = 75.0
"""Limit of the first phase. A client that has not asked every question by then is measured with those it has asked."""
ANSWERING_SECONDS = 45.0
SEEING_SECONDS = 90.0
"""Limits of the third phase: for giving the answers, and for the client to receive the last of them."""

MAX_ANSWERS = 300
MAX_CONNECTIONS = 20
MIN_CPU_RATIO = 10.0
MIN_TASKS_OF_CPU_CLAIM = 500
"""Minimum for the claim, because the cost of waiting grows with the questions only for the official SDK."""
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

    tasks: int
    asked: int
    asking_seconds: float
    waiting: Cost | None
    """Cost of the second phase. None if every question had failed before."""
    still_waiting: int
    """Questions that had not failed at the end of the second phase."""
    connections: int
    memory_before: float
    memory: float
    answers: int
    delays: list[float]
    """Seconds of delay of each answer that the client received, sorted."""
    seen_too_late: int
    never_seen: int
    failed: dict[str, int]


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


async def measure(side: str, options: argparse.Namespace, folder: Path) -> Result:
    server = HumansServer(folder / "server")
    async with started(server), client_process(side, server, options.tasks, folder / "client.log") as client:
        log = server.process.folder / server.process.log
        meter = Meter(server.process.pid, client.process.pid, server.port, log)
        before = meter.memory_now()
        async with background(client.read_results(), meter.watch()):
            began = time.monotonic()
            client.start()
            asked = await wait_until_asked(server, options.tasks, client)
            asking_seconds = time.monotonic() - began
            progress(side, f"{asked} of {options.tasks} asked in {asking_seconds:.0f} s; now waiting without answers")
            waiting = await meter.cost(options.seconds, client.ended)
            still_waiting = options.tasks - len(client.failed)
            progress(side, f"{still_waiting} questions have not failed; now a person answers")
            given = await answer_some(server, options.answers)
            progress(side, f"{len(given)} answered; waiting until the client has received them")
            await wait_until_seen(given, client)
        return Result(
            tasks=options.tasks,
            asked=asked,
            asking_seconds=asking_seconds,
            waiting=waiting,
            still_waiting=still_waiting,
            connections=meter.connections,
            memory_before=before,
            memory=meter.memory,
            answers=len(given),
            delays=sorted(measured_delays(given, client)),
            seen_too_late=sum(
                client.seen[one.order] - one.sent_at > one.max_delay for one in given if one.order in client.seen
            ),
            never_seen=sum(one.order not in client.seen for one in given),
            failed=dict(Counter(client.failed.values())),
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


async def answer_some(server: HumansServer, limit: int | None) -> list[GivenAnswer]:
    """Answer one task at a time until the limit is reached or time is up."""
    given: list[GivenAnswer] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWERING_SECONDS), server.people() as http:
            tasks = await open_tasks(http)
            random.Random(1).shuffle(tasks)  # noqa: S311  # the same order for both sides
            for task in tasks[: MAX_ANSWERS if limit is None else limit]:
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


# --- both clients ---------------------------------------------------------------------------------------------------

Figure = Callable[[Result], float | None]


def waiting_figure(name: str) -> Figure:
    """Return the figure that reads this field of the waiting cost, if there is any."""
    return lambda side: None if side.waiting is None else float(getattr(side.waiting, name))


FIGURES: list[tuple[str, Figure, int]] = [
    ("tasks created", lambda side: side.asked, 0),
    ("time to create them (s)", lambda side: side.asking_seconds, 1),
    ("waiting without answers (s)", waiting_figure("seconds"), 0),
    ("  questions that had not failed", lambda side: side.still_waiting, 0),
    ("  server CPU (s per minute)", waiting_figure("server_cpu"), 2),
    ("  client CPU (s per minute)", waiting_figure("client_cpu"), 2),
    ("  requests per minute", waiting_figure("requests"), 0),
    ("connections, maximum", lambda side: side.connections, 0),
    ("client memory before asking (MB)", lambda side: side.memory_before, 0),
    ("client memory, maximum (MB)", lambda side: side.memory, 0),
    ("answers given", lambda side: side.answers, 0),
    ("  delay, minimum (s)", lambda side: side.delays[0] if side.delays else None, 2),
    ("  delay, median (s)", lambda side: statistics.median(side.delays) if side.delays else None, 2),
    ("  delay, maximum (s)", lambda side: side.delays[-1] if side.delays else None, 2),
    ("  delayed by more than 5 s + 5 %", lambda side: side.seen_too_late, 0),
    ("  never received", lambda side: side.never_seen, 0),
    ("questions that failed", lambda side: sum(side.failed.values()), 0),
]


def table(ours: Result, theirs: Result) -> str:
    rows = [("", OURS, OFFICIAL, "ratio")]
    for name, figure, digits in FIGURES:
        our_figure, official_figure = figure(ours), figure(theirs)
        ratio = f"{official_figure / our_figure:.1f}" if our_figure and official_figure else "-"
        rows.append((name, formatted(our_figure, digits), formatted(official_figure, digits), ratio))
    return "\n".join(f"{name:<38}{our:>10}{official:>10}{ratio:>10}" for name, our, official, ratio in rows)


def claims(ours: Result, official: Result) -> list[Claim]:
    all_seen = ours.never_seen == ours.seen_too_late == sum(ours.failed.values()) == 0 and bool(ours.delays)
    return [
        Claim(f"at most {MAX_CONNECTIONS} connections", 0 < ours.connections <= MAX_CONNECTIONS),
        cpu_claim(ours, official),
        Claim("no answer delayed by more than 5 s plus 5 % of its wait, none lost, no question failed", all_seen),
    ]


def cpu_claim(ours: Result, official: Result) -> Claim:
    text = "while waiting, at most a tenth of the server CPU of the official SDK"
    if ours.waiting is None:
        return Claim(text, holds=False)
    if official.waiting is None:
        return Claim(text, None, "every question of the official SDK had failed before")
    if ours.tasks < MIN_TASKS_OF_CPU_CLAIM:
        return Claim(text, None, f"the claim is about {MIN_TASKS_OF_CPU_CLAIM} tasks or more")
    return Claim(text, ours.waiting.server_cpu * MIN_CPU_RATIO <= official.waiting.server_cpu)


def report(ours: Result, official: Result) -> bool:
    """Print figures and claims, and return whether every claim holds."""
    checked = claims(ours, official)
    print(f"\n{ours.tasks} tasks, one client process; ratio: official to ours\n")
    print(table(ours, official))
    for side, result in ((OURS, ours), (OFFICIAL, official)):
        if result.failed:
            print(f"\n{side}, failed:", ", ".join(f"{kind} ({count})" for kind, count in result.failed.items()))
    print("", *map(claim_line, checked), sep="\n")
    return all(claim.holds is not False for claim in checked)


async def run(options: argparse.Namespace) -> bool:
    main_task = asyncio.current_task()
    assert main_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
    raise_open_file_limit()
    with tempfile.TemporaryDirectory() as folder:
        ours, official = [await measure(side, options, Path(folder, side)) for side in (OURS, OFFICIAL)]
    if options.json:
        both = {"ours": asdict(ours), "official": asdict(official), "claims": list(map(asdict, claims(ours, official)))}
        options.json.write_text(json.dumps(both, indent=2))
    return report(ours, official)


def raise_open_file_limit() -> None:
    """Allow as many open files as possible, because each connection is one and the shell's limit may be low."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def arguments() -> argparse.Namespace:
    parser = argument_parser("many_waits", __doc__)
    parser.add_argument("--tasks", type=positive, default=1000, help="number of questions (default: 1000)")
    parser.add_argument("--seconds", type=positive, default=60, help="length of the waiting phase (default: 60)")
    parser.add_argument(
        "--answers", type=positive, help=f"number of answers (default: one per task, at most {MAX_ANSWERS})"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
