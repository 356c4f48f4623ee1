"""One run of `awaithumans-relay dev`: its servers, and what the terminal shows about them."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
from pydantic import SecretStr

from awaithumans_core.discovery import DevInstance, announce, withdraw
from awaithumans_core.engine import Engine
from awaithumans_core.safe_text import one_line
from awaithumans_relay.dev.humans_server import HumansServer
from awaithumans_relay.dev.processes import Process, started
from awaithumans_relay.dev.project import USUAL, Kept, Project
from awaithumans_relay.dev.questions import Questions
from awaithumans_relay.dev.relay import serving, use_environment
from awaithumans_relay.dev.screen import Screen, ScreenHandler
from awaithumans_relay.dev.temporal_server import TemporalServer
from awaithumans_relay.monitoring import logs
from awaithumans_relay.store import Store

EMAIL = "dev@example.com"
"""E-mail address of the first operator."""
NO_DASHBOARD = "this release has no page to answer on: pip install 'awaithumans[server]==0.1.11'"
TAIL_LINES = 15
"""Lines of the log of a server that ended, which are shown."""


class Run:
    """The servers of one run.

    Args:
        folder: The project folder.
        project: Its data.
        kept: Its keys and ports.
        screen: Where the run is shown.
        temporal: The Temporal dev server to start.
        without_temporal: What the terminal shows in place of its address if there is none.
    """

    def __init__(
        self,
        folder: Path,
        project: Project,
        kept: Kept,
        screen: Screen,
        *,
        temporal: TemporalServer | None,
        without_temporal: str,
    ) -> None:
        self._folder = folder
        self._data = project.data
        self._kept = kept
        self._screen = screen
        self._humans = HumansServer(
            self._data / "server",
            port=kept.ports.server,
            token=kept.api_token,
            payload_key=kept.payload_key,
            kept_open=[project.lock],
        )
        self._temporal = temporal
        self._without_temporal = without_temporal
        self._relay_url = f"http://127.0.0.1:{kept.ports.relay}"
        self._relay_log = self._data / "relay" / "relay.log"
        self._password = kept.password
        self._can_answer = True
        """Whether the server has pages on which people answer."""
        self._engines: Sequence[Engine] = ()
        self._questions: Questions | None = None
        self._relay: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self, engines: Callable[[AsyncExitStack], Awaitable[Sequence[Engine]]]) -> AsyncGenerator[None]:
        """Start everything, and stop it at the end of the block, in reverse order.

        Args:
            engines: Creates the engines of the relay.

        Raises:
            ServerFailedError: a server did not start.
        """
        self._relay_log.parent.mkdir(exist_ok=True)
        database = f"sqlite:///{self._relay_log.with_name('waits.db')}"
        self._use_environment()
        servers = [server for server in (self._humans, self._temporal) if server is not None]
        for server in servers:
            server.process.log_file.unlink(missing_ok=True)
        async with AsyncExitStack() as stack:
            with _first_error():
                await stack.enter_async_context(started(*servers))
            people = await stack.enter_async_context(self._humans.people())
            await self._prepare_operator(people)
            waits = Store(database)
            stack.push_async_callback(waits.stop)
            self._questions = questions = Questions(people, waits.queries.find, self._screen)
            logs.install("info", [logs.file_handler(self._relay_log), ScreenHandler(self._screen, questions.text_of)])
            self._engines = await engines(stack)
            self._relay = await stack.enter_async_context(serving(self._engines, database, self._kept.ports.relay))
            await questions.begin()
            stack.callback(asyncio.create_task(questions.run()).cancel)
            instance = self._instance()
            announce(instance, self._folder)
            stack.callback(withdraw, instance, self._folder)
            yield

    async def until_a_server_ends(self) -> None:
        """Wait until one of the servers ends, which is an error, and show why it may have ended."""
        processes = {"the awaithumans server": self._humans.process}
        if self._temporal is not None:
            processes["the Temporal dev server"] = self._temporal.process
        ends = {asyncio.create_task(process.ended()): name for name, process in processes.items()}
        if self._relay is not None:
            ends[self._relay] = "the relay"
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in ends.keys() - {self._relay}:
                waiting.cancel()
        for name in (ends[each] for each in done):
            process = processes.get(name)
            self._show_end(name, process.log_file if process else self._relay_log, process)

    def _show_end(self, name: str, log: Path, process: Process | None) -> None:
        code = process.exit_code if process else None
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        self._screen.event("error", f"{name} has ended{how}; the end of its log, {self._shown(log)}:")
        for line in log.read_text(errors="replace").splitlines()[-TAIL_LINES:]:
            self._screen.plain(f"    {one_line(line)}")

    def show_banner(self, set_here: Sequence[str]) -> None:
        """Show what runs, and how to answer and ask.

        Args:
            set_here: Variables of the environment with which callers would not use this instance.
        """
        ports = self._kept.ports
        temporal = self._without_temporal
        if self._temporal is not None:
            temporal = f"{self._temporal.address}, UI http://127.0.0.1:{self._temporal.ui_port}"
        names = ", ".join(engine.name for engine in self._engines)
        rows = [
            ("answer at", self._humans.url if self._can_answer else NO_DASHBOARD, "bold"),
            ("e-mail", EMAIL, "bold"),
            ("password", self._password, "bold"),
            ("", "", ""),
            ("Temporal", temporal, ""),
            ("relay", f"{self._relay_url}, wakes {names or 'nothing: only scripts can ask'}", ""),
            ("data, logs", self._shown(self._data), ""),
        ]
        self._screen.plain()
        self._screen.table(rows)
        self._screen.plain()
        if self._temporal is not None and ports.temporal != USUAL.temporal:
            self._screen.event(
                "warning", f"port {USUAL.temporal} was in use: connect workers to {self._temporal.address}"
            )
        if set_here:
            self._screen.event(
                "warning",
                f"set in this terminal: {', '.join(set_here)}. Programs that have these do not use this instance",
            )
        if self._questions is not None and self._questions.open:
            self._screen.plain(f"Open questions of earlier runs, waiting for an answer: {self._questions.open}")
        self._screen.plain(
            "Run your worker or script in another terminal, in this folder. It needs no variables. Ctrl-C stops all."
        )
        self._screen.plain()

    def farewell(self) -> str:
        """Return the last line."""
        number = self._questions.open if self._questions is not None else 0
        kept = f" {number} open question{'s are' if number > 1 else ' is'} kept for the next run." if number else ""
        return f"Stopped. No process is left running.{kept}"

    def _shown(self, path: Path) -> str:
        return os.path.relpath(path, self._folder)

    def _use_environment(self) -> None:
        variables = {
            "AWAITHUMANS_URL": self._humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": self._kept.api_token,
            "AWAITHUMANS_PAYLOAD_KEY": self._kept.payload_key,
            "AWAITHUMANS_RELAY_URL": self._relay_url,
            "AWAITHUMANS_RELAY_SECRET": self._kept.relay_secret,
        }
        if self._temporal is not None:
            # An empty configuration file: a profile of the user's is for another server.
            variables |= {"TEMPORAL_ADDRESS": self._temporal.address, "TEMPORAL_CONFIG_FILE": os.devnull}
        use_environment(variables, own_temporal=self._temporal is not None)

    def _instance(self) -> DevInstance:
        return DevInstance(
            server_url=self._humans.url,
            api_token=SecretStr(self._kept.api_token),
            relay_url=self._relay_url,
            relay_secret=SecretStr(self._kept.relay_secret),
            temporal_address=self._temporal.address if self._temporal is not None else None,
        )

    async def _prepare_operator(self, people: httpx.AsyncClient) -> None:
        """Create the first operator, or check that the kept password is still theirs."""
        self._can_answer = (await people.get("/login")).is_success
        if (await people.get("/api/setup/status")).json()["needs_setup"]:
            await self._humans.make_operator(EMAIL, "Developer", self._kept.password)
            return
        login = await people.post("/api/auth/login", json={"email": EMAIL, "password": self._kept.password})
        if login.status_code == HTTPStatus.UNAUTHORIZED:
            self._password = "as you have changed it"  # noqa: S105 - text for the terminal


@contextmanager
def _first_error() -> Generator[None]:
    """Raise the first error of servers that are started at the same time."""
    try:
        yield
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
