"""`/metrics` and `/readyz`: what a relay says of itself is what has happened."""

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


class Moody(CollectingEngine):
    """Does to each target what its name says."""

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
async def shelf() -> Moody:
    return Moody()


@pytest.fixture
async def relay(shelf: Moody, fake: FakeServer, tmp_path: Path) -> AsyncGenerator[RunningRelay]:
    async with running_relay([shelf], fake, tmp_path) as running:
        yield running


@pytest.fixture
async def server(relay: RunningRelay, fake: FakeServer) -> AsyncGenerator[Server]:
    speaker = Server(relay, fake)
    yield speaker
    await speaker.http.aclose()


async def figures(server: Server) -> dict[str, float]:
    """Every sample without its prefix, named as Prometheus has it."""
    text = (await server.http.get("/metrics")).raise_for_status().text
    return {
        sample.name.removeprefix("awaithumans_relay_") + ",".join(["", *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def broken(relay: RunningRelay) -> None:
    """The database of this relay answers with errors from now on."""
    with sqlite3.connect(str(relay.store.database.url.database)) as db:
        db.execute("DROP TABLE waits")
    db.close()


@pytest.mark.edges
async def test_callbacks_by_result(server: Server, relay: RunningRelay) -> None:
    """Each callback is counted once, under what it was answered."""
    signed = server.signer.issue(ROUTE)
    await server.call_back(ROUTE)
    await server.call_back(ROUTE)
    await server.post(signed, b"{}", "sha256=" + "0" * 64)
    await server.call_back(ROUTE, idempotency_key="another")
    await server.post(signed, b" " * (6 * 1024 * 1024 + 1))
    await server.post(signed, b"[]")
    await broken(relay)
    await server.call_back(place("unstored"), "task-2")
    seen = await figures(server)
    for result in ("stored", "duplicate", "401", "403", "413", "422", "503"):
        assert seen[f"callbacks_total,{result}"] == 1, result
    assert seen["callback_duration_seconds_count"] == 7
    assert seen["store_up"] == 0


async def test_waits_and_deliveries(server: Server, relay: RunningRelay) -> None:
    """How waits stand, and how each attempt to deliver ended, by engine."""
    await server.register(place("open"), "task-open")
    for name in ("here", "gone", "late"):
        await server.call_back(place(name), f"task-{name}")
    await server.call_back(
        Route("shelf", {"place": "gone"}, "cancelled"), "task-cancelled", status="cancelled", response=None
    )
    await relay.wait_for("task-here", "delivered")
    await relay.wait_for("task-gone", "parked")
    await relay.wait_for("task-cancelled", "delivered")
    async with asyncio.timeout(60):
        while not (await relay.store.find("task-late"))[0].last_error:
            await asyncio.sleep(0.02)
    seen = await figures(server)
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


async def test_the_sweep_is_counted(server: Server, relay: RunningRelay, fake: FakeServer) -> None:
    """Looks and finds: an answer that was not called back is found by the second look."""
    people = People(fake)
    async with TaskClient(fake.url, fake.token) as asker:
        task = await asker.create(HumanTask(task="counted?", response_schema=Decision))
    await server.register(Route("shelf", {"place": "swept"}, str(task.idempotency_key)), task.task_id)
    await relay.check_now(task.task_id)
    async with asyncio.timeout(60):
        while not (await figures(server))["sweep_checks_total"]:
            await asyncio.sleep(0.05)
    await people.complete(task.task_id, {"approved": True})
    await relay.check_now(task.task_id)
    await relay.wait_for(task.task_id, "delivered")
    seen = await figures(server)
    assert seen["sweep_checks_total"] >= 2
    assert seen["sweep_answers_found_total"] == 1
    assert (await server.http.get("/readyz")).json()["server"]["state"] == "ok"
    await people.aclose()


async def test_labels_are_few(server: Server, relay: RunningRelay) -> None:
    """No task, target or key becomes a label: a year of questions is as many series as a day's."""
    await server.call_back(place("a-place-of-its-own"), "task-of-its-own")
    await relay.wait_for("task-of-its-own", "delivered")
    assert "own" not in (await server.http.get("/metrics")).text


async def test_two_relays_in_one_process(server: Server, fake: FakeServer, tmp_path: Path) -> None:
    """Each counts its own."""
    await server.call_back(ROUTE)
    (tmp_path / "other").mkdir()
    async with running_relay([CollectingEngine()], fake, tmp_path / "other") as other:
        speaker = Server(other, fake)
        assert (await figures(speaker))["callbacks_total,stored"] == 0
        await speaker.http.aclose()
    assert (await figures(server))["callbacks_total,stored"] == 1


async def test_an_engine_that_is_away_degrades(server: Server, relay: RunningRelay, shelf: Moody) -> None:
    """Callbacks still have to come here, so it is 200; who is away, since when and why is said, without its words."""
    assert (await server.http.get("/readyz")).json()["engines"] == {"shelf": {"state": "unknown"}}
    shelf.away = True
    for number in range(6):
        await server.call_back(place(f"away-{number}"), f"task-{number}")
    async with asyncio.timeout(60):
        while (ready := await server.http.get("/readyz")).json()["status"] != "degraded":
            await asyncio.sleep(0.05)
    engine = ready.json()["engines"]["shelf"]
    assert ready.status_code == 200
    assert (engine["state"], engine["last_error"]) == ("failing", "ConnectionError")
    assert "since" in engine
    assert "secret words" not in ready.text
    shelf.away = False
    for number in range(6):
        await relay.wait_for(f"task-{number}", "delivered")
    back = (await server.http.get("/readyz")).json()
    assert (back["status"], back["engines"]["shelf"]["state"]) == ("ready", "ok")


class Askable(Moody):
    """Can be asked whether it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.there = True

    async def check(self) -> None:
        if not self.there:
            raise TimeoutError("secret words")


@pytest.fixture
async def askable(fake: FakeServer, tmp_path: Path) -> AsyncGenerator[tuple[Askable, RunningRelay, Server]]:
    """An engine that can be asked, and a relay of its own."""
    engine = Askable()
    (tmp_path / "askable").mkdir()
    async with running_relay([engine], fake, tmp_path / "askable") as relay:
        server = Server(relay, fake)
        await stands(server, "ok")
        yield engine, relay, server
        await server.http.aclose()


async def stands(server: Server, state: str) -> dict[str, object]:
    """What is said of the engine, once it is so."""
    async with asyncio.timeout(60):
        while (engine := (await server.http.get("/readyz")).json()["engines"]["shelf"])["state"] != state:
            await asyncio.sleep(0.05)
    found: dict[str, object] = engine
    return found


async def test_one_failed_delivery_has_the_engine_asked(askable: tuple[Askable, RunningRelay, Server]) -> None:
    """Whether it is away is known then, and not after five; that it is back is seen without a delivery."""
    engine, relay, server = askable
    engine.away, engine.there = True, False
    await server.call_back(place("away"), "task-1")
    assert (await stands(server, "failing"))["last_error"] == "TimeoutError"
    engine.there = True
    await stands(server, "ok")
    assert [wait.state for wait in await relay.store.find("task-1")] == ["answered"]


async def test_a_target_of_its_own_is_no_matter_of_the_engine(
    askable: tuple[Askable, RunningRelay, Server], caplog: pytest.LogCaptureFixture
) -> None:
    """One that cannot be woken says nothing of an engine that answers."""
    engine, relay, server = askable
    engine.away = True
    await server.call_back(place("here"), "task-1")
    async with asyncio.timeout(60):
        while not (await relay.store.find("task-1"))[0].last_error:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert (await server.http.get("/readyz")).json()["status"] == "ready"
    assert "unreachable" not in caplog.text


async def test_an_engine_that_answers_and_breaks_is_failing(askable: tuple[Askable, RunningRelay, Server]) -> None:
    """That it is there when it is asked does not excuse that it takes nothing."""
    engine, relay, server = askable
    engine.away = True
    for number in range(6):
        await server.call_back(place(f"away-{number}"), f"task-{number}")
    assert (await stands(server, "failing"))["last_error"] == "ConnectionError"
    await asyncio.sleep(0.5)
    await stands(server, "failing")
    engine.away = False
    await relay.wait_for("task-0", "delivered")
    await stands(server, "ok")


async def test_an_engine_is_asked_at_the_start(fake: FakeServer, tmp_path: Path) -> None:
    """A relay that cannot wake anybody says so before somebody has answered."""
    engine = Askable()
    engine.there = False
    async with running_relay([engine], fake, tmp_path) as relay:
        server = Server(relay, fake)
        assert (await stands(server, "failing"))["last_error"] == "TimeoutError"
        engine.there = True
        await stands(server, "ok")
        await server.http.aclose()


async def test_waits_for_an_engine_that_is_not_here_degrade(server: Server, relay: RunningRelay) -> None:
    """An answer this relay can store and not deliver is seen."""
    await relay.store.register("task-1", Route("elsewhere", {}, "question-1"), 900)
    ready = (await server.http.get("/readyz")).json()
    assert (ready["status"], ready["engines"]["elsewhere"]) == ("degraded", {"state": "missing"})


async def test_a_store_that_takes_nothing_is_not_ready(server: Server, relay: RunningRelay) -> None:
    """503, and only then: a callback could not be stored. The figures and the process are there all the same."""
    await broken(relay)
    ready = await server.http.get("/readyz")
    assert (ready.status_code, ready.json()["error"]) == (503, "STORE_UNAVAILABLE")
    assert (await server.http.get("/healthz")).status_code == 200
    assert (await figures(server))["store_up"] == 0


async def test_a_store_that_is_held_up_is_not_ready(server: Server, relay: RunningRelay) -> None:
    """A database that can be read and not written to keeps no answer: the probe writes, and does not wait for long."""
    holder = sqlite3.connect(str(relay.store.database.url.database), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    ready = await server.http.get("/readyz")
    holder.rollback()
    holder.close()
    assert ready.status_code == 503
    assert (await server.http.get("/readyz")).status_code == 200
