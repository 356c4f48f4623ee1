"""A relay process whose only engine accepts every answer immediately.

python -m benchmarks._accepting_relay PORT DATABASE
"""

import sys

import uvicorn

from awaithumans_core import Outcome, Route
from awaithumans_relay import create_app


class AcceptingEngine:
    """Engine that accepts every answer. The relay's table records the time of the delivery."""

    name = "accepting"

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Accept the answer."""


if __name__ == "__main__":
    uvicorn.run(
        create_app([AcceptingEngine()], database=sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
    )
