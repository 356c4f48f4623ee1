"""`FakeHumans` itself: how it is entered and left, and the server it is while it runs."""

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
from awaithumans_core.testing.fault_transport import Door
from tests.support.decisions import Decision
from tests.testing_kit.questions import (
    HOUR,
    MINUTE,
    MONTH,
    NO,
    YES,
    asked,
    bare,
    question,
    threads,
    until,
    until_sync,
)


def is_held(humans: FakeHumans) -> bool:
    """Whether a poll waits for news, beside those who do what people and the sender of callbacks do."""
    return len(humans._desk._watchers) > 2


# --- in and out


@pytest.mark.parametrize("entered_before", [False, True], ids=["never entered", "left again"])
async def test_a_client_needs_it_to_run(*, entered_before: bool) -> None:
    """The error says what to write."""
    humans = FakeHumans()
    if entered_before:
        async with humans:
            pass
    async with humans.client() as client:
        with pytest.raises(RuntimeError, match="async with FakeHumans"):
            await client.create(question())


async def test_it_is_entered_once() -> None:
    """Two at the same time would share their tasks, and one would end the other."""
    humans = FakeHumans()
    async with humans:
        with pytest.raises(RuntimeError, match="running already"):
            await humans._lifespan(None).__aenter__()


async def test_entering_twice_does_not_spoil_leaving() -> None:
    """It is refused, and the first one is left as always."""
    humans = FakeHumans()
    async with humans:
        with pytest.raises(RuntimeError, match="running already"):
            await humans.__aenter__()
    async with humans, humans.client() as client:
        await client.create(question())


async def test_it_may_be_entered_again() -> None:
    """What is on the server stays there."""
    humans = FakeHumans()
    async with humans, humans.client() as client:
        opened = await client.create(question())
    humans.answer(None, YES)
    async with humans, humans.client() as client:
        humans.complete(opened.task_id, YES)
        assert (await client.get(opened.task_id)).response == YES


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_entered_it_is_not_served() -> None:
    """One or the other."""
    async with FakeHumans() as humans:
        with pytest.raises(RuntimeError), humans.serving():
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_entered_it_says_why_it_is_not_served() -> None:
    """The error names what is wrong, as it does the other way round."""
    async with FakeHumans() as humans:
        with pytest.raises(RuntimeError, match="it is entered, or it is serving, not both"), humans.serving():
            pass


async def test_served_it_is_not_entered() -> None:
    """The same the other way round."""
    humans = FakeHumans()
    with humans.serving(), pytest.raises(RuntimeError, match="it is entered, or it is serving, not both"):
        async with humans:
            pass


def test_serving_twice_does_not_spoil_the_first() -> None:
    """It is refused, and the first one works as before."""
    humans = FakeHumans()
    with humans.serving() as url:
        with pytest.raises(RuntimeError), humans.serving():
            pass
        assert humans.url == url


def test_a_sync_client_needs_a_port() -> None:
    """Without an event loop there is nothing in process to talk to."""
    with pytest.raises(RuntimeError, match=re.escape("with humans.serving()")):
        FakeHumans().sync_client()


def test_a_port_that_is_taken_is_an_error() -> None:
    """Nothing is served, and nothing is left."""
    before, humans = threads(), FakeHumans()
    with (
        FakeHumans().serving() as url,
        pytest.raises(OSError, match="in use"),
        humans.serving(httpx.URL(url).port or 0),
    ):
        pass
    assert threads() <= before


async def test_nothing_is_left_in_process() -> None:
    """No task of asyncio and no thread outlives it, though a question is still open."""
    before_threads, before_tasks = threads(), asyncio.all_tasks()
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("refund", YES).after(HOUR)
        await client.ask(question(timeout_seconds=MONTH))
        await client.create(question("Nobody answers this"))
    await until(lambda: threads() <= before_threads)
    # Not equality: a task that closes a generator of an earlier test may have been counted before, and has ended since.
    assert asyncio.all_tasks() <= before_tasks


