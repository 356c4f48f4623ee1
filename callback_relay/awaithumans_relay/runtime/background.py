"""Background tasks that run beside a block and end with it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def beside(**work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run these coroutines under their names while the block runs, then cancel them and wait until they have ended."""
    tasks = [asyncio.create_task(each, name=name) for name, each in work.items()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
