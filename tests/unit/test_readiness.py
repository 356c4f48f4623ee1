"""`Readiness`: whether the store could accept a callback now."""

import asyncio
import gc
import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest

from awaithumans_relay.store.readiness import Readiness


async def test_failed_probe_is_reported_once() -> None:
    """The error reaches the caller, and asyncio logs no exception that was never retrieved."""
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