def test_nothing_is_left_of_a_port() -> None:
    """No thread outlives it, and nobody listens any more."""
    before, humans = threads(), FakeHumans()
    with humans.serving() as url:
        humans.answer("refund", YES).after(HOUR)
        with humans.sync_client() as client:
            client.ask(question(timeout_seconds=MONTH))
            client.create(question("Nobody answers this"))
    until_sync(lambda: threads() <= before)
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_an_error_in_the_block_is_the_error() -> None:
    """What fails in a test is reported as it is."""
    with pytest.raises(ZeroDivisionError), FakeHumans().serving():
        raise ZeroDivisionError


# --- addresses and secrets


def test_tokens_are_not_shown() -> None:
    """Neither of the tokens nor the key is in what a failing test prints."""
    humans = FakeHumans()
    shown = f"{humans!r} {humans} {humans.settings()!r}"
    for secret in (humans.token, humans.outsider_token, humans.payload_key):
        assert secret not in shown


def test_every_one_has_its_own_secrets() -> None:
    """Nothing of one works with another."""
    one, other = FakeHumans(), FakeHumans()
    secrets = [one.token, one.outsider_token, one.payload_key, other.token, other.outsider_token, other.payload_key]
    assert len(set(secrets)) == 6


def test_its_settings_are_those_of_a_client() -> None:
    """Address, token and key, and whatever else is given."""
    humans = FakeHumans()
    with humans.serving() as url:
        settings = humans.settings(relay_secret=secrets.token_urlsafe(32))
        assert isinstance(settings, Settings)
        assert (settings.url, settings.token()) == (url, humans.token)
        assert settings.key_ring()
        assert settings.signer()


def test_its_address_is_that_of_the_port() -> None:
    """While it is serving, and only then."""
    humans = FakeHumans()
    before = humans.url
    with humans.serving() as url:
        assert humans.url == url
        assert url.startswith("http://127.0.0.1:")
    assert humans.url == before


# --- clients


async def test_in_process() -> None:
    """Ask and be answered, without a socket."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("refund", YES).after(HOUR)
        assert settle(await client.ask(question(timeout_seconds=MONTH)), Decision).approved


async def test_its_transport_serves_any_client() -> None:
    """A plain httpx client, as with httpx's own transport for apps."""
    async with FakeHumans() as humans, httpx.AsyncClient(transport=humans.transport(), base_url=humans.url) as http:
        reply = await http.get("/api/health")
    assert reply.json()["status"] == "ok"


async def test_its_app_can_be_mounted_by_others() -> None:
    """httpx's own transport reaches the same server once it runs."""
    async with FakeHumans() as humans:
        transport = httpx.ASGITransport(humans.app)
        headers = {"Authorization": f"Bearer {humans.token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://any.test", headers=headers) as http:
            assert (await http.post("/api/tasks", json=asked())).status_code == 201
        assert len(humans.tasks) == 1


async def test_its_app_has_a_lifespan() -> None:
    """Whatever runs it as an app, lifespan and all, needs nothing else."""
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


def test_on_a_port() -> None:
    """A client that blocks, in several threads at once."""
    humans = FakeHumans()
    humans.answer("refund", YES).after(HOUR)
    with humans.serving(), humans.sync_client() as client, ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: client.ask(question(timeout_seconds=MONTH)), range(8)))
    assert [outcome.response for outcome in outcomes] == [YES] * 8
    assert len(humans.tasks) == 8


async def test_both_kinds_of_client_on_one_port() -> None:
    """An async client and one that blocks share the tasks and the clock."""
    humans = FakeHumans()
    with humans.serving():
        with humans.sync_client() as client:
            opened = client.create(question(timeout_seconds=MONTH))
        humans.complete(opened.task_id, YES)
        async with humans.client() as other:
            assert (await other.poll(opened.task_id)).response == YES


