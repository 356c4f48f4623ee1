"""`FakeHumans`: its life cycle, and its behaviour as a server."""

import asyncio
import re
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from awaithumans_core import TaskClient, settle
from awaithumans_core.clock import SystemClock
from awaithumans_core.errors import (
    AuthenticationError,
    PermissionDeniedError,
    TaskNotFoundError,
)
from awaithumans_core.settings import Settings
from awaithumans_core.testing import FakeHumans, VirtualClock
from awaithumans_core.testing.fault_transport import TrackedConnection
from tests.support.decisions import Decision
from tests.testing_kit.questions import (
    HOUR,
    MINUTE,
    MONTH,
    NO,
    YES,
    plain_client,
    question,
    task_body,
    threads,
    until,
    until_sync,
)


def is_held(humans: FakeHumans) -> bool:
    """Return whether a poll is held, not counting the threads of people and of the callback sender."""
    return len(humans._state._watchers) > 2


# --- entering and leaving


@pytest.mark.parametrize("entered_before", [False, True], ids=["never entered", "left again"])
async def test_client_of_stopped_fake_is_an_error(*, entered_before: bool) -> None:
    """The error explains how to start the fake."""
    humans = FakeHumans()
    if entered_before:
        async with humans:
            pass
    async with humans.client() as client:
        with pytest.raises(RuntimeError, match="async with FakeHumans"):
            await client.create(question())


async def test_entering_twice_is_refused() -> None:
    """Two contexts at once would share their tasks, and leaving one would end the other."""
    humans = FakeHumans()
    async with humans:
        with pytest.raises(RuntimeError, match="running already"):
            await humans._lifespan(None).__aenter__()


async def test_refused_second_entry_leaves_the_first_intact() -> None:
    """After a refused second entry, the first context is left as usual."""
    humans = FakeHumans()
    async with humans:
        with pytest.raises(RuntimeError, match="running already"):
            await humans.__aenter__()
    async with humans, humans.client() as client:
        await client.create(question())


async def test_fake_can_be_entered_again() -> None:
    """The tasks on the server are kept."""
    humans = FakeHumans()
    async with humans, humans.client() as client:
        opened = await client.create(question())
    humans.answer(None, YES)
    async with humans, humans.client() as client:
        humans.complete(opened.task_id, YES)
        assert (await client.get(opened.task_id)).response == YES


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_entered_fake_cannot_be_served() -> None:
    """A fake is either entered or served."""
    async with FakeHumans() as humans:
        with pytest.raises(RuntimeError), humans.serving():
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_serving_an_entered_fake_names_the_reason() -> None:
    """The error names what is wrong, as it does in the other order."""
    async with FakeHumans() as humans:
        with pytest.raises(RuntimeError, match="either enter it or let it serve, not both"), humans.serving():
            pass


async def test_served_fake_cannot_be_entered() -> None:
    """A fake that is served on a port cannot be entered."""
    humans = FakeHumans()
    with humans.serving(), pytest.raises(RuntimeError, match="either enter it or let it serve, not both"):
        async with humans:
            pass


def test_refused_second_serving_leaves_the_first_intact() -> None:
    """Serving twice is refused, and the first server continues to work."""
    humans = FakeHumans()
    with humans.serving() as url:
        with pytest.raises(RuntimeError), humans.serving():
            pass
        assert humans.url == url


def test_sync_client_needs_a_port() -> None:
    """A client without an event loop cannot reach the fake in process."""
    with pytest.raises(RuntimeError, match=re.escape("with humans.serving()")):
        FakeHumans().sync_client()


def test_taken_port_is_an_error() -> None:
    """Nothing is served, and no thread is left behind."""
    before, humans = threads(), FakeHumans()
    with (
        FakeHumans().serving() as url,
        pytest.raises(OSError, match="in use"),
        humans.serving(httpx.URL(url).port or 0),
    ):
        pass
    assert threads() <= before


async def test_leaving_leaves_no_task_or_thread() -> None:
    """No asyncio task and no thread outlives the context, even with an open question."""
    before_threads, before_tasks = threads(), asyncio.all_tasks()
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("refund", YES).after(HOUR)
        await client.ask(question(timeout_seconds=MONTH))
        await client.create(question("Nobody answers this"))
    await until(lambda: threads() <= before_threads)
    # Not equality: a task that closes a generator of an earlier test may have been counted before, and has ended since.
    assert asyncio.all_tasks() <= before_tasks


