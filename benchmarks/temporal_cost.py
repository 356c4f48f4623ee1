"""What one wait for a person costs in Temporal: ours next to the official adapter and to a bare signal.

python -m benchmarks.temporal_cost [--modes signal activity] [--repeats 5] [--workflows 40] [--json FILE]

One Temporal dev server, one awaithumans server, one question for all sides. Three things are measured:

1. One wait: asked, answered by a person through the server's API, called back. Its history is counted: events, bytes,
   and the actions that Temporal Cloud would bill.
2. That history is replayed, as a worker does that has not the workflow in its cache: each side in its turn, many times.
3. Forty workflows start at once on a cold worker. They are there before it, and it is a new process each time; the
   clock runs from the moment it does. First on a worker that runs workflows alone, until each has asked for its
   activity: what asking adds to starting. Then on one that runs activities, too, until all of them wait: HTTP calls to
   two servers on the same cores are part of that. Next to them run, in turns, workflows of the same shape from the same
   file: one kind asks nobody (its activity does nothing), one asks by hand (its activity makes the two HTTP calls that
   asking takes, and no more). A cold start that takes too long is measured as it is.

Figures of one machine are not those of another, so look at the ratios. What is claimed of our side is checked, and the
exit status is 1 when a claim fails.
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
from benchmarks._histories import Weight, since, stumbled, weight
from benchmarks._official_receiver import receiving
from benchmarks._people import answered, open_tasks
from benchmarks._report import Claim, Spread, columns, positive, say, verdict
from benchmarks._sides import ACTIVITY, ALONE, BARE, BY_HAND, MODES, NOBODY, OFFICIAL, SIDES, SIGNAL, Place
from benchmarks._temporal_worker import Standing, WorkerProcess, working
from benchmarks._workflows import Decision

NAMESPACE = "default"
ANSWER = {"approved": True, "note": "as ordered"}
WAIT_SECONDS = 60.0
"""Limit of each step of a wait; a callback takes five."""
COLD_SECONDS = 20.0
"""Limit of a cold start: one that takes longer is measured as it is."""
REPLAYS = 20

MOST_EVENTS = {SIGNAL: 17, ACTIVITY: 11}
MOST_ACTIONS = {SIGNAL: 4, ACTIVITY: 2}
MOST_BYTES = {SIGNAL: 3 * 1024, ACTIVITY: 3 * 1024}
MOST_REPLAY_MS = 25.0
MOST_COLD_RATIO = 1.10


@dataclass(frozen=True)
class Cold:
    """One cold start."""

    workflows: int
    waited: int
    """Workflows that waited in the end, or when the time was up."""
    asking_seconds: float
    """From the moment the worker ran until the last workflow had scheduled its activity, which is its first task."""
    seconds: float
    """From the same moment until the last of those that waited did."""
    cpu: float
    """Of the worker, seconds."""
    stumbled: int
    """Workflows of which a task failed."""


@dataclass
class Result:
    """What was seen in one run; by the name of the side."""

    weights: dict[str, Weight]
    replays: dict[str, list[float]]
    """Milliseconds."""
    colds: dict[str, list[Cold]]
    starts: dict[str, list[float]]
    """Seconds until each workflow has asked for its activity, on a worker that runs workflows alone."""


@dataclass(frozen=True)
class Servers:
    """What every side of a run shares, and how its processes are told of it."""

    humans: HumansServer
    temporal: TemporalServer
    folder: Path
    receiver: str
    """Of the official adapter's callbacks."""
    secret: str

    @property
    def place(self) -> Place:
        return Place(self.humans.url, self.humans.token, self.receiver)

    @asynccontextmanager
    async def relay(self, name: str) -> AsyncGenerator[tuple[RelayServer, Mapping[str, str]]]:
        """A relay of its own for one measurement, with no wait but its own, and the settings of who asks through it."""
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
        receiving(humans, temporal.address, folder / "receiver") as receiver,
    ):
        yield Servers(humans, temporal, folder, receiver, secrets.token_urlsafe(32))


