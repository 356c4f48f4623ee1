"""Time limit for asking: no task is created after it, and a person always has the full timeout once asked."""

import secrets
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.activity import Info
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from awaithumans_adapters.temporal import HumanTaskActivities, TemporalEngine
from awaithumans_core import HumanTask, QuestionNotAskedError, Settings, TaskTimeoutError
from awaithumans_core.testing import FakeHumans
from tests.support.relay import running_relay
from tests.support.servers import FakeServer
from tests.support.temporal import unreachable
from tests.support.workflows import Decision

SCHEDULED = datetime(2026, 1, 1, tzinfo=UTC)
KEY = f"temporal:default:test:{'a' * 32}"
BODY = HumanTask(task="Approve?", response_schema=Decision, timeout_seconds=900, idempotency_key=KEY).body()


async def attempt(number: int, *, after: float, memory: dict[str, Any] | None = None) -> ActivityEnvironment:
    """Return an activity environment for an attempt that starts `after` seconds after the activity was scheduled."""
    env = ActivityEnvironment(client=await Client.connect("127.0.0.1:9", lazy=True))  # only its codec is used
    at = SCHEDULED + timedelta(seconds=after)
    info: Info = replace(
        env.info,
        activity_id="human:1",
        attempt=number,
        scheduled_time=SCHEDULED,
        current_attempt_scheduled_time=at,
        started_time=at,
        start_to_close_timeout=timedelta(seconds=915),
        heartbeat_details=[memory] if memory else [],
    )
    env.info = info
    return env


@pytest.fixture
def without_a_relay(fake: FakeServer) -> HumanTaskActivities:
    return HumanTaskActivities(
        fake.fake.settings(relay_url="http://127.0.0.1:9", relay_secret=secrets.token_urlsafe(32))
    )


@pytest.fixture(scope="module")
async def settings(fake: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Settings]:
    folder = tmp_path_factory.mktemp("ask-within")
    async with running_relay([TemporalEngine(unreachable)], fake, folder) as relay:
        yield relay.settings


def task_ids(humans: FakeHumans, key: str) -> list[str]:
    return [task.id for task in humans.tasks if task.asked["idempotency_key"] == key]


@pytest.mark.parametrize("via", ["signal", "activity"])
@pytest.mark.parametrize(("more", "after"), [({}, 900.0), ({"awaithumans_ask_within": 60}, 60.0)])
async def test_no_task_is_created_after_the_ask_limit(
    fake: FakeServer, without_a_relay: HumanTaskActivities, via: str, more: dict[str, Any], after: float
) -> None:
    """Both modes fail with the same non-retryable timeout error, and no task is created."""
    key = f"temporal:default:test:{secrets.token_hex(16)}"
    ask = without_a_relay.open_wait if via == "signal" else without_a_relay.await_human
    with pytest.raises(ApplicationError) as failed:
        await (await attempt(1, after=after)).run(ask, BODY | more | {"idempotency_key": key})
    assert failed.value.type == "QuestionNotAskedError"
    assert failed.value.non_retryable
    assert task_ids(fake.fake, key) == []
    assert issubclass(QuestionNotAskedError, TaskTimeoutError)


@pytest.mark.parametrize("via", ["signal", "activity"])
async def test_answer_to_a_task_of_an_unrecorded_attempt_counts(
    fake: FakeServer, settings: Settings, via: str, tmp_path: Path
) -> None:
    """An earlier attempt created the task but got no reply; the answer given meanwhile is still returned."""
    key = f"temporal:default:test:{secrets.token_hex(16)}"
    question = HumanTask(task="Approve?", response_schema=Decision, timeout_seconds=900, idempotency_key=key)
    async with fake.fake.client() as client:
        task = await client.create(question)
    fake.fake.complete(task.task_id, {"approved": True})
    activities = HumanTaskActivities(settings)
    ask = activities.open_wait if via == "signal" else activities.await_human
    memory = {"asked": False} if via == "activity" else None
    outcome = await (await attempt(7, after=901, memory=memory)).run(ask, question.body())
    assert outcome["response"] == {"approved": True}


async def left_open(env: ActivityEnvironment, activities: HumanTaskActivities, body: dict[str, Any]) -> bool:
    """Return whether the attempt leaves its activity to be completed from outside."""
    try:
        await env.run(activities.await_human, body)
    except BaseException as raised:
        return type(raised).__name__ == "_CompleteAsyncError"
    return False


async def test_person_has_the_full_timeout_from_the_moment_of_asking(fake: FakeServer, settings: Settings) -> None:
    """In activity mode a task asked ten minutes late closes 915 s after it was asked, not 915 s after the call."""
    key = f"temporal:default:test:{secrets.token_hex(16)}"
    activities, body = HumanTaskActivities(settings), BODY | {"idempotency_key": key}
    kept: list[Any] = []
    first = await attempt(9, after=600, memory={"asked": False})
    first.on_heartbeat = lambda *details: kept.extend(details)
    assert await left_open(first, activities, body)
    assert kept[-1]["asked"] is True
    assert await left_open(await attempt(10, after=1500, memory=kept[-1]), activities, body)
    outcome = await (await attempt(11, after=1516, memory=kept[-1])).run(activities.await_human, body)
    assert outcome["status"] == "timed_out"


@pytest.mark.edges
@pytest.mark.parametrize("via", ["signal", "activity"])
async def test_task_that_could_not_be_registered_in_time_is_cancelled(
    fake: FakeServer, without_a_relay: HumanTaskActivities, via: str
) -> None:
    """If the relay is unreachable for the whole ask limit, the task is cancelled."""
    key = f"temporal:default:test:{secrets.token_hex(16)}"
    body = BODY | {"awaithumans_ask_within": 1, "idempotency_key": key}
    ask = without_a_relay.open_wait if via == "signal" else without_a_relay.await_human
    kept: list[Any] = []
    first = await attempt(1, after=0)
    first.on_heartbeat = lambda *details: kept.extend(details)
    with pytest.raises(ApplicationError):
        await first.run(ask, body)
    (task_id,) = task_ids(fake.fake, key)
    with pytest.raises(ApplicationError) as failed:
        await (await attempt(2, after=1, memory=kept[-1])).run(ask, body)
    assert (failed.value.type, failed.value.non_retryable) == ("QuestionNotAskedError", True)
    assert "same key" not in str(failed.value)  # the question is not asked under it any more
    assert [task.status for task in fake.fake.tasks if task.id == task_id] == ["cancelled"]
