"""`FakeHumans`: an in-process awaithumans server for tests, with scripted people."""

import asyncio
import base64
import re
import secrets
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args

import httpx
import uvicorn
from fastapi import FastAPI
from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp

from awaithumans_core.client import SyncTaskClient, TaskClient
from awaithumans_core.clock import Clock, steady
from awaithumans_core.http.clients import async_client
from awaithumans_core.settings import Settings
from awaithumans_core.signing import KEY_BYTES, derive_webhook_key
from awaithumans_core.testing.api import ServerContext, create_api
from awaithumans_core.testing.callbacks import ATTEMPT_SECONDS, CallbackQueue, Delivery, Schedule
from awaithumans_core.testing.changes import Changes
from awaithumans_core.testing.clock import VirtualClock
from awaithumans_core.testing.fault_transport import (
    FaultMiddleware,
    InProcessTransport,
    MonotonicLoop,
    TrackedConnection,
)
from awaithumans_core.testing.faults import CallbackFault, Fault
from awaithumans_core.testing.people import Match, Script
from awaithumans_core.testing.task_server_state import FakeTask, TaskServerState

Verb: TypeAlias = Literal["create", "list", "get", "poll", "complete", "cancel", "delete", "callback", "any"]

ADDRESS = "http://humans.test"
"""Address of a fake that is used in process. Nothing is ever sent to it."""

START_SECONDS = 60.0

_PATH = re.compile(r"/api/tasks(?:/(?P<task_id>[^/]+)(?:/(?P<verb>\w+))?)?/?")


@dataclass
class _PendingFault:
    """A fault that waits for a request that it applies to."""

    fault: Fault | CallbackFault
    on: Verb
    match: Match
    left: int


