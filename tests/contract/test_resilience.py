"""Which faults a script survives between its question and its answer, and how long each takes.

The table is the promise. Each row happens twice in succession to one kind of call, while a person takes two minutes to
answer. Time is virtual: `seconds` runs from the first failed call to the first successful one, or to the error. For a
fault after a held poll it runs from the beginning of the first poll, so it includes the person's time.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from awaithumans_core import (
    AuthenticationError,
    HumanTask,
    Outcome,
    PermissionDeniedError,
    ServerUnreachableError,
    TaskRejectedError,
    UnexpectedReplyError,
)
from awaithumans_core.clock import SystemClock
from awaithumans_core.errors import RequestRefusedError
from awaithumans_core.testing import FakeHumans, faults
from awaithumans_core.testing.faults import Fault
from tests.support.workflows import Decision

Verb = Literal["create", "poll"]

TIMES = 2
PERSON_SECONDS = 120.0
TIMEOUT_SECONDS = 900

AGAIN = (1.1, 1.9)
"""Two pauses of 0.5 s and 1 s, each 25 % more or less."""


@dataclass(frozen=True)
class Row:
    name: str
    fault: Fault
    ends: type[Exception] | None = None
    """Error that the fault ends in; None if it is survived."""
    seconds: tuple[float, float] = AGAIN
    at_poll: type[Exception] | None = None
    """Error that the fault ends in when it happens to a poll, if that differs."""
    polls_survive: bool = False
    """Whether the fault is survived only when it happens to a poll."""
    poll_seconds: tuple[float, float] | None = None
    on_a_port: bool = True
    """Whether the fault can be produced on a port without waiting."""


AT_ONCE = (0.0, 0.1)
GONE = {"error": "TASK_NOT_FOUND", "message": "Task 'x' not found.", "docs": ""}
INVALID = {"detail": [{"loc": ["body", "task"], "msg": "Field required"}]}

TABLE = [
    Row("connection refused", faults.refused()),
    Row("reset before anything was done", faults.reset()),
    Row("reset after all was done", faults.reset(after=True), poll_seconds=(121.1, 121.9)),
    # timeouts of 15 s for a call and 35 s for a poll of 25 s, plus the pauses
    Row("read timeout", faults.slow(100), seconds=(31.1, 31.9), poll_seconds=(71.1, 71.9), on_a_port=False),
    Row("429", faults.status(429)),
    Row("429, Retry-After: 30", faults.status(429, retry_after=30), seconds=(60, 60.1)),
    Row("429, Retry-After: a day", faults.status(429, retry_after=86400), seconds=(120, 120.1)),
    Row("500", faults.status(500)),
    Row("502", faults.status(502)),
    Row("503", faults.status(503)),
    Row("503, Retry-After: 7", faults.status(503, retry_after=7), seconds=(14, 14.1)),
    Row("504", faults.status(504)),
    Row("truncated JSON", faults.truncated(), poll_seconds=(121.1, 121.9)),
    Row("a proxy's page, 200", faults.html(200)),
    Row("a proxy's page, 404", faults.html(404)),
    Row("a proxy's page, 502", faults.html(502)),
    Row("an unknown status", faults.changed(status="paused"), poll_seconds=(120.3, 120.7)),
    Row("unknown fields", faults.changed(colour="green", nested={"x": [1]})),
    Row("401", faults.status(401), AuthenticationError, AT_ONCE),
    Row("403", faults.status(403), PermissionDeniedError, AT_ONCE),
    Row("404", faults.status(404, body=GONE), TaskRejectedError, AT_ONCE, polls_survive=True, poll_seconds=(4.5, 7.5)),
    Row(
        "404 of another service",
        faults.status(404, body={"detail": "Not Found"}),
        TaskRejectedError,
        AT_ONCE,
        at_poll=UnexpectedReplyError,
    ),
    Row("422", faults.status(422, body=INVALID), TaskRejectedError, AT_ONCE, at_poll=RequestRefusedError),
    Row("redirect", faults.redirect("https://elsewhere.example"), UnexpectedReplyError, AT_ONCE),
]

rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
verbs = pytest.mark.parametrize("verb", ["create", "poll"])


def question() -> HumanTask[Decision]:
    return HumanTask(task="Approve?", response_schema=Decision, timeout_seconds=TIMEOUT_SECONDS)


async def asked(humans: FakeHumans) -> Outcome:
    async with humans.client() as client:
        return await client.ask(question())


async def asked_on_a_port(humans: FakeHumans) -> Outcome:
    with humans.sync_client() as client:
        return await asyncio.to_thread(client.ask, question())


async def check(row: Row, verb: Verb, humans: FakeHumans, ask: Callable[[FakeHumans], Any]) -> None:
    humans.answer("Approve", {"approved": True}).after(PERSON_SECONDS)
    humans.fault(row.fault, on=verb, times=TIMES)
    error = row.at_poll if verb == "poll" and row.at_poll is not None else row.ends
    if verb == "poll" and row.polls_survive:
        error = None
    low, high = row.poll_seconds if verb == "poll" and row.poll_seconds is not None else row.seconds
    if error is not None:
        with pytest.raises(error):
            await ask(humans)
        assert low <= humans.clock.now() <= high
        return
    outcome = await ask(humans)
    assert (outcome.status, outcome.response) == ("completed", {"approved": True})
    assert outcome.completed_by_email == "person@example.com"
    assert len(humans.tasks) == 1, "the person was asked more than once"
    times = [at for at, called in humans.calls if called == verb]
    if len(times) > TIMES:  # the client does not repeat a call that it takes as successful
        assert low <= times[TIMES] - times[0] <= high


@rows
@verbs
async def test_fault_in_process_has_the_stated_result(row: Row, verb: Verb) -> None:
    """Each row of the table holds for the async client."""
    async with FakeHumans() as humans:
        await check(row, verb, humans, asked)


@pytest.mark.edges
@pytest.mark.parametrize("row", [row for row in TABLE if row.on_a_port], ids=lambda row: row.name)
@verbs
async def test_fault_on_a_port_has_the_stated_result(row: Row, verb: Verb) -> None:
    """Each row of the table holds for the sync client over real sockets."""
    humans = FakeHumans()
    with humans.serving():
        await check(row, verb, humans, asked_on_a_port)


@rows
async def test_permanent_fault_at_create_ends_at_the_deadline(row: Row) -> None:
    """A fault at create that never ends becomes a typed error at the task's deadline, and not before."""
    async with FakeHumans() as humans:
        humans.fault(row.fault, on="create", times=1_000_000)
        if row.ends is None and row.name not in {"an unknown status", "unknown fields"}:
            with pytest.raises(ServerUnreachableError) as away:
                await asked(humans)
            longest = max(row.seconds[1], 15.0)
            assert TIMEOUT_SECONDS - 2 * longest <= humans.clock.now() <= TIMEOUT_SECONDS + longest
            assert away.value.attempts > 5