async def test_in_real_time() -> None:
    """With the machine's own clock it works too, a few moments at a time."""
    async with FakeHumans(clock=SystemClock()) as humans, humans.client() as client:
        humans.answer(None, YES).after(0.03)
        began = time.monotonic()
        assert (await client.ask(question())).response == YES
        assert time.monotonic() - began >= 0.03


async def test_two_hundred_questions_at_once() -> None:
    """Each gets its own answer, at its own time, on one clock."""
    async with FakeHumans() as humans, humans.client() as client:
        for number in range(10):
            humans.answer(f"number {number}.", {"approved": number % 2 == 0}).after(HOUR * (1 + number))
        questions = [question(f"Approve number {place % 10}.", timeout_seconds=MONTH) for place in range(200)]
        outcomes = await asyncio.gather(*map(client.ask, questions))
        assert len(humans.tasks) == 200
    assert [settle(outcome, Decision).approved for outcome in outcomes] == [place % 2 == 0 for place in range(200)]


async def test_two_at_once() -> None:
    """Two servers in one process know nothing of each other."""
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


async def test_two_on_one_clock() -> None:
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


# --- restarted


def test_served_again_on_the_same_port() -> None:
    """What is on the server is there again."""
    humans = FakeHumans(clock=VirtualClock(auto=False))
    with humans.serving() as url, humans.sync_client() as client:
        opened = client.create(question())
    with humans.serving(httpx.URL(url).port or 0) as again, humans.sync_client() as client:
        assert again == url
        assert client.get(opened.task_id).status == "created"


def test_restarted_while_a_poll_is_held() -> None:
    """The client that was waiting finds its way back, and gets the answer that was given meanwhile."""
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


def test_a_deadline_that_passes_while_it_is_away() -> None:
    """The server catches up when it is back."""
    clock = VirtualClock(auto=False)
    humans = FakeHumans(clock=clock)
    with humans.serving(), humans.sync_client() as client:
        opened = client.create(question(timeout_seconds=60))
    clock.advance(HOUR)
    assert humans.tasks[0].status == "created"
    with humans.serving(), humans.sync_client() as client:
        until_sync(lambda: client.get(opened.task_id).terminal)
        assert client.get(opened.task_id).status == "timed_out"


# --- what it answers


async def test_an_unknown_token_is_401() -> None:
    """As FastAPI says it, with a text."""
    async with FakeHumans() as humans, bare(humans, "nonsense") as http:
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
async def test_an_outsider_is_403(method: str, path: str, body: Any) -> None:
    """Somebody who is known, and may not."""
    async with FakeHumans() as humans, humans.client() as client, bare(humans, humans.outsider_token) as http:
        opened = await client.create(question())
        reply = await http.request(method, f"/api/tasks/{opened.task_id}{path}", json=body)
        assert reply.status_code == 403
        assert isinstance(reply.json()["detail"], str)
        assert (await client.get(opened.task_id)).status == "created"


async def test_an_outsider_asks_nothing_and_sees_nothing() -> None:
    """Creating is refused, and the list is empty."""
    async with FakeHumans() as humans, humans.client() as client, bare(humans, humans.outsider_token) as http:
        await client.create(question())
        assert (await http.post("/api/tasks", json=asked())).status_code == 403
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
async def test_an_unknown_task_is_404(method: str, path: str, body: Any) -> None:
    """In the server's own shape."""
    async with FakeHumans() as humans, bare(humans) as http:
        reply = await http.request(method, f"/api/tasks/nonsense{path}", json=body)
    assert reply.status_code == 404
    assert reply.json()["error"] == "TASK_NOT_FOUND"
    assert "nonsense" in reply.json()["message"]
    assert reply.json()["docs"].startswith("https://")


