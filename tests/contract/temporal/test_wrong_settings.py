"""Wrong settings, in both modes: the workflow waits until they are corrected, or fails with the facts."""

import asyncio
import logging
import secrets
import uuid
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer, free_port, tool
from fastapi import FastAPI
from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_adapters.temporal.failures import SettingErrors
from awaithumans_core import Settings, SettingsError
from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans, faults
from tests.support.people import People
from tests.support.relay import RunningRelay, changed, running_relay, served
from tests.support.servers import FakeServer
from tests.support.temporal import YES, result, start
from tests.support.workflows import WORKFLOWS, AskForFacts, AskUncaught

pytestmark = pytest.mark.edges


@asynccontextmanager
async def worker(
    address: str, queue: str, settings: Settings, setting_errors: SettingErrors = "retry"
) -> AsyncGenerator[Client]:
    client = await Client.connect(address, plugins=[HumanTasksPlugin(settings, setting_errors=setting_errors)])
    async with Worker(client, task_queue=queue, workflows=WORKFLOWS):
        yield client


async def last_failure(handle: WorkflowHandle[Any, Any]) -> Any:
    """Return the pending activity with its last failure, as the Temporal UI shows it."""
    async with asyncio.timeout(60):
        while True:
            for pending in (await handle.describe()).raw_description.pending_activities:
                if pending.HasField("last_failure"):
                    return pending
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def wrong_settings(
    humans: HumansServer, relay: RunningRelay, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[dict[str, tuple[Settings, str]]]:
    """Return each case of wrong settings with the text that its message must contain."""
    async with AsyncExitStack() as stack:
        right, folder = relay.settings, tmp_path_factory.mktemp("wrong")
        another = free_port()
        await stack.enter_async_context(served(FastAPI(), another, log_level="critical"))
        without = await stack.enter_async_context(running_relay([], humans, folder))

        def behind(fault: faults.Fault) -> str:
            """Start a task server whose replies all have this fault."""
            server = FakeHumans(clock=SystemClock())
            server.fault(fault, times=10_000)
            return stack.enter_context(server.serving())

        fake = FakeHumans(clock=SystemClock())
        fake_url = stack.enter_context(fake.serving())
        elsewhere = f"http://127.0.0.1:{another}"
        yield {
            "another-relay-secret": (
                changed(right, relay_secret=secrets.token_urlsafe(32)),
                "AWAITHUMANS_RELAY_SECRET of this process",
            ),
            "relay-url-of-another-service": (
                changed(right, relay_url=elsewhere),
                "Is this the relay? If not, set AWAITHUMANS_RELAY_URL",
            ),
            "relay-without-the-engine": (
                changed(without.settings, relay_secret=without.settings.relay_secret),
                "Start the relay with this engine",
            ),
            "url-of-another-service": (changed(right, url=elsewhere), "AWAITHUMANS_URL"),
            "another-token": (changed(right, admin_api_token="another"), "AWAITHUMANS_ADMIN_API_TOKEN"),
            "too-weak-a-token": (
                changed(right, url=fake_url, admin_api_token=fake.outsider_token),
                "Use a token of an operator",
            ),
            "a-proxy-403": (changed(right, url=behind(faults.html(403))), "403"),
            "a-proxy-407": (changed(right, url=behind(faults.html(407))), "HTTP_PROXY"),
            "a-page-400": (changed(right, url=behind(faults.html(400))), "400"),
            "a-redirect": (changed(right, url=behind(faults.redirect("https://elsewhere.example"))), "AWAITHUMANS_URL"),
        }


async def test_wrong_setting_is_retried_and_named_in_the_ui(
    wrong_settings: dict[str, tuple[Settings, str]], temporal: TemporalServer, via: str
) -> None:
    """Wrong settings are retried at growing intervals, and the message names the setting and the process."""

    async def seen(name: str) -> None:
        settings, named = wrong_settings[name]
        queue = f"{name}-{uuid.uuid4().hex}"
        async with worker(temporal.address, queue, settings) as client:
            handle = await start(client, AskUncaught.run, {"task": queue, "via": via}, task_queue=queue)
            pending = await last_failure(handle)
            assert named in pending.last_failure.message, (name, pending.last_failure.message)
            assert "retried until the setting is corrected" in pending.last_failure.message
            assert 3 <= pending.current_retry_interval.seconds <= 7, name
            await handle.terminate()

    await asyncio.gather(*map(seen, wrong_settings))


async def test_workflow_continues_once_the_setting_is_corrected(
    people: People, relay: RunningRelay, temporal: TemporalServer, question: str, via: str
) -> None:
    """The question stays open between attempts, and a worker with the right secret continues with it."""
    stranger = changed(relay.settings, relay_secret=secrets.token_urlsafe(32))
    async with worker(temporal.address, question, stranger) as client:
        handle = await start(client, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
        await last_failure(handle)
    (task,) = await people.find(question)
    assert task["status"] == "created"
    async with worker(temporal.address, question, relay.settings):
        await relay.wait_for(task["id"], "open")
        await people.complete(task["id"], YES)
        await relay.check_now(task["id"])
        assert await result(handle) is True
    assert len(await people.find(question)) == 1


@pytest.mark.parametrize("name", ["another-relay-secret", "another-token", "relay-without-the-engine"])
async def test_setting_errors_fail_raises_at_once(
    wrong_settings: dict[str, tuple[Settings, str]],
    people: People,
    temporal: TemporalServer,
    question: str,
    via: str,
    name: str,
) -> None:
    """With setting_errors="fail" the workflow gets the typed error with its facts, and its task is cancelled."""
    settings, _ = wrong_settings[name]
    async with worker(temporal.address, question, settings, "fail") as client:
        told = await result(await start(client, AskForFacts.run, {"task": question, "via": via}, task_queue=question))
    assert (told["error"], told["status_code"], told["server_code"]) == {
        "another-relay-secret": ("RequestRefusedError", 401, "CALLBACK_REJECTED"),
        "another-token": ("AuthenticationError", 401, None),
        "relay-without-the-engine": ("RequestRefusedError", 422, "ENGINE_UNKNOWN"),
    }[name]
    tasks = await people.find(question, count=0)
    assert [task["id"] for task in tasks] == ([] if name == "another-token" else [told["task_id"]])
    assert {task["status"] for task in tasks} <= {"cancelled"}


async def test_refused_question_fails_at_once_after_an_outage(
    temporal: TemporalServer, relay: RunningRelay, question: str
) -> None:
    """In activity mode an outage longer than the recheck interval does not count as a question that was asked."""
    server = FakeHumans(clock=SystemClock())
    server.fault(faults.status(503, retry_after=60), times=3)
    server.fault(faults.status(422, body={"detail": "no"}), times=99)
    with server.serving() as url:
        async with worker(temporal.address, question, changed(relay.settings, url=url)) as client:
            options = {"task": question, "via": "activity", "recheck": 2}
            handle = await start(client, AskForFacts.run, options, task_queue=question)
            told = await result(handle, 30)
    assert (told["error"], told["status_code"]) == ("TaskRejectedError", 422)


@pytest.mark.parametrize("name", ["another-relay-secret", "another-token", "url-of-another-service"])
async def test_wrong_setting_fails_at_the_questions_timeout(
    wrong_settings: dict[str, tuple[Settings, str]], people: People, question: str, via: str, name: str
) -> None:
    """After timeout_seconds of attempts the workflow gets the typed error, and its task is cancelled."""
    settings, _ = wrong_settings[name]
    env = await WorkflowEnvironment.start_time_skipping(test_server_existing_path=tool("temporal-test-server"))
    async with env:
        config = env.client.config()
        config["plugins"] = [HumanTasksPlugin(settings)]
        client = Client(**config)
        async with Worker(client, task_queue=question, workflows=WORKFLOWS):
            options = {"task": question, "via": via, "timeout_seconds": 7200}
            handle = await start(client, AskForFacts.run, options, task_queue=question)
            told = await result(handle)
    took = datetime.fromisoformat(told["ended"]) - datetime.fromisoformat(told["began"])
    assert timedelta(seconds=7200) <= took < timedelta(seconds=7300)
    assert told["error"] in ("RequestRefusedError", "AuthenticationError", "TaskRejectedError")
    assert told["status_code"] in (401, 404)
    tasks = await people.find(question, count=0)
    assert [task["status"] for task in tasks] == (["cancelled"] if name == "another-relay-secret" else [])


async def test_workflows_with_a_wrong_token_are_spread_and_logged_once(
    fake: FakeServer, temporal: TemporalServer, question: str, via: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Twenty workflows make one request per attempt, spread over time, and the worker logs one line."""
    count = 20
    settings = fake.fake.settings(admin_api_token="wrong", relay_url=fake.url, relay_secret=secrets.token_urlsafe(32))
    before = len(fake.fake.calls)
    caplog.set_level(logging.INFO)
    async with worker(temporal.address, question, settings) as client:
        handles = [
            await start(client, AskUncaught.run, {"task": question, "via": via}, task_queue=question)
            for _ in range(count)
        ]
        failures = [await last_failure(handle) for handle in handles]
        for handle in handles:
            await handle.terminate()
    attempts = sum(failure.attempt for failure in failures)
    assert len(fake.fake.calls) - before <= attempts
    intervals = {failure.current_retry_interval.nanos for failure in failures}
    assert len(intervals) > count / 2, "the attempts are not spread"
    # The relay of the other tests also logs in this process.
    lines = [each.name for each in caplog.records if each.levelno >= logging.WARNING and "relay" not in each.name]
    assert lines == ["awaithumans.temporal"]


def test_unknown_value_of_setting_errors_is_refused() -> None:
    """A misspelt value is refused, not replaced by the default."""
    with pytest.raises(SettingsError, match="setting_errors"):
        HumanTasksPlugin(setting_errors="never")  # type: ignore[arg-type]  # the case
