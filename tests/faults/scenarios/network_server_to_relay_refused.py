"""The server cannot reach the relay."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario
from tests.faults.stage import CALLBACKS

SCENARIO = Scenario(
    part="network",
    fault="The server cannot reach the relay: its callbacks are refused",
    result="The sweep finds the answers; the server's repeated callbacks change nothing.",
    during=broken(lambda stage: stage.to_relay, "refuse", only=CALLBACKS),
)
