"""A LangGraph server that authenticates two users: a resumed run belongs to the user who asked."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, started
from examples import langgraph_auth

from awaithumans_adapters.langgraph import LangGraphServerEngine, ServerTarget
from awaithumans_core import Outcome, Route, SettingsError, TargetNotReady
from awaithumans_core.engine import RelayNotReady
from awaithumans_relay.commands.checks import check_thread
from awaithumans_relay.commands.engines import EngineFactory, EngineFlags
from tests.support.langgraph_server import AUTHENTICATED, LangGraphServer
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay

pytestmark = pytest.mark.edges

TOKENS = {user: f"token-of-{user}" for user in ("alice", "bob", "relay")}
Answered = tuple[Route, Outcome, str]


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"}


OF_BOB = bearer("bob")


@pytest.fixture(scope="module")
async def server(humans: HumansServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[LangGraphServer]:
    made = LangGraphServer(tmp_path_factory.mktemp("auth"), humans, "one", auth=Path(langgraph_auth.__file__))
    async with started(made):
        yield made


@pytest.fixture(autouse=True)
def tokens_of_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AUTHENTICATED.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def engine_with(server: LangGraphServer, headers: Any) -> AsyncGenerator[LangGraphServerEngine]:
    engine = LangGraphServerEngine(server.url, headers=headers)
    yield engine
    await engine.aclose()


@pytest.fixture
async def relay(humans: HumansServer, server: LangGraphServer, tmp_path: Path) -> AsyncGenerator[RunningRelay]:
    """Run a relay with the credentials of the example."""
    async with (
        engine_with(server, langgraph_auth.headers) as engine,
        running_relay([engine], humans, tmp_path, settings=server.settings, port=server.relay_port) as running,
    ):
        yield running


async def ask(server: LangGraphServer, people: People, relay: RunningRelay, user: str) -> Answered:
    """Return a question of this user, the wait's route, and a yes that is not delivered yet."""
    client = server.client(TOKENS[user])
    name = uuid.uuid4().hex[:8]
    thread_id = (await client.threads.create())["thread_id"]
    state: dict[str, Any] = {"name": name, "questions": [f"{name}?"], "answers": []}
    run = await client.runs.create(thread_id, "one", input=state)
    await client.runs.join(thread_id, run["run_id"])
    (task,) = await people.find(f"{name}?")
    await client.aclose()
    (wait,) = await relay.store.queries.find(task["id"])
    key = task["idempotency_key"]
    return (
        wait.route,
        Outcome(task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=key),
        thread_id,
    )


async def users_of_runs(server: LangGraphServer, user: str, thread_id: str) -> tuple[list[str], Any]:
    client = server.client(TOKENS[user])
    runs: Any = await client.runs.list(thread_id)
    values = (await client.threads.get_state(thread_id))["values"]
    await client.aclose()
    return [run["kwargs"]["config"]["configurable"]["langgraph_auth_user_id"] for run in runs], values


async def test_run_is_resumed_as_the_user_who_asked(
    relay: RunningRelay, server: LangGraphServer, people: People
) -> None:
    """The relay acts for the user whose run asked, and what follows the question runs as that user."""
    for user in ("alice", "bob"):
        route, outcome, thread_id = await ask(server, people, relay, user)
        assert route.caller is not None
        assert route.caller["user"] == user
        await people.complete(outcome.task_id, {"approved": True})
        await relay.check_now(outcome.task_id)
        await relay.wait_for(outcome.task_id, "delivered")
        users, values = await users_of_runs(server, user, thread_id)
        assert users == [user, user]
        assert values["tenant"] == user


async def test_langgraph_auth_user_id_is_the_user_in_the_route(
    relay: RunningRelay, server: LangGraphServer, people: People
) -> None:
    """On a server with authentication a node finds the user of its run under this name."""
    route, _, _ = await ask(server, people, relay, "alice")
    assert (route.caller or {}).get("user") == "alice"


