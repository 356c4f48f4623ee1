"""The connections between scripts and the server hang."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="The connections between scripts and the server hang while people answer and scripts ask",
    result="The scripts read the answers when the connections carry again, or on new ones.",
    during=broken(lambda stage: stage.caller_to_server, "hang"),
    caller="script",
    asks=True,
)
