"""The stage of a scenario: real servers, a relay or two, callers, and a proxy between each pair of processes."""

import asyncio
import json
import secrets
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from benchmarks._people import ALREADY_ENDED
from benchmarks._workflows_many import ANSWERS_FILE, AskByActivity, AskBySignal, Order
from benchmarks.temporal_many import answer_errors, expected, line, recorded_answers, workflow_id
from devservers import HumansServer, Process, TemporalServer, free_port
from sqlalchemy.exc import DBAPIError
from temporalio.client import Client

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_core import HumanTasks, Settings
from awaithumans_relay.store import Store
from tests.faults.graph import CHECKPOINTS, orders
from tests.faults.proxy import Proxy, tcp, unix
from tests.faults.relay import CLOCK
from tests.support.postgres import PostgresServer

ROOT = Path(__file__).resolve().parents[2]
QUEUE = "faults"
CALLBACKS, REGISTRATIONS = b"POST /callbacks", b"PUT /waits"
"""Beginnings of the requests to a relay: from the server, and from callers."""
Caller = Literal["workflow", "activity", "graph", "script"]
POLL_SECONDS = 0.1
LOG_CHARS = 3000
"""Length of the end of each log in the report of a failure."""


class Stage:
    """The processes of one scenario. Each has addresses of proxies instead of those of the others."""

    def __init__(self, folder: Path, caller: Caller, *, relays: int, postgres: PostgresServer | None) -> None:
        self.folder, self.caller, self._postgres = folder, caller, postgres
        self.humans, self.temporal = HumansServer(folder / "humans"), TemporalServer(folder / "temporal")
        self.to_relay = Proxy([])
        self.relay_to_server, self.caller_to_server = Proxy([tcp(self.humans.port)]), Proxy([tcp(self.humans.port)])
        self.relay_to_temporal, self.worker_to_temporal = (Proxy([tcp(self.temporal.port)]) for _ in range(2))
        self.relay_to_database, self.relay_to_checkpoints = Proxy([]), Proxy([])
        self.answers, self.clock = folder / "answers", folder / "clock"
        self.answers.touch()
        self.database, shown = self._databases(self.relay_to_database, f"sqlite:///{folder / 'waits.db'}")
        self.checkpoints, self._shown_checkpoints = self._databases(self.relay_to_checkpoints, "")
        self.store = Store(self.database)
        self._secret = secrets.token_urlsafe(32)
        self.relays = [self._relay(number, shown) for number in range(relays)]
        self.worker = self._process("worker", "tests.faults.worker", f"127.0.0.1:{self.worker_to_temporal.port}", QUEUE)
        self.scripts: dict[int, Process] = {}
        self.asked: list[int] = []
        self.answered: dict[int, str] = {}
        """The ids of the tasks that people have answered, by order."""

    @property
    def relay(self) -> Process:
        """The relay, or the first of several."""
        return self.relays[0]

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL of the scenario."""
        if self._postgres is None:
            raise RuntimeError("this scenario has no PostgreSQL")
        return self._postgres

    @property
    def database_name(self) -> str:
        """Name of the database with the waits."""
        return urlsplit(self.database).path.lstrip("/")

    @property
    def proxies(self) -> list[Proxy]:
        return [each for each in vars(self).values() if isinstance(each, Proxy)]

    @property
    def processes(self) -> list[Process]:
        return [*self.relays, self.worker, *self.scripts.values(), self.humans.process, self.temporal.process]

    # --- starting and ending ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Start everything, and leave nothing running."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._end)
            for proxy in self.proxies:
                await proxy.start()
            async with asyncio.TaskGroup() as group:
                group.create_task(self.humans.start())
                if self._on_temporal:
                    group.create_task(self.temporal.start())
            if self.caller != "script":
                await asyncio.gather(*map(self.start_relay, self.relays))
            if self._on_temporal:
                self.worker.start()
                self._client = await Client.connect(self.temporal.address, plugins=[HumanTasksPlugin()])
            if self.caller == "graph":
                tasks = HumanTasks(Settings.load(**self._settings()))
                self._graph = await stack.enter_async_context(orders(self.checkpoints, tasks))
            self._people = await stack.enter_async_context(self.humans.people())
            yield

    async def start_relay(self, relay: Process) -> None:
        """Start a relay and wait until it is ready."""
        relay.start()
        await relay.answers(f"http://127.0.0.1:{relay.command[relay.command.index('--port') + 1]}/readyz")

    async def _end(self) -> None:
        for process in self.processes:
            await asyncio.to_thread(process.kill)
        await self.store.stop()
        for proxy in self.proxies:
            await proxy.stop()

    @property
    def _on_temporal(self) -> bool:
        return self.caller in {"workflow", "activity"}

    def _databases(self, proxy: Proxy, otherwise: str) -> tuple[str, str]:
        """Return the URL of a new database, and the one by which a relay reaches it through the proxy."""
        if self._postgres is None:
            return otherwise, otherwise
        name = self._postgres.new_database()
        proxy.targets.append(unix(str(self._postgres.socket_folder / ".s.PGSQL.5432")))
        uri = self._postgres.uri(name)
        return uri, f"postgresql://{urlsplit(uri).username}@127.0.0.1:{proxy.port}/{name}?sslmode=disable"

    def _relay(self, number: int, database: str) -> Process:
        port = free_port()
        self.to_relay.targets.append(tcp(port))
        engine = (
            ["--temporal", f"127.0.0.1:{self.relay_to_temporal.port}"]
            if self._on_temporal
            else ["--graph", "orders=tests.faults.graph:orders"]
        )
        arguments = ["serve", "--port", str(port), "--database", database, "--log-level", "warning", *engine]
        return self._process(
            f"relay-{number}",
            "tests.faults.relay",
            *arguments,
            AWAITHUMANS_URL=f"http://127.0.0.1:{self.relay_to_server.port}",
            AWAITHUMANS_PAYLOAD_KEY=self.humans.payload_key,
            **{CHECKPOINTS: self._shown_checkpoints, CLOCK: str(self.clock)},
        )

    def _process(self, name: str, module: str, *arguments: str, **env: str) -> Process:
        named = {f"AWAITHUMANS_{key.upper()}": value for key, value in self._settings().items()}
        own = {"PYTHONPATH": str(ROOT), ANSWERS_FILE: str(self.answers)}
        return Process([sys.executable, "-m", module, *arguments], self.folder / name, named | own | env)

    def _settings(self) -> dict[str, str]:
        return {
            "url": f"http://127.0.0.1:{self.caller_to_server.port}",
            "admin_api_token": self.humans.token,
            "relay_url": f"http://127.0.0.1:{self.to_relay.port}",
            "relay_secret": self._secret,
        }

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, numbers: Iterable[int]) -> None:
        """Start one caller for each order, and return when all of them wait."""
        new = list(numbers)
        self.asked += new
        await asyncio.gather(*map(self._start_caller, new))
        await self.tasks(new)
        if self.caller != "script":
            while sum((await self._waits()).values()) < len(self.asked):
                await asyncio.sleep(POLL_SECONDS)

    async def _start_caller(self, order: int) -> None:
        if self.caller == "graph":
            config: Any = {"configurable": {"thread_id": workflow_id(order)}}
            await self._graph.ainvoke({"order": order}, config)
        elif self.caller == "script":
            self.scripts[order] = self._process(f"script-{order}", "tests.faults.script", str(order))
            self.scripts[order].start()
        else:
            workflow = AskBySignal if self.caller == "workflow" else AskByActivity
            argument = Order(order=order, amount=250.0)
            await self._client.start_workflow(workflow.__name__, argument, id=workflow_id(order), task_queue=QUEUE)

    async def tasks(self, numbers: Collection[int]) -> dict[int, Mapping[str, Any]]:
        """Return the tasks of these orders, once all of them exist."""
        while True:
            with suppress(httpx.HTTPError):
                found = {task["payload"]["order"]: task for task in await self._listed()}
                if set(numbers) <= found.keys():
                    return {order: found[order] for order in numbers}
            await asyncio.sleep(POLL_SECONDS)

    async def _listed(self) -> list[dict[str, Any]]:
        reply = await self._people.get("/api/tasks", params={"limit": 200})
        return list(reply.raise_for_status().json())

    # --- answering --------------------------------------------------------------------------------------------------

    async def answer(self, numbers: Iterable[int]) -> None:
        """Have people answer the open questions about these orders, until the server has accepted each answer."""
        for order, task in (await self.tasks([order for order in numbers if order not in self.answered])).items():
            while not await self._accepted(str(task["id"]), order):
                await asyncio.sleep(0.5)
            self.answered[order] = str(task["id"])

    async def _accepted(self, task_id: str, order: int) -> bool:
        with suppress(httpx.RequestError):
            body = {"response": expected(order), "completed_by_email": "anna@example.com"}
            reply = await self._people.post(f"/api/tasks/{task_id}/complete", json=body)
            return reply.is_success or reply.status_code == ALREADY_ENDED
        return False

    async def until_acknowledged(self, numbers: Collection[int]) -> None:
        """Wait until the server has recorded that the callbacks with these answers were acknowledged."""
        wanted = {self.answered[order] for order in numbers}
        while True:
            with suppress(httpx.HTTPError):
                sent = await self._people.get("/api/admin/webhook-deliveries", params={"status": "succeeded"})
                if wanted <= {each["task_id"] for each in sent.raise_for_status().json()}:
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def delete(self, numbers: Collection[int]) -> None:
        """Delete the answered tasks of these orders from the server, with their answers."""
        for order in numbers:
            (await self._people.delete(f"/api/tasks/{self.answered[order]}")).raise_for_status()

    async def until_stored(self, state: str, count: int) -> None:
        """Wait until this many waits have a state."""
        while (await self._waits()).get(state, 0) < count:
            await asyncio.sleep(POLL_SECONDS)

    async def until_effects(self, numbers: Collection[int]) -> None:
        """Wait until each of these callers has recorded an answer, correct or not."""
        names = {workflow_id(order) for order in numbers}
        while not names <= {text.partition(" ")[0] for text in recorded_answers(self.answers)}:
            await asyncio.sleep(POLL_SECONDS)

    async def until_settled(self) -> None:
        """Wait until nothing is left to deliver, so that every possible second effect has happened."""
        while self.caller != "script" and {"open", "answered"} & (await self._waits()).keys():
            await asyncio.sleep(POLL_SECONDS)

    async def _waits(self) -> dict[str, int]:
        """Return the number of waits in each state, once the database can be read."""
        while True:
            with suppress(DBAPIError):
                return dict(await self.store.queries.counts())
            await asyncio.sleep(POLL_SECONDS)

    # --- counting ---------------------------------------------------------------------------------------------------

    async def broken_laws(self) -> list[str]:
        """Return what the effects on disk, the questions on the server and the relay's table have against the laws."""
        recorded = recorded_answers(self.answers)
        lost, doubled, swapped = answer_errors(recorded, len(self.asked))
        questions = Counter(task["payload"]["order"] for task in await self._listed())
        parked = 0 if self.caller == "script" else (await self._waits()).get("parked", 0)
        found = {
            "lost": lost,
            "doubled": doubled,
            "swapped": swapped,
            "asked twice": sum(count > 1 for count in questions.values()),
            "parked": parked,
        }
        return [f"{count} {name}" for name, count in found.items() if count]

    def report(self) -> str:
        """Return what there is to know about a failed scenario."""
        missing = [line(order) for order in self.asked if not recorded_answers(self.answers)[line(order)]]
        logs = [
            f"--- {process.folder.name}\n{process.output()[-LOG_CHARS:]}"
            for process in self.processes
            if process.log_file.exists()
        ]
        return "\n".join([f"recorded: {json.dumps(recorded_answers(self.answers))}", f"missing: {missing}", *logs])
