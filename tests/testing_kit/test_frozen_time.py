"""Tests that freeze time with a library: virtual time still advances, and a wait that would hang is refused."""

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
def test_virtual_time_advances_while_time_is_frozen(
    ask: Callable[..., Any],
    real_asyncio: bool,  # noqa: FBT001
    fake_humans: FakeHumans,
) -> None:
    """Virtual time advances also during an outage, whose pauses are on the virtual clock."""
    fake_humans.answer("Refund", {"approved": True}).after(MONTH / 2)
    fake_humans.fault(faults.status(502), on="poll", times=2)
    with freeze_time(MOMENT, real_asyncio=real_asyncio):
        assert ask(task="Refund?", response_schema=Decision, timeout_seconds=MONTH, progress=False).approved is True


def test_fake_can_be_served_while_time_is_frozen() -> None:
    """The server starts and stops on a clock that is not frozen."""
    with freeze_time(MOMENT), FakeHumans().serving():
        pass


def test_endless_wait_on_frozen_loop_is_refused_before_asking() -> None:
    """No pause on a frozen event loop ends, so the wait is refused; a loop with a real clock works."""
    humans = FakeHumans(clock=SystemClock())
    humans.answer("Refund", {"approved": True})
    with humans.serving() as url:
        asked = {"task": "Refund?", "response_schema": Decision, "server_url": url, "api_key": humans.token}
        with freeze_time(MOMENT), pytest.raises(SettingsError, match="real_asyncio=True"):
            in_a_loop(**asked)
        assert humans.tasks == []
        with freeze_time(MOMENT, real_asyncio=True):
            assert in_a_loop(**asked).approved is True
