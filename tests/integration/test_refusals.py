"""Limits on refusals: how fast an operator's token can be guessed, and how many log lines strangers can cause."""

import asyncio
import logging
import secrets
import time

import httpx
import pytest
from pydantic import SecretStr

from awaithumans_core import Settings
from awaithumans_relay.monitoring.repeated_lines import MAX_KINDS, Repeats
from awaithumans_relay.web.authentication import GUESS_SECONDS, GUESSES_PER_SECOND
from tests.support.relay import RunningRelay, settings_for
from tests.support.servers import FakeServer, TaskServer

TOKEN = secrets.token_urlsafe(32)


@pytest.fixture
def relay_settings(task_server: TaskServer) -> Settings:
    settings = settings_for(task_server, "http://127.0.0.1:1")
    return settings.model_copy(update={"relay_operator_token": SecretStr(TOKEN)})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "awaithumans.relay"]


@pytest.mark.edges
async def test_wrong_operator_tokens_are_rate_limited(relay: RunningRelay, caplog: pytest.LogCaptureFixture) -> None:
    """However many connections guess, few guesses per second are refused, logged in one line without a token.

    Meanwhile the operator, and a browser's first request, get their reply at once.
    """
    seconds, guessers, guesses = GUESS_SECONDS * 1.5, 60, 0

    async def guess(http: httpx.AsyncClient) -> None:
        nonlocal guesses
        while True:
            token = secrets.token_urlsafe(32)
            assert (await http.get("/waits", headers={"Authorization": f"Bearer {token}"})).status_code == 401
            guesses += 1

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=relay.url, timeout=60, limits=limits) as http:
        attack = [asyncio.create_task(guess(http)) for _ in range(guessers)]
        begun = time.monotonic()
        await asyncio.sleep(seconds / 3)
        async with httpx.AsyncClient(base_url=relay.url) as operator:
            for authorization, status in (({"Authorization": f"Bearer {TOKEN}"}, 200), ({}, 401)):
                asked = time.monotonic()
                assert (await operator.get("/waits", headers=authorization)).status_code == status
                assert time.monotonic() - asked < GUESS_SECONDS / 2
        await asyncio.sleep(seconds - (time.monotonic() - begun))
        elapsed, refused = time.monotonic() - begun, guesses
        for each in attack:
            each.cancel()
        await asyncio.gather(*attack, return_exceptions=True)
    assert refused <= GUESSES_PER_SECOND * elapsed * 1.2
    lines = [line for line in warnings(caplog) if "operator" in line]
    assert lines == ["refused (401), wrong operator token, from 127.0.0.1"]


@pytest.mark.edges
async def test_delayed_refusal_ends_with_its_connection(relay: RunningRelay) -> None:
    """Delayed refusals of a client that disconnects are dropped."""
    before = len(asyncio.all_tasks())
    async with httpx.AsyncClient(base_url=relay.url, timeout=0.1) as http:
        for _ in range(20):
            with pytest.raises(httpx.ReadTimeout):
                await http.get("/waits", headers={"Authorization": "Bearer wrong"})
    async with asyncio.timeout(GUESS_SECONDS / 2):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.01)


async def test_repeated_refusals_are_logged_once_with_a_count(
    relay: RunningRelay, fake: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a hundred forged callbacks and registrations the first of each kind is logged, the rest counted."""
    async with httpx.AsyncClient(base_url=relay.url) as http:
        for number in range(100):
            headers = {"Authorization": "Bearer forged.token", "X-Awaithumans-Task-Id": f"task-{number}"}
            assert (await http.post("/callbacks/forged.token", content=b"{}", headers=headers)).status_code == 401
            assert (await http.put(f"/waits/task-{number}", content=b"{}", headers=headers)).status_code == 401
    lines = [line for line in warnings(caplog) if "refused" in line]
    assert [line[:27] for line in lines] == ["refused (401), task task-0:"] * 2


async def test_count_of_refusals_is_logged_at_the_end_of_its_interval(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the number and the latest event; the next event of the kind is logged at once."""
    repeats = Repeats(logging.getLogger("awaithumans.relay"), seconds=0.1)
    for number in range(5):
        repeats.warn("apples", f"apple {number}")
    repeats.warn("pears", "pear")
    await asyncio.sleep(0.15)
    repeats.warn("apples", "another apple")
    repeats.flush()
    assert warnings(caplog) == [
        "apple 0",
        "pear",
        "apples: 4 more in the last 0.1 s; the latest: apple 4",
        "another apple",
    ]


async def test_number_of_refusal_kinds_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A caller that invents kinds of events fills neither the log nor the memory."""
    repeats = Repeats(logging.getLogger("awaithumans.relay"))
    for number in range(10 * MAX_KINDS):
        repeats.warn(f"kind {number}", "event")
    assert len(warnings(caplog)) == MAX_KINDS + 1
    repeats.flush()
    assert "other: 899 more" in warnings(caplog)[-1]
