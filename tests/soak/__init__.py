"""Two relays on one PostgreSQL, killed at random while answers arrive twice and out of order: every effect is counted.

Workflows ask, each about its own order. Callbacks for all of them, signed as the server signs them and each sent one to
three times in random order, go to both relays, again and again until one of the relays has acknowledged them. All the
while one relay or the other is killed (SIGKILL) and started again. A workflow that has its answer writes it down with
an activity, one line for each time: these lines are the effects. The worker and Temporal are left alone, so that
nothing but a relay can lose, double or swap one.

All the while a stranger sends hostile requests to these relays. What that costs in memory is measured on a pair of
relays that share the database and the callbacks and are never killed: the stranger sends to one of them and leaves the
other alone. So both have the same age, the same work and the same machine, and differ in the stranger only.
"""

import asyncio
import json
import random
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
from benchmarks._meters import memory
from benchmarks._people import open_tasks
from benchmarks._sides import MANY, SIDES, ServerAddresses
from benchmarks._temporal_worker import worker_process
from benchmarks._workflows_many import ANSWERS_FILE
from benchmarks.temporal_many import answer_errors, expected, recorded_answers, workflow_id
from devservers import Process, TemporalServer, free_port
from temporalio.client import Client

from awaithumans_core import Route
from awaithumans_core.route import RouteSigner
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay.store import Store
from tests.soak.hostility import Leak, Seen, StrangerProcess, attacking
from tests.support.servers import TaskServer

ROOT = Path(__file__).resolve().parents[2]
MODE, QUEUE = "signal", "many"
AT_ONCE = 16
"""Concurrent callbacks."""
WHILE_ASKING = 4
"""One in this many kills hits relays that take registrations; the others hit those that take and deliver answers."""
PATIENCE_SECONDS = 3600.0
PROGRESS_SECONDS = 15.0
SAMPLE_SECONDS = 0.2
MEMORY_MB = 30.0
"""Maximum difference between the peak memory of an attacked relay and of the calm one."""
KILLED, ATTACKED, CALM = (0, 1), 2, 3
"""Numbers of the relays, all of which receive callbacks."""
RELAYS = (*KILLED, ATTACKED, CALM)
LEAKED_SHARE = 10
"""The stranger reads one in this many callback URLs."""


