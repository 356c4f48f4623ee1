"""Callbacks of `FakeHumans`: their content, time, retries and the faults that can be injected."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path

from awaithumans_core import TaskClient, settle
from awaithumans_core.callback import Callback, open_callback
from awaithumans_core.errors import CallbackRejectedError, ResponseMissingError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route, RouteSigner
from awaithumans_core.signing import KeyRing
from awaithumans_core.testing import Delivery, FakeHumans, Script, VirtualClock, faults
from awaithumans_core.testing.callbacks import TICK_SECONDS, Schedule
from awaithumans_core.testing.faults import CallbackFault
from tests.support.decisions import Decision
from tests.testing_kit.questions import DAY, HOUR, MINUTE, MONTH, NO, YES, question, until

SIGNER = RouteSigner([secrets.token_urlsafe(32)])


@dataclass
class Receiver:
    """A receiver that opens callbacks as a relay does and replies with `codes` first, then with 200."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    codes: list[int] = field(default_factory=list[int])
    always: int = 200
    times: list[float] = field(default_factory=list[float])
    bodies: list[bytes] = field(default_factory=list[bytes])
    opened: list[Callback] = field(default_factory=list[Callback])
    refused: list[int] = field(default_factory=list[int])
    at_once: int = 0
    most_at_once: int = 0

    def humans(self, callbacks: Schedule = "at once") -> FakeHumans:
        """A `FakeHumans` that sends its callbacks to this receiver."""
        app = Starlette(routes=[Path("/callbacks/{token}", self.take, methods=["POST"])])
        humans = FakeHumans(clock=self.clock, callbacks=callbacks, callback_transport=httpx.ASGITransport(app))
        self.keys = KeyRing.of(payload_keys=[humans.payload_key])
        return humans

    async def take(self, request: Request) -> Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        body = await request.body()
        await asyncio.sleep(0)
        self.times.append(self.clock.now())
        self.bodies.append(body)
        self.at_once -= 1
        try:
            callback = open_callback(request.path_params["token"], request.headers, body, signer=SIGNER, keys=self.keys)
        except CallbackRejectedError as rejected:
            self.refused.append(rejected.http_status)
            return Response(str(rejected), rejected.http_status)
        self.opened.append(callback)
        return Response(status_code=self.codes.pop(0) if self.codes else self.always)

    @property
    def keys_answered(self) -> list[str]:
        return [callback.route.idempotency_key for callback in self.opened]

    @property
    def outcomes(self) -> list[Outcome]:
        return [callback.outcome for callback in self.opened]


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


