"""The relay's two endpoints over HTTP: what they store and refuse, and that each answer is delivered once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from devservers import HumansServer
from starlette.requests import Request
from starlette.responses import Response

from awaithumans_core import HumanTask, Outcome, Route, TargetGone, TargetNotReady, TaskClient
from awaithumans_relay.store import Store
from awaithumans_relay.sweep.sweeper import Sweeper
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.servers import TaskServer
from tests.support.workflows import Decision

ROUTE = Route("shelf", {"place": "here"}, "question-1")
OTHER = Route("shelf", {"place": "there"}, "question-2")


BODY = json.dumps(
    {"task_id": "task-1", "idempotency_key": "question-1", "status": "completed", "response": {}}
).encode()


@pytest.fixture
def task_server(humans: HumansServer) -> TaskServer:
    return humans


@pytest.mark.parametrize(
    ("token", "signature", "body", "status"),
    [
        pytest.param(None, "", BODY, 401, id="missing-signature"),
        pytest.param(None, "sha256=" + "0" * 64, BODY, 401, id="forged-signature"),
        pytest.param("forged.token", None, BODY, 401, id="forged-token"),
        pytest.param(None, None, b"not json", 422, id="not-json"),
        pytest.param(None, None, b"[]", 422, id="not-an-object"),
        pytest.param(None, None, b'{"task_id": "task-1", "idempotency_key": "question-1"}', 422, id="no-status"),
        pytest.param(None, None, BODY.replace(b"completed", b"in_progress"), 422, id="not-terminal"),
        pytest.param(None, None, BODY.replace(b"{}", b"null"), 422, id="completed-without-response"),
        pytest.param(None, None, BODY.replace(b"question-1", b"question-2"), 403, id="another-question"),
        pytest.param(None, None, b" " * (6 * 1024 * 1024 + 1), 413, id="too-large"),
    ],
)
async def test_callback_without_valid_proofs_is_refused(
    relay_client: Server,
    relay: RunningRelay,
    engine: CollectingEngine,
    token: str | None,
    signature: str | None,
    body: bytes,
    status: int,
) -> None:
    """A callback without both proofs, or that is no answer, is refused and leaves no trace."""
    reply = await relay_client.post(relay_client.signer.issue(ROUTE) if token is None else token, body, signature)
    assert reply.status_code == status
    assert set(reply.json()) == {"error", "message"}
    assert await relay.store.queries.counts() == {}
    assert engine.calls == 0


async def test_signed_body_at_the_url_of_another_wait_is_refused(
    relay_client: Server, relay: RunningRelay, engine: CollectingEngine
) -> None:
    """A valid answer sent to the URL of another wait is 403, and neither wait changes."""
    await relay_client.register(ROUTE, "task-1")
    await relay_client.register(OTHER, "task-2")
    body = json.dumps({"task_id": "task-1", "idempotency_key": "question-1", "status": "cancelled"}).encode()
    assert (await relay_client.post(relay_client.signer.issue(OTHER), body)).status_code == 403
    assert await relay.store.queries.counts() == {"open": 2}
    assert engine.calls == 0


async def test_wait_registered_for_another_task_gets_no_answer(
    relay_client: Server, relay: RunningRelay, engine: CollectingEngine
) -> None:
    """Registering a route under another caller's task id does not deliver that task's answer."""
    await relay_client.register(OTHER, "task-1")
    assert (await relay_client.call_back(ROUTE, "task-1")).status_code == 200
    await engine.until(1)
    states = {wait.route.idempotency_key: wait.state for wait in await relay.store.queries.find("task-1")}
    assert states["question-2"] == "open"
    assert [route.idempotency_key for route, _ in engine.held] == ["question-1"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer forged"}, {"Authorization": "Basic Zm9yZ2Vk"}, {"Authorization": "Bearer"}],
    ids=["none", "forged", "another-scheme", "empty"],
)
async def test_registration_needs_a_token(relay_client: Server, relay: RunningRelay, headers: dict[str, str]) -> None:
    """A wait is registered only with a token of this relay."""
    reply = await relay_client.http.put("/waits/task-1", json={"timeout_seconds": 900}, headers=headers)
    assert reply.status_code == 401
    assert await relay.store.queries.counts() == {}


async def test_registration_for_an_unknown_engine_is_refused(relay_client: Server) -> None:
    """A caller whose engine the relay does not have gets an error at once."""
    reply = await relay_client.register(Route("nobody", {}, "k"))
    assert reply.status_code == 422
    assert "nobody" in reply.json()["message"]
    assert "shelf" in reply.json()["message"]


async def test_duplicate_callback_wakes_once(
    relay_client: Server, relay: RunningRelay, engine: CollectingEngine
) -> None:
    """The server may send a row twice: both are acknowledged, and the caller is woken once."""
    await relay_client.register(ROUTE)
    assert [(await relay_client.call_back(ROUTE)).status_code for _ in range(2)] == [200, 200]
    await relay.wait_for("task-1", "delivered")
    assert (await relay_client.call_back(ROUTE)).status_code == 200
    await relay.wait_for("task-1", "delivered")
    assert engine.calls == 1


async def test_callback_before_registration_wakes_once(
    relay_client: Server, relay: RunningRelay, engine: CollectingEngine
) -> None:
    """An answer before its registration is kept, delivered, and not delivered again by the registration."""
    assert (await relay_client.call_back(ROUTE)).status_code == 200
    await engine.until(1)
    await relay.wait_for("task-1", "delivered")
    assert (await relay_client.register(ROUTE)).json() == {"state": "delivered"}
    assert engine.calls == 1


async def test_shared_task_answers_every_wait(
    relay_client: Server, relay: RunningRelay, engine: CollectingEngine
) -> None:
    """Callers that share a key share the task, and each gets its answer, including a later one."""
    second, late = (Route("shelf", {"place": place}, "question-1") for place in ("second", "late"))
    await relay_client.register(ROUTE)
    await relay_client.register(second)
    await relay_client.call_back(ROUTE)
    await engine.until(2)
    assert (await relay_client.register(late)).json() == {"state": "answered"}
    await engine.until(3)
    assert {route.target["place"] for route, _ in engine.held} == {"here", "second", "late"}


async def test_callback_url_with_a_slash_is_not_redirected(relay_client: Server, engine: CollectingEngine) -> None:
    """The server counts a redirect as delivered, so the relay must never send one."""
    assert (await relay_client.call_back(ROUTE, slash="/")).status_code == 200
    await engine.until(1)


async def test_answer_to_an_ended_target_is_acknowledged_and_parked(humans: HumansServer, tmp_path: Path) -> None:
    """The answer is parked with its reason instead of being retried for days."""

    def gone(_: Route) -> None:
        raise TargetGone("the workflow has ended")

    engine = CollectingEngine(on_deliver=gone)
    async with running_relay([engine], humans, tmp_path) as relay:
        relay_client = Server(relay, humans)
        assert (await relay_client.call_back(ROUTE)).status_code == 200
        (wait,) = await relay.wait_for("task-1", "parked")
        assert wait.last_error == "the workflow has ended [TARGET_GONE]"
        assert (await relay_client.call_back(ROUTE)).status_code == 200
        assert engine.calls == 1
        await relay_client.http.aclose()


async def test_failed_delivery_is_retried_and_delivered_once(humans: HumansServer, tmp_path: Path) -> None:
    """Not ready, or any other error, means a later attempt, and one delivery."""
    failures: list[Exception] = [ConnectionError("away"), TargetNotReady("not parked yet", retry_after=0.1)]

    def stumble(_: Route) -> None:
        if failures:
            raise failures.pop()

    engine = CollectingEngine(on_deliver=stumble)
    async with running_relay([engine], humans, tmp_path) as relay:
        relay_client = Server(relay, humans)
        await relay_client.call_back(ROUTE)
        await relay.wait_for("task-1", "delivered")
        assert (engine.calls, len(engine.held)) == (3, 1)
        await relay_client.http.aclose()


async def test_waits_survive_a_restart(humans: HumansServer, tmp_path: Path) -> None:
    """Answers acknowledged before a relay stopped are delivered by the next one on the same file."""

    def away(_: Route) -> None:
        raise ConnectionError("away")

    async with running_relay([CollectingEngine(on_deliver=away)], humans, tmp_path) as relay:
        relay_client = Server(relay, humans)
        assert (await relay_client.call_back(ROUTE)).status_code == 200
        await relay_client.http.aclose()
    engine = CollectingEngine()
    async with running_relay([engine], humans, tmp_path):
        (outcome,) = await engine.until(1)
    assert outcome.response == {"approved": True}


async def test_probes_report_liveness_and_waits(relay_client: Server) -> None:
    """The probes report whether the process runs and which waits it holds."""
    await relay_client.register(ROUTE)
    assert (await relay_client.http.get("/healthz")).json() == {"status": "ok"}
    ready = (await relay_client.http.get("/readyz")).json()
    assert (ready["status"], ready["waits"]) == ("ready", {"open": 1})
    assert ready["engines"] == {"shelf": {"state": "unknown"}}


async def test_callback_after_parking_is_delivered(
    relay_client: Server, relay: RunningRelay, engine: CollectingEngine
) -> None:
    """A parked wait without a known task is reopened by its callback, and by its caller."""
    await relay_client.register(ROUTE)
    await relay_client.register(OTHER, "task-2")
    for task_id in ("task-1", "task-2"):
        for wait in await relay.store.queries.find(task_id):
            assert await relay.store.checks.park(wait, reason="deleted")
    assert (await relay_client.call_back(ROUTE)).status_code == 200
    await relay.wait_for("task-1", "delivered")
    assert (await relay_client.register(OTHER, "task-2")).json() == {"state": "open"}
    assert [outcome.task_id for _, outcome in engine.held] == ["task-1"]


async def test_sweep_does_not_park_a_wait_answered_meanwhile(relay_client: Server, relay: RunningRelay) -> None:
    """The answer arrives while the sweep reads that the task is missing, and is kept."""
    await relay_client.register(ROUTE)
    (open_wait,) = await relay.store.queries.find("task-1")
    await relay_client.call_back(ROUTE)
    await relay.wait_for("task-1", "delivered")
    assert not await relay.store.checks.park(open_wait, reason="deleted")
    await relay.wait_for("task-1", "delivered")


async def test_slow_deliveries_do_not_delay_other_targets(humans: HumansServer, tmp_path: Path) -> None:
    """Forty slow deliveries do not delay an answer for another target."""
    gate = asyncio.Event()

    class Slow(CollectingEngine):
        async def deliver(self, route: Route, outcome: Outcome) -> None:
            if route.target["place"].startswith("slow"):
                await gate.wait()
            await super().deliver(route, outcome)

    engine = Slow()
    async with running_relay([engine], humans, tmp_path) as relay:
        relay_client = Server(relay, humans)
        for number in range(40):
            await relay_client.call_back(
                Route("shelf", {"place": f"slow-{number}"}, f"slow-{number}"), f"slow-{number}"
            )
        await relay_client.call_back(ROUTE)
        (outcome,) = await engine.until(1)
        assert outcome.task_id == "task-1"
        gate.set()
        await engine.until(41)
        await relay_client.http.aclose()


async def test_unreadable_task_does_not_delay_other_answers(
    humans: HumansServer, people: People, tmp_path: Path
) -> None:
    """A task on which the server fails does not keep the sweep from the others."""
    broken: list[str] = []

    async def forward(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        if request.url.path.split("/")[-1] in broken:
            await Response("broken", 500)(scope, receive, send)
            return
        read = await people.http.get(request.url.path)
        await Response(read.content, read.status_code, media_type="application/json")(scope, receive, send)

    store = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    await store.start()
    transport = httpx.ASGITransport(forward)
    async with (
        TaskClient(humans.url, humans.token) as asker,
        TaskClient(humans.url, humans.token, patience=0, transport=transport) as client,
    ):
        for number in range(6):
            key = f"sweep-{tmp_path.name}-{number}"
            task = await asker.create(HumanTask(task="swept?", response_schema=Decision, idempotency_key=key))
            await store.intake.register(task.task_id, Route("shelf", {"place": key}, key), 900)
            await people.complete(task.task_id, {"approved": True})
            broken[:] = broken or [task.task_id]
        async with Sweeper(store, client, {}, on_answer=lambda: None).running(), asyncio.timeout(60):
            while (await store.queries.counts()).get("answered", 0) < 5:
                await asyncio.sleep(0.1)
    assert await store.queries.counts() == {"answered": 5, "open": 1}
    await store.stop()


async def test_shared_task_stays_open_until_its_last_caller_has_ended(
    humans: HumansServer, people: People, tmp_path: Path
) -> None:
    """When one of two callers ends, its wait is parked; when both have, the task is cancelled."""
    gone: set[str] = set()

    class Watched(CollectingEngine):
        async def orphaned(self, route: Route) -> str | None:
            return f"{route.target['place']} has ended" if route.target["place"] in gone else None

    async with running_relay([Watched()], humans, tmp_path) as relay:
        tasks = relay.human_tasks()
        body = HumanTask(task="shared?", response_schema=Decision, idempotency_key=f"both-{tmp_path.name}").body()
        for place in ("here", "there"):
            task_id = (await tasks.open(body, Route("shelf", {"place": place}, body["idempotency_key"]))).task_id
        gone.add("here")
        await relay.check_now(task_id)
        async with asyncio.timeout(60):
            while await relay.store.queries.counts() != {"open": 1, "parked": 1}:
                await asyncio.sleep(0.05)
        assert (await people.task(task_id))["status"] == "created"
        gone.add("there")
        await relay.check_now(task_id)
        await relay.wait_for(task_id, "delivered")
        assert (await people.task(task_id))["status"] == "cancelled"


async def test_cancelled_writes_leave_the_store_writable(tmp_path: Path) -> None:
    """A caller cancelled inside a transaction does not keep the database locked."""
    store = Store(f"sqlite:///{tmp_path / 'waits.db'}")
    await store.start()
    for number in range(200):
        writing = asyncio.create_task(
            store.intake.register(f"task-{number}", Route("shelf", {"place": str(number)}, "k"), 900)
        )
        await asyncio.sleep(0.0005 * (number % 8))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    async with asyncio.timeout(60):
        await store.intake.register("last", ROUTE, 900)
    await store.stop()