@dataclass
class Soak:
    """Parameters and results of the soak."""

    waits: int
    kills: int
    """Maximum number; no relay is killed once every answer has had its effect."""
    seed: int
    hostile: float = 200.0
    """Hostile requests per second to all relays together; 0 measures the difference of the pair without a stranger."""
    lease_seconds: float = 15.0
    pause: tuple[float, float] = (0.5, 3.0)
    """Minimum and maximum seconds between two kills."""
    killed: int = 0
    sent: int = 0
    """Callbacks acknowledged."""
    broken: int = 0
    """Attempts during which the relay was dead or was killed."""
    seconds: float = 0.0
    parked: int = -1
    """Number of parked waits, which must be 0 because every workflow can be woken."""
    lost: int = -1
    doubled: int = -1
    swapped: int = -1
    refused: list[int] = field(default_factory=list[int])
    """Replies other than 200 and 503."""
    seen: Seen = field(default_factory=Seen)
    """Observations of the stranger."""
    peaks: dict[int, float] = field(default_factory=lambda: dict.fromkeys(RELAYS, 0.0))
    """Resident megabytes of each relay, at most. Of one that is killed: of all its processes."""

    @property
    def more_memory(self) -> float:
        """Megabytes by which the attacked relay's peak exceeds the calm one's."""
        return self.peaks[ATTACKED] - self.peaks[CALM]

    @property
    def hostile_sent(self) -> int:
        """Hostile requests that reached a relay."""
        return sum(self.seen.sent.values())

    @property
    def holds(self) -> bool:
        """Whether every effect happened once, and the stranger achieved nothing."""
        effects = (self.lost, self.doubled, self.swapped, self.parked, self.refused) == (0, 0, 0, 0, [])
        return effects and not self.seen.accepted and self.more_memory <= MEMORY_MB

    async def run(self, folder: Path, humans: TaskServer, temporal: TemporalServer, database: str) -> None:
        """Take these servers, start relays, a stranger and a worker, and leave nothing running."""
        self._random = random.Random(self.seed)  # noqa: S311 - repeatable
        self._humans, self._store = humans, Store(database)
        secret, self._answers = secrets.token_urlsafe(32), folder / "answers"
        self._signer, self._key = RouteSigner([secret]), derive_webhook_key(humans.payload_key)
        self._answers.touch()
        self._ports = [free_port() for _ in RELAYS]
        env = {
            "AWAITHUMANS_URL": humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
            "AWAITHUMANS_PAYLOAD_KEY": humans.payload_key,
            "AWAITHUMANS_RELAY_SECRET": secret,
            "AWAITHUMANS_RELAY_URL": self._url(0),
            "AWAITHUMANS_RELAY_OPERATOR_TOKEN": secrets.token_urlsafe(32),
            "PYTHONPATH": str(ROOT),
            ANSWERS_FILE: str(self._answers),
        }
        self._relays = [self._relay(folder / str(port), port, database, temporal.address, env) for port in self._ports]
        began = time.monotonic()
        try:
            await asyncio.gather(*map(self._start, RELAYS))
            attacked = [self._ports[number] for number in (*KILLED, ATTACKED)]
            async with (
                asyncio.timeout(PATIENCE_SECONDS),
                worker_process(MANY[MODE], temporal.address, QUEUE, env),
                attacking(attacked, self.hostile, PATIENCE_SECONDS, self.seed) as attacker,
            ):
                beside = [asyncio.create_task(self._report_progress()), asyncio.create_task(self._sample())]
                asking = self._ask(await SIDES[MANY[MODE]].client(temporal.address))
                await asyncio.gather(asking, self._kill(self.kills // WHILE_ASKING))
                killing = asyncio.create_task(self._kill(self.kills))
                await self._call_back(attacker)
                while len(recorded_answers(self._answers)) < self.waits:
                    await asyncio.sleep(0.1)
                killing.cancel()
                await asyncio.gather(killing, return_exceptions=True)
                await self._settled()
                self.seen = await attacker.stop()
                for each in beside:
                    each.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
        finally:
            for relay in self._relays:
                await asyncio.to_thread(relay.kill)
            await self._store.stop()
        self.seconds = time.monotonic() - began
        self.lost, self.doubled, self.swapped = answer_errors(recorded_answers(self._answers), self.waits)

    def _url(self, number: int) -> str:
        return f"http://127.0.0.1:{self._ports[number]}"

    def _relay(self, folder: Path, port: int, database: str, temporal: str, env: Mapping[str, str]) -> Process:
        arguments = [str(port), database, temporal, str(self.lease_seconds)]
        return Process([sys.executable, "-m", "tests.soak.relay", *arguments], folder, env, log="relay.log")

    async def _start(self, number: int) -> None:
        self._relays[number].start()
        await self._relays[number].answers(f"{self._url(number)}/readyz")

    async def _kill(self, until: int) -> None:
        while self.killed < until:
            await asyncio.sleep(self._random.uniform(*self.pause))
            number = self._random.choice(KILLED)
            await asyncio.to_thread(self._relays[number].kill)
            self.killed += 1
            await self._start(number)

    async def _sample(self) -> None:
        """The largest memory of each relay."""
        while True:
            for number, relay in enumerate(self._relays):
                with suppress(psutil.NoSuchProcess, RuntimeError):  # it is being killed
                    self.peaks[number] = max(self.peaks[number], memory(relay.pid))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _report_progress(self) -> None:
        """Print the progress from time to time."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            waits, effects = sum((await self._store.queries.counts()).values()), len(recorded_answers(self._answers))
            print(f"{waits} wait, {self.sent} callbacks acknowledged, {effects} effects, {self.killed} relays killed")

    async def _ask(self, client: Client) -> None:
        """Start the workflows, and return once the table has as many rows, so that all of them wait."""
        side, addresses = SIDES[MANY[MODE]], ServerAddresses(self._humans.url, self._humans.token)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(order: int) -> None:
            async with gate:
                argument = side.argument(order, addresses)
                await client.start_workflow(side.workflow.__name__, argument, id=workflow_id(order), task_queue=QUEUE)

        await asyncio.gather(*map(one, range(self.waits)))
        while sum((await self._store.queries.counts()).values()) < self.waits:
            await asyncio.sleep(0.2)

    async def _call_back(self, attacker: StrangerProcess) -> None:
        """Send every answer one to three times in random order, until a relay has acknowledged it."""
        async with self._humans.people() as people:
            tasks = {task["id"]: task for task in await open_tasks(people)}
        waits = await self._store.queries.listed(limit=self.waits)
        await attacker.leak(
            [
                Leak(self._signer.issue(wait.route), wait.task_id, wait.route.idempotency_key)
                for wait in self._random.sample(waits, -(-len(waits) // LEAKED_SHARE))
            ]
        )
        callbacks = [
            (self._signer.issue(wait.route), self._body(wait.route, tasks[wait.task_id]))
            for wait in waits
            for _ in range(self._random.randint(1, 3))
        ]
        self._random.shuffle(callbacks)
        gate = asyncio.Semaphore(AT_ONCE)
        async with httpx.AsyncClient(timeout=10.0) as http:

            async def send(token: str, body: bytes) -> None:
                async with gate:
                    while not await self._acknowledged(http, token, body):
                        await asyncio.sleep(0.05)

            await asyncio.gather(*(send(*callback) for callback in callbacks))

    def _body(self, route: Route, task: Mapping[str, Any]) -> bytes:
        said = {"task_id": task["id"], "idempotency_key": route.idempotency_key, "status": "completed"}
        return json.dumps(said | {"response": expected(task["payload"]["order"])}).encode()

    async def _acknowledged(self, http: httpx.AsyncClient, token: str, body: bytes) -> bool:
        url = f"{self._url(self._random.choice(RELAYS))}/callbacks/{token}"
        with suppress(httpx.HTTPError):
            reply = await http.post(url, content=body, headers={"X-Awaithumans-Signature": sign(body, self._key)})
            if reply.status_code == 200:
                self.sent += 1
                return True
            if reply.status_code != 503:
                self.refused.append(reply.status_code)
        self.broken += 1
        return False

    async def _settled(self) -> None:
        """Wait until nothing is left to deliver, so that every possible second effect has happened."""
        while {"open", "answered"} & (await self._store.queries.counts()).keys():
            await asyncio.sleep(0.1)
        self.parked = (await self._store.queries.counts()).get("parked", 0)
