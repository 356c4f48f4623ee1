"""The relay cannot reach Temporal."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="The relay cannot reach Temporal",
    result="The relay keeps the answers, and delivers them when Temporal can be reached.",
    during=broken(lambda stage: stage.relay_to_temporal, "refuse"),
)