class FakeHumans:
    """An awaithumans server in this process, verified against the real one, whose people follow a script.

    Enter it, then use it in process (`client()`, `transport()`), or start it on a port with `serving()`, for code that
    makes its own clients. On its `VirtualClock` a wait of a month takes a moment: script the people first, then ask.

    Args:
        clock: Default: a `VirtualClock` of its own. `SystemClock()` for real time.
        callbacks: `"at once"`, or on the real `"server"`'s schedule, five seconds at a time.
        callback_transport: Where callbacks go, for instance `httpx.ASGITransport(app)`. Default: over the network.

    Example:
        async with FakeHumans() as humans:
            humans.answer("Approve", {"approved": True}).after(timedelta(hours=3)).by("anna@example.com")
            async with humans.client() as client:
                outcome = await client.ask(HumanTask(task="Approve $250?", response_schema=Decision))
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        callbacks: Schedule = "at once",
        callback_transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.clock: Clock = clock or VirtualClock()
        self.token = secrets.token_urlsafe(32)
        """The API token."""
        self.outsider_token = secrets.token_urlsafe(32)
        """The token of a caller that is neither operator nor assignee, which gets 403."""
        self.payload_key = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        """Key that callbacks are signed with, as `AWAITHUMANS_PAYLOAD_KEY`."""
        self.url = ADDRESS
        """Address of the fake: on a port while it is serving, otherwise in process."""
        self.calls: list[tuple[float, Verb]] = []
        """Every received request, with its time on the clock."""
        self._state = TaskServerState(self.clock)
        self._queue = CallbackQueue(
            self.clock, derive_webhook_key(self.payload_key), callbacks, delivered=self._state.redact
        )
        self._state.ended = self._call_back
        self._callback_transport = callback_transport
        self._pending_faults: list[_PendingFault] = []
        self._running = False
        self._requests: set[asyncio.Task[httpx.Response]] = set()
        api = create_api(ServerContext(self._state, self.clock, self.token, self.outsider_token), self._lifespan)
        self.app: ASGIApp = FaultMiddleware(api, self)
        """The ASGI application, with a lifespan; `serving()` and `transport()` run it for you."""
        if isinstance(self.clock, VirtualClock):
            self.clock.on_change(self._state.notify)

    def __repr__(self) -> str:
        return f"FakeHumans({self.url}, {len(self._state.tasks)} tasks)"

    # People

    def answer(self, match: Match, response: Mapping[str, Any]) -> Script:
        """Let a person answer every matching task with this response. See `Script` for time, person and channel."""
        return self.on(match).answers(response)

    def on(self, match: Match = None) -> Script:
        """Add a script for matching tasks. The first script that matches a task applies to it."""
        script = Script(match)
        with self._state.lock:
            self._state.scripts.append(script)
        return script

    def complete(
        self, task_id: str, response: Mapping[str, Any], *, by: str | None = None, user_id: str | None = None
    ) -> None:
        """Answer this task now. See `Script.by` for the person."""
        self._state.complete(task_id, response, by=by, user_id=user_id, via="dashboard")

    def cancel(self, task_id: str) -> None:
        """Cancel this task now, as an operator does."""
        self._state.cancel(task_id)

    def delete(self, task_id: str) -> None:
        """Remove this task now, as the server's own DELETE does. Its key may be used again."""
        self._state.delete(task_id)

    @contextmanager
    def another_database(self) -> Generator[None]:
        """Context manager within which the server uses another, empty database, without the earlier tasks."""
        self._state.swap()
        try:
            yield
        finally:
            self._state.swap()

    @property
    def tasks(self) -> list[FakeTask]:
        """All tasks of the server, oldest first."""
        with self._state.lock:
            return list(self._state.tasks.values())

    def task(self, match: Match) -> FakeTask:
        """Return the task that matches. Raises LookupError if there is none, or more than one."""
        found = [task for task in self.tasks if Script(match).fits(task.record())]
        if len(found) != 1:
            raise LookupError(f"{len(found)} tasks match {match!r}, of {[task.asked['task'] for task in self.tasks]}")
        return found[0]

    # Faults

    def fault(self, fault: Fault | CallbackFault, *, on: Verb = "any", match: Match = None, times: int = 1) -> None:
        """Apply this fault to the next matching requests or callbacks, `times` times.

        Example:
            humans.fault(faults.status(502), on="poll", times=3)
            humans.fault(faults.duplicate())
        """
        if not isinstance(fault, Fault | CallbackFault):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"{fault!r} is not a fault: give one of awaithumans_core.testing.faults, as faults.status(502)"
            )
        if on not in get_args(Verb) or (isinstance(fault, CallbackFault) and on not in ("any", "callback")):
            raise ValueError(f"on={on!r}: {fault.name} happens on one of {', '.join(get_args(Verb))}")
        wanted: Verb = "callback" if isinstance(fault, CallbackFault) else on
        with self._state.lock:
            self._pending_faults.append(_PendingFault(fault, wanted, match, times))

    @property
    def deliveries(self) -> list[Delivery]:
        """Every callback, whether it was sent or not."""
        return list(self._queue.deliveries)

    # Clients

    def settings(self, **more: Any) -> Settings:
        """Return settings for clients and relays of this server."""
        return Settings.load(**{"url": self.url, "admin_api_token": self.token, "payload_key": self.payload_key} | more)

    def client(self) -> TaskClient:
        """Return an async client on the fake's clock: in process, or over the port while serving."""
        in_process = self.transport() if self.url == ADDRESS else None
        return TaskClient(settings=self.settings(), transport=in_process, clock=self.clock)

    def sync_client(self) -> SyncTaskClient:
        """Return a sync client on the fake's clock. It needs the port, so it works only while serving."""
        if self.url == ADDRESS:
            raise RuntimeError("a sync client needs a port: with humans.serving(): ...")
        return SyncTaskClient(settings=self.settings(), clock=self.clock)

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return a transport for `httpx.AsyncClient(transport=...)` that sends requests here without a socket."""
        return InProcessTransport(self.app, self._track_request)

    async def __aenter__(self) -> Self:
        self._must_be_idle()
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(self._lifespan(None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @contextmanager
    def serving(self, port: int = 0) -> Generator[str]:
        """Listen on 127.0.0.1, in a thread of its own, until the end of the block. Yield the address.

        The fake may be served again afterwards, also on the same port. As after a restart of a server, its tasks are
        kept.
        """
        self._must_be_idle()
        listener = socket.create_server(("127.0.0.1", port))
        config = uvicorn.Config(
            self.app,
            http=TrackedConnection,
            ws="none",
            log_config=None,  # logging is the application's, and uvicorn's own needs a stderr with `isatty`
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=0,
        )
        server = uvicorn.Server(config)

        def run() -> None:
            with asyncio.Runner(loop_factory=MonotonicLoop) as runner:
                runner.run(server.serve(sockets=[listener]))

        thread = threading.Thread(target=run, name="fake-humans", daemon=True)
        thread.start()
        try:
            until = steady() + START_SECONDS
            while not server.started:
                if not thread.is_alive() or steady() > until:
                    raise RuntimeError("FakeHumans could not start listening")
                time.sleep(0.005)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield self.url
        finally:
            self.url = ADDRESS
            server.should_exit = True
            thread.join()
            listener.close()

    # Internals

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI | None) -> AsyncGenerator[None]:
        self._must_be_idle()
        self._running = True
        running = [asyncio.create_task(self._run_scripts()), asyncio.create_task(self._send_callbacks())]
        try:
            yield
        finally:
            self._running = False
            ending: list[asyncio.Task[Any]] = [*running, *self._requests]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    def _must_be_idle(self) -> None:
        if self._running:
            raise RuntimeError("this FakeHumans is running already: either enter it or let it serve, not both")

    def _track_request(self, request: "asyncio.Task[httpx.Response]") -> None:
        """Track a request of the in-process transport, which is cancelled when the fake is closed."""
        if not self._running:
            request.cancel()
            raise RuntimeError("FakeHumans is not running: async with FakeHumans() as humans: ...")
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    async def _run_scripts(self) -> None:
        """Run the scripts of people, and the deadlines."""
        self.clock.now()  # from now on virtual time waits for this loop, also for the first request
        async with Changes(self._state, self.clock) as changes:
            while True:
                await changes.next(self._state.catch_up())

    async def _send_callbacks(self) -> None:
        """Send the callbacks that are due."""
        async with (
            async_client(timeout=ATTEMPT_SECONDS, transport=self._callback_transport) as http,
            Changes(self._state, self.clock) as changes,
        ):
            while True:
                due = self._queue.due()
                if due is not None and due <= self.clock.now():
                    with self.busy():
                        await self._queue.send_due(http)
                else:
                    await changes.next(due)

    def busy(self) -> AbstractContextManager[None]:
        """Context manager within which virtual time does not move."""
        return self.clock.busy() if isinstance(self.clock, VirtualClock) else nullcontext()

    def _call_back(self, task: FakeTask) -> None:
        fault = self._take_fault("callback", task.record())
        self._queue.enqueue(task, fault if isinstance(fault, CallbackFault) else None)

    def _take_fault(self, verb: Verb, record: Mapping[str, Any] | None) -> Fault | CallbackFault | None:
        """Return the pending fault for such a request about this task, and count it as used."""
        with self._state.lock:
            for pending in self._pending_faults:
                wanted = pending.on == verb or (pending.on == "any" and verb != "callback")
                fits = pending.match is None or (record is not None and Script(pending.match).fits(record))
                if wanted and fits and pending.left > 0:
                    pending.left -= 1
                    return pending.fault
        return None

    def fault_for(self, method: str, path: str, body: bytes) -> Fault | None:
        """Return the fault that happens to this request, and count the request."""
        verb, task_id = _verb_and_task(method, path)
        if verb is None:
            return None
        self._state.catch_up()
        self.calls.append((self.clock.now(), verb))
        task = self._state.tasks.get(task_id)
        fault = self._take_fault(
            verb, _question_of(body) if verb == "create" else None if task is None else task.record()
        )
        return fault if isinstance(fault, Fault) else None

    @contextmanager
    def request_in_progress(self, method: str, path: str) -> Generator[None]:
        """Context manager around a request: virtual time does not move, and afterwards the client may have to act."""
        if not isinstance(self.clock, VirtualClock):
            yield
            return
        self.clock.expected_action_done()
        try:
            with self.clock.busy():
                yield
        finally:
            if _verb_and_task(method, path)[0] in _FOLLOWED_BY_ANOTHER:
                self.clock.expect_action()


_FOLLOWED_BY_ANOTHER = frozenset({"create", "list", "poll"})
"""Requests after which a client continues with another action."""


def _verb_and_task(method: str, path: str) -> tuple[Verb | None, str]:
    """Return the verb of a request, and the id of its task."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None, ""
    which = found["verb"] or ("one" if found["task_id"] else "all")
    return _VERBS.get((method, which), "any"), found["task_id"] or ""


_OBJECT = TypeAdapter(dict[str, Any])


def _question_of(body: bytes) -> dict[str, Any] | None:
    """Return the question in the body of a create, or None if it cannot be read."""
    with suppress(ValidationError):
        asked = _OBJECT.validate_json(body)
        return asked if isinstance(asked.get("task"), str) else None
    return None


_VERBS: Mapping[tuple[str, str], Verb] = {
    ("POST", "all"): "create",
    ("GET", "all"): "list",
    ("GET", "one"): "get",
    ("DELETE", "one"): "delete",
    ("GET", "poll"): "poll",
    ("POST", "complete"): "complete",
    ("POST", "cancel"): "cancel",
}
