"""One client in several event loops, on the real server and on the fake: connections end with their loop."""

import asyncio
import gc
import uuid
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from awaithumans_core import HumanTask, Outcome, SettingsError, Step, SyncTaskClient, TaskClient, escalate, quorum
from awaithumans_core.http.connections import PerLoop
from tests.support.connections import established
from tests.support.people import People
from tests.support.servers import TaskServer
from tests.support.workflows import Decision


def question(name: str = "") -> HumanTask[Decision]:
    key = name or uuid.uuid4().hex
    return HumanTask(task=f"Approve {key}?", response_schema=Decision, timeout_seconds=900, idempotency_key=key)


async def in_a_loop_of_its_own(call: Callable[[], Awaitable[Outcome]]) -> Outcome:
    async def run() -> Outcome:
        return await call()

    return await asyncio.to_thread(lambda: asyncio.run(run()))


async def test_client_works_in_successive_event_loops(server: TaskServer) -> None:
    """One `asyncio.run` per question works, and an ended loop leaves no connection behind."""
    port = int(server.url.rsplit(":", 1)[1])
    before = set(established(port))
    client = TaskClient(server.url, server.token)
    asked = [question() for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for task in asked:
            opened = await in_a_loop_of_its_own(partial(client.create, task))
            assert opened.idempotency_key == task.idempotency_key
            assert set(established(port)) <= before
        gc.collect()


async def test_client_works_after_a_loop_closed_without_its_generators(server: TaskServer) -> None:
    """A loop closed by hand may leave connections behind; the client opens new ones in the next loop."""
    client = TaskClient(server.url, server.token)

    def run() -> list[Outcome]:
        found = []
        for _ in range(2):
            loop = asyncio.new_event_loop()
            found.append(loop.run_until_complete(client.create(question())))
            loop.close()
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        assert len({opened.task_id for opened in await asyncio.to_thread(run)}) == 2
        async with client:
            await client.create(question())
        gc.collect()


async def test_client_works_in_two_loops_at_once(server: TaskServer, somebody: People) -> None:
    """Each loop gets the answer to its own question."""
    asked = [question() for _ in range(4)]
    async with TaskClient(server.url, server.token) as client:
        asking = [
            asyncio.create_task(in_a_loop_of_its_own(partial(client.ask, task, poll_seconds=5))) for task in asked
        ]
        for task in reversed(asked):
            found = await somebody.by_key(task.idempotency_key)
            await somebody.complete(found["id"], {"approved": True, "note": task.idempotency_key})
        outcomes = await asyncio.gather(*asking)
    assert [(outcome.response or {})["note"] for outcome in outcomes] == [task.idempotency_key for task in asked]


async def test_aclose_affects_the_running_loop_only(server: TaskServer) -> None:
    """A client closed in one loop keeps working in another, and reconnects when it is called again."""
    client = TaskClient(server.url, server.token)
    async with client:
        await client.create(question())

        async def create_and_close() -> Outcome:
            async with client:
                return await client.create(question())

        await in_a_loop_of_its_own(create_and_close)
        assert not (await client.create(question())).terminal
    assert not (await client.create(question())).terminal
    await client.aclose()
    await client.aclose()


async def test_sync_client_reconnects_after_close(server: TaskServer) -> None:
    """A closed sync client opens new connections when it is called again."""
    with SyncTaskClient(server.url, server.token) as client:
        await asyncio.to_thread(client.create, question())
    assert not (await asyncio.to_thread(client.create, question())).terminal
    client.close()


def test_async_client_without_an_event_loop_is_refused() -> None:
    """Without a running asyncio loop, for instance under trio, the first call's error names the alternative."""
    client = TaskClient("http://127.0.0.1:1", "token")
    call = client.get("task-1")
    with pytest.raises(SettingsError, match="SyncTaskClient"):
        call.send(None)


async def _first_answer(client: TaskClient) -> None:
    async for _ in client.as_completed([question()]):
        return


@pytest.mark.parametrize(
    "call",
    [
        lambda client, ask: quorum(1, ["anna@example.com"], ask, yes=bool),
        lambda client, ask: escalate(ask, [Step("anna@example.com")], within=900, otherwise=None),
        lambda client, ask: client.wait_all([question()]),
        lambda client, ask: _first_answer(client),
    ],
    ids=["quorum", "escalate", "wait_all", "as_completed"],
)
def test_batch_without_an_event_loop_is_refused(call: Callable[..., Any]) -> None:
    """The batch raises the same error as one question, before a task is created."""
    asked: list[object] = []

    async def ask(**options: Any) -> Any:
        asked.append(options)

    waiting = call(TaskClient("http://127.0.0.1:1", "token"), ask)
    with pytest.raises(SettingsError, match="SyncTaskClient"):
        waiting.send(None)
    assert asked == []


class Counted:
    """A resource that may be closed once."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1


def test_per_loop_value_is_shared_and_closed_with_its_loop() -> None:
    """Each loop has one value, shared by everything that runs in it and closed when the loop ends."""
    made: list[Counted] = []

    def make() -> Counted:
        made.append(Counted())
        return made[-1]

    kept = PerLoop(make)

    async def use(times: int) -> None:
        assert len({id(await kept.get()) for _ in range(times)}) == 1
        assert len(set(await asyncio.gather(*(kept.get() for _ in range(times))))) == 1

    for _ in range(3):
        asyncio.run(use(2))
    assert [each.closed for each in made] == [1, 1, 1]


def test_close_during_loop_shutdown_is_safe() -> None:
    """Generators that are closed together with the client may close the client as well."""
    kept = PerLoop(Counted)

    async def answers() -> AsyncGenerator[int]:
        try:
            await kept.get()
            yield 1
        finally:
            await kept.aclose()

    async def leaves_early() -> None:
        left.append(answers())
        await anext(left[0])

    left: list[AsyncGenerator[int]] = []
    asyncio.run(leaves_early())
