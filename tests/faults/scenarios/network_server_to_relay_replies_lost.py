"""The relay's replies to callbacks are lost."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario
from tests.faults.stage import CALLBACKS

SCENARIO = Scenario(
    part="network",
    fault="The relay's replies to callbacks are lost",
    result="The server sends them again. Each answer is used once.",
    during=broken(lambda stage: stage.to_relay, "lose replies", only=CALLBACKS),
)
