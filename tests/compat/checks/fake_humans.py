"""`FakeHumans` answers after a day of its virtual clock, on asyncio's own event loop."""

import asyncio
import importlib.util
from datetime import timedelta

from pydantic import BaseModel

from awaithumans_core import HumanTask, settle
from awaithumans_core.testing import FakeHumans


class Decision(BaseModel):
    approved: bool


async def main() -> None:
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("Refund", {"approved": True}).after(timedelta(days=1)).by("anna@example.com")
        before = humans.clock.now()
        outcome = await client.ask(HumanTask(task="Refund?", response_schema=Decision, timeout_seconds=2 * 86400))
        assert settle(outcome, Decision) == Decision(approved=True)
        assert outcome.completed_by_email == "anna@example.com"
        assert humans.clock.now() - before >= 86400


if __name__ == "__main__":
    assert importlib.util.find_spec("uvloop") is None
    asyncio.run(main())