def test_stopped_server_leaves_no_thread_or_listener() -> None:
    """No thread outlives the server, and its port is closed."""
    before, humans = threads(), FakeHumans()
    with humans.serving() as url:
        humans.answer("refund", YES).after(HOUR)
        with humans.sync_client() as client:
            client.ask(question(timeout_seconds=MONTH))
            client.create(question("Nobody answers this"))
    until_sync(lambda: threads() <= before)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_error_in_the_block_is_raised_unchanged() -> None:
    """An error inside the context is raised as it is."""
    with pytest.raises(ZeroDivisionError), FakeHumans().serving():
        raise ZeroDivisionError


# --- addresses and secrets


def test_repr_shows_no_secret() -> None:
    """The representation in a failing test shows neither the tokens nor the key."""
    humans = FakeHumans()
    shown = f"{humans!r} {humans} {humans.settings()!r}"
    for secret in (humans.token, humans.outsider_token, humans.payload_key):
        assert secret not in shown


def test_each_fake_has_its_own_secrets() -> None:
    """The secrets of one fake do not work with another."""
    one, other = FakeHumans(), FakeHumans()
    secrets = [one.token, one.outsider_token, one.payload_key, other.token, other.outsider_token, other.payload_key]
    assert len(set(secrets)) == 6


def test_settings_configure_a_client() -> None:
    """The settings hold address, token and key, and any option that is given."""
    humans = FakeHumans()
    with humans.serving() as url:
        settings = humans.settings(relay_secret=secrets.token_urlsafe(32))
        assert isinstance(settings, Settings)
        assert (settings.url, settings.token()) == (url, humans.token)
        assert settings.key_ring()
        assert settings.signer()


def test_address_is_available_while_serving_only() -> None:
    """The address is that of the port, and only while it is served."""
    humans = FakeHumans()
    before = humans.url
    with humans.serving() as url:
        assert humans.url == url
        assert url.startswith("http://127.0.0.1:")
    assert humans.url == before


# --- clients


async def test_client_in_process_gets_its_answer() -> None:
    """A question is asked and answered without a socket."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("refund", YES).after(HOUR)
        assert settle(await client.ask(question(timeout_seconds=MONTH)), Decision).approved


async def test_transport_serves_a_plain_httpx_client() -> None:
    """A plain httpx client works, as with httpx's own transport for apps."""
    async with FakeHumans() as humans, httpx.AsyncClient(transport=humans.transport(), base_url=humans.url) as http:
        reply = await http.get("/api/health")
    assert reply.json()["status"] == "ok"


async def test_app_works_with_httpx_asgi_transport() -> None:
    """httpx's own transport reaches the same server once it is running."""
    async with FakeHumans() as humans:
        transport = httpx.ASGITransport(humans.app)
        headers = {"Authorization": f"Bearer {humans.token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://any.test", headers=headers) as http:
            assert (await http.post("/api/tasks", json=task_body())).status_code == 201
        assert len(humans.tasks) == 1


async def test_app_with_lifespan_needs_nothing_else() -> None:
    """A host that runs the app with its lifespan needs nothing else."""
    humans = FakeHumans()
    humans.answer(None, YES).after(HOUR)
    sent: asyncio.Queue[Any] = asyncio.Queue()
    came: asyncio.Queue[Any] = asyncio.Queue()

    async def run() -> None:
        await humans.app({"type": "lifespan", "state": {}}, sent.get, came.put)

    running = asyncio.create_task(run())
    await sent.put({"type": "lifespan.startup"})
    assert (await came.get())["type"] == "lifespan.startup.complete"
    async with humans.client() as client:
        assert (await client.ask(question(timeout_seconds=MONTH))).response == YES
    await sent.put({"type": "lifespan.shutdown"})
    assert (await came.get())["type"] == "lifespan.shutdown.complete"
    await running


def test_sync_clients_in_threads_are_served_on_a_port() -> None:
    """Blocking clients in several threads are served at the same time."""
    humans = FakeHumans()
    humans.answer("refund", YES).after(HOUR)
    with humans.serving(), humans.sync_client() as client, ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: client.ask(question(timeout_seconds=MONTH)), range(8)))
    assert [outcome.response for outcome in outcomes] == [YES] * 8
    assert len(humans.tasks) == 8


