"""The recorded cases: each way in which a question can end, in both modes."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from devservers import HumansServer
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay
from tests.support.workflows import (
    WORKFLOWS,
    AskAcrossRuns,
    AskAndEnd,
    AskImpatiently,
    AskSeveral,
    AskTwoOfThree,
    AskUncaught,
)

YES = {"approved": True}
IDENTITY = "worker"
"""Identity of the clients in place of process and host name, which must not be published."""


@dataclass
class Stage:
    """The surroundings in which a case is run: relay, worker and people."""

    client: Client
    people: People
    relay: RunningRelay
    queue: str

    async def start(self, workflow: Any, *arguments: Any, **options: Any) -> WorkflowHandle[Any, Any]:
        return await self.client.start_workflow(
            workflow, args=list(arguments), id=self.queue, task_queue=self.queue, **options
        )

    async def answer(self, question: str, response: dict[str, Any]) -> None:
        """Answer the question and have the relay check it at once."""
        (task,) = await self.people.find(question)
        await self.relay.wait_for(task["id"], "open")
        await self.people.complete(task["id"], response)
        await self.relay.check_now(task["id"])


Case = Callable[[Stage, str], Awaitable[WorkflowHandle[Any, Any]]]


async def answered(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    handle = await stage.start(AskUncaught.run, {"task": stage.queue, "via": via})
    await stage.answer(stage.queue, YES)
    await handle.result()
    return handle


async def several(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    handle = await stage.start(AskSeveral.run, stage.queue, via)
    for which in ("first", "second", "left", "right"):
        await stage.answer(f"{stage.queue}: {which}?", YES)
    await handle.result()
    return handle


async def asked_again(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    handle = await stage.start(AskUncaught.run, {"task": stage.queue, "via": via, "max_reasks": 1})
    (task,) = await stage.people.find(stage.queue)
    await stage.answer(stage.queue, {"approved": "maybe"})
    again = await stage.people.by_key(f"{task['idempotency_key']}:reask:1")
    await stage.answer(again["task"], YES)
    await handle.result()
    return handle


async def abandoned(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    handle = await stage.start(AskImpatiently.run, {"task": stage.queue, "via": via})
    await handle.result()
    return handle


async def ended(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    once = RetryPolicy(maximum_attempts=1)
    handle = await stage.start(AskAndEnd.run, {"task": stage.queue, "via": via}, "returns", retry_policy=once)
    await handle.result()
    return handle


async def across_runs(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    """Return the second run, which inherits the question."""
    handle = await stage.start(AskAcrossRuns.run, {"task": stage.queue, "via": via})
    (task,) = await stage.people.find(stage.queue)
    await stage.relay.wait_for(task["id"], "open")
    first = (await handle.describe()).run_id
    await handle.signal(AskAcrossRuns.go_on)
    current = stage.client.get_workflow_handle(stage.queue)
    async with asyncio.timeout(60):
        while (await handle.describe()).run_id == first or not await _waits(current):
            await asyncio.sleep(0.05)
    await stage.answer(stage.queue, YES)
    await handle.result()
    return current


async def _waits(handle: WorkflowHandle[Any, Any]) -> bool:
    """Return whether this run has made its first commands."""
    history = (await handle.fetch_history()).events
    return any(event.HasField("workflow_task_completed_event_attributes") for event in history)


async def quorum(stage: Stage, via: str) -> WorkflowHandle[Any, Any]:
    handle = await stage.start(AskTwoOfThree.run, stage.queue, via)
    for task in (await stage.people.find(stage.queue, count=3))[:2]:
        await stage.relay.wait_for(task["id"], "open")
        await stage.people.complete(task["id"], YES, by=task["assign_to"]["email"])
        await stage.relay.check_now(task["id"])
        await stage.relay.wait_for(task["id"], "delivered")
    await handle.result()
    return handle


CASES: dict[str, Case] = {
    "answered": answered,
    "several": several,
    "asked-again": asked_again,
    "abandoned": abandoned,
    "ended": ended,
    "across-runs": across_runs,
    "quorum": quorum,
}
NAMES = [f"{case}-{via}" for case in CASES for via in ("signal", "activity")]


@asynccontextmanager
async def stage(humans: HumansServer, address: str, folder: Path, queue: str) -> AsyncGenerator[Stage]:
    """Run relay, worker and people for one case; `queue` names everything in it."""
    engine = TemporalEngine(lambda: Client.connect(address, identity=IDENTITY))
    async with running_relay([engine], humans, folder) as relay:
        client = await Client.connect(address, identity=IDENTITY, plugins=[HumanTasksPlugin(relay.settings)])
        people = People(humans)
        worker = Worker(
            client,
            task_queue=queue,
            workflows=WORKFLOWS,
            identity=IDENTITY,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
        )
        async with worker:
            yield Stage(client, people, relay, queue)
        await people.aclose()


async def played(name: str, where: Stage) -> dict[str, Any]:
    """Run a case now and return its history."""
    case, _, via = name.rpartition("-")
    handle = await CASES[case](where, via)
    return dict((await handle.fetch_history()).to_json_dict())