def body(key: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a question with a callback URL."""
    token = SIGNER.issue(Route("mine", {"id": key}, key))
    asked = question(idempotency_key=key, timeout_seconds=MONTH).body()
    return asked | {"callback_url": f"http://receiver.test/callbacks/{token}"} | fields


async def answered(humans: FakeHumans, client: TaskClient, key: str = "question-1", **fields: Any) -> str:
    """Create a task and answer it before anything else happens."""
    opened = await client.create(body(key, **fields))
    humans.complete(opened.task_id, YES, by="anna@example.com")
    return opened.task_id


def states(humans: FakeHumans) -> list[str]:
    return [delivery.status for delivery in humans.deliveries]


def settled(humans: FakeHumans) -> bool:
    return bool(humans.deliveries) and "pending" not in states(humans)


def only(humans: FakeHumans) -> Delivery:
    (delivery,) = humans.deliveries
    return delivery


# --- immediate callbacks


async def test_answer_is_called_back_immediately(receiver: Receiver) -> None:
    """The callback is signed, names person and channel, goes to the question's URL and takes no time."""
    async with receiver.humans() as humans, humans.client() as client:
        task_id = await answered(humans, client)
        await until(lambda: settled(humans))
        (callback,) = receiver.opened
        assert receiver.times == [0.0]
        assert states(humans) == ["succeeded"]
    assert callback.route == Route("mine", {"id": "question-1"}, "question-1")
    assert callback.outcome.task_id == task_id
    assert callback.outcome.completed_by_email == "anna@example.com"
    assert callback.outcome.completed_via_channel == "dashboard"
    assert settle(callback.outcome, Decision).approved


async def test_answer_over_http_is_called_back(receiver: Receiver) -> None:
    """An answer that is sent like the dashboard's is called back."""
    async with receiver.humans() as humans, humans.client() as client:
        opened = await client.create(body("question-1"))
        headers = {"Authorization": f"Bearer {humans.token}"}
        async with httpx.AsyncClient(transport=humans.transport(), base_url=humans.url, headers=headers) as http:
            await http.post(f"/api/tasks/{opened.task_id}/complete", json={"response": NO})
        await until(lambda: settled(humans))
    assert [outcome.response for outcome in receiver.outcomes] == [NO]


@pytest.mark.parametrize(
    ("says", "status", "after"),
    [
        (lambda script: script.answers(YES).after(HOUR), "completed", HOUR),
        (lambda script: script.cancels().after(HOUR), "cancelled", HOUR),
        (lambda script: script.times_out().after(HOUR), "timed_out", HOUR),
        (lambda script: script.exhausts_verification().after(HOUR), "verification_exhausted", HOUR),
        (lambda script: script, "timed_out", 30 * DAY),
    ],
    ids=["answered", "cancelled", "timed out", "verification exhausted", "the deadline"],
)
async def test_each_terminal_status_is_called_back(
    receiver: Receiver, says: Callable[[Script], Script], status: str, after: float
) -> None:
    """Each of the four terminal statuses is called back when the task ends."""
    async with receiver.humans() as humans, humans.client() as client:
        says(humans.on(None))
        await client.create(body("question-1"))
        await until(lambda: settled(humans))
    assert [outcome.status for outcome in receiver.outcomes] == [status]
    assert receiver.times == [after]


async def test_cancellation_over_http_is_called_back(receiver: Receiver) -> None:
    """The caller receives a callback for every cancellation."""
    async with receiver.humans() as humans, humans.client() as client:
        opened = await client.create(body("question-1"))
        await client.cancel(opened.task_id)
        await until(lambda: settled(humans))
    assert [outcome.status for outcome in receiver.outcomes] == ["cancelled"]


@pytest.mark.parametrize("channel", ["email", "slack"])
async def test_answers_by_mail_and_slack_are_not_called_back(receiver: Receiver, channel: Any) -> None:
    """As on the real server, such answers are found by a poll only."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.answer(None, YES).after(HOUR).via(channel)
        opened = await client.create(body("question-1"))
        await until(lambda: humans.task(None).terminal)
        await asyncio.sleep(0.02)
        assert (await client.get(opened.task_id)).response == YES
        assert humans.deliveries == []
    assert receiver.bodies == []


async def test_task_without_callback_url_is_not_called_back(receiver: Receiver) -> None:
    """A task without a callback URL sends nothing."""
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client, callback_url=None)
        assert humans.deliveries == []


async def test_first_callback_url_is_kept(receiver: Receiver) -> None:
    """A known key keeps its callback URL, whatever URL a later request gives."""
    async with receiver.humans() as humans, humans.client() as client:
        await client.create(body("question-1"))
        await client.create(body("question-1", callback_url="http://elsewhere.test/"))
        humans.complete(humans.tasks[0].id, YES)
        await until(lambda: settled(humans))
        assert only(humans).url.startswith("http://receiver.test/")
    assert len(receiver.opened) == 1


async def test_callbacks_go_to_the_url_of_their_question(receiver: Receiver) -> None:
    """Three questions send three callbacks, each to its own URL."""
    async with receiver.humans() as humans, humans.client() as client:
        for key in ("a", "b", "c"):
            await answered(humans, client, key)
        await until(lambda: settled(humans))
    assert receiver.keys_answered == ["a", "b", "c"]
    assert receiver.refused == []


async def test_callback_reaches_receiver_on_a_port(receiver: Receiver) -> None:
    """When it is served on a port, the fake sends callbacks from its own thread."""
    humans = receiver.humans()
    with humans.serving():
        async with humans.client() as client:
            await answered(humans, client)
            await until(lambda: settled(humans))
    assert receiver.keys_answered == ["question-1"]


# --- on the server's schedule


async def test_callbacks_leave_every_five_seconds(receiver: Receiver) -> None:
    """An answer given between two ticks is called back at the next tick."""
    async with receiver.humans("server") as humans, humans.client() as client:
        humans.answer("refund", YES).after(HOUR + 1)
        await client.create(body("question-1"))
        await until(lambda: settled(humans))
    assert receiver.times == [HOUR + 5]


async def test_each_tick_sends_at_most_fifty_in_order(receiver: Receiver) -> None:
    """A hundred and twenty answers given at one moment need three ticks."""
    async with receiver.humans("server") as humans, humans.client() as client:
        humans.answer(None, YES).after(HOUR + 1)
        with humans.busy():  # all of them at the same moment
            for number in range(120):
                await client.create(body(f"question-{number}"))
        await until(lambda: len(humans.deliveries) == 120 and settled(humans))
    first = HOUR + 5
    assert receiver.times == [first] * 50 + [first + 5] * 50 + [first + 10] * 20
    assert receiver.most_at_once == 1


async def test_immediate_callbacks_are_sent_in_order(receiver: Receiver) -> None:
    """No callbacks arrive in parallel, so a test gives the same result every time."""
    async with receiver.humans() as humans, humans.client() as client:
        for number in range(60):
            await answered(humans, client, f"question-{number}")
        await until(lambda: len(humans.deliveries) == 60 and settled(humans))
    assert receiver.keys_answered == [f"question-{number}" for number in range(60)]
    assert receiver.most_at_once == 1


# --- retries

PAUSES = [
    *(30.0, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR),
    *(DAY, DAY, DAY),
]
"""Pauses between the attempts of the real server; the last attempt comes after three days."""


@pytest.mark.parametrize("callbacks", ["at once", "server"])
async def test_receiver_unreachable_for_three_days_is_abandoned(receiver: Receiver, callbacks: Schedule) -> None:
    """Callbacks are retried at the server's times and abandoned after three days."""
    receiver.always = 503
    async with receiver.humans(callbacks) as humans, humans.client() as client:
        await answered(humans, client)
        await until(lambda: settled(humans))
        delivery = only(humans)
        assert delivery.status == "abandoned"
        assert delivery.attempts == len(PAUSES) + 1
        assert delivery.last_error == "HTTP 503"
    assert [after - before for before, after in zip(receiver.times, receiver.times[1:], strict=False)] == PAUSES
    assert receiver.times[0] == 0.0
    assert len(set(receiver.bodies)) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 422, 429, 500, 502, 503])