@pytest.mark.edges
@rows
async def test_answer_is_found_at_the_deadline_if_every_poll_fails(row: Row) -> None:
    """The last check at the deadline finds an answer that no poll could fetch."""
    async with FakeHumans() as humans:
        humans.answer("Approve", {"approved": True}).after(PERSON_SECONDS)
        humans.fault(row.fault, on="poll", times=1_000_000)
        if row.ends is None and row.name not in {"an unknown status", "unknown fields", "reset after all was done"}:
            outcome = await asked(humans)
            assert outcome.response == {"approved": True}
            assert humans.clock.now() <= TIMEOUT_SECONDS + 15 + 60


async def test_wait_survives_a_server_restart() -> None:
    """A wait outlives the server that holds it, with real sockets and in real time."""
    humans = FakeHumans(clock=SystemClock())
    with humans.serving() as url:
        port = int(url.rsplit(":", 1)[1])
        client = humans.sync_client()
        asking = asyncio.create_task(asyncio.to_thread(client.ask, question()))
        while not humans.tasks:
            await asyncio.sleep(0.01)
    humans.complete(humans.tasks[0].id, {"approved": True})  # given directly, while the server is unreachable
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.5)
    assert not asking.done()
    started = time.monotonic()
    with humans.serving(port):
        outcome = await asking
        client.close()
    assert outcome.response == {"approved": True}
    assert time.monotonic() - started < 30
