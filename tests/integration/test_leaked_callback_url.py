"""Attacks with a caller's callback URL or its right to ask, on a real server.

The URL opens only `/callbacks/`, which also needs the body's signature. Even a caller with a valid proof ends, answers
and delays no question but its own.
"""

from pathlib import Path
from urllib.parse import quote

import pytest
from devservers import HumansServer

from awaithumans_core import HumanTask, Route, TaskClient
from awaithumans_relay.store.waits.intake import MAX_OPEN_WAITS
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.relay import RunningRelay, Server
from tests.support.servers import TaskServer
from tests.support.workflows import Decision

ENDED = Route("shelf", {"place": "ended"}, "the attacker's question")


class Ended(CollectingEngine):
    """An engine whose callers have all ended."""

    async def orphaned(self, route: Route) -> str | None:
        return f"{route.target['place']} has ended"


@pytest.fixture
async def engine() -> Ended:
    return Ended()


@pytest.fixture
def task_server(humans: HumansServer) -> TaskServer:
    return humans


async def test_callback_token_is_no_bearer_token(relay_client: Server, relay: RunningRelay) -> None:
    """The token registers no wait and opens no task."""
    await relay_client.register(ENDED, "task-1")
    leaked = {"Authorization": f"Bearer {relay_client.signer.issue(ENDED)}"}
    registered = await relay_client.http.put("/waits/task-2", json={"timeout_seconds": 900}, headers=leaked)
    asked = await relay_client.http.get("/waits/asked", headers=leaked)
    assert (registered.status_code, asked.status_code) == (401, 401)
    assert [wait.task_id for wait in await relay.store.queries.listed()] == ["task-1"]


async def test_proof_of_one_task_registers_no_other_task(relay_client: Server, relay: RunningRelay) -> None:
    """An intercepted registration can only be repeated."""
    proof = {"Authorization": f"Bearer {relay_client.signer.prove(ENDED, 'task-1')}"}
    replies = [
        await relay_client.http.put(f"/waits/{task_id}", json={"timeout_seconds": 900}, headers=proof)
        for task_id in ("task-2", "task-1", "task-1")
    ]
    assert [reply.status_code for reply in replies] == [401, 200, 200]
    assert (await relay_client.http.get("/waits/asked", headers=proof)).status_code == 401


async def test_question_of_another_caller_is_not_cancelled(
    relay_client: Server, relay: RunningRelay, people: People, tmp_path: Path
) -> None:
    """An ended caller that registers for it under its own key has its wait parked; the question stays open."""
    async with TaskClient(settings=relay.settings) as client:
        victim = await client.create(HumanTask(task=f"victim {tmp_path.name}?", response_schema=Decision))
    assert (await relay_client.register(ENDED, victim.task_id)).status_code == 200
    await relay.check_now(victim.task_id)
    (wait,) = await relay.wait_for(victim.task_id, "parked")
    assert "another question" in (wait.last_error or "")
    assert (await people.task(victim.task_id))["status"] == "created"


async def test_shared_question_is_not_cancelled_when_one_caller_ends(
    relay_client: Server, relay: RunningRelay, people: People, tmp_path: Path
) -> None:
    """A script asked it and still polls, while the workflow that joined by its key has ended."""
    key = f"shared {tmp_path.name}"
    async with TaskClient(settings=relay.settings) as client:
        shared = await client.create(HumanTask(task="shared?", response_schema=Decision, idempotency_key=key))
    assert (await relay_client.register(Route("shelf", {"place": "joined"}, key), shared.task_id)).status_code == 200
    await relay.check_now(shared.task_id)
    (wait,) = await relay.wait_for(shared.task_id, "parked")
    assert "created for another caller" in (wait.last_error or "")
    assert (await people.task(shared.task_id))["status"] == "created"


@pytest.mark.parametrize("odd", ["..", "a?b=1", "%2e%2e%2fstatus", "a b", "a" * 65, "\u0430"], ids=repr)
async def test_task_id_that_changes_the_path_is_refused(relay_client: Server, relay: RunningRelay, odd: str) -> None:
    """Both endpoints refuse a task id that would address another endpoint of the server."""
    proof = {"Authorization": f"Bearer {relay_client.signer.prove(ENDED, odd)}"}
    path = f"/waits/{quote(odd, safe='').replace('.', '%2E')}"
    registered = await relay_client.http.put(path, json={"timeout_seconds": 900}, headers=proof)
    assert registered.status_code in {401, 404, 405, 422}
    assert (await relay_client.call_back(ENDED, odd)).status_code == 422
    assert await relay.store.queries.counts() == {}


async def test_excess_waits_of_one_route_are_refused(relay_client: Server, relay: RunningRelay) -> None:
    """The caller learns the limit and when to retry, and nothing is stored."""
    replies = [await relay_client.register(ENDED, f"task-{number}") for number in range(MAX_OPEN_WAITS + 1)]
    assert [reply.status_code for reply in replies] == [200] * MAX_OPEN_WAITS + [429]
    refused = replies[-1]
    assert (refused.json()["error"], refused.headers["retry-after"]) == ("TOO_MANY_WAITS", "30")
    assert len(await relay.store.queries.listed()) == MAX_OPEN_WAITS
