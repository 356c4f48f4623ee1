"""What is refused, and what an operator sees of the rest, in both modes."""

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
async def test_a_question_too_large_for_temporal_fails_at_once(client: Client, people: People, via: str) -> None:
    """It says how large it is and what to do, and nobody is asked."""
    name = uuid.uuid4().hex
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskHugely.run, name, via))
    cause = failed.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "InvalidTaskError"
    assert "2.0 MB" in str(cause)
    assert "link" in str(cause)
    assert await people.find(name, count=0) == []


async def test_an_answer_too_large_for_temporal_fails_the_wait_at_once(
    client: Client, people: People, question: str, via: str
) -> None:
    """Nobody waits until the deadline for what cannot come; it is no approval, and the answer is on the server."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await people.complete(task["id"], {"approved": True, "note": "x" * 2_200_000})
    told = await result(handle)
    assert told["error"] == "ResponseMissingError"
    assert "2.2 MB" in told["message"]


async def test_an_answer_is_as_large_as_it_is_written(client: Client, people: People, question: str, via: str) -> None:
    """A relay's plain client escapes every character: what counts is what it sends, not what there is to say."""
    handle = await start(client, Ask.run, {"task": question, "via": via})
    (task,) = await people.find(question)
    await people.complete(task["id"], {"approved": True, "note": "漢" * 400_000})
    told = await result(handle)
    assert told["error"] == "ResponseMissingError"
    assert "2.4 MB" in told["message"]


async def test_the_scripts_way_of_asking_is_refused(client: Client, question: str) -> None:
    """Whoever takes the core's `await_human` in a workflow is told which one to take."""
    with pytest.raises(WorkflowFailureError) as failed:
        await result(await start(client, AskLikeAScript.run, question))
    assert "awaithumans_adapters.temporal" in str(failed.value.cause)


async def test_what_is_waited_for_is_seen(
    client: Client, people: People, humans: HumansServer, question: str, via: str
) -> None:
    """Current details and a query say what a workflow waits for; afterwards, who decided."""
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
async def test_no_link_of_a_question_is_a_link_in_the_ui(
    client: Client, people: People, humans: HumansServer, question: str, via: str
) -> None:
    """Questions, people and names are text in the Temporal UI; the only link is ours, and it comes first."""
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