async def test_sync_and_async_clients_share_one_port() -> None:
    """An async and a blocking client share tasks and clock."""
    humans = FakeHumans()
    with humans.serving():
        with humans.sync_client() as client:
            opened = client.create(question(timeout_seconds=MONTH))
        humans.complete(opened.task_id, YES)
        async with humans.client() as other:
            assert (await other.poll(opened.task_id)).response == YES


async def test_fake_works_in_real_time() -> None:
    """With the system clock, delays take real time."""
    async with FakeHumans(clock=SystemClock()) as humans, humans.client() as client:
        humans.answer(None, YES).after(0.03)
        began = time.monotonic()
        assert (await client.ask(question())).response == YES
        assert time.monotonic() - began >= 0.03


async def test_two_hundred_concurrent_questions_get_their_own_answers() -> None:
    """Each question gets its own answer at its own time on one clock."""
    async with FakeHumans() as humans, humans.client() as client:
        for number in range(10):
            humans.answer(f"number {number}.", {"approved": number % 2 == 0}).after(HOUR * (1 + number))
        questions = [question(f"Approve number {place % 10}.", timeout_seconds=MONTH) for place in range(200)]
        outcomes = await asyncio.gather(*map(client.ask, questions))
        assert len(humans.tasks) == 200
    assert [settle(outcome, Decision).approved for outcome in outcomes] == [place % 2 == 0 for place in range(200)]


async def test_two_fakes_share_nothing() -> None:
    """Two servers in one process are independent of each other."""
    async with FakeHumans() as one, FakeHumans() as other, one.client() as client, other.client() as stranger:
        one.answer(None, YES).after(HOUR)
        other.answer(None, NO)
        outcomes = await asyncio.gather(
            client.ask(question(timeout_seconds=MONTH)), stranger.ask(question(timeout_seconds=MONTH))
        )
        assert [outcome.response for outcome in outcomes] == [YES, NO]
        assert one.clock.now() >= HOUR
        assert other.clock.now() == 0
        with pytest.raises(TaskNotFoundError):
            await stranger.get(outcomes[0].task_id)


async def test_two_fakes_can_share_a_clock() -> None:
    """Time passes once for both."""
    clock = VirtualClock()
    async with FakeHumans(clock=clock) as one, FakeHumans(clock=clock) as other:
        one.answer(None, YES).after(HOUR)
        other.answer(None, NO).after(2 * HOUR)
        async with one.client() as client, other.client() as stranger:
            await asyncio.gather(
                client.ask(question(timeout_seconds=MONTH)), stranger.ask(question(timeout_seconds=MONTH))
            )
    assert clock.now() == 2 * HOUR


# --- restarts


def test_server_restarts_on_the_same_port() -> None:
    """The tasks are kept over a restart."""
    humans = FakeHumans(clock=VirtualClock(auto=False))
    with humans.serving() as url, humans.sync_client() as client:
        opened = client.create(question())
    with humans.serving(httpx.URL(url).port or 0) as again, humans.sync_client() as client:
        assert again == url
        assert client.get(opened.task_id).status == "created"


def test_client_survives_restart_during_held_poll() -> None:
    """The waiting client reconnects and gets the answer that was given in the meantime."""
    clock = VirtualClock(auto=False)
    humans = FakeHumans(clock=clock)
    with ThreadPoolExecutor(1) as pool:
        with humans.serving() as url:
            client = humans.sync_client()
            waiting = pool.submit(client.ask, question(timeout_seconds=MONTH))
            until_sync(lambda: "poll" in [verb for _, verb in humans.calls])
        until_sync(lambda: clock._sleepers)
        assert not waiting.done()
        humans.complete(humans.tasks[0].id, YES)
        with humans.serving(httpx.URL(url).port or 0):
            clock.advance(60)
            until_sync(waiting.done)
            client.close()
        client.close()
    assert waiting.result().response == YES
    assert len(humans.tasks) == 1