async def start(name: str, servers: Servers, queue: str, orders: Sequence[int]) -> list[WorkflowHandle[Any, Any]]:
    side = SIDES[name]
    client = await side.client(servers.temporal.address)
    return await asyncio.gather(
        *(
            client.start_workflow(
                side.workflow.__name__, side.argument(order, servers.place), id=f"{queue}-{order}", task_queue=queue
            )
            for order in orders
        )
    )


# --- one wait -------------------------------------------------------------------------------------------------------


async def one_wait(name: str, servers: Servers) -> tuple[Weight, WorkflowHistory]:
    """Ask, answer, and look at what is left."""
    queue = f"wait-{name}"
    async with (
        servers.relay(queue) as (_, env),
        working(name, servers.temporal.address, queue, env) as (worker, _),
        servers.humans.people() as people,
        asyncio.timeout(WAIT_SECONDS),
    ):
        [handle] = await start(name, servers, queue, [1])
        await waiting(name, [handle], worker)
        if name in {BARE, *NOBODY.values()}:
            await handle.signal("answer", ANSWER)
        else:
            [task] = await open_tasks(people)
            assert await answered(people, task, ANSWER)
        assert await handle.result() is ANSWER["approved"]
        history = await handle.fetch_history()
        return await weight(handle, history), history


async def waiting(name: str, handles: Sequence[WorkflowHandle[Any, Any]], worker: WorkerProcess) -> None:
    """Until all of them wait. Temporal is asked only once the worker has done its part."""
    while name != BARE and (await worker.standing()).acted < len(handles):
        await asyncio.sleep(0.1)
    while SIDES[name].timer and not all(map(waits_since, await histories(handles))):
        await asyncio.sleep(0.2)


def waits_since(history: WorkflowHistory) -> float | None:
    return since(history, EventType.EVENT_TYPE_TIMER_STARTED)


def asks_since(history: WorkflowHistory) -> float | None:
    return since(history, EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)


async def histories(handles: Sequence[WorkflowHandle[Any, Any]]) -> list[WorkflowHistory]:
    return await asyncio.gather(*(handle.fetch_history() for handle in handles))


# --- replay ---------------------------------------------------------------------------------------------------------


async def replays(found: Mapping[str, WorkflowHistory]) -> dict[str, list[float]]:
    """Milliseconds of each replay. The first round warms up and is not counted."""
    took: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(1 + REPLAYS):
        for name, history in found.items():
            took[name].append(await replay(name, history))
    return {name: each[1:] for name, each in took.items()}


async def replay(name: str, history: WorkflowHistory) -> float:
    side = SIDES[ALONE.get(name, name)]
    # Of this namespace, as the question's identity names it.
    replayer = Replayer(workflows=[side.workflow], plugins=side.plugins(), namespace=NAMESPACE)
    began = time.perf_counter()
    await replayer.replay_workflow(history)
    return (time.perf_counter() - began) * 1000


# --- many at once on a cold worker ----------------------------------------------------------------------------------


async def cold(name: str, servers: Servers, count: int, turn: str) -> Cold:
    queue = f"cold-{name}-{turn}"
    async with servers.relay(queue) as (relay, env):
        await warm(relay, servers)
        handles = await start(name, servers, queue, range(count))
        async with working(name, servers.temporal.address, queue, env) as (worker, ran):
            with suppress(TimeoutError):
                async with asyncio.timeout(COLD_SECONDS):
                    await waiting(name, handles, worker)
            standing = await worker.standing()
            left = await histories(handles)
        if name in MODES or name in BY_HAND.values():
            await registered(relay, count)
        await asyncio.gather(*(handle.terminate() for handle in handles))
    return cold_start(name, ran, standing, left)


async def alone(name: str, servers: Servers, count: int, turn: str) -> float:
    """Seconds until all have asked for their activity, on a cold worker that runs none."""
    queue = f"alone-{name}-{turn}"
    handles = await start(name, servers, queue, range(count))
    async with working(name, servers.temporal.address, queue, {}, alone=True) as (_, ran):
        async with asyncio.timeout(COLD_SECONDS):
            while len(asked := [at for at in map(asks_since, await histories(handles)) if at]) < count:
                await asyncio.sleep(0.5)
    await asyncio.gather(*(handle.terminate() for handle in handles))
    return max(asked) - ran.at


