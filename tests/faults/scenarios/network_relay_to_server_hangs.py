"""The relay's requests to the server hang."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="The relay's requests to the server hang: no sweep",
    result="Callbacks are delivered as before.",
    during=broken(lambda stage: stage.relay_to_server, "hang"),
)
