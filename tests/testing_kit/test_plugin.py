"""The pytest plugin in a project that has the package installed: a fixture that needs no configuration."""

import pytest

pytest_plugins = ["pytester"]

HEAVY = ("anyio", "hypothesispytest", "langsmith_plugin", "schemathesis")
"""Plugins whose modules take seconds to import."""
ALONE = [word for name in ("xdist", "asyncio", "cacheprovider", *HEAVY) for word in ("-p", f"no:{name}")]
"""Arguments that disable the plugins of these tests, as in a project without them."""

CODE_UNDER_TEST = """
import asyncio
import time
from datetime import timedelta

import pytest
from pydantic import BaseModel

from awaithumans_core import TaskTimeoutError, await_human, await_human_sync


class Decision(BaseModel):
    approved: bool


def refund(amount):
    decision = await_human_sync(
        task=f"Refund {amount}?", response_schema=Decision, timeout_seconds=timedelta(days=30), progress=False
    )
    return "paid" if decision.approved else "refused"


async def refund_async(amount):
    decision = await await_human(
        task=f"Refund {amount}?", response_schema=Decision, timeout_seconds=timedelta(days=30), progress=False
    )
    return "paid" if decision.approved else "refused"
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove this pytest run's variables, so that they do not affect the inner run."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)


def passes(pytester: pytest.Pytester, tests: str, *, count: int, seconds: float = 180.0) -> pytest.RunResult:
    """Run these tests in a process of their own, where all of them must pass in the given time."""
    pytester.makepyfile(test_project=CODE_UNDER_TEST + tests)
    result = pytester.runpytest_subprocess(*ALONE, "-W", "error", timeout=seconds)
    result.assert_outcomes(passed=count)
    return result


def test_code_under_test_needs_no_changes(pytester: pytest.Pytester) -> None:
    """Sync and async code waits a month, or gets no answer, within moments and without mentioning a server."""
    passes(
        pytester,
        """
def test_sync(fake_humans):
    fake_humans.answer("Refund", {"approved": True}).after(timedelta(days=29)).by("anna@example.com")
    assert refund(250) == "paid"
    assert fake_humans.clock.now() >= timedelta(days=29).total_seconds()


def test_async(fake_humans):
    fake_humans.answer("Refund", {"approved": False}).after(timedelta(days=29))
    assert asyncio.run(refund_async(250)) == "refused"


def test_nobody_answers(fake_humans):
    with pytest.raises(TaskTimeoutError):
        refund(250)


def test_asked_once(fake_humans):
    fake_humans.answer("Refund 250?", {"approved": True})
    refund(250)
    assert fake_humans.task("Refund").asked["timeout_seconds"] == 30 * 24 * 3600


def test_every_test_has_its_own(fake_humans):
    assert fake_humans.tasks == []
""",
        count=5,
    )


def test_settings_apply_during_the_test_only(pytester: pytest.Pytester) -> None:
    """The environment points to the fake during the test and is restored afterwards."""
    passes(
        pytester,
        """
import os

from awaithumans_core import Settings, clock


def known():
    return {name for name in os.environ if name.startswith("AWAITHUMANS_")}


def test_inside(fake_humans):
    assert known() == {"AWAITHUMANS_URL", "AWAITHUMANS_ADMIN_API_TOKEN", "AWAITHUMANS_PAYLOAD_KEY"}
    assert Settings.load().url == fake_humans.url
    assert Settings.load().token() == fake_humans.token
    assert Settings.load().key_ring()
    assert clock.SYSTEM is fake_humans.clock


def test_afterwards():
    assert known() == set()
    assert isinstance(clock.SYSTEM, clock.SystemClock)
""",
        count=2,
    )


def test_fixture_is_listed(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` shows the fixture with an example."""
    result = pytester.runpytest_subprocess(*ALONE, "--fixtures")
    result.stdout.fnmatch_lines(["fake_humans -- *", "*A `FakeHumans` that serves on a port*"])


def test_unused_plugin_loads_nothing(pytester: pytest.Pytester) -> None:
    """A project that does not use the plugin pays no import time."""
    pytester.makepyfile(
        """
import sys


def test_nothing_is_loaded():
    assert "awaithumans_core.pytest_plugin" in sys.modules
    assert not {"awaithumans_core.testing.fake", "fastapi", "uvicorn"} & set(sys.modules)
"""
    )
    pytester.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)


def test_pytest_works_without_the_testing_extra(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `testing`, pytest runs as if there were no plugin."""
    absent = pytester.mkdir("absent") / "fastapi"
    absent.mkdir()
    (absent / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')")
    monkeypatch.setenv("PYTHONPATH", str(absent.parent))
    pytester.makepyfile("def test_something():\n    pass")
    pytester.runpytest_subprocess(*ALONE).assert_outcomes(passed=1)