async def starts(servers: Servers, options: argparse.Namespace) -> dict[str, list[float]]:
    """In turns, as below."""
    names = list(chain(*([NOBODY[mode], mode] for mode in options.modes)))
    await alone(names[0], servers, options.workflows, "warm-up")
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(options.repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(await alone(name, servers, options.workflows, str(turn)))
            say(name, f"{options.workflows} have started after {found[name][-1]:.2f} s")
    return found


def cold_start(name: str, ran: Standing, standing: Standing, left: Sequence[WorkflowHistory]) -> Cold:
    asked = [at for at in map(asks_since, left) if at]
    waited = [at for at in map(waits_since, left) if at]
    timer = SIDES[name].timer
    return Cold(
        workflows=len(left),
        waited=len(waited) if timer else standing.acted,
        asking_seconds=max(asked, default=ran.at) - ran.at,
        seconds=(max(waited, default=ran.at) if timer else standing.acted_at) - ran.at,
        cpu=standing.cpu - ran.cpu,
        stumbled=sum(map(stumbled, left)),
    )


async def warm(relay: RelayServer, servers: Servers) -> None:
    """Cold is the worker, not the servers: ask one question through them."""
    settings = Settings.load(
        url=servers.humans.url,
        admin_api_token=servers.humans.token,
        relay_url=relay.url,
        relay_secret=servers.secret,
    )
    question = HumanTask(task="Is anybody there?", response_schema=Decision)
    route = Route("temporal", {"namespace": NAMESPACE, "workflow_id": "nobody"}, question.idempotency_key)
    await HumanTasks(settings).open(question.body(), route)


async def registered(relay: RelayServer, count: int) -> None:
    """That they wait, they have told the relay, too."""
    async with httpx.AsyncClient() as http:
        waits = (await http.get(f"{relay.url}/readyz")).json()["waits"]
    assert waits["open"] == count + 1, f"{waits} at the relay, and {count} workflows"


async def cold_starts(servers: Servers, options: argparse.Namespace) -> dict[str, list[Cold]]:
    """Those that are compared follow each other, and begin with another each turn; the official one ends the turn."""
    threes = [[NOBODY[mode], mode, BY_HAND[mode]] for mode in options.modes]
    found: dict[str, list[Cold]] = {name: [] for name in [*chain(*threes), OFFICIAL]}
    await cold(threes[0][0], servers, options.workflows, "warm-up")
    for turn in range(options.repeats):
        first = turn % 3
        for name in [*chain(*(three[first:] + three[:first] for three in threes)), OFFICIAL]:
            seen = await cold(name, servers, options.workflows, str(turn))
            found[name].append(seen)
            say(name, f"{seen.waited} of {seen.workflows} wait after {seen.seconds:.2f} s, {seen.cpu:.2f} s of CPU")
    return found


# --- all of it ------------------------------------------------------------------------------------------------------


def wait_table(result: Result) -> str:
    rows: list[Sequence[str]] = [("one wait", "events", "bytes", "(sent)", "actions", "replayed in (ms)")]
    for name, seen in result.weights.items():
        counts = (str(figure) for figure in (seen.events, seen.bytes, seen.event_bytes, seen.actions))
        rows.append((name, *counts, Spread.of(result.replays[name]).shown(1)))
    return columns(rows, [18, 8, 8, 8, 9, 26])


def cold_table(colds: Mapping[str, Sequence[Cold]]) -> str:
    rows: list[Sequence[str]] = [("cold start", "wait", "all asked (s)", "all wait (s)", "worker CPU (s)", "stumbled")]
    for name, seen in colds.items():
        rows.append(
            (
                name,
                "/".join(str(each.waited) for each in seen),
                *(cold_spread(seen, figure).shown(2) for figure in ("asking_seconds", "seconds", "cpu")),
                "/".join(str(each.stumbled) for each in seen),
            )
        )
    for other in (NOBODY, BY_HAND):
        for mode in MODES:
            if mode in colds:
                ratios = (ratio(colds, mode, other[mode], figure) for figure in ("asking_seconds", "seconds", "cpu"))
                rows.append((f"{mode} to {other[mode]}", "", *(f"{each:.2f}" for each in ratios), ""))
    return columns(rows, [29, 16, 21, 21, 21, 16])


def start_table(found: Mapping[str, Sequence[float]]) -> str:
    rows: list[Sequence[str]] = [("start, workflows alone", "all asked (s)")]
    rows += [(name, Spread.of(seen).shown(2)) for name, seen in found.items()]
    rows += [(f"{mode} to {NOBODY[mode]}", f"{start_ratio(found, mode):.2f}") for mode in MODES if mode in found]
    return columns(rows, [29, 21])


def start_ratio(found: Mapping[str, Sequence[float]], mode: str) -> float:
    """Of the medians."""
    return Spread.of(found[mode]).median / Spread.of(found[NOBODY[mode]]).median


def cold_spread(seen: Sequence[Cold], figure: str) -> Spread:
    return Spread.of([getattr(each, figure) for each in seen])


def ratio(colds: Mapping[str, Sequence[Cold]], side: str, other: str, figure: str) -> float:
    """Of the medians."""
    return cold_spread(colds[side], figure).median / cold_spread(colds[other], figure).median


def claims(mode: str, result: Result, count: int) -> list[Claim]:
    seen, colds = result.weights[mode], result.colds
    heaviest, replayed = max(seen.bytes, seen.event_bytes), Spread.of(result.replays[mode]).median
    bare = Spread.of(result.replays[BARE]).median
    said = [
        (f"at most {MOST_EVENTS[mode]} events", seen.events <= MOST_EVENTS[mode]),
        (f"at most {MOST_ACTIONS[mode]} billable actions", seen.actions <= MOST_ACTIONS[mode]),
        (f"at most {MOST_BYTES[mode]} bytes of history", heaviest <= MOST_BYTES[mode]),
        (f"replayed in at most {MOST_REPLAY_MS:.0f} ms (the bare one: {bare:.1f})", replayed <= MOST_REPLAY_MS),
        (
            f"{count} start on a cold worker within 10 % of the same that ask nobody",
            start_ratio(result.starts, mode) <= MOST_COLD_RATIO,
        ),
        (
            "none of their tasks failed",
            all(each.waited == each.workflows and not each.stumbled for each in colds[mode]),
        ),
    ]
    return [Claim(f"{mode}: {text}", holds) for text, holds in said]


async def measure(options: argparse.Namespace, servers: Servers) -> Result:
    weights: dict[str, Weight] = {}
    found: dict[str, WorkflowHistory] = {}
    for name in [*options.modes, OFFICIAL, NOBODY[SIGNAL], BARE]:
        say(name, "asks, and is answered")
        weights[name], found[name] = await one_wait(ALONE.get(name, name), servers)
    say("all", f"replayed, {REPLAYS} times each")
    took = await replays(found)
    started_alone = await starts(servers, options)
    return Result(weights, took, await cold_starts(servers, options), started_alone)


async def run(options: argparse.Namespace) -> bool:
    mine = asyncio.current_task()
    assert mine is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, mine.cancel)
    # The sandbox says at every replay that the official adapter loads its forms late.
    warnings.filterwarnings("ignore", message="Module awaithumans", category=UserWarning)
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as servers:
            result = await measure(options, servers)
    checked = [claim for mode in options.modes for claim in claims(mode, result, options.workflows)]
    if options.json:
        options.json.write_text(json.dumps(asdict(result) | {"claims": list(map(asdict, checked))}, indent=2))
    tables = (wait_table(result), start_table(result.starts), cold_table(result.colds))
    print("", *chain(*((table, "") for table in tables)), *map(verdict, checked), sep="\n")
    return all(claim.holds is not False for claim in checked)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.temporal_cost", description="One wait in Temporal.")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="of ours (all)")
    parser.add_argument("--repeats", type=positive, default=5, help="cold starts of each side (5)")
    parser.add_argument("--workflows", type=positive, default=40, help="of each cold start (40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(0 if asyncio.run(run(arguments())) else 1)
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
