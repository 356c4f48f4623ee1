"""Callbacks of the fake: what arrives, when it arrives, how often it is tried, and what can become of it on the way."""

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
    """Opens callbacks as a relay does, and answers as it is told: `codes` first, then 200."""

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
        """Whose callbacks come here."""
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
    """A question that is called back."""
    token = SIGNER.issue(Route("mine", {"id": key}, key))
    asked = question(idempotency_key=key, timeout_seconds=MONTH).body()
    return asked | {"callback_url": f"http://receiver.test/callbacks/{token}"} | fields


async def answered(humans: FakeHumans, client: TaskClient, key: str = "question-1", **fields: Any) -> str:
    """Ask, and answer at once, before anything else happens."""
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


# --- at once


async def test_an_answer_is_called_back_at_once(receiver: Receiver) -> None:
    """Signed, with who and where, at the URL of the question, without any time passing."""
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


async def test_an_answer_over_http_is_called_back(receiver: Receiver) -> None:
    """As the dashboard sends it."""
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
async def test_every_end_is_called_back(
    receiver: Receiver, says: Callable[[Script], Script], status: str, after: float
) -> None:
    """Each of the four ends, at its moment."""
    async with receiver.humans() as humans, humans.client() as client:
        says(humans.on(None))
        await client.create(body("question-1"))
        await until(lambda: settled(humans))
    assert [outcome.status for outcome in receiver.outcomes] == [status]
    assert receiver.times == [after]


async def test_cancelling_over_http_is_called_back(receiver: Receiver) -> None:
    """Whoever cancels, the asker hears of it."""
    async with receiver.humans() as humans, humans.client() as client:
        opened = await client.create(body("question-1"))
        await client.cancel(opened.task_id)
        await until(lambda: settled(humans))
    assert [outcome.status for outcome in receiver.outcomes] == ["cancelled"]


@pytest.mark.parametrize("channel", ["email", "slack"])
async def test_answers_elsewhere_are_not_called_back(receiver: Receiver, channel: Any) -> None:
    """As on the real server: only a poll finds them."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.answer(None, YES).after(HOUR).via(channel)
        opened = await client.create(body("question-1"))
        await until(lambda: humans.task(None).terminal)
        await asyncio.sleep(0.02)
        assert (await client.get(opened.task_id)).response == YES
        assert humans.deliveries == []
    assert receiver.bodies == []


async def test_without_a_url_nothing_is_called_back(receiver: Receiver) -> None:
    """Most scripts never give one."""
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client, callback_url=None)
        assert humans.deliveries == []


async def test_the_first_url_counts(receiver: Receiver) -> None:
    """A known key keeps its callback URL, whatever is given with it later."""
    async with receiver.humans() as humans, humans.client() as client:
        await client.create(body("question-1"))
        await client.create(body("question-1", callback_url="http://elsewhere.test/"))
        humans.complete(humans.tasks[0].id, YES)
        await until(lambda: settled(humans))
        assert only(humans).url.startswith("http://receiver.test/")
    assert len(receiver.opened) == 1


async def test_a_callback_is_for_its_own_question(receiver: Receiver) -> None:
    """Three questions, three callbacks, each to its own URL."""
    async with receiver.humans() as humans, humans.client() as client:
        for key in ("a", "b", "c"):
            await answered(humans, client, key)
        await until(lambda: settled(humans))
    assert receiver.keys_answered == ["a", "b", "c"]
    assert receiver.refused == []


async def test_a_callback_reaches_a_receiver_on_a_port(receiver: Receiver) -> None:
    """Served on a port, the fake calls back from a thread of its own."""
    humans = receiver.humans()
    with humans.serving():
        async with humans.client() as client:
            await answered(humans, client)
            await until(lambda: settled(humans))
    assert receiver.keys_answered == ["question-1"]


# --- on the server's schedule


async def test_the_server_wakes_every_five_seconds(receiver: Receiver) -> None:
    """An answer given between two ticks leaves with the next."""
    async with receiver.humans("server") as humans, humans.client() as client:
        humans.answer("refund", YES).after(HOUR + 1)
        await client.create(body("question-1"))
        await until(lambda: settled(humans))
    assert receiver.times == [HOUR + 5]


async def test_the_server_sends_fifty_at_a_time_one_after_another(receiver: Receiver) -> None:
    """A hundred and twenty answers at one moment need three ticks."""
    async with receiver.humans("server") as humans, humans.client() as client:
        humans.answer(None, YES).after(HOUR + 1)
        with humans.busy():  # all of them at the same moment
            for number in range(120):
                await client.create(body(f"question-{number}"))
        await until(lambda: len(humans.deliveries) == 120 and settled(humans))
    first = HOUR + 5
    assert receiver.times == [first] * 50 + [first + 5] * 50 + [first + 10] * 20
    assert receiver.most_at_once == 1


async def test_at_once_sends_one_after_another_too(receiver: Receiver) -> None:
    """Nothing arrives in parallel, so a test gives the same result every time."""
    async with receiver.humans() as humans, humans.client() as client:
        for number in range(60):
            await answered(humans, client, f"question-{number}")
        await until(lambda: len(humans.deliveries) == 60 and settled(humans))
    assert receiver.keys_answered == [f"question-{number}" for number in range(60)]
    assert receiver.most_at_once == 1


# --- tried again

PAUSES = [
    *(30.0, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR),
    *(DAY, DAY, DAY),
]
"""Between the attempts of the real server: the last one comes when three days are over, and is the last one."""


@pytest.mark.parametrize("callbacks", ["at once", "server"])
async def test_a_receiver_that_is_away_for_three_days(receiver: Receiver, callbacks: Schedule) -> None:
    """It is tried again at the server's times, and abandoned after three days."""
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
async def test_a_refusal_is_tried_again(receiver: Receiver, code: int) -> None:
    """Anything from 400 on, whatever it means."""
    receiver.codes = [code]
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert (only(humans).status, only(humans).attempts, only(humans).last_error) == ("succeeded", 2, None)
    assert receiver.times == [0.0, 30.0]


