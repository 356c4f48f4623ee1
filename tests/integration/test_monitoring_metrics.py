"""`/metrics` and `/readyz` of the relay report what has happened."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from awaithumans_core import HumanTask, Outcome, Route, TargetGone, TargetNotReady, TaskClient
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.servers import FakeServer
from tests.support.workflows import Decision

ROUTE = Route("shelf", {"place": "here"}, "question-1")


def place(name: str) -> Route:
    return Route("shelf", {"place": name}, f"question-{name}")


class EngineByTarget(CollectingEngine):
    """An engine that does to each target what its name states."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        match route.target["place"]:
            case "gone":
                raise TargetGone("has ended")
            case "late":
                raise TargetNotReady("not there yet", retry_after=3600)
            case _ if self.away:
                raise ConnectionError("secret words")
        await super().deliver(route, outcome)


@pytest.fixture
async def engine() -> EngineByTarget:
    return EngineByTarget()


async def samples(relay_client: Server) -> dict[str, float]:
    """Return every sample under its Prometheus name without the prefix."""
    text = (await relay_client.http.get("/metrics")).raise_for_status().text
    return {
        sample.name.removeprefix("awaithumans_relay_") + ",".join(["", *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def broken(relay: RunningRelay) -> None:
    """Make the database of this relay fail from now on."""
    with sqlite3.connect(str(relay.store.database.url.database)) as db:
        db.execute("DROP TABLE waits")
    db.close()


@pytest.mark.edges
async def test_callbacks_are_counted_by_result(relay_client: Server, relay: RunningRelay) -> None:
    """Each callback is counted once, under its result."""
    signed = relay_client.signer.issue(ROUTE)
    await relay_client.call_back(ROUTE)
    await relay_client.call_back(ROUTE)
    await relay_client.post(signed, b"{}", "sha256=" + "0" * 64)
    await relay_client.call_back(ROUTE, idempotency_key="another")
    await relay_client.post(signed, b" " * (6 * 1024 * 1024 + 1))
    await relay_client.post(signed, b"[]")
    await broken(relay)
    await relay_client.call_back(place("unstored"), "task-2")
    seen = await samples(relay_client)
    for result in ("stored", "duplicate", "401", "403", "413", "422", "503"):
        assert seen[f"callbacks_total,{result}"] == 1, result
    assert seen["callback_duration_seconds_count"] == 7
    assert seen["store_up"] == 0


async def test_waits_and_deliveries_are_counted_by_engine(relay_client: Server, relay: RunningRelay) -> None:
    """Waits are counted by state, and deliveries by result, for each engine."""
    await relay_client.register(place("open"), "task-open")
    for name in ("here", "gone", "late"):
        await relay_client.call_back(place(name), f"task-{name}")
    await relay_client.call_back(
        Route("shelf", {"place": "gone"}, "cancelled"), "task-cancelled", status="cancelled", response=None
    )
    await relay.wait_for("task-here", "delivered")
    await relay.wait_for("task-gone", "parked")
    await relay.wait_for("task-cancelled", "delivered")
    async with asyncio.timeout(60):
        while not (await relay.store.queries.find("task-late"))[0].last_error:
            await asyncio.sleep(0.02)
    seen = await samples(relay_client)
    assert {name: count for name, count in seen.items() if name.startswith("waits,")} == {
        "waits,shelf,open": 1,
        "waits,shelf,answered": 1,
        "waits,shelf,parked": 1,
    }
    for result in ("delivered", "caller_gone", "parked", "retried"):
        assert seen[f"deliveries_total,shelf,{result}"] == 1, result
    assert seen["delivery_duration_seconds_count,shelf"] == 4
    assert seen["answer_delivery_delay_seconds_count,shelf"] == 1
    assert 0 < seen["oldest_undelivered_answer_age_seconds"] < 60
    assert seen["store_up"] == 1


async def test_sweep_checks_and_answers_are_counted(
    relay_client: Server, relay: RunningRelay, fake: FakeServer
) -> None:
    """An answer without a callback is found and counted by the second check."""
    people = People(fake)
    async with TaskClient(fake.url, fake.token) as asker:
        task = await asker.create(HumanTask(task="counted?", response_schema=Decision))
    await relay_client.register(Route("shelf", {"place": "swept"}, str(task.idempotency_key)), task.task_id)
    await relay.check_now(task.task_id)
    async with asyncio.timeout(60):
        while not (await samples(relay_client))["sweep_checks_total"]:
            await asyncio.sleep(0.05)
    await people.complete(task.task_id, {"approved": True})
    await relay.check_now(task.task_id)
    await relay.wait_for(task.task_id, "delivered")
    seen = await samples(relay_client)
    assert seen["sweep_checks_total"] >= 2
    assert seen["sweep_answers_found_total"] == 1
    assert (await relay_client.http.get("/readyz")).json()["server"]["state"] == "ok"
    await people.aclose()


async def test_labels_are_bounded(relay_client: Server, relay: RunningRelay) -> None:
    """No task, target or key becomes a label, so the number of series does not grow."""
    await relay_client.call_back(place("a-place-of-its-own"), "task-of-its-own")
    await relay.wait_for("task-of-its-own", "delivered")
    assert "own" not in (await relay_client.http.get("/metrics")).text


async def test_relays_in_one_process_count_separately(relay_client: Server, fake: FakeServer, tmp_path: Path) -> None:
    """Each of two relays in one process counts only its own events."""
    await relay_client.call_back(ROUTE)
    (tmp_path / "other").mkdir()
    async with running_relay([CollectingEngine()], fake, tmp_path / "other") as other:
        speaker = Server(other, fake)
        assert (await samples(speaker))["callbacks_total,stored"] == 0
        await speaker.http.aclose()
    assert (await samples(relay_client))["callbacks_total,stored"] == 1


async def test_unreachable_engine_degrades_readiness(
    relay_client: Server, relay: RunningRelay, engine: EngineByTarget
) -> None:
    """Callbacks must still arrive, so the status is 200, with the engine, the time and the kind of error."""
    assert (await relay_client.http.get("/readyz")).json()["engines"] == {"shelf": {"state": "unknown"}}
    engine.away = True
    for number in range(6):
        await relay_client.call_back(place(f"away-{number}"), f"task-{number}")
    async with asyncio.timeout(60):
        while (ready := await relay_client.http.get("/readyz")).json()["status"] != "degraded":
            await asyncio.sleep(0.05)
    status = ready.json()["engines"]["shelf"]
    assert ready.status_code == 200
    assert (status["state"], status["last_error"]) == ("failing", "ConnectionError")
    assert "since" in status
    assert "secret words" not in ready.text
    engine.away = False
    for number in range(6):
        await relay.wait_for(f"task-{number}", "delivered")
    back = (await relay_client.http.get("/readyz")).json()
    assert (back["status"], back["engines"]["shelf"]["state"]) == ("ready", "ok")


class CheckableEngine(EngineByTarget):
    """An engine whose availability can be checked."""

    def __init__(self) -> None:
        super().__init__()
        self.there = True

    async def check(self) -> None:
        if not self.there:
            raise TimeoutError("secret words")


@pytest.fixture
async def checkable(fake: FakeServer, tmp_path: Path) -> AsyncGenerator[tuple[CheckableEngine, RunningRelay, Server]]:
    """Run a relay with an engine that can be checked."""
    engine = CheckableEngine()
    (tmp_path / "askable").mkdir()
    async with running_relay([engine], fake, tmp_path / "askable") as relay:
        relay_client = Server(relay, fake)
        await engine_status(relay_client, "ok")
        yield engine, relay, relay_client
        await relay_client.http.aclose()


async def engine_status(relay_client: Server, state: str) -> dict[str, object]:
    """Return the status of the engine once it has this value."""
    async with asyncio.timeout(60):
        while (engine := (await relay_client.http.get("/readyz")).json()["engines"]["shelf"])["state"] != state:
            await asyncio.sleep(0.05)
    found: dict[str, object] = engine
    return found


async def test_failed_delivery_triggers_an_engine_check(
    checkable: tuple[CheckableEngine, RunningRelay, Server],
) -> None:
    """An unreachable engine is known after one failed delivery, and its return without a delivery."""
    engine, relay, relay_client = checkable
    engine.away, engine.there = True, False
    await relay_client.call_back(place("away"), "task-1")
    assert (await engine_status(relay_client, "failing"))["last_error"] == "TimeoutError"
    engine.there = True
    await engine_status(relay_client, "ok")
    assert [wait.state for wait in await relay.store.queries.find("task-1")] == ["answered"]


async def test_failing_target_does_not_affect_the_engines_status(
    checkable: tuple[CheckableEngine, RunningRelay, Server], caplog: pytest.LogCaptureFixture
) -> None:
    """A target that cannot be woken does not degrade a reachable engine."""
    engine, relay, relay_client = checkable
    engine.away = True
    await relay_client.call_back(place("here"), "task-1")
    async with asyncio.timeout(60):
        while not (await relay.store.queries.find("task-1"))[0].last_error:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert (await relay_client.http.get("/readyz")).json()["status"] == "ready"
    assert "unreachable" not in caplog.text


async def test_reachable_engine_that_fails_every_delivery_is_failing(
    checkable: tuple[CheckableEngine, RunningRelay, Server],
) -> None:
    """A passing check does not hide that every delivery fails."""
    engine, relay, relay_client = checkable
    engine.away = True
    for number in range(6):
        await relay_client.call_back(place(f"away-{number}"), f"task-{number}")
    assert (await engine_status(relay_client, "failing"))["last_error"] == "ConnectionError"
    await asyncio.sleep(0.5)
    await engine_status(relay_client, "failing")
    engine.away = False
    await relay.wait_for("task-0", "delivered")
    await engine_status(relay_client, "ok")


async def test_engine_is_checked_at_the_start(fake: FakeServer, tmp_path: Path) -> None:
    """A relay with an unreachable engine reports it before an answer arrives."""
    engine = CheckableEngine()
    engine.there = False
    async with running_relay([engine], fake, tmp_path) as relay:
        relay_client = Server(relay, fake)
        assert (await engine_status(relay_client, "failing"))["last_error"] == "TimeoutError"
        engine.there = True
        await engine_status(relay_client, "ok")
        await relay_client.http.aclose()


async def test_waits_for_a_missing_engine_degrade_readiness(relay_client: Server, relay: RunningRelay) -> None:
    """Readiness shows an answer that this relay can store but not deliver."""
    await relay.store.intake.register("task-1", Route("elsewhere", {}, "question-1"), 900)
    ready = (await relay_client.http.get("/readyz")).json()
    assert (ready["status"], ready["engines"]["elsewhere"]) == ("degraded", {"state": "missing"})


async def test_failing_store_makes_the_relay_not_ready(relay_client: Server, relay: RunningRelay) -> None:
    """Only a failing store replies 503; metrics and the liveness probe still work."""
    await broken(relay)
    ready = await relay_client.http.get("/readyz")
    assert (ready.status_code, ready.json()["error"]) == (503, "STORE_UNAVAILABLE")
    assert (await relay_client.http.get("/healthz")).status_code == 200
    assert (await samples(relay_client))["store_up"] == 0


async def test_locked_store_makes_the_relay_not_ready(relay_client: Server, relay: RunningRelay) -> None:
    """The probe writes and waits only briefly, since a read-only database keeps no answer."""
    holder = sqlite3.connect(str(relay.store.database.url.database), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    ready = await relay_client.http.get("/readyz")
    holder.rollback()
    holder.close()
    assert ready.status_code == 503
    assert (await relay_client.http.get("/readyz")).status_code == 200
