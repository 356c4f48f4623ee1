"""Workers cannot reach the server while workflows ask."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="Workers cannot reach the server while workflows ask",
    result="Each question is asked once, when the server can be reached.",
    during=broken(lambda stage: stage.caller_to_server, "refuse"),
    asks=True,
)
