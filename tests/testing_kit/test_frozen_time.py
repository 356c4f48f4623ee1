"""Tests that freeze time with a library: virtual time moves all the same, and what could only hang is refused."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from freezegun import freeze_time

from awaithumans_core import SettingsError, await_human, await_human_sync
from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans, faults
from tests.support.workflows import Decision
from tests.testing_kit.questions import MONTH

pytestmark = pytest.mark.edges  # freezegun searches every module that is loaded
MOMENT = "2020-01-01"


def in_a_loop(**asked: Any) -> Any:
    return asyncio.run(await_human(**asked))


@pytest.mark.parametrize("real_asyncio", [False, True])
@pytest.mark.parametrize("ask", [await_human_sync, in_a_loop], ids=["sync", "async"])
def test_virtual_time_moves_while_time_is_frozen(
    ask: Callable[..., Any],
    real_asyncio: bool,  # noqa: FBT001
    fake_humans: FakeHumans,
) -> None:
    """Also through an outage, whose pauses are slept on the virtual clock."""
    fake_humans.answer("Refund", {"approved": True}).after(MONTH / 2)
    fake_humans.fault(faults.status(502), on="poll", times=2)
    with freeze_time(MOMENT, real_asyncio=real_asyncio):
        assert ask(task="Refund?", response_schema=Decision, timeout_seconds=MONTH, progress=False).approved is True


def test_fake_can_be_served_while_time_is_frozen() -> None:
    """It starts and stops on a clock that is not frozen."""
    with freeze_time(MOMENT), FakeHumans().serving():
        pass


def test_wait_that_would_never_end_is_refused_before_it_is_asked() -> None:
    """The event loop of the caller has a frozen clock, so no pause in it ends; a loop with a real clock works."""
    humans = FakeHumans(clock=SystemClock())
    humans.answer("Refund", {"approved": True})
    with humans.serving() as url:
        asked = {"task": "Refund?", "response_schema": Decision, "server_url": url, "api_key": humans.token}
        with freeze_time(MOMENT), pytest.raises(SettingsError, match="real_asyncio=True"):
            in_a_loop(**asked)
        assert humans.tasks == []
        with freeze_time(MOMENT, real_asyncio=True):
            assert in_a_loop(**asked).approved is True