@pytest.mark.parametrize(("verb", "body"), [("complete", {"response": YES}), ("cancel", None)])
async def test_a_task_that_has_ended_is_409(verb: str, body: Any) -> None:
    """In the server's own shape; the task stays as it was."""
    async with FakeHumans() as humans, humans.client() as client, bare(humans) as http:
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
async def test_a_malformed_question_is_422(wrong: dict[str, Any]) -> None:
    """As FastAPI says it, with the place; nothing is created."""
    async with FakeHumans() as humans, bare(humans) as http:
        reply = await http.post("/api/tasks", json=asked(**wrong))
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
async def test_polls_have_limits(path: str, code: int) -> None:
    """One to thirty whole seconds."""
    async with FakeHumans() as humans, bare(humans) as http:
        humans.answer(None, YES)
        created = await http.post("/api/tasks", json=asked())
        assert (await http.get(f"/api/tasks/{created.json()['id']}/{path}")).status_code == code


async def test_a_held_poll_ends_with_its_time() -> None:
    """It says how the task stands when time has passed it by, and it is time that something else has let pass."""
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


async def test_a_poll_of_a_task_that_is_deleted_is_404() -> None:
    """It does not hang where nothing can come any more."""
    async with FakeHumans() as humans, humans.client() as client, bare(humans) as http:
        opened = await client.create(question())
        poll = asyncio.create_task(client.poll(opened.task_id))
        await until(lambda: is_held(humans))
        assert (await http.delete(f"/api/tasks/{opened.task_id}")).status_code == 204
        with pytest.raises(TaskNotFoundError):
            await poll


async def test_any_response_is_taken() -> None:
    """The server checks nothing; who asked does."""
    async with FakeHumans() as humans, bare(humans) as http:
        created = await http.post("/api/tasks", json=asked())
        reply = await http.post(
            f"/api/tasks/{created.json()['id']}/complete", json={"response": {"approved": "maybe", "more": [1]}}
        )
    assert reply.json()["response"] == {"approved": "maybe", "more": [1]}


