"""The real server records who answered: a signed-in person cannot answer as another one."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import httpx
import pytest
from devservers import HumansServer

from awaithumans_core import AnswererNotAllowedError, await_human, quorum
from tests.support.people import People
from tests.support.workflows import Decision

ANNA, BEN, CARLA = "anna.with.account@example.com", "ben@example.com", "carla@example.com"
YES = {"response": {"approved": True}}


pytestmark = pytest.mark.edges

PASSWORD = "a long password"


async def add_account(people: People, email: str, **options: Any) -> None:
    account = {"email": email, "password": PASSWORD, **options}
    (await people.http.post("/api/admin/users", json=account)).raise_for_status()


@pytest.fixture
async def mallory(humans: HumansServer, people: People) -> AsyncGenerator[httpx.AsyncClient]:
    """Yield the browser of an operator who is signed in by cookie, without an API token."""
    email = f"mallory-{uuid.uuid4().hex[:8]}@example.com"
    await add_account(people, email, is_operator=True)
    async with httpx.AsyncClient(base_url=humans.url, headers={"X-Email": email}) as browser:
        signed_in = await browser.post("/api/auth/login", json={"email": email, "password": PASSWORD})
        signed_in.raise_for_status()
        yield browser


async def test_one_signed_in_person_is_no_quorum(
    humans: HumansServer, people: People, mallory: httpx.AsyncClient
) -> None:
    """An operator may answer for others and state another address, but the record has the user id."""
    question = f"Release {uuid.uuid4().hex[:8]}?"
    server: dict[str, Any] = {"server_url": humans.url, "api_key": humans.token, "progress": False}
    ask = partial(await_human, task=question, response_schema=Decision, **server)
    asking = asyncio.create_task(quorum(2, [BEN, CARLA], ask, yes=lambda decision: decision.approved))
    first, second = await people.find(question, count=2)
    done = (await mallory.post(f"/api/tasks/{first['id']}/complete", json=YES)).json()
    assert done["completed_by_email"] == mallory.headers["X-Email"]
    stated = (
        await mallory.post(f"/api/tasks/{second['id']}/complete", json=YES | {"completed_by_email": CARLA})
    ).json()
    assert stated["completed_by_email"] == CARLA
    assert stated["completed_by_user_id"] == done["completed_by_user_id"] is not None
    verdict = await asking
    assert not verdict
    assert [type(vote.error) for vote in verdict.votes if vote.error] == [AnswererNotAllowedError]


async def test_signed_in_person_cannot_answer_as_the_assignee(
    humans: HumansServer, people: People, mallory: httpx.AsyncClient
) -> None:
    """The record shows that another account than the assignee's answered."""
    await add_account(people, ANNA)
    question = f"Pay {uuid.uuid4().hex[:8]}?"
    options: dict[str, Any] = {"server_url": humans.url, "api_key": humans.token, "progress": False}
    own: dict[str, Any] = {"assign_to": ANNA, "only_assignee": True}
    asking = asyncio.create_task(await_human(task=question, response_schema=Decision, **own, **options))
    (task,) = await people.find(question)
    body = YES | {"completed_by_email": ANNA}
    (await mallory.post(f"/api/tasks/{task['id']}/complete", json=body)).raise_for_status()
    with pytest.raises(AnswererNotAllowedError, match="signed-in person"):
        await asking
