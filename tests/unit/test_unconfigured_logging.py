"""What an application sees that has configured no logging."""

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from awaithumans_core import HumanTask, HumanTasks, Route, ServerUnreachableError, Settings, SyncTaskClient, clock
from awaithumans_core.http.drivers import logger as of_scripts
from awaithumans_core.testing import VirtualClock
from awaithumans_relay import create_app
from tests.support.relay import settings_without_servers
from tests.support.workflows import Decision


@contextmanager
def handlers(*given: logging.Handler) -> Generator[None]:
    """Give our loggers only these handlers of the application, without those of pytest."""
    before = of_scripts.propagate, of_scripts.handlers
    ours = [handler for handler in of_scripts.handlers if isinstance(handler, logging.NullHandler)]
    of_scripts.propagate, of_scripts.handlers = False, [*ours, *given]
    try:
        yield
    finally:
        of_scripts.propagate, of_scripts.handlers = before


@pytest.fixture
def settings() -> Settings:
    return settings_without_servers()


async def refused_callback(settings: Settings, folder: Path) -> None:
    app = create_app([], settings=settings, database=f"sqlite:///{folder}/waits.db")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay")
    async with app.router.lifespan_context(app), client as http:
        assert (await http.post("/callbacks/forged", content=b"{}")).status_code == 401


async def test_refused_callback_is_on_stderr(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A relay in an application without logging shows a refused callback, in one line."""
    with handlers():
        await refused_callback(settings, tmp_path)
    shown = capfd.readouterr().err
    assert "refused (401)" in shown
    assert shown.count("\n") == 1


async def test_application_that_configures_logging_gets_the_only_line(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A handler on a parent of the logger is enough."""
    with handlers(caplog.handler):
        await refused_callback(settings, tmp_path)
    assert "refused (401)" in caplog.text
    assert capfd.readouterr().err == ""


async def test_question_that_cannot_be_asked_is_on_stderr(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller of a relay has no display of its own, so each failed attempt to ask is shown. A script has one."""
    monkeypatch.setattr(clock, "SYSTEM", VirtualClock())
    question = HumanTask(task="Refund?", response_schema=Decision)
    asking = HumanTasks(settings, patience=60)
    with handlers(), pytest.raises(ServerUnreachableError):
        await asking.open(question.body(), Route("langgraph", {"thread_id": "t"}, "key"))
    shown = capfd.readouterr().err
    assert "GET http://127.0.0.1:9/waits/asked" in shown
    assert "trying again in" in shown
    script = SyncTaskClient(settings=settings, patience=60)
    with handlers(), pytest.raises(ServerUnreachableError):
        await asyncio.to_thread(script.create, question)
    script.close()
    assert capfd.readouterr().err == ""
