"""The task API that the client relies on, checked on the real server and on the fake."""

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from awaithumans_core.signing import KeyRing
from tests.support.people import People
from tests.support.servers import FakeServer, TaskServer

BODY: dict[str, Any] = {
    "task": "Approve?",
    "payload": {"amount": 250},
    "payload_schema": {"type": "object"},
    "response_schema": {"type": "object"},
    "timeout_seconds": 900,
}


@pytest.fixture
async def http(server: TaskServer) -> AsyncGenerator[httpx.AsyncClient]:
    async with server.people() as client:
        yield client


async def create(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    body = BODY | {"idempotency_key": uuid.uuid4().hex} | fields
    reply = await http.post("/api/tasks", json=body)
    assert reply.status_code == 201, reply.text
    return dict(reply.json())


RECORD = {
    "id": str,
    "idempotency_key": str,
    "task": str,
    "payload": dict,
    "payload_schema": dict,
    "response_schema": dict,
    "form_definition": type(None),
    "task_metadata": type(None),
    "status": str,
    "assign_to": dict,
    "assigned_to_email": str,
    "assigned_to_user_id": type(None),
    "assigned_to_display_name": type(None),
    "assigned_to_slack_user_id": type(None),
    "initial_response": type(None),
    "response": type(None),
    "response_redacted_at": type(None),
    "redact_response_after_submit": bool,
    "verifier_result": type(None),
    "verification_attempt": int,
    "timeout_seconds": int,
    "redact_payload": bool,
    "created_at": str,
    "updated_at": str,
    "completed_at": type(None),
    "timed_out_at": type(None),
    "completed_by_email": type(None),
    "completed_by_user_id": type(None),
    "completed_by_display_name": type(None),
    "completed_by_slack_user_id": type(None),
    "completed_via_channel": type(None),
}


async def test_record_has_the_documented_fields(http: httpx.AsyncClient) -> None:
    """A new task's record has these fields and types, and no callback URL."""
    task = await create(http, assign_to={"email": "nobody@example.com"}, callback_url="http://127.0.0.1:1/x")
    assert {name: type(value) for name, value in task.items()} == RECORD
    assert task["status"] == "created"
    assert task["created_at"].endswith("Z")
    assert (await http.get(f"/api/tasks/{task['id']}")).json() == task


async def test_known_key_returns_the_same_task(http: httpx.AsyncClient) -> None:
    """A known key returns the same task with 201 and a header, whatever is asked now."""
    key = uuid.uuid4().hex
    first = await http.post("/api/tasks", json=BODY | {"idempotency_key": key})
    again = await http.post("/api/tasks", json=BODY | {"idempotency_key": key, "task": "Other?", "payload": {}})
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.json()) == (201, first.json())


async def test_key_of_an_ended_task_returns_that_task(http: httpx.AsyncClient) -> None:
    """A key belongs to its task forever, which makes scripts resumable."""
    task = await create(http)
    await http.post(f"/api/tasks/{task['id']}/complete", json={"response": {"approved": True}})
    again = await create(http, idempotency_key=task["idempotency_key"])
    assert (again["id"], again["status"], again["response"]) == (task["id"], "completed", {"approved": True})


async def test_response_is_not_checked_against_the_schema(http: httpx.AsyncClient) -> None:
    """The server accepts any response, and records person and channel as the client states them."""
    task = await create(http, response_schema={"type": "object", "required": ["approved"]})
    body = {"response": {"nonsense": 1}, "completed_by_email": "a@example.com", "completed_via_channel": "slack"}
    done = (await http.post(f"/api/tasks/{task['id']}/complete", json=body)).json()
    assert (done["status"], done["response"]) == ("completed", {"nonsense": 1})
    assert (done["completed_by_email"], done["completed_via_channel"]) == ("a@example.com", "slack")
    assert done["completed_at"].endswith("Z")


async def test_poll_of_an_open_task_returns_its_status_after_the_timeout(http: httpx.AsyncClient) -> None:
    """A poll is held for its timeout and then returns only the status of the task."""
    task = await create(http)
    started = time.monotonic()
    reply = await http.get(f"/api/tasks/{task['id']}/poll", params={"timeout": 1})
    assert 0.9 <= time.monotonic() - started < 20
    assert reply.json() == {"status": "created", "response": None, "completed_at": None, "timed_out_at": None}


async def test_poll_returns_when_the_task_ends(http: httpx.AsyncClient) -> None:
    """A held poll returns well before its timeout when the task ends."""
    task = await create(http)
    started = time.monotonic()
    held = asyncio.create_task(http.get(f"/api/tasks/{task['id']}/poll", params={"timeout": 25}))
    await asyncio.sleep(0.1)
    await http.post(f"/api/tasks/{task['id']}/complete", json={"response": {"approved": True}})
    reply = (await held).json()
    assert time.monotonic() - started < 20
    assert (reply["status"], reply["response"]) == ("completed", {"approved": True})
    assert reply["completed_at"].endswith("Z")
    assert reply.keys() == {"status", "response", "completed_at", "timed_out_at"}