@pytest.mark.parametrize("code", [200, 201, 202, 204, 301, 302, 303, 307, 308])
async def test_what_counts_as_delivered(receiver: Receiver, code: int) -> None:
    """Anything below 400. A redirect is not followed: what it stands for is lost, as on the real server."""
    receiver.always = code
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert (only(humans).status, only(humans).last_status_code) == ("succeeded", code)
    assert receiver.times == [0.0]


async def test_a_receiver_that_does_not_listen_is_tried_again() -> None:
    """Over the network, to a port where nobody is."""
    clock = VirtualClock(auto=False)
    async with FakeHumans(clock=clock) as humans, humans.client() as client:
        opened = await client.create(body("question-1", callback_url="http://127.0.0.1:9/callbacks/x"))
        humans.complete(opened.task_id, YES)
        await until(lambda: only(humans).last_error is not None)
        assert (only(humans).attempts, only(humans).last_status_code) == (1, None)
        assert "ConnectError" in str(only(humans).last_error)
        clock.advance(30.0)
        await until(lambda: only(humans).attempts == 2)


async def test_one_receiver_that_is_away_does_not_hold_the_others_up(receiver: Receiver) -> None:
    """The next one is sent although the first failed."""
    receiver.codes = [500]
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client, "a")
        await answered(humans, client, "b")
        await until(lambda: settled(humans) and len(humans.deliveries) == 2)
    assert receiver.keys_answered == ["a", "b", "a"]
    assert receiver.times == [0.0, 0.0, 30.0]


async def test_a_receiver_that_fails_is_tried_again() -> None:
    """An error in a receiver under test is a 500, and does not end the callbacks of everybody."""
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


async def test_a_url_that_is_none_does_not_matter_to_others(receiver: Receiver) -> None:
    """It can never be delivered; the next one is."""
    async with receiver.humans() as humans, humans.client() as client:
        await answered(humans, client, "a", callback_url="http://receiver:port/")
        await answered(humans, client, "b")
        await until(lambda: receiver.opened, TICK_SECONDS)


# --- what becomes of it on the way


async def test_a_duplicate_arrives_twice(receiver: Receiver) -> None:
    """The same bytes, the same signature, at the same moment, in one attempt."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.duplicate())
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert only(humans).attempts == 1
    assert len(receiver.opened) == 2
    assert len(set(receiver.bodies)) == 1
    assert receiver.times == [0.0, 0.0]


async def test_a_late_one_arrives_so_much_later(receiver: Receiver) -> None:
    """In time for nothing, and complete."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.late(DAY))
        await answered(humans, client)
        await until(lambda: settled(humans))
    assert receiver.times == [DAY]
    assert receiver.outcomes[0].response == YES