async def test_a_known_key_is_replayed() -> None:
    """201 and the header, and the task as it stands now, whatever is asked with it."""
    async with FakeHumans() as humans, bare(humans) as http:
        first = await http.post("/api/tasks", json=asked())
        humans.complete(first.json()["id"], YES)
        second = await http.post("/api/tasks", json=asked(task="Something else"))
        assert len(humans.tasks) == 1
    assert (first.status_code, second.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["task"] == first.json()["task"]
    assert second.json()["status"] == "completed"


async def test_lists_are_newest_first_in_pages() -> None:
    """Every task once, from the newest to the oldest."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, bare(humans) as http:
        ids = [(await http.post("/api/tasks", json=asked(f"{number}"))).json()["id"] for number in range(7)]
        pages = [
            [task["id"] for task in (await http.get("/api/tasks", params={"limit": 3, "offset": offset})).json()]
            for offset in (0, 3, 6, 9)
        ]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [task_id for page in pages for task_id in page] == ids[::-1]


async def test_lists_of_what_has_ended() -> None:
    """`terminal=true` has every end, `status` has one status, and without both there are all."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, bare(humans) as http:
        ids = [(await http.post("/api/tasks", json=asked(f"{number}"))).json()["id"] for number in range(4)]
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
async def test_lists_have_limits(params: dict[str, Any]) -> None:
    """As on the real server."""
    async with FakeHumans() as humans, bare(humans) as http:
        assert (await http.get("/api/tasks", params=params)).status_code == 422


async def test_as_completed_reads_the_list() -> None:
    """More questions than connections are waited for over the list of ended tasks."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer(None, YES).after(MINUTE)
        answers = await client.wait_all([question(timeout_seconds=MONTH) for _ in range(20)], connections=4)
        assert "list" in {verb for _, verb in humans.calls}
    assert [answer.result().approved for answer in answers] == [True] * 20


# --- what a test sees


async def test_a_task_is_found_by_what_was_asked() -> None:
    """By text, by pattern, by a function of its record, or because it is the only one."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        opened = await client.create(question("Approve the refund?", payload={"amount": 250}))
        assert humans.task(None).id == opened.task_id
        await client.create(question("Deploy?"))
        assert humans.task("refund").id == opened.task_id
        assert humans.task(re.compile("^Approve")).id == opened.task_id
        assert humans.task(lambda record: record["payload"] == {"amount": 250}).id == opened.task_id
        assert humans.task("refund").asked["payload"] == {"amount": 250}


@pytest.mark.parametrize(("match", "count"), [("invoice", 0), (None, 2), ("?", 2)])
async def test_a_task_that_is_not_the_only_one_is_not_found(match: str | None, count: int) -> None:
    """The error says how many there are, and what was asked."""
    async with FakeHumans() as humans, humans.client() as client:
        await client.create(question("Approve?"))
        await client.create(question("Deploy?"))
        with pytest.raises(LookupError, match=rf"^{count} tasks match .*Approve\?.*Deploy\?"):
            humans.task(match)


async def test_tasks_are_oldest_first() -> None:
    """In the order they were asked."""
    async with FakeHumans() as humans, humans.client() as client:
        ids = [(await client.create(question())).task_id for _ in range(3)]
        assert [task.id for task in humans.tasks] == ids


async def test_a_test_answers_by_itself() -> None:
    """`complete` and `cancel` need no script, and a poll that is held hears of it."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        first, second = await client.create(question()), await client.create(question())
        polls = asyncio.gather(client.poll(first.task_id), client.poll(second.task_id))
        await until(lambda: len(humans.calls) == 4)
        humans.complete(first.task_id, YES, by="anna@example.com")
        humans.cancel(second.task_id)
        assert [outcome.status for outcome in await polls] == ["completed", "cancelled"]
        assert (await client.get(first.task_id)).completed_by_email == "anna@example.com"
        assert humans.clock.now() == 0


async def test_a_test_answers_from_another_thread() -> None:
    """Wherever the answer comes from, the poll hears of it."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        opened = await client.create(question())
        poll = asyncio.create_task(client.poll(opened.task_id))
        await until(lambda: is_held(humans))
        await asyncio.to_thread(humans.complete, opened.task_id, YES)
        assert (await poll).response == YES


async def test_what_was_asked_is_there_to_be_read() -> None:
    """The body as it was sent."""
    async with FakeHumans() as humans, humans.client() as client:
        await client.create(question(payload={"amount": 250}, assign_to="anna@example.com", idempotency_key="key-1"))
        asked_for = humans.task("refund").asked
    assert asked_for["payload"] == {"amount": 250}
    assert asked_for["assign_to"] == {"email": "anna@example.com"}
    assert asked_for["idempotency_key"] == "key-1"
    assert asked_for["form_definition"]["fields"][0]["name"] == "approved"


async def test_leaving_answers_those_who_are_still_waiting() -> None:
    """A poll that is held when the server goes away breaks off, as on a port, instead of waiting for ever."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, bare(humans) as http:
        created = await http.post("/api/tasks", json=asked())
        poll = asyncio.create_task(http.get(f"/api/tasks/{created.json()['id']}/poll"))
        await until(lambda: is_held(humans))
        await humans.__aexit__(None, None, None)
        _, left = await asyncio.wait([poll], timeout=0.05)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert not left


def test_it_is_an_app_of_its_own() -> None:
    """Its app is no bare FastAPI: faults happen around it."""
    assert not isinstance(FakeHumans().app, FastAPI)


@pytest.mark.parametrize("loop", ["asyncio", "auto"])
def test_replies_are_sent_without_delay_on_every_event_loop(loop: Literal["asyncio", "auto"]) -> None:
    """Virtual time must not jump while a part of a reply waits in the socket: uvloop sends at once, asyncio did not."""
    server = uvicorn.Server(uvicorn.Config(FakeHumans().app, http=Door, ws="none", loop=loop, log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.run, [listener])
        try:
            with socket.create_connection(listener.getsockname()) as client:
                here = (client.getsockname(), listener.getsockname())
                until_sync(lambda: here in Door._open)
                accepted = Door._open[here].get_extra_info("socket")
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        finally:
            server.should_exit = True
        running.result(10)