@pytest.mark.parametrize(("timeout", "status"), [(0, 422), (31, 422), ("soon", 422)])
async def test_poll_timeout_is_1_to_30_seconds(http: httpx.AsyncClient, timeout: Any, status: int) -> None:
    """Any other timeout is refused in FastAPI's format."""
    task = await create(http)
    reply = await http.get(f"/api/tasks/{task['id']}/poll", params={"timeout": timeout})
    assert reply.status_code == status
    assert reply.json()["detail"][0]["loc"] == ["query", "timeout"]


@pytest.mark.parametrize("seconds", [59, 2_592_001])
async def test_task_timeout_is_a_minute_to_a_month(http: httpx.AsyncClient, seconds: int) -> None:
    """Any other timeout is refused with 422 and the name of the field."""
    reply = await http.post("/api/tasks", json=BODY | {"idempotency_key": "x", "timeout_seconds": seconds})
    assert reply.status_code == 422
    assert reply.json()["detail"][0]["loc"] == ["body", "timeout_seconds"]


@pytest.mark.parametrize("missing", ["task", "payload", "payload_schema", "response_schema", "idempotency_key"])
async def test_missing_required_field_is_refused(http: httpx.AsyncClient, missing: str) -> None:
    """Each missing required field is refused with 422."""
    body = {name: value for name, value in (BODY | {"idempotency_key": "x"}).items() if name != missing}
    reply = await http.post("/api/tasks", json=body)
    assert (reply.status_code, reply.json()["detail"][0]["loc"]) == (422, ["body", missing])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/poll"), ("POST", "/cancel"), ("POST", "/complete"), ("DELETE", "")],
    ids=["get", "poll", "cancel", "complete", "delete"],
)
async def test_unknown_task_is_404(http: httpx.AsyncClient, method: str, path: str) -> None:
    """The reply is 404 with the code in `error`, where the documentation has `error_code`."""
    body: dict[str, Any] | None = {"response": {}} if path == "/complete" else None
    reply = await http.request(method, f"/api/tasks/nothing{path}", json=body)
    assert reply.status_code == 404
    assert reply.json().keys() == {"error", "message", "docs"}
    assert reply.json()["error"] == "TASK_NOT_FOUND"


@pytest.mark.parametrize("verb", ["complete", "cancel"])
async def test_ended_task_cannot_change(http: httpx.AsyncClient, verb: str) -> None:
    """A second completion or cancellation is refused with 409."""
    task = await create(http)
    await http.post(f"/api/tasks/{task['id']}/complete", json={"response": {"first": True}})
    reply = await http.post(f"/api/tasks/{task['id']}/{verb}", json={"response": {"second": True}})
    assert (reply.status_code, reply.json()["error"]) == (409, "TASK_ALREADY_TERMINAL")
    assert (await http.get(f"/api/tasks/{task['id']}")).json()["response"] == {"first": True}


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Basic abc"], ids=["none", "wrong", "basic"])
async def test_request_without_a_valid_token_is_401(http: httpx.AsyncClient, token: str | None) -> None:
    """Every route replies 401 in FastAPI's format."""
    headers = {} if token is None else {"Authorization": token}
    async with httpx.AsyncClient(base_url=http.base_url, headers=headers) as stranger:
        for path in ("/api/tasks", "/api/tasks/nothing", "/api/tasks/nothing/poll"):
            reply = await stranger.get(path)
            assert (reply.status_code, reply.json()) == (401, {"detail": "Authentication required."})


async def test_lists_are_newest_first(http: httpx.AsyncClient) -> None:
    """Pages are given by limit and offset, and the newest task comes first."""
    made = [(await create(http))["id"] for _ in range(3)]
    listed = [task["id"] for task in (await http.get("/api/tasks", params={"limit": 3})).json()]
    assert listed == made[::-1]
    second = (await http.get("/api/tasks", params={"limit": 1, "offset": 1})).json()
    assert [task["id"] for task in second] == [made[1]]


async def test_terminal_lists_every_ended_task(http: httpx.AsyncClient) -> None:
    """`terminal=true` lists all ended tasks with responses and no open one; `status` takes precedence."""
    done, stopped, waiting = [await create(http) for _ in range(3)]
    await http.post(f"/api/tasks/{done['id']}/complete", json={"response": {"n": 1}})
    await http.post(f"/api/tasks/{stopped['id']}/cancel")
    ended = (await http.get("/api/tasks", params={"terminal": "true", "limit": 2})).json()
    assert [task["id"] for task in ended] == [stopped["id"], done["id"]]
    assert ended[1]["response"] == {"n": 1}
    params = {"terminal": "true", "status": "created", "limit": "1"}
    assert [task["id"] for task in (await http.get("/api/tasks", params=params)).json()] == [waiting["id"]]


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 201}, {"offset": -1}, {"status": "paused"}], ids=str)
async def test_list_parameters_beyond_their_limits_are_refused(http: httpx.AsyncClient, params: dict[str, Any]) -> None:
    """Values beyond the limits are refused with 422."""
    assert (await http.get("/api/tasks", params=params)).status_code == 422


