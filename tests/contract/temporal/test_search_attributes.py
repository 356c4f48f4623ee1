"""Waiting workflows can be listed by assignee through a search attribute, in both modes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from devservers import TemporalServer
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError
from temporalio.worker import Replayer, Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_adapters.temporal.names import ASSIGNEES, QUERY, SIGNAL
from awaithumans_adapters.temporal.workflow.search_attribute import MAX_BYTES, assignees
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.temporal import YES, result, start, until_waiting
from tests.support.workflows import WORKFLOWS, AskUncaught

pytestmark = pytest.mark.edges


@pytest.fixture
async def listing(relay: RunningRelay, temporal: TemporalServer, question: str) -> AsyncGenerator[Client]:
    """Yield a client whose worker sets the search attribute and replays the workflow at every step."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(relay.settings, list_assignees=True)])
    keyword_list = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST
    request = AddSearchAttributesRequest(namespace="default", search_attributes={ASSIGNEES: keyword_list})
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as known:
        assert "already exist" in str(known)  # noqa: PT017 - an earlier test has added it
    async with Worker(client, task_queue=question, workflows=WORKFLOWS, max_cached_workflows=0):
        yield client


async def listed(client: Client, query: str) -> list[str]:
    return [found.id async for found in client.list_workflows(query)]


async def replay(history: WorkflowHistory, **options: Any) -> None:
    await Replayer(workflows=WORKFLOWS, plugins=[HumanTasksPlugin(**options)]).replay_workflow(history)


async def test_waiting_workflow_is_listed_by_assignee(listing: Client, people: People, question: str, via: str) -> None:
    """A workflow is listed by assignee only while its question is open, and replays with and without the option."""
    who = f"{question.split()[1].rstrip('?')}@example.com"
    options = {"task": question, "via": via, "assign_to": who}
    handle = await start(listing, AskUncaught.run, options, task_queue=question)
    (task,) = await people.find(question)
    async with asyncio.timeout(30):
        while await listed(listing, f"{ASSIGNEES} = '{who}'") != [handle.id]:
            await asyncio.sleep(0.1)
    await people.complete(task["id"], YES)
    assert await result(handle) is True
    assert ASSIGNEES not in (await handle.describe()).search_attributes
    history = await handle.fetch_history()
    await replay(history, list_assignees=True)
    await replay(history)


async def test_history_without_the_option_replays_with_it(
    client: Client, people: People, question: str, via: str
) -> None:
    """The history of a run without the option replays with it and sets no attribute."""
    handle = await start(client, AskUncaught.run, {"task": question, "via": via})
    await people.answer(question, YES)
    assert await result(handle) is True
    await replay(await handle.fetch_history(), list_assignees=True)


async def test_signal_and_query_are_described(client: Client, question: str) -> None:
    """`temporal workflow metadata` and the UI show descriptions of the signal and the query."""
    handle = await start(client, AskUncaught.run, {"task": question})
    await until_waiting(handle)
    metadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    definition = metadata.definition
    described = {
        each.name: each.description for each in (*definition.signal_definitions, *definition.query_definitions)
    }
    assert "answer of a person" in described[SIGNAL]
    assert "oldest first" in described[QUERY]
    await handle.terminate()


def test_assignees_are_limited_to_the_size_of_a_search_attribute() -> None:
    """Assignees are unique and sorted, and no more than Temporal accepts."""
    assert assignees(["b@example.com, a@example.com", "a@example.com"]) == ["a@example.com", "b@example.com"]
    many = assignees(f"person-{number}@example.com" for number in range(500))
    assert 0 < sum(len(name) for name in many) <= MAX_BYTES