def test_deadline_during_downtime_is_applied_after_restart() -> None:
    """A restarted server times out the tasks whose deadline has passed."""
    clock = VirtualClock(auto=False)
    humans = FakeHumans(clock=clock)
    with humans.serving(), humans.sync_client() as client:
        opened = client.create(question(timeout_seconds=60))
    clock.advance(HOUR)
    assert humans.tasks[0].status == "created"
    with humans.serving(), humans.sync_client() as client:
        until_sync(lambda: client.get(opened.task_id).terminal)
        assert client.get(opened.task_id).status == "timed_out"


# --- replies


async def test_unknown_token_is_401() -> None:
    """The body has the shape of FastAPI's errors, with a text."""
    async with FakeHumans() as humans, plain_client(humans, "nonsense") as http:
        reply = await http.get("/api/tasks")
        assert (reply.status_code, reply.json()) == (401, {"detail": "Authentication required."})
        settings = humans.settings(admin_api_token="nonsense")
        async with TaskClient(settings=settings, transport=humans.transport(), clock=humans.clock) as client:
            with pytest.raises(AuthenticationError):
                await client.create(question())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/poll", None),
        ("POST", "/complete", {"response": YES}),
        ("POST", "/cancel", None),
        ("DELETE", "", None),
    ],
    ids=["get", "poll", "complete", "cancel", "delete"],
)
async def test_user_without_permission_is_403(method: str, path: str, body: Any) -> None:
    """A known user without permission is refused."""
    async with FakeHumans() as humans, humans.client() as client, plain_client(humans, humans.outsider_token) as http:
        opened = await client.create(question())
        reply = await http.request(method, f"/api/tasks/{opened.task_id}{path}", json=body)
        assert reply.status_code == 403
        assert isinstance(reply.json()["detail"], str)
        assert (await client.get(opened.task_id)).status == "created"


async def test_user_without_permission_cannot_create_or_list() -> None:
    """Creating is refused, and the list is empty."""
    async with FakeHumans() as humans, humans.client() as client, plain_client(humans, humans.outsider_token) as http:
        await client.create(question())
        assert (await http.post("/api/tasks", json=task_body())).status_code == 403
        assert (await http.get("/api/tasks")).json() == []
        settings = humans.settings(admin_api_token=humans.outsider_token)
        async with TaskClient(settings=settings, transport=humans.transport(), clock=humans.clock) as outsider:
            with pytest.raises(PermissionDeniedError):
                await outsider.create(question())


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/poll", None),
        ("POST", "/complete", {"response": YES}),
        ("POST", "/cancel", None),
        ("DELETE", "", None),
    ],
    ids=["get", "poll", "complete", "cancel", "delete"],
)
async def test_unknown_task_is_404(method: str, path: str, body: Any) -> None:
    """The error has the server's own shape."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        reply = await http.request(method, f"/api/tasks/nonsense{path}", json=body)
    assert reply.status_code == 404
    assert reply.json()["error"] == "TASK_NOT_FOUND"
    assert "nonsense" in reply.json()["message"]
    assert reply.json()["docs"].startswith("https://")


@pytest.mark.parametrize(("verb", "body"), [("complete", {"response": YES}), ("cancel", None)])
async def test_ended_task_is_409(verb: str, body: Any) -> None:
    """The error has the server's own shape, and the task stays unchanged."""
    async with FakeHumans() as humans, humans.client() as client, plain_client(humans) as http:
        opened = await client.create(question())
        humans.complete(opened.task_id, NO)
        reply = await http.post(f"/api/tasks/{opened.task_id}/{verb}", json=body)
        assert reply.status_code == 409
        assert reply.json()["error"] == "TASK_ALREADY_TERMINAL"
        assert (await client.get(opened.task_id)).response == NO


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_seconds": 59},
        {"timeout_seconds": 30 * 86400 + 1},
        {"payload": "text"},
        {"task": None},
        {"task_metadata": {"number": 7}},
    ],
    ids=["too short", "too long", "payload is text", "no task", "metadata is no text"],
)
async def test_malformed_question_is_422(wrong: dict[str, Any]) -> None:
    """The error names the field in FastAPI's shape, and no task is created."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        reply = await http.post("/api/tasks", json=task_body(**wrong))
        assert humans.tasks == []
    assert reply.status_code == 422
    assert {"loc", "msg"} <= set(reply.json()["detail"][0])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("poll?timeout=0", 422),
        ("poll?timeout=31", 422),
        ("poll?timeout=1.5", 422),
        ("poll?timeout=1", 200),
        ("poll?timeout=30", 200),
    ],
)
async def test_poll_timeout_is_limited(path: str, code: int) -> None:
    """A poll may last one to thirty whole seconds."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.answer(None, YES)
        created = await http.post("/api/tasks", json=task_body())
        assert (await http.get(f"/api/tasks/{created.json()['id']}/{path}")).status_code == code


