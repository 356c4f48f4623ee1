"""Helpers for workflows that ask: start them, observe their progress, and run them on a time-skipping server."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from devservers import HumansServer, TemporalServer, tool
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from tests.support.callers import TemporalCaller
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay
from tests.support.servers import TaskServer
from tests.support.workflows import TASK_QUEUE, WORKFLOWS

YES, NO = {"approved": True}, {"approved": False}


async def start(client: Client, workflow: Any, *arguments: Any, **options: Any) -> WorkflowHandle[Any, Any]:
    given = {"id": f"m-{uuid.uuid4().hex}", "task_queue": TASK_QUEUE, **options}
    return await client.start_workflow(workflow, args=list(arguments), **given)


async def result(handle: WorkflowHandle[Any, Any], seconds: float = 60.0) -> Any:
    return await asyncio.wait_for(handle.result(), seconds)


async def until_open(relay: RunningRelay, task: Any) -> None:
    await relay.wait_for(task["id"], "open")


async def until_waiting(handle: WorkflowHandle[Any, Any]) -> list[dict[str, Any]]:
    """Return the pending questions of the workflow, once there are any."""
    async with asyncio.timeout(60):
        while not (pending := await _pending(handle)):
            await asyncio.sleep(0.05)
    return pending


async def _pending(handle: WorkflowHandle[Any, Any]) -> list[dict[str, Any]]:
    try:
        return list(await handle.query("pending_human_tasks"))
    except Exception as early:
        assert "pending_human_tasks" in str(early)  # noqa: PT017 - before the workflow reaches its first question
        return []


async def next_run(handle: WorkflowHandle[Any, Any], signal: Any) -> None:
    """Make the workflow continue as new, once its questions are open."""
    await until_waiting(handle)
    await asyncio.sleep(0.5)
    run = (await handle.describe()).run_id
    await handle.signal(signal)
    async with asyncio.timeout(60):
        while (await handle.describe()).run_id == run:
            await asyncio.sleep(0.05)


async def failures(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Return the failure messages of this workflow's tasks."""
    history = (await handle.fetch_history()).events
    return [event.workflow_task_failed_event_attributes.failure.message for event in history]


class PeopleWithPromptChecks(People):
    """People whose answers the relay checks immediately."""

    def __init__(self, humans: TaskServer, relay: RunningRelay) -> None:
        super().__init__(humans)
        self.relay = relay

    async def complete(self, task_id: str, response: dict[str, Any], by: str = "anna@example.com") -> None:
        await super().complete(task_id, response, by)
        with suppress(TimeoutError):  # this relay has no wait for the task
            await self.relay.check_now(task_id, 2)

    async def cancel(self, task_id: str) -> None:
        await super().cancel(task_id)
        await self.relay.check_now(task_id, 2)


@dataclass
class WorkerAndRelay:
    """A worker, the client that starts its workflows, and their relay."""

    client: Client
    queue: str
    relay: RunningRelay

    async def start(self, workflow: Any, *arguments: Any) -> WorkflowHandle[Any, Any]:
        return await start(self.client, workflow, *arguments, task_queue=self.queue)


@asynccontextmanager
async def worker_and_relay(
    converter: DataConverter,
    temporal: TemporalServer,
    humans: HumansServer,
    folder: Path,
    *,
    connect: Callable[[], Awaitable[Client]] | None = None,
) -> AsyncGenerator[WorkerAndRelay]:
    """Run a worker with this converter, and a relay that connects to Temporal with `connect` or the same converter."""
    connect = connect or connecting(temporal, converter)
    async with (
        running_relay([TemporalEngine(connect)], humans, folder) as relay,
        worker_beside(relay, converter, temporal) as parts,
    ):
        yield parts


@asynccontextmanager
async def worker_beside(
    relay: RunningRelay, converter: DataConverter, temporal: TemporalServer
) -> AsyncGenerator[WorkerAndRelay]:
    """Run a worker with this converter, whose workflows register at this relay."""
    plugin = HumanTasksPlugin(relay.settings)
    client = await Client.connect(temporal.address, data_converter=converter, plugins=[plugin])
    queue = uuid.uuid4().hex
    async with Worker(client, task_queue=queue, workflows=WORKFLOWS):
        yield WorkerAndRelay(client, queue, relay)


def connecting(temporal: TemporalServer, converter: DataConverter) -> Callable[[], Awaitable[Client]]:
    return lambda: Client.connect(temporal.address, data_converter=converter)


@asynccontextmanager
async def time_skipping_server(
    humans: HumansServer, folder: Path
) -> AsyncGenerator[tuple[WorkflowEnvironment, Client]]:
    """Run a time-skipping server with a client and a worker, whose workflows the relay cannot reach."""
    env = await WorkflowEnvironment.start_time_skipping(test_server_existing_path=tool("temporal-test-server"))
    async with env, running_relay([TemporalEngine(unreachable)], humans, folder) as relay:
        config = env.client.config()
        config["plugins"] = [HumanTasksPlugin(relay.settings)]
        asker = TemporalCaller("")
        asker.client = Client(**config)
        async with asker.worker():
            yield env, asker.client


async def result_after(env: WorkflowEnvironment, handle: WorkflowHandle[Any, Any], via: str, *times: timedelta) -> Any:
    """Return the result after these times have passed, with a moment for events after each.

    While activities run, this server skips time only if it is asked to once for each of them, in addition to the call
    that waits for the result. After that call has returned, the server skips no more time.
    """
    waiting = asyncio.create_task(result(handle))
    for under_way, time in enumerate(times if via == "activity" else (), start=1):
        await until_activities_started(handle, under_way)
        skipping = asyncio.gather(*(skip_time(env, time) for _ in range(under_way)))
        await asyncio.wait([waiting, skipping], return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            skipping.cancel()
            break
        await skipping
    return await waiting


async def skip_time(env: WorkflowEnvironment, time: timedelta) -> None:
    """Let time pass, twice if a worker is slow to leave an activity and holds it up."""
    try:
        await env.sleep(time)
    except RPCError as held_up:
        if held_up.status not in (RPCStatusCode.CANCELLED, RPCStatusCode.DEADLINE_EXCEEDED):
            raise
        await env.sleep(time)


async def until_activities_started(handle: WorkflowHandle[Any, Any], count: int) -> None:
    """Wait until this many activities have started and wait for their completion from outside."""
    async with asyncio.timeout(60):
        while True:
            pending = (await handle.describe()).raw_description.pending_activities
            if sum(each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED for each in pending) == count:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)


async def unreachable() -> Client:
    raise ConnectionError("not in this test")
