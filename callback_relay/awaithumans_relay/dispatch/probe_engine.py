"""The relay's own engine, which wakes no caller: `awaithumans-relay doctor` sends itself an answer through it.

The probe travels as every answer does, through both proofs, the store and the dispatcher, and ends here.
"""

import secrets

from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_relay.store.readiness import PROBE_ENGINE


class Probe:
    """An engine that accepts every outcome and does nothing with it."""

    name = PROBE_ENGINE

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Accept the outcome. The probe has arrived."""


PROBE = Probe()


def new_probe() -> tuple[str, Route]:
    """Return the id of a task that exists on no server, and the route that waits for it."""
    name = f"doctor-{secrets.token_hex(8)}"
    return name, Route(PROBE_ENGINE, {"probe": name}, name)