async def test_held_poll_ends_at_its_timeout() -> None:
    """It returns the task's status once time has passed, and it is not what lets time pass."""
    clock = VirtualClock(auto=False)
    async with FakeHumans(clock=clock) as humans, humans.client() as client:
        opened = await client.create(question())
        poll = asyncio.create_task(client.poll(opened.task_id, seconds=25))
        await until(lambda: is_held(humans))
        clock.advance(24)
        await asyncio.sleep(0.02)
        assert not poll.done()
        clock.advance(1)
        assert (await poll).status == "created"


async def test_held_poll_of_deleted_task_is_404() -> None:
    """A held poll ends when its task is deleted."""
    async with FakeHumans() as humans, humans.client() as client, plain_client(humans) as http:
        opened = await client.create(question())
        poll = asyncio.create_task(client.poll(opened.task_id))
        await until(lambda: is_held(humans))
        assert (await http.delete(f"/api/tasks/{opened.task_id}")).status_code == 204
        with pytest.raises(TaskNotFoundError):
            await poll


async def test_any_response_is_accepted() -> None:
    """The server does not validate responses; the caller does."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        created = await http.post("/api/tasks", json=task_body())
        reply = await http.post(
            f"/api/tasks/{created.json()['id']}/complete", json={"response": {"approved": "maybe", "more": [1]}}
        )
    assert reply.json()["response"] == {"approved": "maybe", "more": [1]}


async def test_known_key_is_replayed() -> None:
    """The reply is 201 with the replay header and the current task, whatever the request asks."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        first = await http.post("/api/tasks", json=task_body())
        humans.complete(first.json()["id"], YES)
        second = await http.post("/api/tasks", json=task_body(task="Something else"))
        assert len(humans.tasks) == 1
    assert (first.status_code, second.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["task"] == first.json()["task"]
    assert second.json()["status"] == "completed"


async def test_list_pages_are_newest_first() -> None:
    """Every task appears exactly once, from the newest to the oldest."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, plain_client(humans) as http:
        ids = [(await http.post("/api/tasks", json=task_body(f"{number}"))).json()["id"] for number in range(7)]
        pages = [
            [task["id"] for task in (await http.get("/api/tasks", params={"limit": 3, "offset": offset})).json()]
            for offset in (0, 3, 6, 9)
        ]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [task_id for page in pages for task_id in page] == ids[::-1]


async def test_list_filters_by_terminal_and_status() -> None:
    """`terminal=true` selects every terminal status and `status` selects one."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, plain_client(humans) as http:
        ids = [(await http.post("/api/tasks", json=task_body(f"{number}"))).json()["id"] for number in range(4)]
        humans.complete(ids[0], YES)
        humans.cancel(ids[2])

        async def listed(**params: str) -> list[str]:
            return [task["id"] for task in (await http.get("/api/tasks", params=params)).json()]

        assert await listed(terminal="true") == [ids[2], ids[0]]
        assert await listed(status="cancelled") == [ids[2]]
        assert await listed(status="created") == [ids[3], ids[1]]
        assert await listed() == ids[::-1]


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 201}, {"offset": -1}, {"status": "paused"}],
    ids=["none", "too many", "before the first", "no status"],
)
async def test_list_limits_match_the_real_server(params: dict[str, Any]) -> None:
    """The limits of list parameters are those of the real server."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        assert (await http.get("/api/tasks", params=params)).status_code == 422


async def test_as_completed_uses_the_list() -> None:
    """More questions than connections are waited for through the list of ended tasks."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer(None, YES).after(MINUTE)
        answers = await client.wait_all([question(timeout_seconds=MONTH) for _ in range(20)], connections=4)
        assert "list" in {verb for _, verb in humans.calls}
    assert [answer.result().approved for answer in answers] == [True] * 20


# --- what a test can inspect


