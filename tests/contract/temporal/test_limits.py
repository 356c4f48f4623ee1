"""Refused questions, size limits, and the status that operators see, in both modes."""

import asyncio
import uuid
from typing import Any

import pytest
from devservers import HumansServer
from markdown_it import MarkdownIt
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError

from tests.support.people import People
from tests.support.temporal import YES, result, start, until_waiting
from tests.support.workflows import Ask, AskHugely, AskLikeAScript, AskSeveral


@pytest.mark.edges
async def test_question_too_large_for_temporal_fails_at_once(client: Client, people: People, via: str) -> None:
    """The error states the size and the remedy, and no task is created."""
    name = uuid.uuid4().hex
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskHugely.run, name, via))
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "InvalidTaskError"
    assert "2.0 MB" in str(cause)
    assert "link" in str(cause)
    assert await people.find(name, count=0) == []


async def test_answer_too_large_for_temporal_fails_the_wait_at_once(
    client: Client, people: People, question: str, via: str
) -> None:
    """An oversized answer ends the wait with an error before the deadline, and stays on the server."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await people.complete(task["id"], {"approved": True, "note": "x" * 2_200_000})
    told = await result(handle)
    assert told["error"] == "ResponseMissingError"
    assert "2.2 MB" in told["message"]


async def test_answer_size_is_its_encoded_size(client: Client, people: People, question: str, via: str) -> None:
    """The size limit applies to the encoded bytes, in which a plain client escapes every character."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await people.complete(task["id"], {"approved": True, "note": "漢" * 400_000})
    told = await result(handle)
    assert told["error"] == "ResponseMissingError"
    assert "2.4 MB" in told["message"]


async def test_await_human_of_the_core_is_refused_in_a_workflow(client: Client, question: str) -> None:
    """The error of the core's `await_human` in a workflow names the function to use."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskLikeAScript.run, question))
    assert "awaithumans_adapters.temporal" in str(failed.value.cause)


async def test_details_and_query_show_open_questions(
    client: Client, people: People, humans: HumansServer, question: str, via: str
) -> None:
    """Current details and a query show the open questions, and afterwards who decided."""
    handle = await start(client, AskSeveral.run, question, via)
    (task,) = await people.find(f"{question}: first?")
    (pending,) = await until_waiting(handle)
    assert pending["question"] == f"{question}: first?"
    assert pending["via"] == via
    details = await current_details(handle)
    assert f"Waiting for a person: **{question}: first?**" in details
    if via == "signal":
        assert pending["task_id"] == task["id"]
        assert f"{humans.url}/task?id={task['id']}" in details
    await people.complete(task["id"], YES)
    await people.find(f"{question}: second?")
    async with asyncio.timeout(60):
        while "second?" not in (details := await current_details(handle)):
            await asyncio.sleep(0.05)
    assert f"**{question}: first?** completed by anna@example.com (dashboard), 20" in details
    await handle.cancel()


@pytest.mark.parametrize("via", ["signal"])
async def test_links_in_questions_are_plain_text_in_the_ui(
    client: Client, people: People, humans: HumansServer, question: str, via: str
) -> None:
    """Questions, people and names are text in the Temporal UI; the only link is the review link, and it comes first."""
    attack = f"{question} [Approve here](https://evil.example) <b>"
    handle = await start(
        client, Ask.run, {"task": attack, "via": via, "assign_to": {"pool": "x](https://evil.example)"}}
    )
    (task,) = await people.find(attack)
    await until_waiting(handle)
    review_url = f"{humans.url}/task?id={task['id']}"
    async with asyncio.timeout(60):
        while review_url not in (details := await current_details(handle)):
            await asyncio.sleep(0.05)
    assert details.startswith(review_url)
    inside = [child for token in MarkdownIt("commonmark").parse(details) for child in token.children or ()]
    assert not {child.type for child in inside} & {"link_open", "html_inline", "image"}
    assert [child.content for child in inside if "://" in child.content and child.type == "text"] == [review_url]
    assert attack in [child.content for child in inside if child.type == "code_inline"]
    await handle.cancel()


async def current_details(handle: WorkflowHandle[Any, Any]) -> str:
    return str((await handle.query("__temporal_workflow_metadata")).current_details)
