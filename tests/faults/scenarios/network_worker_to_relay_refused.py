"""Workers cannot register at the relay while workflows ask."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario
from tests.faults.stage import REGISTRATIONS

SCENARIO = Scenario(
    part="network",
    fault="Workers cannot reach the relay while workflows ask",
    result="The registrations are repeated. Answers to questions that are not registered yet are called back.",
    during=broken(lambda stage: stage.to_relay, "refuse", only=REGISTRATIONS),
    asks=True,
)