REFUSED: dict[str, tuple[Any, str]] = {
    "another user": (bearer("bob"), r"404 .*'alice'.*LangGraphServerEngine\(headers=...\) \(Authorization\)"),
    "the relay for no user": (bearer("relay"), r"404 .*'alice'"),
    "the user, without the receipts": (bearer("alice"), r"store/items/search \(403\)"),
    "an unknown token": ({"Authorization": "Bearer other"}, r"\(401\)"),
    "a function that fails": (
        lambda target: {"Authorization": TOKENS[f"{target.user}'s"]},
        r"user 'alice' \(KeyError\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_thread_hidden_from_the_relay_does_not_count_as_deleted(
    relay: RunningRelay, server: LangGraphServer, people: People, case: str
) -> None:
    """The answer is kept, the reason names the credentials, and with the right ones it is delivered."""
    headers, reason = REFUSED[case]
    route, outcome, _ = await ask(server, people, relay, "alice")
    async with engine_with(server, headers) as engine:
        for attempt in (engine.deliver(route, outcome), engine.redrive(route, outcome)):
            with pytest.raises(RelayNotReady, match=reason) as refused:
                await attempt
            assert TOKENS["bob"] not in str(refused.value)
        with pytest.raises(RelayNotReady):
            await engine.orphaned(route)
        with pytest.raises(RelayNotReady, match=reason):
            await engine.check_thread(route)
        if not callable(headers):
            with pytest.raises(SettingsError, match=reason):
                await engine.check()
    async with engine_with(server, langgraph_auth.headers) as engine:
        await engine.deliver(route, outcome)
        await engine.check()


async def test_hidden_thread_of_an_earlier_route_does_not_count_as_deleted(
    relay: RunningRelay, server: LangGraphServer, people: People
) -> None:
    """Earlier releases issued routes without a user, whose threads the server may hide."""
    route, outcome, _ = await ask(server, people, relay, "alice")
    async with engine_with(server, bearer("bob")) as engine:
        with pytest.raises(RelayNotReady, match="either they may not read it, or it was deleted"):
            await engine.deliver(replace(route, caller=None), outcome)


async def test_credentials_are_chosen_for_each_request(
    relay: RunningRelay, server: LangGraphServer, people: People
) -> None:
    """A credentials function may be async, receives the target, and is called again after an expired token."""
    route, outcome, thread_id = await ask(server, people, relay, "alice")
    targets: list[ServerTarget] = []

    async def chosen(target: ServerTarget) -> dict[str, str]:
        targets.append(target)
        return langgraph_auth.headers(target)

    async with engine_with(server, chosen) as engine:
        await engine.check()
        await engine.deliver(route, outcome)
    assert targets[0] == ServerTarget()
    assert {(target.thread_id, target.user) for target in targets[1:]} == {(thread_id, "alice")}
    assert len(targets) > 3


async def test_doctor_reads_the_thread_as_its_user(
    relay: RunningRelay, server: LangGraphServer, people: People
) -> None:
    """`doctor --thread` reads the thread for the user of the wait, and resumes nothing."""
    _, outcome, thread_id = await ask(server, people, relay, "alice")
    database = relay.store.database.url.render_as_string(hide_password=False)

    def made(headers: str) -> EngineFactory:
        return EngineFlags(None, [], server.url, langgraph_headers=headers).engines

    told = await check_thread(made("examples.langgraph_auth:headers"), database, thread_id)
    assert "waits at 1 question" in told
    assert outcome.task_id in told
    with pytest.raises(RelayNotReady, match="either they may not read it, or it was deleted"):
        await check_thread(made(f"{__name__}:OF_BOB"), database, thread_id)
    with pytest.raises(TargetNotReady):
        await check_thread(made("examples.langgraph_auth:headers"), database, str(uuid.uuid4()))
    with pytest.raises(SettingsError, match="is str: give a mapping of headers"):
        await check_thread(made(f"{__name__}:__name__"), database, thread_id)
