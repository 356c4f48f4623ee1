"""The clients of the awaithumans task API: `TaskClient` (async) and `SyncTaskClient`.

Each verb is written once, as a flow. Each client takes it with the driver it needs: awaiting or blocking.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import aclosing, closing
from functools import wraps
from inspect import signature
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, get_args

import httpx

from awaithumans_core import clock as clocks
from awaithumans_core import flow
from awaithumans_core.batch import CONNECTIONS, Answer, Batch, Run, in_a_thread
from awaithumans_core.clock import Clock
from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import Flow, Lost, Notice, Patience, Pause, Reply
from awaithumans_core.http.clients import async_client, sync_client, warn_if_exposed
from awaithumans_core.http.connections import generation
from awaithumans_core.http.drivers import AsyncDriver, OnStatus, SyncDriver
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress import INTERRUPTS, BatchProgress, batch_progress_of
from awaithumans_core.settings import Settings, check_all
from awaithumans_core.task import HumanTask

T = TypeVar("T")
R = TypeVar("R")
X = TypeVar("X")
P = ParamSpec("P")
OnPause = Callable[[Pause], None]
"""Called when there was no usable reply, before the pause that precedes the next attempt."""


class _Client:
    """What both clients share: their settings, clock and patience."""

    def __init__(
        self,
        server_url: str | None,
        api_key: str | None,
        settings: Settings | None,
        patience: float,
        clock: Clock | None,
        *,
        own_transport: bool,
    ) -> None:
        self.settings = _settings(server_url, api_key, settings)
        self.clock = clock or clocks.SYSTEM
        self._patience = Patience(patience, clock=self.clock.now)
        check_all(self.settings.token)
        self._token = self.settings.token()
        if not own_transport:
            warn_if_exposed("AWAITHUMANS_URL", self.settings.url, "the API token")


class _Verbs(_Client):
    """The verbs of both clients, each as a flow. A client takes them with `_awaited` or `_blocking`."""

    def create(self, task: HumanTask[Any] | Mapping[str, Any]) -> Flow[Outcome]:
        """Create the task, or find the task that already has its key, in any status. Safe to repeat."""
        return flow.create(task.body() if isinstance(task, HumanTask) else task, self._patience)

    def get(self, task_id: str) -> Flow[Outcome]:
        """Read the task once and return its status and answer."""
        return flow.get(task_id, self._patience)

    def poll(self, task_id: str, *, seconds: int = flow.POLL_SECONDS) -> Flow[Outcome]:
        """Hold one long poll of 1 to 30 seconds and return the task's status. An end is read from the task record."""
        return flow.poll(task_id, self._patience, seconds=seconds)

    def cancel(self, task_id: str) -> Flow[Outcome]:
        """Cancel the task unless it has ended, and return how it ended.

        An answer given in the meantime is returned, not lost.
        """
        return flow.close(task_id, self._patience)

    def withdraw(self, task: HumanTask[Any]) -> Flow[Outcome]:
        """Cancel the question by its key, whether or not its task is known to exist. Return how it ended."""
        return flow.withdraw(task.body(), self._patience)

    def ask(
        self,
        task: HumanTask[Any],
        *,
        on_status: OnStatus | None = None,
        on_pause: OnPause | None = None,
        poll_seconds: int = flow.POLL_SECONDS,
    ) -> Flow[Outcome]:
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
        patience = Patience(task.seconds, clock=self.clock.now)
        steps = flow.ask(task.body(), task.seconds, patience, held=poll_seconds)
        outcome = yield from observed(steps, on_status, on_pause)
        task.answerers.check(outcome)
        return outcome


def observed(steps: Flow[R], on_status: OnStatus | None, on_pause: OnPause | None) -> Flow[R]:
    """Report the notices and pauses of a flow to the caller, and yield every step to the driver."""
    reply: Reply | Lost | None = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time
        if isinstance(step, Notice) and on_status is not None:
            on_status(step.outcome)
        if isinstance(step, Pause) and on_pause is not None:
            on_pause(step)
        reply = yield step


