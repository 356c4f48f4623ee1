"""An engine of the relay's own that wakes nobody: `awaithumans-relay doctor` sends itself an answer through it.

The probe travels as every answer does, through both proofs, the store and the dispatcher, and ends here.
"""

import secrets

from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_relay.store.readiness import PROBE_ENGINE


class Probe:
    """Takes every outcome and does nothing with it."""

    name = PROBE_ENGINE

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """It has arrived."""


PROBE = Probe()


def new_probe() -> tuple[str, Route]:
    """A task that is nowhere else, and who waits for it."""
    name = f"doctor-{secrets.token_hex(8)}"
    return name, Route(PROBE_ENGINE, {"probe": name}, name)