async def test_list_hides_a_redacted_payload(http: httpx.AsyncClient) -> None:
    """A list omits a payload marked as redacted; the record has it."""
    task = await create(http, redact_payload=True)
    (listed,) = (await http.get("/api/tasks", params={"limit": 1})).json()
    assert listed["payload"] == {"_redacted": True}
    assert (await http.get(f"/api/tasks/{task['id']}")).json()["payload"] == BODY["payload"]


async def test_deleted_task_is_404_and_frees_its_key(http: httpx.AsyncClient) -> None:
    """A deletion replies 204; then reads and a held poll are 404, and the key can be used again."""
    task = await create(http)
    held = asyncio.create_task(http.get(f"/api/tasks/{task['id']}/poll", params={"timeout": 25}))
    await asyncio.sleep(0.2)
    assert (await http.delete(f"/api/tasks/{task['id']}")).status_code == 204
    assert (await held).status_code == 404
    assert (await create(http, idempotency_key=task["idempotency_key"]))["id"] != task["id"]


# Callbacks


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    url: str
    got: list[Received] = field(default_factory=list)

    async def first(self, seconds: float = 60.0) -> Received:
        async with asyncio.timeout(seconds):
            while not self.got:
                await asyncio.sleep(0.05)
        return self.got[0]


@contextmanager
def receiving() -> Generator[Receiver]:
    """Run a web server that accepts every post."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Received(self.path, headers, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{web.server_address[1]}")
    thread = Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        web.shutdown()
        thread.join()
        web.server_close()


async def test_callback_of_an_answer_is_signed_and_complete(http: httpx.AsyncClient, server: TaskServer) -> None:
    """The callback is signed and compact, has times without a zone and every field that a receiver needs."""
    with receiving() as receiver:
        task = await create(http, callback_url=f"{receiver.url}/here/{secrets.token_hex(4)}")
        body = {"response": {"n": 1}, "completed_by_email": "a@example.com", "completed_via_channel": "dashboard"}
        done = (await http.post(f"/api/tasks/{task['id']}/complete", json=body)).json()
        got = await receiver.first()
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-awaithumans-task-id"] == task["id"]
    KeyRing.of(payload_keys=[server.payload_key]).verify(got.body, got.headers["x-awaithumans-signature"])
    assert got.headers["x-awaithumans-signature"].startswith("sha256=")
    said = json.loads(got.body)
    assert got.body == json.dumps(said, separators=(",", ":")).encode()
    assert said == {
        "task_id": task["id"],
        "idempotency_key": task["idempotency_key"],
        "status": "completed",
        "response": {"n": 1},
        "completed_at": done["completed_at"].removesuffix("Z"),
        "timed_out_at": None,
        "completed_by_email": "a@example.com",
        "completed_via_channel": "dashboard",
        "verification_attempt": 0,
    }


async def test_cancellation_is_called_back_without_a_response(http: httpx.AsyncClient, somebody: People) -> None:
    """A cancellation by an operator is called back as well, without a response."""
    with receiving() as receiver:
        task = await create(http, callback_url=receiver.url)
        await somebody.cancel(task["id"])
        said = json.loads((await receiver.first()).body)
    assert (said["status"], said["response"], said["completed_at"]) == ("cancelled", None, None)


async def test_redacted_response_is_erased_after_its_callback(http: httpx.AsyncClient) -> None:
    """With `redact_response_after_submit` the receiver has the response and the server has not."""
    with receiving() as receiver:
        task = await create(http, callback_url=receiver.url, redact_response_after_submit=True)
        await http.post(f"/api/tasks/{task['id']}/complete", json={"response": {"secret": 1}})
        assert json.loads((await receiver.first()).body)["response"] == {"secret": 1}
        async with asyncio.timeout(60):
            while (now := (await http.get(f"/api/tasks/{task['id']}")).json())["response_redacted_at"] is None:
                await asyncio.sleep(0.05)
    assert (now["status"], now["response"]) == ("completed", None)


async def test_answer_by_mail_is_not_called_back(server: TaskServer, somebody: People) -> None:
    """An answer by mail is never called back, so callbacks alone are not sufficient."""
    with receiving() as receiver:
        question = f"By mail {uuid.uuid4().hex[:8]}?"
        form = {
            "version": 1,
            "fields": [{"name": "approved", "kind": "switch", "label": "Approved", "hint": None, "required": True}],
        }
        if isinstance(server, FakeServer):
            server.fake.answer(question, {"approved": True}).by_email()
            task = await create(somebody.http, task=question, callback_url=receiver.url, form_definition=form)
        else:
            notify = [await somebody.mail_address()]
            task = await create(
                somebody.http, task=question, callback_url=receiver.url, form_definition=form, notify=notify
            )
            await somebody.click_in_mail(question)
        async with asyncio.timeout(60):
            while (await somebody.task(task["id"]))["status"] != "completed":
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2 if isinstance(server, FakeServer) else 6)  # the real server's queue runs every 5 s
        assert receiver.got == []
    assert (await somebody.task(task["id"]))["completed_via_channel"] == "email"