async def test_a_reordered_one_arrives_after_the_next(receiver: Receiver) -> None:
    """The order of the answers is not the order of the callbacks."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.reordered())
        for key in ("a", "b", "c"):
            await answered(humans, client, key)
        await until(lambda: settled(humans) and len(humans.deliveries) == 3)
    assert receiver.keys_answered.index("b") < receiver.keys_answered.index("a")
    assert sorted(receiver.keys_answered) == ["a", "b", "c"]


async def test_a_reordered_one_waits_for_the_next(receiver: Receiver) -> None:
    """However long that takes."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.reordered())
        humans.answer("first", YES)
        humans.answer("second", YES).after(DAY)
        for task in ("first", "second"):
            await client.create(body(task, task=task))
        await until(lambda: settled(humans) and len(humans.deliveries) == 2)
    assert receiver.keys_answered == ["second", "first"]
    assert receiver.times == [DAY, DAY]


async def test_a_bad_signature_is_refused_and_then_mended(receiver: Receiver) -> None:
    """A receiver that checks answers 401; the next attempt carries the true signature."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.bad_signature())
        await answered(humans, client)
        await until(lambda: settled(humans))
        assert only(humans).attempts == 2
    assert receiver.refused == [401]
    assert receiver.times == [0.0, 30.0]
    assert [outcome.response for outcome in receiver.outcomes] == [YES]


async def test_a_lost_one_never_arrives(receiver: Receiver) -> None:
    """Only a poll finds the answer."""
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
async def test_trouble_meets_the_next_callback_only(receiver: Receiver, fault: CallbackFault) -> None:
    """Once, unless it is said how often."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(fault)
        await answered(humans, client, "a")
        await answered(humans, client, "b")
        await until(lambda: len(humans.deliveries) == 2 and settled(humans))
        assert [delivery.fault for delivery in humans.deliveries] == [fault, None]


async def test_trouble_meets_the_callback_that_matches(receiver: Receiver) -> None:
    """A question is named by its text, and several times are several callbacks."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost(), match="Deploy", times=2)
        for number, task in enumerate(["Approve?", "Deploy?", "Deploy?", "Deploy?"]):
            await answered(humans, client, f"question-{number}", task=task)
        await until(lambda: len(humans.deliveries) == 4 and settled(humans))
        assert states(humans) == ["succeeded", "lost", "lost", "succeeded"]


async def test_trouble_of_callbacks_leaves_requests_alone(receiver: Receiver) -> None:
    """A fault for callbacks waits for a callback, whatever requests come first."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost())
        humans.fault(faults.status(500), on="get")
        opened = await client.create(body("question-1"))
        humans.complete(opened.task_id, YES)
        assert (await client.get(opened.task_id)).status == "completed"
        assert states(humans) == ["lost"]


# --- erased afterwards


async def test_a_response_is_erased_once_it_was_delivered(receiver: Receiver) -> None:
    """The callback is the only one that ever carries it; a poll afterwards says completed, and nothing more."""
    async with receiver.humans() as humans, humans.client() as client:
        task_id = await answered(humans, client, redact_response_after_submit=True)
        await until(lambda: settled(humans))
        outcome = await client.poll(task_id)
        assert humans.task(None).response_redacted_at is not None
    assert receiver.outcomes[0].response == YES
    assert (outcome.status, outcome.response) == ("completed", None)
    with pytest.raises(ResponseMissingError):
        settle(outcome, Decision)


async def test_a_response_is_kept_until_it_is_delivered(receiver: Receiver) -> None:
    """Every attempt carries it, and only success erases it."""
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


async def test_a_response_is_kept_where_nobody_asked_for_that(receiver: Receiver) -> None:
    """The usual case."""
    async with receiver.humans() as humans, humans.client() as client:
        task_id = await answered(humans, client)
        await until(lambda: settled(humans))
        assert (await client.get(task_id)).response == YES


async def test_a_lost_callback_erases_nothing(receiver: Receiver) -> None:
    """What nobody has received is still there."""
    async with receiver.humans() as humans, humans.client() as client:
        humans.fault(faults.lost())
        task_id = await answered(humans, client, redact_response_after_submit=True)
        await asyncio.sleep(0.02)
        assert (await client.get(task_id)).response == YES
