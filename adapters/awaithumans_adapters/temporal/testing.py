"""`HumansForTemporal`: scripted people for workflows on a Temporal test server, where a wait of days takes a moment.

Law: people act in the server's time. Temporal's test server jumps to its next timer as soon as no task is active, so
each scripted action is such a timer. In signal mode it is a timer of a small workflow that polls the task. In activity
mode it is the pause before the next attempt of the activity that waits. Everything else is what runs in production: the
activities, the signed registration, the engine that delivers.

Needs the extras `temporal` and `testing`.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn, Self

import httpx
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, WorkflowAlreadyStartedError
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from awaithumans_adapters.temporal.activities.attempt_memory import Memory
from awaithumans_adapters.temporal.activities.human_tasks import PATIENCE_SECONDS, HumanTaskActivities
from awaithumans_adapters.temporal.activities.options import ActivityOptions
from awaithumans_adapters.temporal.engine.engine import TemporalEngine
from awaithumans_adapters.temporal.plugin import (
    HumanTasksActivityPlugin,
    HumanTasksPlugin,
    HumanTasksWorkflowPlugin,
)
from awaithumans_core.callback import open_callback
from awaithumans_core.engine import TargetGone
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.testing import FakeHumans, VirtualClock
from awaithumans_core.testing.task_server_state import UnknownTaskError

SERVER, RELAY = "https://humans.test", "https://relay.test"
"""Addresses of the awaithumans server and the relay, which run in this process. Nothing is sent over a network."""

_POLL, _LEAVE = "awaithumans.testing.visit", "awaithumans.testing.leave"
_OWN_PLUGINS = (HumanTasksPlugin, HumanTasksWorkflowPlugin, HumanTasksActivityPlugin)


class HumansForTemporal(FakeHumans):
    """People who answer the questions of workflows in a `WorkflowEnvironment`, in its virtual time, without a relay.

    Script them as with `FakeHumans`, before the workflow asks. `after(...)` counts on the environment's clock. Workers
    use `temporal_client`, or the plugin `plugin()`. Both modes of `await_human` work, with time skipping and without.
    This object's own worker runs the activities, so workflows under test need no settings. `complete` and `cancel` by
    the test itself reach a workflow in signal mode. An activity that waits notices them at the next scripted action.

    Args:
        env: `await WorkflowEnvironment.start_time_skipping()`, or `start_local()` for real time.
        task_queues: Task queues that questions choose for themselves with `await_human(activities=...)`.

    Example:
        async with await WorkflowEnvironment.start_time_skipping() as env, HumansForTemporal(env) as humans:
            humans.answer("Refund", {"approved": True}).after(timedelta(hours=3)).by("anna@example.com")
            client = humans.temporal_client
            async with Worker(client, task_queue="refunds", workflows=[RefundWorkflow]):
                result = await client.execute_workflow(RefundWorkflow.run, refund, id="r-1", task_queue="refunds")
    """

    def __init__(self, env: WorkflowEnvironment, *, task_queues: Sequence[str] = ()) -> None:
        self._env = env
        self._time = VirtualClock(auto=False)
        self._waits: dict[str, tuple[str, Route]] = {}
        network = _Network(self)
        super().__init__(clock=self._time, callback_transport=network)
        self.task_queue = f"humans-{secrets.token_hex(8)}"
        """Task queue on which the activities run."""
        self._queues = (self.task_queue, *task_queues)
        self._server = self.transport()
        self.relay_settings = self.settings(url=SERVER, relay_url=RELAY, relay_secret=secrets.token_urlsafe(32))
        """The settings that a worker and the relay would read from their environments."""
        self._client = _without_own_plugins(env.client)
        self._engine = TemporalEngine(self._client)
        self._activities = _Activities(
            self, HumanTasks(self.relay_settings, patience=PATIENCE_SECONDS, transport=network)
        )

    @property
    def temporal_client(self) -> Client:
        """The environment's client with `plugin()`. Its workers run workflows whose questions go to these people."""
        config = self._client.config()
        config["plugins"] = [*config["plugins"], self.plugin()]
        return Client(**config)

    def plugin(self) -> HumanTasksWorkflowPlugin:
        """Return the plugin for the code under test, which takes the place of `HumanTasksPlugin`.

        It is for a client, a worker or a replayer.
        """
        return HumanTasksWorkflowPlugin(activities=ActivityOptions(task_queue=self.task_queue))

    async def __aenter__(self) -> Self:
        """Start the scripted people, and the worker that runs the activities."""
        await super().__aenter__()
        try:
            await self.catch_up()
            for queue in self._queues:
                await self._stack.enter_async_context(self._worker(queue))
            self._stack.push_async_callback(self._end_polling)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    def _worker(self, task_queue: str) -> Worker:
        return Worker(
            self._client,
            task_queue=task_queue,
            workflows=[_Polling] if task_queue == self.task_queue else [],
            activities=[*self._activities.all(), self._poll],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )

    async def _end_polling(self) -> None:
        """End the workflows of this object while its worker runs.

        The server skips no time while one of them has a task, nor after one was terminated that had a task. A question
        may still be registered meanwhile, so the waits are taken one by one until none is left.
        """
        with self._env.auto_time_skipping_disabled():
            while self._waits:
                wait_id, _ = self._waits.popitem()
                polling = self._client.get_workflow_handle(wait_id)
                with suppress(RPCError):  # the workflow has ended
                    await polling.signal(_LEAVE)
                    await polling.result()

    # Time

    async def catch_up(self) -> None:
        """Run the scripted actions that are due by the environment's clock."""
        now = await self._env.get_current_time()
        self._time.advance(max(0.0, (now - self._state.moment()).total_seconds()))
        self._state.catch_up()

    def until_next_change(self, task_id: str) -> timedelta:
        """Return the time until something happens to a task that has not ended, plus 10 ms."""
        due = self._state.next_change(task_id)
        return timedelta(seconds=max(0.0, (due or 0.0) - self._time.now()), milliseconds=10)

    @activity.defn(name=_POLL)
    async def _poll(self, wait_id: str) -> list[float]:
        """Deliver the end of a task. If it has not ended, return the seconds until the next poll in a list."""
        await self.catch_up()
        if wait_id not in self._waits:  # its workflow is being ended
            return []
        task_id, route = self._waits[wait_id]
        try:
            task = self._state.get(task_id)
        except UnknownTaskError:
            return []
        if not task.terminal:
            return [self.until_next_change(task_id).total_seconds()]
        await self._deliver_to(route, Outcome.model_validate(task.record()))
        return []

    # The relay's part

    async def register(self, task_id: str, proof: str) -> None:
        """Accept a registration. A waiting activity is not polled, because its attempts check the task themselves."""
        route = self.relay_settings.signer().open_proof(proof, task_id)
        if "activity_id" in route.target:
            return
        wait_id = f"{self.task_queue}:{task_id}:{route.digest}"
        self._waits[wait_id] = task_id, route
        with suppress(WorkflowAlreadyStartedError):
            await self._client.start_workflow(_Polling.run, wait_id, id=wait_id, task_queue=self.task_queue)

    async def receive(self, token: str, request: httpx.Request) -> None:
        """Accept a callback, and deliver its outcome."""
        signer, keys = self.relay_settings.signer(), self.relay_settings.key_ring()
        callback = open_callback(token, request.headers, request.content, signer=signer, keys=keys)
        await self._deliver_to(callback.route, callback.outcome)

    async def _deliver_to(self, route: Route, outcome: Outcome) -> None:
        with suppress(TargetGone):  # the workflow has ended, for instance after a cancellation
            await self._engine.deliver(route, outcome.from_server())

    async def serve(self, request: httpx.Request) -> httpx.Response:
        """Answer a request to the awaithumans server, at the environment's time."""
        await self.catch_up()
        return await self._server.handle_async_request(request)


