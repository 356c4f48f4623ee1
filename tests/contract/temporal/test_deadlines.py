"""Questions that stay unanswered for days, in skipped time and in both modes."""

from datetime import timedelta
from pathlib import Path

import pytest
from devservers import HumansServer

from tests.support.people import People
from tests.support.temporal import YES, result_after, start, time_skipping_server
from tests.support.workflows import Ask, AskUpTheLadder, Decision


@pytest.mark.edges
@pytest.mark.parametrize("answered", ["nobody", "at-the-last-moment"])
async def test_wait_of_thirty_days_checks_the_task_at_its_deadline(
    humans: HumansServer, people: People, tmp_path: Path, question: str, via: str, answered: str
) -> None:
    """Without a callback the workflow checks the task at its deadline: it takes an answer, or else cancels the task."""
    async with time_skipping_server(humans, tmp_path) as (env, skipped):
        options = {"task": question, "via": via, "timeout_seconds": 30 * 86400, "recheck": 40 * 86400}
        handle = await start(skipped, Ask.run, options)
        with env.auto_time_skipping_disabled():
            (task,) = await people.find(question)
            if answered == "at-the-last-moment":
                await people.complete(task["id"], YES)
        told = await result_after(env, handle, via, timedelta(days=30, seconds=16))
    if answered == "at-the-last-moment":
        assert told["approved"] is True
    else:
        assert told["error"] == "TaskTimeoutError"
        assert (await people.task(task["id"]))["status"] == "cancelled"


@pytest.mark.edges
async def test_escalation_in_a_workflow_ends_with_the_default(
    humans: HumansServer, people: People, tmp_path: Path, question: str, via: str
) -> None:
    """If both people leave it unanswered for two days, both tasks are cancelled and the default is the decision."""
    async with time_skipping_server(humans, tmp_path) as (env, skipped):
        handle = await start(skipped, AskUpTheLadder.run, question, via)
        decision = await result_after(env, handle, via, timedelta(hours=4, seconds=1), timedelta(hours=44))
    assert decision == Decision(approved=False, note="nobody answered")
    tasks = await people.find(question, count=2)
    assert {task["assigned_to_email"] for task in tasks} == {"a@example.com", "b@example.com"}
    assert {task["status"] for task in tasks} == {"cancelled"}
