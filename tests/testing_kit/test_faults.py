"""Faults of `FakeHumans`: what they look like on the wire, in process and on a port, and how a client reacts."""

import asyncio
import uuid
from collections.abc import Generator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from awaithumans_core import Outcome, settle
from awaithumans_core.errors import (
    AuthenticationError,
    AwaitHumansError,
    PermissionDeniedError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskRejectedError,
    UnexpectedReplyError,
)
from awaithumans_core.testing import FakeHumans, VirtualClock, faults
from awaithumans_core.testing.fake import Verb
from awaithumans_core.testing.faults import Fault
from tests.support.decisions import Decision
from tests.testing_kit.questions import HOUR, MONTH, YES, plain_client, question, task_body, until

TROUBLES: dict[str, Fault] = {
    "408": faults.status(408),
    "429": faults.status(429, retry_after=7),
    "500": faults.status(500, body={"error": "INTERNAL_ERROR"}),
    "502": faults.status(502),
    "503": faults.status(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
    "504": faults.status(504),
    "a proxy's page": faults.html(),
    "a proxy's 404": faults.html(404),
    "a proxy's 502": faults.html(502),
    "refused": faults.refused(),
    "reset": faults.reset(),
    "reset after": faults.reset(after=True),
    "slow": faults.slow(0.02),
    "truncated": faults.truncated(),
    "no status": faults.changed(status=None),
}
every_trouble = pytest.mark.parametrize("fault", TROUBLES.values(), ids=TROUBLES)
every_call = pytest.mark.parametrize("on", ["create", "poll", "get"])


@pytest.fixture(scope="module")
def port() -> Generator[FakeHumans]:
    """A `FakeHumans` on a port, where every question is approved after an hour."""
    humans = FakeHumans()
    humans.answer(None, YES).after(HOUR)
    with humans.serving():
        yield humans


def verbs(humans: FakeHumans) -> list[Verb]:
    return [verb for _, verb in humans.calls]


async def ask(humans: FakeHumans, **options: Any) -> Outcome:
    async with humans.client() as client:
        return await client.ask(question(timeout_seconds=MONTH, **options))


def ask_sync(humans: FakeHumans, **options: Any) -> Outcome:
    with humans.sync_client() as client:
        return client.ask(question(timeout_seconds=MONTH, **options))


# --- faults that a client survives


@every_call
@every_trouble
async def test_client_survives_fault_in_process(fault: Fault, on: Verb) -> None:
    """The answer arrives, and no person was asked twice."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(HOUR)
        humans.fault(fault, on=on)
        outcome = await ask(humans)
        assert len(humans.tasks) == 1
        assert verbs(humans).count(on) >= (1 if fault.seconds else 2)
    assert settle(outcome, Decision).approved


@pytest.mark.edges
@every_call
@every_trouble
def test_sync_client_survives_fault_on_a_port(port: FakeHumans, fault: Fault, on: Verb) -> None:
    """A blocking client gets its answer over a real socket."""
    before, called = len(port.tasks), len(port.calls)
    port.fault(fault, on=on)
    outcome = ask_sync(port)
    assert settle(outcome, Decision).approved
    assert len(port.tasks) == before + 1
    assert verbs(port)[called:].count(on) >= (1 if fault.seconds else 2)


@pytest.mark.parametrize("on", ["create", "poll"])
@pytest.mark.parametrize("name", ["502", "reset after", "a proxy's page"])
async def test_client_survives_repeated_fault(name: str, on: Verb) -> None:
    """A fault that lasts for ten requests is handled like any outage."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(10 * HOUR)
        humans.fault(TROUBLES[name], on=on, times=10)
        assert (await ask(humans)).response == YES
        assert len(humans.tasks) == 1
        assert verbs(humans).count(on) > 10


async def test_unknown_status_does_not_end_the_wait() -> None:
    """An unknown status is reported and ends nothing."""
    seen: list[str] = []
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer(None, YES).after(HOUR)
        humans.fault(faults.changed(status="paused", response=None), on="poll")
        outcome = await client.ask(
            question(timeout_seconds=MONTH), on_status=lambda outcome: seen.append(outcome.status)
        )
    assert outcome.response == YES
    assert seen == ["created", "paused"]


async def test_unknown_fields_are_ignored() -> None:
    """A newer server may send more fields."""
    async with FakeHumans() as humans:
        humans.answer(None, YES)
        humans.fault(faults.changed(weather="fine"), times=100)
        assert (await ask(humans)).response == YES


@pytest.mark.parametrize(("on", "seconds"), [("create", 20.0), ("poll", 60.0), ("get", 20.0)])
async def test_reply_after_read_timeout_is_retried(on: Verb, seconds: float) -> None:
    """In process the read timeout runs on the fake's clock, and the request is sent again."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(HOUR)
        humans.fault(faults.slow(seconds), on=on)
        assert (await ask(humans)).response == YES
        assert len(humans.tasks) == 1
        first, second, *_ = [at for at, verb in humans.calls if verb == on]
        assert 15.0 <= second - first < seconds


async def test_reset_after_create_makes_one_task() -> None:
    """The server creates the task although the client gets no reply, and the key finds it again."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.fault(faults.reset(after=True), on="create")
        opened = await client.create(question())
        assert [task.id for task in humans.tasks] == [opened.task_id]
        assert verbs(humans) == ["create", "create"]


async def test_reset_on_create_never_reaches_the_server() -> None:
    """Without `after` the server does not process the request."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.reset(), on="create")
        with pytest.raises(httpx.ReadError):
            await http.post("/api/tasks", json=task_body())
        assert humans.tasks == []


async def test_reset_after_cancel_reports_cancelled() -> None:
    """The second attempt finds the task cancelled and reports that."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.fault(faults.reset(after=True), on="cancel")
        opened = await client.create(question())
        assert (await client.cancel(opened.task_id)).status == "cancelled"


# --- faults that a client reports


REFUSALS: dict[str, tuple[Fault, Verb, type[AwaitHumansError]]] = {
    "401": (faults.status(401), "create", AuthenticationError),
    "401 while waiting": (faults.status(401), "poll", AuthenticationError),
    "403": (faults.status(403), "create", PermissionDeniedError),
    "403 while waiting": (faults.status(403), "poll", PermissionDeniedError),
    "404 of another API": (faults.status(404), "poll", UnexpectedReplyError),
    "409": (faults.status(409), "poll", RequestRefusedError),
    "422": (faults.status(422), "create", TaskRejectedError),
    "a redirect": (faults.redirect("https://login.example.com/"), "create", UnexpectedReplyError),
    "a redirect while waiting": (faults.redirect("https://login.example.com/"), "poll", UnexpectedReplyError),
    "a redirect for good": (faults.redirect("https://humans.example.com/", 308), "create", UnexpectedReplyError),
}


@pytest.mark.parametrize(("fault", "on", "error"), REFUSALS.values(), ids=REFUSALS)
async def test_refusal_is_reported_in_process(fault: Fault, on: Verb, error: type[AwaitHumansError]) -> None:
    """The request would be refused again, so the client raises its error."""
    async with FakeHumans() as humans:
        humans.fault(fault, on=on)
        with pytest.raises(error) as raised:
            await ask(humans)
    assert type(raised.value) is error


@pytest.mark.parametrize(("fault", "on", "error"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_is_reported_on_a_port(port: FakeHumans, fault: Fault, on: Verb, error: type[AwaitHumansError]) -> None:
    """The client raises the same error over a socket."""
    port.fault(fault, on=on)
    with pytest.raises(error) as raised:
        ask_sync(port)
    assert type(raised.value) is error


async def test_redirect_is_not_followed() -> None:
    """The token is sent to its own server only, and the error names the other address."""
    async with FakeHumans() as humans:
        humans.fault(faults.redirect("https://humans.example.com/api/tasks"))
        with pytest.raises(UnexpectedReplyError, match=r"https://humans\.example\.com"):
            await ask(humans)
        assert verbs(humans) == ["create"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.status(503), ServerUnreachableError),
        (faults.refused(), ServerUnreachableError),
        (faults.html(), UnexpectedReplyError),
        (faults.truncated(), UnexpectedReplyError),
    ],
    ids=["503", "refused", "a proxy's page", "truncated"],
)
async def test_fault_until_the_deadline_is_reported(fault: Fault, error: type[ServerUnreachableError]) -> None:
    """A server that stays unreachable ends the wait at the question's deadline."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.fault(fault, on="create", times=1000)
        with pytest.raises(error) as raised:
            await client.ask(question(timeout_seconds=60))
        assert raised.value.attempts == verbs(humans).count("create") > 3
        assert humans.clock.now() <= 60
    assert type(raised.value) is error


async def test_refused_record_is_an_error_and_loses_nothing() -> None:
    """Only the record proves whose answer a poll has reported; repeating the question returns the answer."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).by("anna@example.com")
        humans.fault(faults.status(403), on="get")
        with pytest.raises(PermissionDeniedError):
            await ask(humans, idempotency_key="question-1")
        outcome = await ask(humans, idempotency_key="question-1")
    assert outcome.response == YES
    assert outcome.completed_by_email == "anna@example.com"


async def test_retry_after_is_respected() -> None:
    """The next request comes no earlier than the server has asked for."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.fault(faults.status(429, retry_after=42), on="create")
        await client.create(question())
        first, second = [at for at, _ in humans.calls]
    assert second - first >= 42


# --- selection of requests


async def test_times_counts_requests() -> None:
    """`times=3` affects exactly three requests."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(HOUR)
        humans.fault(faults.status(502), on="poll", times=3)
        await ask(humans)
        async with plain_client(humans) as http:
            reply = await http.get(f"/api/tasks/{humans.tasks[0].id}/poll")
    assert reply.status_code == 200


async def test_faults_apply_in_order() -> None:
    """The fault that was added first applies first."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.status(500))
        humans.fault(faults.status(502), times=2)
        codes = [(await http.get("/api/tasks")).status_code for _ in range(4)]
    assert codes == [500, 502, 502, 200]


@pytest.mark.parametrize("on", ["create", "list", "get", "poll", "complete", "cancel", "delete"])
async def test_on_selects_the_request(on: Verb) -> None:
    """Each of the seven requests can be selected, and the others are not affected."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.answer(None, YES)
        task = f"/api/tasks/{(await http.post('/api/tasks', json=task_body())).json()['id']}"
        humans.fault(faults.status(418), on=on, times=100)
        requests: dict[Verb, tuple[str, str, Any]] = {
            "create": ("POST", "/api/tasks", task_body("question-2")),
            "list": ("GET", "/api/tasks", None),
            "poll": ("GET", f"{task}/poll?timeout=1", None),
            "get": ("GET", task, None),
            "complete": ("POST", f"{task}/complete", {"response": YES}),
            "cancel": ("POST", f"{task}/cancel", None),
            "delete": ("DELETE", task, None),
        }
        codes = {verb: (await http.request(*args[:2], json=args[2])).status_code for verb, args in requests.items()}
    assert [verb for verb, code in codes.items() if code == 418] == [on]


async def test_fault_without_on_affects_the_next_request() -> None:
    """Without `on` the next request is affected, and health checks do not count."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.status(500))
        assert (await http.get("/api/health")).status_code == 200
        assert (await http.get("/api/tasks")).status_code == 500


async def test_match_selects_the_task() -> None:
    """One question is affected, and the other is not."""
    async with FakeHumans() as humans, humans.client() as client:
        refund, deploy = await client.create(question("Approve?")), await client.create(question("Deploy?"))
        humans.fault(faults.status(403), on="get", match="Deploy", times=100)
        assert (await client.get(refund.task_id)).status == "created"
        with pytest.raises(PermissionDeniedError):
            await client.get(deploy.task_id)


async def test_match_selects_the_task_being_created() -> None:
    """A question that the server refuses is selected by its text."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.fault(faults.status(422), on="create", match="Deploy")
        await client.create(question("Approve?"))
        with pytest.raises(TaskRejectedError):
            await client.create(question("Deploy?"))


async def test_swapped_replies_are_exchanged_once() -> None:
    """Two reads of two tasks get each other's record, and the next two get their own."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        paths = [
            f"/api/tasks/{(await http.post('/api/tasks', json=task_body(key))).json()['id']}" for key in ("1", "2")
        ]
        humans.fault(faults.swapped(), on="get", times=2)
        for expected in (["2", "1"], ["1", "2"]):
            replies = await asyncio.gather(*map(http.get, paths))
            assert [reply.json()["idempotency_key"] for reply in replies] == expected


async def test_replies_of_different_requests_can_be_swapped() -> None:
    """With `on="any"` the reply to one kind of request goes to another kind, with its status."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        path = f"/api/tasks/{(await http.post('/api/tasks', json=task_body())).json()['id']}"
        humans.fault(faults.swapped(), times=2)
        created, read = await asyncio.gather(http.post("/api/tasks", json=task_body("2")), http.get(path))
    assert (created.status_code, created.json()["idempotency_key"]) == (200, "question-1")
    assert (read.status_code, read.json()["idempotency_key"]) == (201, "2")


async def test_reply_without_a_partner_to_swap_is_delayed() -> None:
    """If no other reply comes in time on the fake's clock, the reply goes to its own request."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        path = f"/api/tasks/{(await http.post('/api/tasks', json=task_body())).json()['id']}"
        humans.fault(faults.swapped(7), on="get", times=1)
        before = humans.clock.now()
        assert (await http.get(path)).json()["idempotency_key"] == "question-1"
        assert humans.clock.now() - before == 7


async def test_requests_are_recorded_with_their_time() -> None:
    """`calls` shows what was sent and when, on the fake's clock."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(HOUR)
        await ask(humans)
    assert humans.calls[0] == (0.0, "create")
    assert set(verbs(humans)) == {"create", "poll", "get"}
    assert humans.calls[-1] == (HOUR, "get")


# --- faults on the wire


BREAKS: dict[str, tuple[Fault, type[httpx.TransportError]]] = {
    "refused": (faults.refused(), httpx.ConnectError),
    "reset": (faults.reset(), httpx.ReadError),
    "reset after": (faults.reset(after=True), httpx.ReadError),
}


@pytest.mark.parametrize(("fault", "error"), BREAKS.values(), ids=BREAKS)
async def test_broken_connection_raises_httpx_error_in_process(fault: Fault, error: type[httpx.TransportError]) -> None:
    """The error is httpx's own and carries the affected request."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(fault)
        with pytest.raises(error) as raised:
            await http.get("/api/tasks")
        assert type(raised.value) is error
        assert raised.value.request.url.path == "/api/tasks"
        assert (await http.get("/api/tasks")).status_code == 200


@pytest.mark.parametrize("fault", [fault for fault, _ in BREAKS.values()], ids=BREAKS)
def test_broken_connection_resets_the_socket_on_a_port(port: FakeHumans, fault: Fault) -> None:
    """The connection is reset under the client, and the next connection works."""
    with httpx.Client(base_url=port.url, headers={"Authorization": f"Bearer {port.token}"}) as http:
        port.fault(fault, on="list")
        with pytest.raises(httpx.ReadError):
            http.get("/api/tasks")
        assert http.get("/api/tasks").status_code == 200


async def test_reply_slower_than_read_timeout_in_process() -> None:
    """Time passes on the fake's clock and not in reality."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.slow(60))
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/api/tasks", timeout=20)
        assert humans.clock.now() == 20


async def test_reply_faster_than_read_timeout_in_process() -> None:
    """The reply arrives late but arrives."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.slow(60))
        assert (await http.get("/api/tasks", timeout=90)).status_code == 200
        assert humans.clock.now() == 60


async def test_slow_reply_without_read_timeout_arrives() -> None:
    """A client without a timeout gets its reply."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.slow(HOUR))
        assert (await http.get("/api/tasks", timeout=None)).status_code == 200
        assert humans.clock.now() == HOUR


def test_slow_reply_on_a_port_takes_real_time(port: FakeHumans) -> None:
    """The reply is really slow, and the read timeout is httpx's own."""
    with httpx.Client(base_url=port.url, headers={"Authorization": f"Bearer {port.token}"}) as http:
        port.fault(faults.slow(0.05), on="list")
        with pytest.raises(httpx.ReadTimeout):
            http.get("/api/tasks", timeout=0.02)
        port.fault(faults.slow(0.02), on="list")
        assert http.get("/api/tasks", timeout=5).status_code == 200


@pytest.mark.parametrize("on_a_port", [False, True], ids=["in process", "on a port"])
async def test_fault_replies_on_the_wire(*, on_a_port: bool) -> None:
    """Every fault that replies has its documented status, headers and body."""
    humans = FakeHumans(clock=VirtualClock(auto=False))
    async with AsyncExitStack() as stack:
        if on_a_port:
            stack.enter_context(humans.serving())
            http = httpx.AsyncClient(base_url=humans.url, headers={"Authorization": f"Bearer {humans.token}"})
        else:
            await stack.enter_async_context(humans)
            http = plain_client(humans)
        async with http:
            created = await http.post("/api/tasks", json=task_body(uuid.uuid4().hex))
            path = f"/api/tasks/{created.json()['id']}"

            async def met(fault: Fault) -> httpx.Response:
                humans.fault(fault, on="get")
                return await http.get(path)

            busy = await met(faults.status(429, retry_after=7))
            assert (busy.status_code, busy.headers["retry-after"]) == (429, "7")
            assert busy.json() == {"detail": "HTTP 429"}
            assert (await met(faults.status(418, body=["tea"]))).json() == ["tea"]
            page = await met(faults.html(503))
            assert (page.status_code, page.headers["content-type"]) == (503, "text/html")
            moved = await met(faults.redirect("/elsewhere", 302))
            assert (moved.status_code, moved.headers["location"]) == (302, "/elsewhere")
            whole = await http.get(path)
            cut = await met(faults.truncated())
            assert cut.status_code == 200
            assert cut.content == whole.content[: len(whole.content) // 2]
            assert cut.headers["content-length"] == str(len(cut.content))
            assert (await met(faults.changed(task="Something else", more=1))).json() == whole.json() | {
                "task": "Something else",
                "more": 1,
            }


async def test_changed_fields_apply_to_lists() -> None:
    """Every task of the list has the changed fields."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        await http.post("/api/tasks", json=task_body())
        humans.fault(faults.changed(status="paused"), on="list")
        reply = await http.get("/api/tasks")
    assert [task["status"] for task in reply.json()] == ["paused"]


async def test_fault_does_not_delay_other_requests() -> None:
    """While one reply is late, others are sent."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, plain_client(humans) as http:
        humans.fault(faults.slow(5))
        late = asyncio.create_task(http.get("/api/tasks", timeout=20))
        await until(lambda: humans.calls)
        assert (await http.get("/api/tasks")).status_code == 200
        assert not late.done()
        humans.clock.advance(5)  # type: ignore[attr-defined]  # it is a virtual one
        assert (await late).status_code == 200


async def test_fault_with_zero_times_does_nothing() -> None:
    """A fault with `times=0` never applies."""
    async with FakeHumans() as humans, plain_client(humans) as http:
        humans.fault(faults.status(500), times=0)
        assert (await http.get("/api/tasks")).status_code == 200
