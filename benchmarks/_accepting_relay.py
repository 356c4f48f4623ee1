"""python -m benchmarks._accepting_relay PORT DATABASE: a relay of its own, whose engine takes every answer at once."""

import sys

import uvicorn

from awaithumans_core import Outcome, Route
from awaithumans_relay import create_app


class AcceptingEngine:
    """Has every answer. When it came stands in the relay's table."""

    name = "accepting"

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Take it."""


if __name__ == "__main__":
    uvicorn.run(
        create_app([AcceptingEngine()], database=sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
    )