async def test_task_is_found_by_text_pattern_or_function() -> None:
    """A task is found by text, by pattern, by a function of its record, or as the only one."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        opened = await client.create(question("Approve the refund?", payload={"amount": 250}))
        assert humans.task(None).id == opened.task_id
        await client.create(question("Deploy?"))
        assert humans.task("refund").id == opened.task_id
        assert humans.task(re.compile("^Approve")).id == opened.task_id
        assert humans.task(lambda record: record["payload"] == {"amount": 250}).id == opened.task_id
        assert humans.task("refund").asked["payload"] == {"amount": 250}


@pytest.mark.parametrize(("match", "count"), [("invoice", 0), (None, 2), ("?", 2)])
async def test_ambiguous_task_is_an_error(match: str | None, count: int) -> None:
    """The error gives the number of matching tasks and their questions."""
    async with FakeHumans() as humans, humans.client() as client:
        await client.create(question("Approve?"))
        await client.create(question("Deploy?"))
        with pytest.raises(LookupError, match=rf"^{count} tasks match .*Approve\?.*Deploy\?"):
            humans.task(match)


async def test_tasks_are_listed_in_creation_order() -> None:
    """`tasks` starts with the oldest task."""
    async with FakeHumans() as humans, humans.client() as client:
        ids = [(await client.create(question())).task_id for _ in range(3)]
        assert [task.id for task in humans.tasks] == ids


async def test_test_can_answer_without_a_script() -> None:
    """`complete` and `cancel` need no script, and a held poll returns their result."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        first, second = await client.create(question()), await client.create(question())
        polls = asyncio.gather(client.poll(first.task_id), client.poll(second.task_id))
        await until(lambda: len(humans.calls) == 4)
        humans.complete(first.task_id, YES, by="anna@example.com")
        humans.cancel(second.task_id)
        assert [outcome.status for outcome in await polls] == ["completed", "cancelled"]
        assert (await client.get(first.task_id)).completed_by_email == "anna@example.com"
        assert humans.clock.now() == 0


async def test_answer_from_another_thread_wakes_the_poll() -> None:
    """A held poll returns, whichever thread gives the answer."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        opened = await client.create(question())
        poll = asyncio.create_task(client.poll(opened.task_id))
        await until(lambda: is_held(humans))
        await asyncio.to_thread(humans.complete, opened.task_id, YES)
        assert (await poll).response == YES


async def test_request_body_can_be_inspected() -> None:
    """The body is kept as it was sent."""
    async with FakeHumans() as humans, humans.client() as client:
        await client.create(question(payload={"amount": 250}, assign_to="anna@example.com", idempotency_key="key-1"))
        asked_for = humans.task("refund").asked
    assert asked_for["payload"] == {"amount": 250}
    assert asked_for["assign_to"] == {"email": "anna@example.com"}
    assert asked_for["idempotency_key"] == "key-1"
    assert asked_for["form_definition"]["fields"][0]["name"] == "approved"


async def test_stopping_ends_held_polls() -> None:
    """A poll that is held when the server stops is disconnected, as on a port, instead of hanging."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, plain_client(humans) as http:
        created = await http.post("/api/tasks", json=task_body())
        poll = asyncio.create_task(http.get(f"/api/tasks/{created.json()['id']}/poll"))
        await until(lambda: is_held(humans))
        await humans.__aexit__(None, None, None)
        _, left = await asyncio.wait([poll], timeout=0.05)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert not left


def test_app_includes_faults() -> None:
    """The app is not a bare FastAPI app, because faults are applied around it."""
    assert not isinstance(FakeHumans().app, FastAPI)


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_replies_are_sent_without_delay_on_every_event_loop(loop: Literal["asyncio", "auto"]) -> None:
    """Virtual time must not advance while part of a reply waits in the socket, so replies are sent without delay."""
    server = uvicorn.Server(
        uvicorn.Config(FakeHumans().app, http=TrackedConnection, ws="none", loop=loop, log_level="critical")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.run, [listener])
        try:
            with socket.create_connection(listener.getsockname()) as client:
                here = (client.getsockname(), listener.getsockname())
                until_sync(lambda: here in TrackedConnection._open)
                accepted = TrackedConnection._open[here].get_extra_info("socket")
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        finally:
            server.should_exit = True
        running.result(10)
