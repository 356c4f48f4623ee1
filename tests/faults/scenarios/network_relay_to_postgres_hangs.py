"""The connection between relay and PostgreSQL hangs."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="The connection between relay and PostgreSQL hangs while people answer",
    result="Callbacks are not acknowledged, so the server sends them again.",
    during=broken(lambda stage: stage.relay_to_database, "hang"),
    postgres=True,
)
