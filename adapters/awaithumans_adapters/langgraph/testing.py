"""`HumansForLangGraph`: scripted people for a graph, where a wait of days takes a moment.

Law: time moves only while a thread is resumed, to the next scripted action or deadline. Everything else is what runs in
production: the nodes, the signed registration, the engine that delivers.

Needs the extras `langgraph` and `testing`.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from awaithumans_adapters.langgraph.default_human_tasks import replaced
from awaithumans_adapters.langgraph.delivery.failed_runs import GraphFailedError
from awaithumans_adapters.langgraph.graph_engine.engine import GraphEngine
from awaithumans_adapters.langgraph.graph_engine.graphs import NOT_GIVEN
from awaithumans_core.engine import TargetGone
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.settings import Settings
from awaithumans_core.testing import FakeHumans, VirtualClock

_NAME = "graph"
_RELAY = "/relay"
"""Path of the relay's part, on the port of the scripted people."""


class HumansForLangGraph(FakeHumans):
    """People who answer the questions of a graph, in virtual time, without a relay and without settings.

    Script them as with `FakeHumans`, and start the thread as the application does: the run returns at the question.
    Then `resume` lets people act, and resumes the thread with each answer as the relay does. Nodes with `await_human`
    and `await_human_sync`, `HumanApproval` and `HumanInterrupts` find these people without any setting. Only one such
    object may be open at a time.

    Args:
        graph: A compiled graph with a checkpointer, for instance `InMemorySaver()`.
        config: The config with which threads are resumed, as for `GraphEngine`.
        context: The runtime context with which threads are resumed, as for `GraphEngine`.

    Example:
        async with HumansForLangGraph(graph) as humans:  # `with`, `graph.invoke` and `resume_sync` in sync tests
            humans.answer("Refund", {"approved": True}).after(timedelta(hours=3)).by("anna@example.com")
            await graph.ainvoke({"order": "A-1", "amount": 250}, thread)
            assert (await humans.resume(thread))["result"] == "paid"
    """

    def __init__(
        self,
        graph: Any,  # LangGraph's own class has type parameters that would be unknown here
        *,
        config: RunnableConfig | Callable[[str, str], RunnableConfig] | None = None,
        context: Any = NOT_GIVEN,
    ) -> None:
        self._time = VirtualClock(auto=False)
        super().__init__(clock=self._time)
        self._graph = graph
        self._engine = GraphEngine({_NAME: graph}, config=config, context=context)
        self._waits: dict[tuple[str, str], Route] = {}
        """Routes of the open waits, by task id and the route's digest."""
        self._secret = secrets.token_urlsafe(32)
        self._open = ExitStack()
        self.app: ASGIApp = _WithRelay(self.app, self.register)

    @property
    def caller_settings(self) -> Settings:
        """The settings that nodes would read from the environment."""
        return self.settings(relay_url=f"{self.url}{_RELAY}", relay_secret=self._secret)

    def __enter__(self) -> Self:
        """Start the scripted people, and let the nodes of this process ask them."""
        with ExitStack() as stack:
            stack.enter_context(self.serving())
            stack.enter_context(replaced(HumanTasks(self.caller_settings)))
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def register(self, proof: str, task_id: str) -> None:
        """Accept the registration of a wait."""
        route = self.caller_settings.signer().open_proof(proof, task_id)
        self._waits[task_id, route.digest] = route

    async def resume(self, thread: RunnableConfig) -> Any:
        """Let people act, and resume the thread with each answer, until it has no open question. Return its values.

        Time moves to the next scripted action or deadline, so a question without a script ends in a timeout.

        Args:
            thread: The config with which the thread was started: `{"configurable": {"thread_id": ...}}`.

        Raises:
            Exception: the error of a node that failed, such as `TaskTimeoutError`. A relay would park the wait.
            TargetGone: the thread did not take an answer, for another reason. A relay would park the wait.
            ValueError: the thread was not started.
        """
        thread_id = thread.get("configurable", {})["thread_id"]
        while waits := [wait for wait in self._waits.items() if wait[1].target["thread_id"] == thread_id]:
            self._state.catch_up()
            for (task_id, digest), route in waits:
                task = self._state.tasks.get(task_id)
                if task is None:  # the test has deleted it
                    del self._waits[task_id, digest]
                elif task.terminal:
                    del self._waits[task_id, digest]
                    await self._deliver(route, Outcome.model_validate(task.record()).from_server())
                    break
                elif await self._engine.orphaned(route) is not None:  # for instance, new input has replaced it
                    del self._waits[task_id, digest]
                    self.cancel(task_id)
            else:
                self._advance(task_id for (task_id, _), _ in waits)
        state = await self._graph.aget_state(thread)
        if state.created_at is None:
            raise ValueError(f"thread {thread_id!r} was not started: first call graph.ainvoke(input, thread)")
        return state.values

    def resume_sync(self, thread: RunnableConfig) -> Any:
        """Resume the thread as `resume` does, in a test without an event loop."""
        return asyncio.run(self.resume(thread))

    def _advance(self, task_ids: Iterable[str]) -> None:
        """Move time to the next change of these tasks."""
        changes = [due for task_id in task_ids if (due := self._state.next_change(task_id)) is not None]
        if changes:
            self._time.advance(max(0.0, min(changes) - self._time.now()))

    async def _deliver(self, route: Route, outcome: Outcome) -> None:
        try:
            await self._engine.deliver(route, outcome)
        except TargetGone as gone:
            if isinstance(gone.__cause__, GraphFailedError) and gone.__cause__.failure is not None:
                raise gone.__cause__.failure from None
            raise


class _WithRelay:
    """Serves the part of a relay that callers need, beside the server.

    Args:
        server: The application of the scripted people.
        register: Accepts a registration.
    """

    def __init__(self, server: ASGIApp, register: Callable[[str, str], None]) -> None:
        self._server = server
        self._register = register
        self._relay = Starlette(
            routes=[
                Endpoint(f"{_RELAY}/waits/asked", _nothing),  # the server finds the task by its key instead
                Endpoint(f"{_RELAY}/waits/{{task_id}}", self._registered, methods=["PUT"]),
                Endpoint(f"{_RELAY}/callbacks/{{token}}", _nothing, methods=["POST"]),  # `resume` delivers
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of either."""
        of_relay = scope["type"] == "http" and scope["path"].startswith(f"{_RELAY}/")
        await (self._relay if of_relay else self._server)(scope, receive, send)

    async def _registered(self, request: Request) -> JSONResponse:
        self._register(request.headers["Authorization"].removeprefix("Bearer "), request.path_params["task_id"])
        return JSONResponse({})


async def _nothing(_: Request) -> JSONResponse:
    return JSONResponse({})