class _Network(httpx.AsyncBaseTransport):
    """Carries requests to the server and to the relay of this process."""

    def __init__(self, humans: HumansForTemporal) -> None:
        self._humans = humans

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Dispatch a request by its host and path."""
        if request.url.host != httpx.URL(RELAY).host:
            return await self._humans.serve(request)
        match request.method, request.url.path.strip("/").split("/"):
            case "PUT", ["waits", task_id]:
                await self._humans.register(task_id, request.headers["Authorization"].removeprefix("Bearer "))
            case "POST", ["callbacks", token]:
                await self._humans.receive(token, request)
            case _:  # a request for the open task of a route, which the server finds by its key instead
                pass
        return httpx.Response(200, json={}, request=request)


class _Activities(HumanTaskActivities):
    """The production activities, which ask the scripted people."""

    def __init__(self, humans: HumansForTemporal, asking: HumanTasks) -> None:
        super().__init__(asking.settings)
        self._human_tasks = asking
        self._humans = humans

    def _leave_open(self, task_id: str, memory: Memory) -> NoReturn:
        """Make Temporal retry the activity when the next scripted action is due.

        The test server skips no time while an activity is active.
        """
        memory.keep(asked=True)
        raise ApplicationError(
            "waits for a scripted person",
            next_retry_delay=self._humans.until_next_change(task_id),
            category=ApplicationErrorCategory.BENIGN,
        )


@workflow.defn(name="awaithumans.testing.Visits", sandboxed=False)
class _Polling:
    """Polls one task whenever something happens to it, until its outcome is delivered or the helper is closed."""

    def __init__(self) -> None:
        self._left = False

    @workflow.signal(name=_LEAVE)
    def leave(self) -> None:
        """Stop polling the task."""
        self._left = True

    @workflow.run
    async def run(self, wait_id: str) -> None:
        """Poll the task, sleep until the next poll, and repeat."""
        while not self._left:
            seconds: list[float] = await workflow.execute_activity(
                _POLL, wait_id, result_type=list[float], start_to_close_timeout=timedelta(seconds=60)
            )
            if not seconds:
                return
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._left, timeout=seconds[0])


def _without_own_plugins(client: Client) -> Client:
    """Return a copy of the client without the plugins of this package."""
    config: Any = client.config()
    config["plugins"] = [plugin for plugin in config["plugins"] if not isinstance(plugin, _OWN_PLUGINS)]
    return Client(**config)
