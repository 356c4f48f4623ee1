"""pytest fixtures, found by pytest itself.

Loads nothing until one of them is used; then it needs the extra `testing`.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from awaithumans_core.testing import FakeHumans


@pytest.fixture
def fake_humans(monkeypatch: pytest.MonkeyPatch) -> "Generator[FakeHumans]":
    """A `FakeHumans` that serves on a port, and that all clients created in this process use.

    Address and token are set in the environment, and clients created during the test wait on its virtual clock. The
    code under test calls `await_human(...)` as usual, and a wait of a month takes a moment.

    Example:
        def test_refund(fake_humans):
            fake_humans.answer("Refund", {"approved": True}).after(3600)
            assert refund("A-1042", 250) == "paid"
    """
    from awaithumans_core import clock
    from awaithumans_core.testing import FakeHumans

    humans = FakeHumans()
    with humans.serving() as url:
        monkeypatch.setenv("AWAITHUMANS_URL", url)
        monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", humans.token)
        monkeypatch.setenv("AWAITHUMANS_PAYLOAD_KEY", humans.payload_key)
        monkeypatch.setattr(clock, "SYSTEM", humans.clock)
        yield humans