async def test_refused_callback_is_retried(receiver: Receiver, code: int) -> None:
    """Every status from 400 on is retried."""
    receiver.codes = [code]
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert (only(humans).status, only(humans).attempts, only(humans).last_error) == ("succeeded", 2, None)
    assert receiver.times == [0.0, 30.0]


@pytest.mark.parametrize("code", [200, 201, 202, 204, 301, 302, 303, 307, 308])
async def test_status_below_400_counts_as_delivered(receiver: Receiver, code: int) -> None:
    """A redirect is not followed and its callback is lost, as on the real server."""
    receiver.always = code
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert (only(humans).status, only(humans).last_status_code) == ("succeeded", code)
    assert receiver.times == [0.0]


async def test_callback_to_closed_port_is_retried() -> None:
    """A callback over the network to a port without a listener is retried."""
    clock = VirtualClock(auto=False)
    async with FakeHumans(clock=clock) as humans, humans.client() as client:
        opened = await client.create(body("question-1", callback_url="http://127.0.0.1:9/callbacks/x"))
        humans.complete(opened.task_id, YES)
        await until(lambda: only(humans).last_error is not None)
        assert (only(humans).attempts, only(humans).last_status_code) == (1, None)
        assert "ConnectError" in str(only(humans).last_error)
        clock.advance(30.0)
        await until(lambda: only(humans).attempts == 2)


