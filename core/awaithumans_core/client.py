"""The two drivers of flows, and the clients that use them: `TaskClient` (async) and `SyncTaskClient`."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import aclosing, closing, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from awaithumans_core import clock as clocks
from awaithumans_core import flow
from awaithumans_core.batch import CONNECTIONS, Answer, Crowd, in_a_thread
from awaithumans_core.clock import Clock, SystemClock, refuse_frozen_loop
from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import Call, Flow, Lost, Notice, Patience, Pause, Reply
from awaithumans_core.http.clients import (
    ReplyTooLarge,
    async_client,
    lost_reason,
    proxy_of,
    reply_of,
    sync_client,
    warn_if_exposed,
)
from awaithumans_core.http.connections import PerLoop, PerProcess, generation
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.settings import Settings
from awaithumans_core.task import HumanTask

logger = safe_logger("awaithumans")
logger.addHandler(logging.NullHandler())  # only an application that configures logging sees the log

T = TypeVar("T")
R = TypeVar("R")
X = TypeVar("X")
OnStatus = Callable[[Outcome], None]
"""Called with every status change that is observed while waiting."""
OnPause = Callable[[Pause], None]
"""Called when there was no usable reply, before the pause that precedes the next attempt."""


class AsyncDriver:
    """Sends the calls that flows yield, over one httpx client for each event loop and process."""

    def __init__(
        self, http: Callable[[], httpx.AsyncClient], url: str, token: str, clock: Clock, *, direct: bool = False
    ) -> None:
        self._http = PerLoop(http)
        self._url = url
        self._token = token
        self._clock = clock
        self._direct = direct
        """Whether requests use a transport given by the caller, which uses no proxy."""

    async def run(
        self,
        steps: Flow[R],
        on_status: OnStatus | None = None,
        on_pause: OnPause | None = None,
        *,
        slots: asyncio.Semaphore | None = None,
    ) -> R:
        """Drive a flow to its end and return its result. Every call takes one of the `slots`, if any are given."""
        heard: Reply | Lost | None = None
        try:
            while True:
                match step := steps.send(heard):
                    case Call():
                        async with slots or nullcontext():
                            heard = await self._send(step)
                    case Pause():
                        _paused(step, self._url, on_pause)
                        await self._clock.sleep(step.seconds)
                        heard = None
                    case Notice():
                        _notice(step, on_status)
                        heard = None
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time

    async def _send(self, call: Call) -> Reply | Lost:
        try:
            http = await self._http.get()
            if isinstance(self._clock, SystemClock):
                refuse_frozen_loop()
            return reply_of(await http.send(_request(http, self._token, call)), direct=self._direct)
        except ReplyTooLarge as large:
            return Reply(large.status, {}, b"", cut=True)
        except httpx.RequestError as error:
            return _lost(error, direct=self._direct)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._http.aclose()


class SyncDriver:
    """Sends the calls that flows yield, without an event loop, over one httpx client for each process."""

    def __init__(
        self, http: Callable[[], httpx.Client], url: str, token: str, clock: Clock, *, direct: bool = False
    ) -> None:
        self._http = PerProcess(http)
        self._url = url
        self._token = token
        self._clock = clock
        self._direct = direct
        """Whether requests use a transport given by the caller, which uses no proxy."""

    def run(self, steps: Flow[R], on_status: OnStatus | None = None, on_pause: OnPause | None = None) -> R:
        """Drive a flow to its end and return its result."""
        heard: Reply | Lost | None = None
        try:
            while True:
                match step := steps.send(heard):
                    case Call():
                        heard = self._send(step)
                    case Pause():
                        _paused(step, self._url, on_pause)
                        self._clock.sleep_sync(step.seconds)
                        heard = None
                    case Notice():
                        _notice(step, on_status)
                        heard = None
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time

    def _send(self, call: Call) -> Reply | Lost:
        try:
            http = self._http.get()
            return reply_of(http.send(_request(http, self._token, call)), direct=self._direct)
        except ReplyTooLarge as large:
            return Reply(large.status, {}, b"", cut=True)
        except httpx.RequestError as error:
            return _lost(error, direct=self._direct)

    def close(self) -> None:
        """Close the connections of this process."""
        if (http := self._http.pop()) is not None:
            http.close()


class TaskClient:
    """Async client of the awaithumans task API. An async context manager; calls may run concurrently.

    Connections are opened at the first call, and belong to the event loop and to the process that opened them. So one
    client may be used in several event loops, in sequence or in several threads, and after a fork. A call after closing
    opens new connections.

    Args:
        server_url: Default: `AWAITHUMANS_URL`, then a local `awaithumans dev`, then http://localhost:3001.
        api_key: Default: `AWAITHUMANS_ADMIN_API_TOKEN`, then the local `awaithumans dev`.
        settings: Settings that provide both. `server_url` and `api_key` take precedence.
        patience: Seconds that a call keeps trying while the server gives no usable reply.
        keep_alive: The number of idle connections that are kept open for the next call.
        transport: An httpx transport, for instance that of a `FakeHumans` in tests. It is shared by all event loops,
            and cannot be used in a forked child.
        clock: The clock for pauses and deadlines. Default: the machine's.

    Raises:
        SettingsError: no token is known, or the address is malformed. From a call: the `transport` was given in
            another process, or no asyncio event loop is running.
    """

    def __init__(
        self,
        server_url: str | None = None,
        api_key: str | None = None,
        *,
        settings: Settings | None = None,
        patience: float = 60.0,
        keep_alive: int = 20,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = _settings(server_url, api_key, settings)
        self.clock = clock or clocks.SYSTEM
        self._patience = Patience(patience, clock=self.clock.now)
        token = self.settings.token()
        options, made_in = _http_options(self.settings, keep_alive), generation()
        if transport is None:
            warn_if_exposed("AWAITHUMANS_URL", self.settings.url, "the API token")

        def http() -> httpx.AsyncClient:
            return async_client(**options, transport=_of_this_process(transport, made_in))

        self._driver = AsyncDriver(http, self.settings.url, token, self.clock, direct=transport is not None)

    async def create(self, task: HumanTask[Any] | Mapping[str, Any]) -> Outcome:
        """Create the task, or find the task that already has its key, in any status. Safe to repeat."""
        return await self._driver.run(flow.create(_body(task), self._patience))

    async def get(self, task_id: str) -> Outcome:
        """Read the task once and return its status and answer."""
        return await self._driver.run(flow.get(task_id, self._patience))

    async def poll(self, task_id: str, *, seconds: int = flow.POLL_SECONDS) -> Outcome:
        """Hold one long poll of 1 to 30 seconds and return the task's status. An end is read from the task record."""
        return await self._driver.run(flow.poll(task_id, self._patience, seconds=seconds))

    async def cancel(self, task_id: str) -> Outcome:
        """Cancel the task unless it has ended, and return how it ended.

        An answer given in the meantime is returned, not lost.
        """
        return await self._driver.run(flow.close(task_id, self._patience))

    async def withdraw(self, task: HumanTask[Any]) -> Outcome:
        """Cancel the question by its key, whether or not its task is known to exist. Return how it ended."""
        return await self._driver.run(flow.withdraw(task.body(), self._patience))

    async def ask(
        self,
        task: HumanTask[Any],
        *,
        on_status: OnStatus | None = None,
        on_pause: OnPause | None = None,
        poll_seconds: int = flow.POLL_SECONDS,
    ) -> Outcome:
        """Create the task and long-poll until it ends. It keeps trying through outages until the task's own deadline.

        A task that is deleted on the server ends in `TaskNotFoundError` once the deletion is confirmed by three reads
        in a row over five minutes. A further `ask` with the same key then asks the question again.

        Args:
            task: The question.
            on_status: Called with every change of status that a poll returns.
            on_pause: Called before every pause after a failed request.
            poll_seconds: Seconds that a poll is held, 1 to 30. The end of the task is always seen immediately. An
                earlier change of status is seen with the next poll.

        Raises:
            AnswererNotAllowedError: the answer is from a person whose answer is not accepted (`only_assignee`,
                `not_by`).
        """
        outcome = await self._driver.run(_ask(task, self.clock, poll_seconds), on_status, on_pause)
        task.answerers.check(outcome)
        return outcome

    async def as_completed(
        self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS
    ) -> AsyncGenerator[Answer[T]]:
        """Ask all questions and yield each answer as it arrives. A failed question yields an answer with its error.

        At most `connections` connections are held for any number of questions, and the cost to the server does not grow
        with that number: while there are more questions than connections, one check of the server's list of ended tasks
        serves them all. An answer is seen within 5 s and 5 % of the time that the person took, if a check takes less
        than half a second. A slower server is checked less often. If the loop is left early, the open tasks stay on the
        server, and the same questions with the same keys resume them.

        Example:
            async for answer in client.as_completed(questions):
                if answer.error is None:
                    print(answer.question.task, answer.result())
        """
        async with aclosing(self._crowd(tasks, connections)) as answers:
            async for _, answer in answers:
                yield answer

    async def wait_all(self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS) -> list[Answer[T]]:
        """Ask all questions and return all answers, in the order of the questions. A failure does not lose the others.

        The answers are collected as by `as_completed`.
        """
        async with aclosing(self._crowd(tasks, connections)) as answers:
            return [answer for _, answer in sorted([came async for came in answers], key=lambda came: came[0])]

    def _crowd(self, tasks: Iterable[HumanTask[T]], connections: int) -> AsyncGenerator[tuple[int, Answer[T]]]:
        return Crowd(self.run, self.clock, connections).answers(tasks)

    async def run(
        self, steps: Flow[R], *, on_status: OnStatus | None = None, slots: asyncio.Semaphore | None = None
    ) -> R:
        """Drive a flow of `awaithumans_core.flow` over this client's connections, each call in one of the slots."""
        return await self._driver.run(steps, on_status, slots=slots)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class SyncTaskClient:
    """Client of the awaithumans task API without an event loop; otherwise like `TaskClient`. A context manager.

    It is safe to share between threads, and to use after a fork.
    """

    def __init__(
        self,
        server_url: str | None = None,
        api_key: str | None = None,
        *,
        settings: Settings | None = None,
        patience: float = 60.0,
        keep_alive: int = 20,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = _settings(server_url, api_key, settings)
        self.clock = clock or clocks.SYSTEM
        self._patience = Patience(patience, clock=self.clock.now)
        token = self.settings.token()
        options, made_in = _http_options(self.settings, keep_alive), generation()
        if transport is None:
            warn_if_exposed("AWAITHUMANS_URL", self.settings.url, "the API token")

        def http() -> httpx.Client:
            return sync_client(**options, transport=_of_this_process(transport, made_in))

        self._driver = SyncDriver(http, self.settings.url, token, self.clock, direct=transport is not None)
        self._own_transport = transport is not None

    def create(self, task: HumanTask[Any] | Mapping[str, Any]) -> Outcome:
        """Create the task, or find the task that already has its key, in any status. Safe to repeat."""
        return self._driver.run(flow.create(_body(task), self._patience))

    def get(self, task_id: str) -> Outcome:
        """Read the task once and return its status and answer."""
        return self._driver.run(flow.get(task_id, self._patience))

    def poll(self, task_id: str, *, seconds: int = flow.POLL_SECONDS) -> Outcome:
        """Hold one long poll of 1 to 30 seconds and return the task's status. An end is read from the task record."""
        return self._driver.run(flow.poll(task_id, self._patience, seconds=seconds))

    def cancel(self, task_id: str) -> Outcome:
        """Cancel the task unless it has ended, and return how it ended.

        An answer given in the meantime is returned, not lost.
        """
        return self._driver.run(flow.close(task_id, self._patience))

    def withdraw(self, task: HumanTask[Any]) -> Outcome:
        """Cancel the question by its key, whether or not its task is known to exist. Return how it ended."""
        return self._driver.run(flow.withdraw(task.body(), self._patience))

    def ask(
        self,
        task: HumanTask[Any],
        *,
        on_status: OnStatus | None = None,
        on_pause: OnPause | None = None,
        poll_seconds: int = flow.POLL_SECONDS,
    ) -> Outcome:
        """Create the task and long-poll until it ends. Arguments and errors are those of `TaskClient.ask`."""
        outcome = self._driver.run(_ask(task, self.clock, poll_seconds), on_status, on_pause)
        task.answerers.check(outcome)
        return outcome

    def as_completed(self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS) -> Generator[Answer[T]]:
        """Ask all questions and yield each answer as it arrives, as `TaskClient.as_completed` does.

        It uses a thread and connections of its own.
        """
        with closing(self._crowd(tasks, connections)) as answers:
            for _, answer in answers:
                yield answer

    def wait_all(self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS) -> list[Answer[T]]:
        """Ask all questions and return all answers, in the order of the questions. A failure does not lose the others.

        The answers are collected as by `as_completed`.
        """
        return [answer for _, answer in sorted(self._crowd(tasks, connections), key=lambda came: came[0])]

    def _crowd(self, tasks: Iterable[HumanTask[T]], connections: int) -> Generator[tuple[int, Answer[T]]]:
        if self._own_transport:
            raise ValueError("many questions are asked in a thread of their own, which a sync transport cannot reach")
        questions = list(tasks)

        async def crowd() -> AsyncGenerator[tuple[int, Answer[T]]]:
            async with (
                TaskClient(settings=self.settings, clock=self.clock) as client,
                aclosing(Crowd(client.run, client.clock, connections).answers(questions)) as answers,
            ):
                async for came in answers:
                    yield came

        return in_a_thread(crowd)

    def run(self, steps: Flow[R], *, on_status: OnStatus | None = None) -> R:
        """Drive a flow of `awaithumans_core.flow` over this client's connections."""
        return self._driver.run(steps, on_status)

    def close(self) -> None:
        """Close the connections of this process."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _ask(task: HumanTask[Any], clock: Clock, poll_seconds: int) -> Flow[Outcome]:
    return flow.ask(task.body(), task.seconds, Patience(task.seconds, clock=clock.now), held=poll_seconds)


def _settings(server_url: str | None, api_key: str | None, settings: Settings | None) -> Settings:
    if settings is not None and server_url is None and api_key is None:
        return settings
    base = settings.model_dump() if settings is not None else {}
    given = {"url": server_url, "admin_api_token": api_key}
    return Settings.load(**base | {name: value for name, value in given.items() if value is not None})


def _http_options(settings: Settings, keep_alive: int) -> dict[str, Any]:
    return {
        "base_url": settings.url,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=keep_alive),
    }


def _of_this_process(transport: X, made_in: int) -> X:
    """Return the caller's transport. Raise `SettingsError` if the process has forked since it was given.

    Connections cannot be shared between processes.
    """
    if transport is not None and made_in != generation():
        raise SettingsError(
            "this client was created with transport= before its process forked. Connections cannot be shared between "
            "processes: create the client in the child, or leave transport out"
        )
    return transport


def _body(task: HumanTask[Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    return task.body() if isinstance(task, HumanTask) else task


def _request(http: httpx.Client | httpx.AsyncClient, token: str, call: Call) -> httpx.Request:
    try:
        return http.build_request(
            call.method,
            call.url,
            json=call.json,
            params=call.params,
            headers={"Authorization": f"Bearer {call.bearer or token}"},
            timeout=call.timeout,
        )
    except httpx.InvalidURL as error:
        raise SettingsError(f"{http.base_url or call.url} is not an address: {error}") from None


_STATUS = re.compile(r"[45]\d\d(?= )")


def _lost(error: httpx.RequestError, *, direct: bool = False) -> Reply | Lost:
    if isinstance(error, httpx.UnsupportedProtocol):
        raise SettingsError(f"{error}: an address starts with http:// or https://") from None
    # A proxy that refuses to open a tunnel has replied: "407 Proxy Authentication Required".
    if isinstance(error, httpx.ProxyError) and (refused := _STATUS.match(str(error))):
        return Reply(int(refused[0]), {}, b"", proxy=proxy_of(error))
    return Lost(lost_reason(error, direct=direct))


def _paused(pause: Pause, url: str, on_pause: OnPause | None) -> None:
    if pause.logged:
        logger.warning("awaithumans (server %s): %s; trying again in %.1f s", url, pause.reason, pause.seconds)
    if on_pause is not None:
        on_pause(pause)


def _notice(notice: Notice, on_status: OnStatus | None) -> None:
    if on_status is not None:
        on_status(notice.outcome)
