"""The server's replies to workers are lost while workflows ask."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="The server's replies to workers are lost while workflows ask",
    result="The requests are repeated under the same idempotency key, so there is one question for each workflow.",
    during=broken(lambda stage: stage.caller_to_server, "lose replies"),
    asks=True,
    seconds=25.0,
)