async def test_unreachable_receiver_does_not_delay_others(receiver: Receiver) -> None:
    """The next callback is sent although the first one failed."""
    receiver.codes = [500]
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client, "a")
        await answered(humans, client, "b")
        await until(lambda: settled(humans) and len(humans.deliveries) == 2)
    assert receiver.keys_answered == ["a", "b", "a"]
    assert receiver.times == [0.0, 0.0, 30.0]


async def test_failing_receiver_is_retried() -> None:
    """An error raised by a receiver under test counts as a 500 and does not stop other callbacks."""
    called: list[str] = []

    async def fails_once(request: Request) -> Response:
        called.append(request.url.path)
        if len(called) == 1:
            raise ZeroDivisionError
        return Response()

    app = Starlette(routes=[Path("/{rest:path}", fails_once, methods=["POST"])])
    async with FakeHumans(callback_transport=httpx.ASGITransport(app)) as humans, humans.client() as client:
        await answered(humans, client, "a", callback_url="http://receiver.test/a")
        await answered(humans, client, "b", callback_url="http://receiver.test/b")
        await until(lambda: settled(humans), TICK_SECONDS)
    assert called == ["/a", "/b", "/a"]


async def test_invalid_callback_url_does_not_delay_others(receiver: Receiver) -> None:
    """A callback that can never be delivered does not stop the next one."""
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client, "a", callback_url="http://receiver:port/")
        await answered(humans, client, "b")
        await until(lambda: receiver.opened, TICK_SECONDS)


# --- faults


async def test_duplicate_callback_arrives_twice(receiver: Receiver) -> None:
    """The same bytes arrive with the same signature twice at the same moment, as one attempt."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.duplicate())
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert only(humans).attempts == 1
    assert len(receiver.opened) == 2
    assert len(set(receiver.bodies)) == 1
    assert receiver.times == [0.0, 0.0]


async def test_late_callback_arrives_after_its_delay(receiver: Receiver) -> None:
    """A delayed callback arrives complete."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.late(DAY))
        await answered(humans, client)
        await until(lambda: settled(humans))
    assert receiver.times == [DAY]
    assert receiver.outcomes[0].response == YES


async def test_reordered_callback_arrives_after_the_next(receiver: Receiver) -> None:
    """The order of callbacks can differ from the order of answers."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.reordered())
        for key in ("a", "b", "c"):
            await answered(humans, client, key)
        await until(lambda: settled(humans) and len(humans.deliveries) == 3)
    assert receiver.keys_answered.index("b") < receiver.keys_answered.index("a")
    assert sorted(receiver.keys_answered) == ["a", "b", "c"]


async def test_reordered_callback_waits_for_the_next(receiver: Receiver) -> None:
    """A reordered callback is held back until another one is sent, however long that takes."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.reordered())
        humans.answer("first", YES)
        humans.answer("second", YES).after(DAY)
        for task in ("first", "second"):
            await client.create(body(task, task=task))
        await until(lambda: settled(humans) and len(humans.deliveries) == 2)
    assert receiver.keys_answered == ["second", "first"]
    assert receiver.times == [DAY, DAY]


