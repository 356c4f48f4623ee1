"""PostgreSQL becomes read-only, as after a failover, while people answer."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.faults.scenario import Scenario
from tests.faults.stage import Stage


@asynccontextmanager
async def fault(stage: Stage) -> AsyncGenerator[None]:
    name = stage.database_name
    stage.postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    stage.postgres.end_sessions(name)
    yield
    stage.postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    stage.postgres.end_sessions(name)


SCENARIO = Scenario(
    part="PostgreSQL",
    fault="A failover ends all sessions and leaves the relay on a read-only server while people answer",
    result="The relay refuses callbacks with 503 until it can write.",
    during=fault,
    postgres=True,
)