def _awaited(
    verb: Callable[Concatenate[Any, P], Flow[R]],
) -> Callable[Concatenate["TaskClient", P], Coroutine[Any, Any, R]]:
    """Return the method of `TaskClient` for a verb."""

    @wraps(verb)
    async def method(self: "TaskClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.run(verb(self, *args, **kwargs))

    _named(method, "TaskClient", verb)
    return method


def _blocking(verb: Callable[Concatenate[Any, P], Flow[R]]) -> Callable[Concatenate["SyncTaskClient", P], R]:
    """Return the method of `SyncTaskClient` for a verb."""

    @wraps(verb)
    def method(self: "SyncTaskClient", /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.run(verb(self, *args, **kwargs))

    _named(method, "SyncTaskClient", verb)
    return method


def _named(method: Callable[..., Any], owner: str, verb: Callable[..., Flow[Any]]) -> None:
    """Give a method the name and the signature that `help` shows: those of its verb, with the result of its flow."""
    shown = signature(verb)
    result = get_args(shown.return_annotation)[-1]
    described: Any = method
    described.__qualname__ = f"{owner}.{verb.__name__}"
    described.__signature__ = shown.replace(return_annotation=result)
    described.__annotations__ = verb.__annotations__ | {"return": result}


class TaskClient(_Client):
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
        super().__init__(server_url, api_key, settings, patience, clock, own_transport=transport is not None)
        options, made_in = _http_options(self.settings, keep_alive), generation()

        def http() -> httpx.AsyncClient:
            return async_client(**options, transport=_of_this_process(transport, made_in))

        url, direct = self.settings.url, transport is not None
        self._driver = AsyncDriver(http, url, self._token, self.clock, direct=direct)

    create = _awaited(_Verbs.create)
    get = _awaited(_Verbs.get)
    poll = _awaited(_Verbs.poll)
    cancel = _awaited(_Verbs.cancel)
    withdraw = _awaited(_Verbs.withdraw)
    ask = _awaited(_Verbs.ask)

    async def as_completed(
        self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS, progress: bool = True
    ) -> AsyncGenerator[Answer[T]]:
        """Ask all questions and yield each answer as it arrives. A failed question yields an answer with its error.

        At most `connections` connections are held for any number of questions. While there are more questions than
        connections, pages of the server's lists of tasks serve many at once, and all checks together take 2 % of the
        time at most. As far as that suffices, an answer is seen within a second or 5 % of the time that the person
        took, at most nine minutes. If the loop is left early, the open tasks stay on the server, and the same questions
        with the same keys resume them.

        Args:
            tasks: The questions.
            connections: Maximum number of connections.
            progress: Show the progress on stderr: on a terminal how many questions are open and the oldest of them, and
                one line when the wait is stopped (Ctrl-C); elsewhere one line for each.

        Example:
            async for answer in client.as_completed(questions):
                if answer.error is None:
                    print(answer.question.task, answer.result())
        """
        async with aclosing(self._batch(tasks, connections, shown=progress)) as answers:
            async for _, answer in answers:
                yield answer

    async def wait_all(
        self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS, progress: bool = True
    ) -> list[Answer[T]]:
        """Ask all questions and return all answers, in the order of the questions. A failure does not lose the others.

        The answers are collected as by `as_completed`.
        """
        async with aclosing(self._batch(tasks, connections, shown=progress)) as answers:
            return [
                answer for _, answer in sorted([arrival async for arrival in answers], key=lambda arrival: arrival[0])
            ]

    async def _batch(
        self, tasks: Iterable[HumanTask[T]], connections: int, *, shown: bool
    ) -> AsyncGenerator[tuple[int, Answer[T]]]:
        questions = list(tasks)
        with batch_progress_of(questions, self.settings, shown=shown) as progress:
            try:
                async with aclosing(
                    Batch(_shown(self, progress), self.clock, connections, progress).answers(questions)
                ) as answers:
                    async for arrival in answers:
                        yield arrival
            except INTERRUPTS as stop:
                raise stop.with_traceback(None) from None  # its place in the batch is of no use to a reader

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


class SyncTaskClient(_Client):
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
        super().__init__(server_url, api_key, settings, patience, clock, own_transport=transport is not None)
        options, made_in = _http_options(self.settings, keep_alive), generation()

        def http() -> httpx.Client:
            return sync_client(**options, transport=_of_this_process(transport, made_in))

        url, direct = self.settings.url, transport is not None
        self._own_transport = direct
        self._driver = SyncDriver(http, url, self._token, self.clock, direct=direct)

    create = _blocking(_Verbs.create)
    get = _blocking(_Verbs.get)
    poll = _blocking(_Verbs.poll)
    cancel = _blocking(_Verbs.cancel)
    withdraw = _blocking(_Verbs.withdraw)
    ask = _blocking(_Verbs.ask)

    def as_completed(
        self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS, progress: bool = True
    ) -> Generator[Answer[T]]:
        """Ask all questions and yield each answer as it arrives, as `TaskClient.as_completed` does.

        It uses a thread and connections of its own.
        """
        with closing(self._batch(tasks, connections, shown=progress)) as answers:
            for _, answer in answers:
                yield answer

    def wait_all(
        self, tasks: Iterable[HumanTask[T]], *, connections: int = CONNECTIONS, progress: bool = True
    ) -> list[Answer[T]]:
        """Ask all questions and return all answers, in the order of the questions. A failure does not lose the others.

        The answers are collected as by `as_completed`.
        """
        arrivals = self._batch(tasks, connections, shown=progress)
        return [answer for _, answer in sorted(arrivals, key=lambda arrival: arrival[0])]

    def _batch(
        self, tasks: Iterable[HumanTask[T]], connections: int, *, shown: bool
    ) -> Generator[tuple[int, Answer[T]]]:
        if self._own_transport:
            raise ValueError("many questions are asked in a thread of their own, which a sync transport cannot reach")
        questions = list(tasks)

        async def batch() -> AsyncGenerator[tuple[int, Answer[T]]]:
            async with (
                TaskClient(settings=self.settings, clock=self.clock) as client,
                aclosing(
                    Batch(_shown(client, progress), client.clock, connections, progress).answers(questions)
                ) as answers,
            ):
                async for arrival in answers:
                    yield arrival

        with batch_progress_of(questions, self.settings, shown=shown) as progress:
            try:
                yield from in_a_thread(batch)
            except INTERRUPTS as stop:
                raise stop.with_traceback(None) from None  # its place in the batch is of no use to a reader

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


def _shown(client: TaskClient, progress: BatchProgress) -> Run:
    """Return the `run` of a batch, which reports whether the server gives usable replies."""

    async def run(steps: Flow[R], *, on_status: OnStatus | None = None, slots: asyncio.Semaphore | None = None) -> R:
        def replied(outcome: Outcome) -> None:
            progress.replied()
            if on_status is not None:
                on_status(outcome)

        result = await client.run(observed(steps, None, progress.trouble), on_status=replied, slots=slots)
        progress.replied()
        return result

    return run


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
