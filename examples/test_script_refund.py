"""Tests of `script_refund` in virtual time, with the fixture `fake_humans`. They need no servers and no settings.

pip install 'awaithumans-workflows[testing]'
pytest examples/test_script_refund.py
"""

from datetime import timedelta

import pytest

from awaithumans_core import TaskCancelledError, TaskTimeoutError
from awaithumans_core.testing import FakeHumans
from examples.script_refund import refund


def test_refund(fake_humans: FakeHumans) -> None:
    fake_humans.answer("A-1", {"approved": True}).after(timedelta(minutes=10)).by("anna@example.com")
    assert refund("A-1", 250) == "paid"
    with pytest.raises(TaskTimeoutError):  # no answer for 15 minutes
        refund("A-2", 250)
    fake_humans.on("A-3").cancels().after(timedelta(minutes=10))
    with pytest.raises(TaskCancelledError):
        refund("A-3", 250)
