"""Temporal's replies to the relay are lost."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="Temporal's replies to the relay are lost: it does not learn that its signals have arrived",
    result="The relay sends the signals again, and the workflows use each answer once.",
    during=broken(lambda stage: stage.relay_to_temporal, "lose replies"),
    seconds=20.0,
)
