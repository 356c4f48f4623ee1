"""`Readiness`: whether a callback could be stored now."""

import asyncio
import gc
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from awaithumans_relay.store.readiness import Readiness


async def test_a_probe_that_fails_is_reported_once_and_nothing_is_left_for_the_event_loop_to_log() -> None:
    """The error reaches the caller; asyncio has no exception that was never retrieved."""
    unretrieved: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unretrieved.append(context))
    probe: Future[None] = Future()
    readiness = Readiness(lambda: probe, time.monotonic)
    threading.Timer(0.05, probe.set_exception, [OSError("no space left on device")]).start()
    with pytest.raises(OSError, match="no space left"):
        await readiness.check()
    await asyncio.sleep(0)
    gc.collect()
    loop.set_exception_handler(None)
    assert unretrieved == []