async def test_bad_signature_is_refused_and_retried_correctly(receiver: Receiver) -> None:
    """The receiver replies 401, and the next attempt carries the correct signature."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.bad_signature())
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert only(humans).attempts == 2
    assert receiver.refused == [401]
    assert receiver.times == [0.0, 30.0]
    assert [outcome.response for outcome in receiver.outcomes] == [YES]


async def test_lost_callback_never_arrives(receiver: Receiver) -> None:
    """Only a poll finds the answer of a lost callback."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost())
        humans.answer(None, YES).after(HOUR)
        opened = await client.create(body("question-1"))
        await until(lambda: humans.task(None).terminal)
        await asyncio.sleep(0.02)
        assert states(humans) == ["lost"]
        assert (await client.poll(opened.task_id)).response == YES
    assert receiver.bodies == []


@pytest.mark.parametrize(
    "fault",
    [faults.lost(), faults.duplicate(), faults.late(HOUR), faults.bad_signature()],
    ids=["lost", "duplicate", "late", "bad signature"],
)
async def test_fault_affects_one_callback_by_default(receiver: Receiver, fault: CallbackFault) -> None:
    """A fault affects the next callback only, unless `times` is given."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(fault)
        await answered(humans, client, "a")
        await answered(humans, client, "b")
        await until(lambda: len(humans.deliveries) == 2 and settled(humans))
        assert [delivery.fault for delivery in humans.deliveries] == [fault, None]


async def test_fault_affects_matching_callbacks(receiver: Receiver) -> None:
    """A fault can select a question by its text, and `times` counts callbacks."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost(), match="Deploy", times=2)
        for number, task in enumerate(["Approve?", "Deploy?", "Deploy?", "Deploy?"]):
            await answered(humans, client, f"question-{number}", task=task)
        await until(lambda: len(humans.deliveries) == 4 and settled(humans))
        assert states(humans) == ["succeeded", "lost", "lost", "succeeded"]


async def test_callback_fault_does_not_affect_requests(receiver: Receiver) -> None:
    """A fault for callbacks waits for a callback, whatever requests come first."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost())
        humans.fault(faults.status(500), on="get")
        opened = await client.create(body("question-1"))
        humans.complete(opened.task_id, YES)
        assert (await client.get(opened.task_id)).status == "completed"
        assert states(humans) == ["lost"]


# --- erased responses


async def test_response_is_erased_after_delivery(receiver: Receiver) -> None:
    """Only the callback carries the response; later polls show the status alone."""
    async with receiver.humans() as humans, humans.client() as client:
        task_id = await answered(humans, client, redact_response_after_submit=True)
        await until(lambda: settled(humans))
        outcome = await client.poll(task_id)
        assert humans.task(None).response_redacted_at is not None
    assert receiver.outcomes[0].response == YES
    assert (outcome.status, outcome.response) == ("completed", None)
    with pytest.raises(ResponseMissingError):
        settle(outcome, Decision)


async def test_response_is_kept_until_delivery(receiver: Receiver) -> None:
    """Every attempt carries the response, which only a successful delivery erases."""
    receiver.codes = [503, 503]
    erased_at: list[bool] = []
    async with receiver.humans() as humans, humans.client() as client:
        task_id = await answered(humans, client, redact_response_after_submit=True)
        await until(lambda: only(humans).attempts >= 1)
        erased_at.append((await client.get(task_id)).response is None and only(humans).status == "pending")
        await until(lambda: settled(humans))
        erased_at.append((await client.get(task_id)).response is None)
    assert erased_at == [False, True]
    assert [outcome.response for outcome in receiver.outcomes] == [YES, YES, YES]


async def test_response_is_kept_by_default(receiver: Receiver) -> None:
    """Without `redact_response_after_submit` the response stays."""
    async with receiver.humans() as humans, humans.client() as client:
        task_id = await answered(humans, client)
        await until(lambda: settled(humans))
        assert (await client.get(task_id)).response == YES


async def test_lost_callback_erases_nothing(receiver: Receiver) -> None:
    """A response that no receiver got is kept."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost())
        task_id = await answered(humans, client, redact_response_after_submit=True)
        await asyncio.sleep(0.02)
        assert (await client.get(task_id)).response == YES
