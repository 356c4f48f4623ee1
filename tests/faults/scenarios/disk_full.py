"""The disk of a relay is full while people answer."""

import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    limit_file_size(stage, 0)
    yield
    limit_file_size(stage, resource.RLIM_INFINITY)


def limit_file_size(stage: Stage, limit: int) -> None:
    """Have every write that makes a file larger fail, as on a full disk."""
    resource.prlimit(stage.relay.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))


SCENARIO = Scenario(
    part="disk",
    fault="No space for the relay's SQLite file while people answer and workflows ask",
    result="The relay refuses callbacks and registrations with 503 until it can write.",
    during=fault,
    asks=True,
)
